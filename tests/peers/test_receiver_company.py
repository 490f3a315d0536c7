"""What comes with a CT costs the CT nothing: every storage class is accepted, and what is no CT image thrown away."""

import time
import zlib
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, AllTransferSyntaxes, ExplicitVRLittleEndian, RLELossless
from pynetdicom import AllStoragePresentationContexts

from node.network.dimse_guard import IGNORED_HEAD_BYTES
from node.receive.discarded import why_discarded
from storage.overview import Overview
from tests.peers.raw_peer import associate_rq, connect, read_pdu
from tests.peers.test_receiver_storing import CT, answer_to, association, send_raw

RT_PLAN, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.481.5", "1.2.840.10008.5.1.4.1.1.2.1"
CSA, OTHER_PRIVATE = "1.3.12.2.1107.5.9.1", "1.3.12.2.1107.5.9.2"
STANDALONE_CURVE = "1.2.840.10008.5.1.4.1.1.9"  # retired
DEFLATED, HTJ2K, MPEG4 = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.102"
JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
OTHER_CLASSES = [str(one.abstract_syntax) for one in AllStoragePresentationContexts if one.abstract_syntax != CT]


def cases(store: Any) -> list[Any]:
    return sorted(Overview(store.database).cases(), key=lambda case: case.series_id)


def accepted(receiver: Any, contexts: list[tuple[str, list[str]]]) -> list[int]:
    """The result of each proposed context, by its number (PS3.8 table 9-18)."""
    with connect(receiver.port) as connection:
        connection.sendall(associate_rq(contexts=contexts))
        kind, body = read_pdu(connection)
    assert kind == 0x02
    results, at = [], 68
    while at < len(body):
        length = int.from_bytes(body[at + 2 : at + 4], "big")
        if body[at] == 0x21:
            results.append(body[at + 6])
        at += 4 + length
    return results


def send(link: Any, ds: Dataset, syntax: str = str(ExplicitVRLittleEndian)) -> int:
    """Send a data set in the bytes of a syntax; only its beginning matters."""
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    status: int = link.send_c_store(ds).Status
    return status


# -- negotiation -------------------------------------------------------------------------------------------------------


def test_every_storage_class_of_the_standard_is_accepted_in_whatever_little_endian_syntax(start_receiver: Any) -> None:
    receiver = start_receiver()
    syntaxes = [str(uid) for uid in AllTransferSyntaxes if uid.is_little_endian and ".1.2.7." not in uid]
    contexts = [(uid, [syntaxes[number % len(syntaxes)]]) for number, uid in enumerate(OTHER_CLASSES)]
    for begin in range(0, len(contexts), 128):
        assert set(accepted(receiver, contexts[begin : begin + 128])) == {0}


def test_retired_classes_and_one_private_one_are_accepted_and_other_private_ones_refused(
    start_receiver: Any,
) -> None:
    proposed = [(uid, [str(ExplicitVRLittleEndian)]) for uid in (STANDALONE_CURVE, CSA, OTHER_PRIVATE, "1.2.3.4")]
    assert accepted(start_receiver(), proposed) == [0, 0, 3, 3]


@pytest.mark.parametrize("syntax", JPEG_LOSSLESS)
def test_ct_in_lossless_jpeg_is_accepted(start_receiver: Any, syntax: str) -> None:
    assert accepted(start_receiver(), [(CT, [syntax])]) == [0]


@pytest.mark.parametrize("syntax", [DEFLATED, "1.2.840.10008.1.2.2"])
def test_deflated_and_big_endian_beside_others_give_way_to_these(start_receiver: Any, syntax: str) -> None:
    receiver = start_receiver()
    assert accepted(receiver, [(CT, [syntax])]) == [4]
    with association(receiver, (CT, [syntax, str(ExplicitVRLittleEndian)])) as link:
        assert link.accepted_contexts[0].transfer_syntax == [ExplicitVRLittleEndian]


def test_128_contexts_in_56_syntaxes_are_negotiated_quickly(start_receiver: Any) -> None:
    receiver = start_receiver()
    syntaxes = [str(uid) for uid in AllTransferSyntaxes][::-1][:20]
    contexts = [(uid, [*syntaxes, str(ExplicitVRLittleEndian)]) for uid in OTHER_CLASSES[:128]]
    accepted(receiver, contexts)
    begun = time.perf_counter()
    assert accepted(receiver, contexts) == [0] * 128
    assert time.perf_counter() - begun < 1.0


# -- what is thrown away -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sop_class", [RT_PLAN, CSA, STANDALONE_CURVE, *OTHER_CLASSES[::25]])
def test_what_is_no_ct_image_is_answered_with_success_and_leaves_a_row_only(
    start_receiver: Any, store: Any, make_ct: Any, sop_class: str
) -> None:
    with association(start_receiver(), (sop_class, [str(ExplicitVRLittleEndian)])) as link:
        for number in range(2):
            assert send(link, make_ct(instance=number, SOPClassUID=sop_class)) == 0x0000
    (case,) = cases(store)
    assert (case.state, case.slices.received) == ("SKIPPED", 2)
    assert case.reason == f"{why_discarded(sop_class)} (2 instances)"
    assert store.instances() == []
    assert store.received() == store.unfinished() == []


def test_the_reasons_name_the_class() -> None:
    assert why_discarded(RT_PLAN) == "RT Plan Storage: this node translates CT images and keeps nothing else"
    assert why_discarded(CSA).startswith("Siemens CSA Non-Image Storage: ")


def test_an_enhanced_ct_that_offers_only_rle_costs_the_ct_behind_it_nothing(
    start_receiver: Any, store: Any, make_ct: Any
) -> None:
    rle = str(RLELossless)
    with association(start_receiver(), (ENHANCED_CT, [rle]), (CT, [rle])) as link:
        assert {str(context.transfer_syntax[0]) for context in link.accepted_contexts} == {rle}
        assert send(link, encapsulated(make_ct(SOPClassUID=ENHANCED_CT, SeriesInstanceUID="1.2.9")), rle) == 0x0000
        assert send(link, encapsulated(make_ct()), rle) == 0x0000
    assert [case.state for case in cases(store)] == ["RECEIVING", "RECEIVING"]
    assert len(store.instances()) == len(store.received()) == 2


@pytest.mark.parametrize("syntax", [HTJ2K, MPEG4])
def test_compressed_and_video_objects_are_thrown_away(
    start_receiver: Any, store: Any, make_ct: Any, syntax: str
) -> None:
    endoscopy = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
    with association(start_receiver(), (endoscopy, [syntax])) as link:
        assert send(link, encapsulated(make_ct(SOPClassUID=endoscopy)), syntax) == 0x0000
    assert cases(store)[0].state == "SKIPPED"


def test_an_object_above_every_limit_is_thrown_away_like_a_small_one(
    start_receiver: Any, store: Any, make_ct: Any
) -> None:
    large = make_ct(SOPClassUID=RT_PLAN)
    large.PixelData = bytes(IGNORED_HEAD_BYTES + (1 << 20))
    receiver = start_receiver(max_dataset_bytes=1 << 16)
    with association(receiver, (RT_PLAN, [str(ExplicitVRLittleEndian)]), (CT, [str(ExplicitVRLittleEndian)])) as link:
        assert send(link, large) == 0x0000
        assert send(link, make_ct(SeriesInstanceUID="1.2.9")) == 0x0000
    assert [case.state for case in cases(store)] == ["SKIPPED", "RECEIVING"]


@pytest.mark.parametrize(("is_deflated", "status"), [(True, 0x0000), (False, 0xC000)])
def test_a_deflated_object_is_inflated_as_far_as_its_uids(
    start_receiver: Any, store: Any, make_ct: Any, is_deflated: bool, status: int
) -> None:
    plan = make_ct(SOPClassUID=RT_PLAN)
    plan.PixelData = bytes(1 << 20)
    raw = explicit_bytes(plan)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = deflater.compress(raw) + deflater.flush() if is_deflated else b"\xff" * 100
    with association(start_receiver(), (RT_PLAN, [DEFLATED])) as link:
        assert send_bytes(link, plan, data) == status
    assert [case.state for case in cases(store)] == (["SKIPPED"] if is_deflated else [])


def test_a_series_with_images_and_a_plan_is_received_for_its_images(
    start_receiver: Any, store: Any, make_ct: Any
) -> None:
    explicit = [str(ExplicitVRLittleEndian)]
    with association(start_receiver(), (RT_PLAN, explicit), (CT, explicit)) as link:
        assert send(link, make_ct(instance=9, SOPClassUID=RT_PLAN)) == 0x0000
        assert send(link, make_ct(instance=1)) == 0x0000
        assert send(link, make_ct(instance=8, SOPClassUID=RT_PLAN)) == 0x0000
    (case,) = cases(store)
    assert (case.state, case.slices.received) == ("RECEIVING", 1)


def test_a_row_that_cannot_be_written_is_no_success(start_receiver: Any, store: Any, make_ct: Any) -> None:
    class Failing:
        def __getattr__(self, name: str) -> Any:
            return getattr(store.series, name)

        def record_group(self, entries: Any) -> Any:
            raise OSError("disk full")

    receiver = start_receiver(series=Failing())
    with association(receiver, (RT_PLAN, [str(ExplicitVRLittleEndian)])) as link:
        assert send(link, make_ct(SOPClassUID=RT_PLAN)) == 0xA700


def encapsulated(ds: Dataset) -> Dataset:
    """Pixel data in one fragment, of what codec ever."""
    item = b"\xfe\xff\x00\xe0\x00\x00\x00\x00" + b"\xfe\xff\x00\xe0\x04\x00\x00\x00abcd"
    ds.PixelData = item + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return ds


def explicit_bytes(ds: Dataset) -> bytes:
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, ds)
    return stream.getvalue()


def send_bytes(link: Any, ds: Dataset, data: bytes) -> int:
    """Send these bytes for the data set of an instance."""
    send_raw(link, (str(ds.SOPClassUID), str(ds.SOPInstanceUID)), data)
    status = answer_to(link)
    assert status is not None
    return status
