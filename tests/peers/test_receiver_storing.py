"""What the receiver promises a sender: 0x0000 means durable, anything else means that nothing was kept."""

import hashlib
import io
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from storage.errors import SpoolFull
from storage.series import Receipt
from tests.damages import EVERY

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"


@contextmanager
def association(receiver: Any, *contexts: tuple[str, list[str]], calling_ae: str = "SIMULATOR") -> Iterator[Any]:
    ae = AE(ae_title=calling_ae)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
    proposed = [build_context(uid, syntaxes) for uid, syntaxes in contexts or ((CT, [ExplicitVRLittleEndian]),)]
    link = ae.associate("127.0.0.1", receiver.port, contexts=proposed, ae_title="SYNCECT")
    assert link.is_established
    try:
        yield link
    finally:
        if link.is_established:
            link.release()


def store_one(receiver: Any, ds: Dataset) -> Dataset:
    with association(receiver) as link:
        answer: Dataset = link.send_c_store(ds)
        return answer


def send_raw(link: Any, command_uids: tuple[str, str], data: bytes, *, last: bool = True) -> None:
    """Send a C-STORE request with these bytes for a data set and these UIDs, whatever they are."""
    link._reactor_checkpoint.clear()  # the reactor would take the answer
    while not link._is_paused:
        time.sleep(0.0001)
    request = C_STORE()
    request.MessageID, request.Priority = 1, 0
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, "1.2.3"
    request.DataSet = io.BytesIO(data)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    for tag, uid in zip((0x00000002, 0x00001000), command_uids, strict=True):
        message.command_set[tag] = DataElement(tag, "UI", uid, validation_mode=IGNORE)
    message._set_command_group_length()
    for part in message.encode_msg(1, 16382):
        if not last and part.presentation_data_value_list[0][1][0] == 2:  # the last fragment of the data set
            return
        link.dul.send_pdu(part)


def answer_to(link: Any) -> int | None:
    _, response = link.dimse.get_msg(block=True)
    link._reactor_checkpoint.set()
    return None if response is None else response.Status


def encoded(ds: Dataset) -> bytes:
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return stream.getvalue()


def test_storescu_sends_a_real_series(start_receiver: Any, store: Any, real_data: Path, peer_program: Any) -> None:
    receiver = start_receiver()
    folder = real_data / "ct" / "siemens_chest_ncct"
    sources = {p: pydicom.dcmread(p) for p in sorted(folder.glob("*.dcm"))}

    command = [
        peer_program("/usr/bin/storescu"),
        "-aec",
        "SYNCECT",
        "+sd",
        "127.0.0.1",
        str(receiver.port),
        str(folder),
    ]
    subprocess.run(command, check=True, timeout=60)

    receiver.stop()
    rows = {row.sop_instance_uid: row for row in store.instances()}
    assert len(rows) == len(sources) == 30
    for source in sources.values():
        row = rows[source.SOPInstanceUID]
        path = store.spool.path(row.spool_name)
        kept = pydicom.dcmread(path)
        assert row.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert row.size_bytes == path.stat().st_size
        assert path.read_bytes()[:128] == bytes(128)
        assert kept.file_meta.TransferSyntaxUID == row.transfer_syntax_uid
        assert {e.tag for e in kept} == {e.tag for e in source if e.tag.element != 0}
        assert kept.PixelData == source.PixelData
    assert store.outcomes() == ["RELEASED"]
    assert store.unfinished() == []


def test_the_same_instance_twice_is_one_row_and_one_file(start_receiver: Any, store: Any, make_ct: Any) -> None:
    receiver = start_receiver()
    assert store_one(receiver, make_ct()).Status == 0x0000
    assert store_one(receiver, make_ct()).Status == 0x0000
    assert len(store.instances()) == len(store.received()) == 1
    assert store.unfinished() == []


@pytest.mark.parametrize("damage", EVERY)
def test_a_running_receiver_makes_good_what_happened_to_its_spool(
    start_receiver: Any, store: Any, make_ct: Any, damage: Any
) -> None:
    receiver = start_receiver()
    assert store_one(receiver, make_ct()).Status == 0x0000
    (row,) = store.instances()
    damage(store.spool.path(row.spool_name))
    shutil.rmtree(store.spool.incoming, ignore_errors=True)
    assert [store_one(receiver, make_ct(instance=number)).Status for number in (0, 1)] == [0x0000, 0x0000]
    for row in store.instances():
        assert store.spool.condition(row.spool_name, row.sha256, row.size_bytes) == "intact"
    assert store.unfinished() == []


def test_other_pixels_under_one_uid_are_kept_and_the_newest_counts(
    start_receiver: Any, store: Any, make_ct: Any
) -> None:
    receiver = start_receiver()
    assert store_one(receiver, make_ct(fill=0)).Status == 0x0000
    assert store_one(receiver, make_ct(fill=7)).Status == 0x0000
    assert [row.is_current for row in store.instances()] == [False, True]
    assert len(store.received()) == 2


def test_implicit_vr_is_recorded_as_such(start_receiver: Any, store: Any, make_ct: Any) -> None:
    receiver = start_receiver()
    with association(receiver, (CT, [ImplicitVRLittleEndian])) as link:
        assert link.send_c_store(make_ct()).Status == 0x0000
    (row,) = store.instances()
    assert row.transfer_syntax_uid == ImplicitVRLittleEndian
    assert pydicom.dcmread(store.spool.path(row.spool_name)).PatientID == "CANARY-ID"


def test_explicit_little_endian_is_chosen_where_both_are_offered(start_receiver: Any) -> None:
    with association(start_receiver(), (CT, [ImplicitVRLittleEndian, ExplicitVRLittleEndian])) as link:
        assert link.accepted_contexts[0].transfer_syntax == [ExplicitVRLittleEndian]


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"])
def test_big_endian_and_deflated_ct_is_not_negotiated(start_receiver: Any, syntax: str) -> None:
    link = AE().associate(
        "127.0.0.1", start_receiver().port, contexts=[build_context(CT, [syntax])], ae_title="SYNCECT"
    )
    assert not link.is_established


@pytest.mark.parametrize(
    "syntax",
    ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91"],
)
def test_lossy_ct_is_taken_only_where_nothing_better_is_offered(start_receiver: Any, syntax: str) -> None:
    receiver = start_receiver()
    for offered, taken in (([syntax], syntax), ([syntax, "1.2.840.10008.1.2"], "1.2.840.10008.1.2")):
        link = AE().associate("127.0.0.1", receiver.port, contexts=[build_context(CT, offered)], ae_title="SYNCECT")
        assert [context.transfer_syntax for context in link.accepted_contexts] == [[taken]]
        link.release()


def test_strange_character_sets_and_nested_sequences_are_no_obstacle(
    start_receiver: Any, store: Any, make_ct: Any
) -> None:
    inner = Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.3"
    outer = Dataset()
    outer.ReferencedImageSequence = [inner]
    outer.is_undefined_length_sequence_item = True
    ds = make_ct(ReferencedStudySequence=[outer])
    ds["ReferencedStudySequence"].is_undefined_length = True
    ds.add_new(0x00091001, "UN", b"\xff" * 11)
    receiver = start_receiver()
    with association(receiver) as link:
        send_raw(link, (CT, ds.SOPInstanceUID), encoded(ds).replace(b"ISO_IR 100", b"ISO_IR 471"))
        assert answer_to(link) == 0x0000
    assert len(store.instances()) == 1


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"SOPInstanceUID": "1.2.3.4"}, 0xA900),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, 0xA900),
        ({"StudyInstanceUID": None}, 0xC000),
        ({"SeriesInstanceUID": None}, 0xC000),
        ({"SOPInstanceUID": None}, 0xC000),
        ({"SeriesInstanceUID": ""}, 0xC000),
    ],
)
def test_an_instance_that_is_not_what_the_command_says_is_refused(
    start_receiver: Any, store: Any, make_ct: Any, elements: dict[str, Any], expected: int
) -> None:
    with association(start_receiver()) as link:
        send_raw(link, (CT, make_ct().SOPInstanceUID), encoded(make_ct(**elements)))
        assert answer_to(link) == expected
    assert store.instances() == []
    assert store.received() == []
    assert store.unfinished() == []


@pytest.mark.parametrize("garbage", [b"\xde\xad\xbe\xef" * 5000, b"\x08\x00\x16\x00UI\xff\xff", bytes(4096), b"\x08"])
def test_garbage_for_a_data_set_is_refused(start_receiver: Any, store: Any, garbage: bytes) -> None:
    with association(start_receiver()) as link:
        send_raw(link, (CT, "1.2.3"), garbage)
        assert answer_to(link) == 0xC000
    assert store.received() == []
    assert store.unfinished() == []


@pytest.mark.parametrize("uid", ["../../../tmp/evil", "1.2/../../3", "1.2.3\r\nINFO forged", "1" * 65])
def test_a_path_for_a_uid_costs_one_status_and_leaves_nothing(
    start_receiver: Any, store: Any, make_ct: Any, uid: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("DEBUG", logger="node")
    before = {p for p in tmp_path.rglob("*") if "spool" not in p.parts}
    receiver = start_receiver()
    with association(receiver) as link:
        send_raw(link, (CT, uid), encoded(make_ct()))
        assert answer_to(link) == 0xC000
        assert store.instances() == []
        assert store.received() == []
        assert store.unfinished() == []
        assert link.send_c_store(make_ct(instance=2)).Status == 0x0000
    receiver.stop()
    assert [row.sop_instance_uid for row in store.instances()] == [make_ct(instance=2).SOPInstanceUID]
    assert len(store.received()) == 1
    assert store.unfinished() == []
    assert {p for p in tmp_path.rglob("*") if "spool" not in p.parts} == before
    assert not any("evil" in line or "forged" in line for line in caplog.messages)


def test_a_traversal_uid_inside_the_data_set_is_refused(start_receiver: Any, store: Any, make_ct: Any) -> None:
    raw = encoded(make_ct(SeriesInstanceUID="1.2.3456789012345"))
    with association(start_receiver()) as link:
        send_raw(link, (CT, make_ct().SOPInstanceUID), raw.replace(b"1.2.3456789012345", b"../../../tmp/evil"))
        assert answer_to(link) == 0xC000
    assert store.received() == []


class FailingStore:
    """A store whose disk is gone after the association was opened."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.broken = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def record_group(self, entries: Any) -> Any:
        if self.broken and any(isinstance(entry, Receipt) for entry in entries):
            raise OSError(5, "Input/output error")
        return self._real.record_group(entries)


def test_when_the_row_cannot_be_written_nothing_is_kept_and_the_sender_may_try_again(
    start_receiver: Any, store: Any, make_ct: Any
) -> None:
    failing = FailingStore(store.series)
    receiver = start_receiver(series=failing)
    with association(receiver) as link:
        assert link.send_c_store(make_ct()).Status == 0xA700
        assert store.received() == []
        assert store.instances() == []
        failing.broken = False
        assert link.send_c_store(make_ct()).Status == 0x0000
    assert len(store.instances()) == 1


def test_a_full_spool_refuses_and_recovers(
    start_receiver: Any, store: Any, make_ct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise SpoolFull("less than 2 GB free")

    with association(start_receiver()) as link:
        with monkeypatch.context() as patch:
            patch.setattr(store.spool, "check_space", full)
            assert link.send_c_store(make_ct()).Status == 0xA700
            assert store.received() == store.unfinished() == []
        assert link.send_c_store(make_ct()).Status == 0x0000


def test_a_data_set_above_the_bound_is_refused_and_the_association_goes_on(
    start_receiver: Any, store: Any, make_ct: Any
) -> None:
    with association(start_receiver(max_dataset_bytes=100_000)) as link:
        assert link.send_c_store(make_ct(PixelData=bytes(200_000))).Status == 0xA700
        assert store.unfinished() == []
        assert link.send_c_store(make_ct()).Status == 0x0000


def test_an_abort_inside_a_data_set_leaves_nothing_behind(start_receiver: Any, store: Any, make_ct: Any) -> None:
    receiver = start_receiver()
    with association(receiver) as link:
        assert link.send_c_store(make_ct(instance=1)).Status == 0x0000
        send_raw(link, (CT, make_ct(instance=2).SOPInstanceUID), encoded(make_ct(instance=2)), last=False)
        link.abort()
    receiver.stop()
    assert [row.sop_instance_uid for row in store.instances()] == [make_ct(instance=1).SOPInstanceUID]
    assert store.unfinished() == []
    assert store.outcomes() == ["ABORTED"]


def test_a_torn_connection_counts_as_an_abort(start_receiver: Any, store: Any, make_ct: Any) -> None:
    receiver = start_receiver()
    with association(receiver) as link:
        assert link.send_c_store(make_ct()).Status == 0x0000
        link.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        receiver.stop()
    assert store.outcomes() == ["ABORTED"]


def test_a_start_clears_what_a_killed_receiver_left(start_receiver: Any, store: Any, now: Any) -> None:
    store.series.open_association("receiver-1", "SIMULATOR", "10.0.0.1", now)
    (store.spool.incoming / "rx-left.part").write_bytes(b"half an image")
    start_receiver()
    assert store.outcomes() == ["LOST"]
    assert store.unfinished() == []


def test_echo_needs_no_row(start_receiver: Any, store: Any, peer_program: Any) -> None:
    receiver = start_receiver()
    command = [peer_program("/usr/bin/echoscu"), "-aec", "SYNCECT", "127.0.0.1", str(receiver.port)]
    subprocess.run(command, check=True, timeout=60)
    receiver.stop()
    assert store.outcomes() == []


def test_no_identifier_reaches_a_log_line(start_receiver: Any, make_ct: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="node")
    receiver = start_receiver()
    store_one(receiver, make_ct())
    with association(receiver) as link:
        send_raw(link, (CT, "1.2.3"), encoded(make_ct()))
        answer_to(link)
    receiver.stop()
    assert any("1 stored" in line for line in caplog.messages)
    assert not any("CANARY" in line for line in caplog.messages)
