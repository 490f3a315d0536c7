"""content_sha256: one digest for copies that mean the same image, another one for every change of meaning."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from node.dicom.elements import element_bytes, put, put_items, raw_element, seal, tag_of
from node.dicom.headers import read_header
from node.dicom.quiet import quiet_pydicom
from node.dicom.synthetic_scan import put_number
from node.dicom.uids import job_key, seed_of
from node.dicom.volume import read_volume
from tests.builders import make_series, put_raw

Edit = Callable[[Dataset, int], None]


def digest(folder: Path, *edits: Edit, **series: Any) -> str:
    return read_header(make_series(folder, slices=1, edit=both(*edits), **series)[0]).content_sha256


def both(*edits: Edit) -> Edit:
    def edit(ds: Dataset, z: int) -> None:
        for one in edits:
            one(ds, z)

    return edit


def sent(**values: bytes) -> Edit:
    def edit(ds: Dataset, _z: int) -> None:
        for keyword, value in values.items():
            put_raw(ds, keyword, value)

    return edit


def sent_as(vr: str, **values: bytes) -> Edit:
    def edit(ds: Dataset, _z: int) -> None:
        for keyword, value in values.items():
            ds[tag_of(keyword)] = raw_element(tag_of(keyword), vr, value)

    return edit


def pixels(change: Callable[[Any], Any] = lambda words: words, *, signed: bool = False, bits: int = 12) -> Edit:
    """Stored values of 0 to 999, less 500 where signed, written in another form."""

    def edit(ds: Dataset, _z: int) -> None:
        values = np.arange(32 * 32).reshape(32, 32) % 1000 - (500 if signed else 0)
        put_number(ds, "BitsStored", bits)
        put_number(ds, "HighBit", bits - 1)
        put_number(ds, "PixelRepresentation", int(signed))
        put_raw(ds, "PixelData", change(values.astype("<i2").view("<u2")).tobytes())

    return edit


JAPANESE = "Yamada^Tarou=山田^太郎"
LOSSLESS_COPY = b"Lossless JPEG compression, selection value 1, point transform 0, compression ratio 2.3786"
SAME = {
    "note on a lossless copy": (sent(), sent(DerivationDescription=LOSSLESS_COPY)),
    "note on a lossless copy, before a text": (
        sent(DerivationDescription=b"Noise reduced"),
        sent(DerivationDescription=LOSSLESS_COPY + b" [Noise reduced]"),
    ),
    "note on a lossless copy, of another ratio": (
        sent(DerivationDescription=LOSSLESS_COPY),
        sent(DerivationDescription=LOSSLESS_COPY.replace(b"2.3786", b"1.9")),
    ),
    "name, components": (sent(PatientName=b"A^B"), sent(PatientName=b"A^B^^^")),
    "name, groups": (sent(PatientName=b"A^B"), sent(PatientName=b"A^B^==")),
    "name, spaces": (sent(PatientName=b"A^B"), sent(PatientName=b"A ^ B ")),
    "name, in an item": (
        lambda ds, _z: put_items(ds, "RequestAttributesSequence", [item(RequestingPhysician=b"A^B")]),
        lambda ds, _z: put_items(ds, "RequestAttributesSequence", [item(RequestingPhysician=b"A^B^ ")]),
    ),
    "name, Latin-1 and UTF-8": (
        sent(PatientName="Müller^Jörg".encode("latin-1"), SpecificCharacterSet=b"ISO_IR 100"),
        sent(PatientName="Müller^Jörg".encode(), SpecificCharacterSet=b"ISO_IR_192"),
    ),
    "name, escape sequences and UTF-8": (
        sent(PatientName=b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", SpecificCharacterSet=b"\\ISO 2022 IR 87"),
        sent(PatientName=JAPANESE.encode(), SpecificCharacterSet=b"ISO_IR 192"),
    ),
    "name, composed and decomposed": (
        sent(PatientName="Mu\u0308ller".encode(), SpecificCharacterSet=b"ISO_IR 192"),
        sent(PatientName="Müller".encode(), SpecificCharacterSet=b"ISO_IR 192"),
    ),
    "ASCII in any set": (sent(SpecificCharacterSet=b"ISO_IR 192"), sent(SpecificCharacterSet=b"NONSENSE")),
    "DS": (sent(PixelSpacing=b"1\\1", RescaleSlope=b"1"), sent(PixelSpacing=b"1.000\\+1e0", RescaleSlope=b" 1.0 ")),
    "DS, zero": (sent(SliceLocation=b"0"), sent(SliceLocation=b"-0.00")),
    "IS": (sent(InstanceNumber=b"7"), sent(InstanceNumber=b" 007")),
    "date": (sent(StudyDate=b"20260102"), sent(StudyDate=b"2026.01.02")),
    "time": (sent(StudyTime=b"101530"), sent(StudyTime=b"10:15:30.000 ")),
    "date and time": (
        sent(AcquisitionDateTime=b"20260102101530.5"),
        sent(AcquisitionDateTime=b"20260102101530.500000"),
    ),
    "text, padding": (sent(StudyDescription=b"Thorax"), sent(StudyDescription=b" Thorax ")),
    "UID, padding": (sent(FrameOfReferenceUID=b"1.02.3"), sent_as("LO", FrameOfReferenceUID=b"1.02.3 ")),
    "absent and empty": (sent(), sent(ProtocolName=b"", PatientComments=b"")),
    "no items and no sequence": (sent(), lambda ds, _z: put_items(ds, "ProcedureCodeSequence", [])),
    "UN": (
        sent(ImagePositionPatient=b"1\\2\\3"),
        sent_as("UN", ImagePositionPatient=b"1\\2\\3.0", Rows=b"\x20\x00"),
    ),
    "padding value as US or SS": (
        both(pixels(signed=True, bits=16), sent_as("SS", PixelPaddingValue=b"\x30\xf8")),
        both(pixels(signed=True, bits=16), sent_as("US", PixelPaddingValue=b"\x30\xf8")),
    ),
    "bits stored": (pixels(), pixels(bits=16)),
    "bits stored, signed": (pixels(signed=True), pixels(signed=True, bits=13)),
    "bits above, no sign": (pixels(signed=True), pixels(lambda words: words & np.uint16(0x0FFF), signed=True)),
    "an excess byte": (pixels(), pixels(lambda words: np.append(words.view(np.uint8), np.uint8(9)))),
    "excess bytes": (pixels(), pixels(lambda words: np.append(words, [np.uint16(7)] * 5))),
}
OTHER = {
    "note on a lossless copy of what was derived": (
        sent(),
        sent(DerivationDescription=LOSSLESS_COPY + b" [MIP]"),
    ),
    "note on a lossy copy": (sent(), sent(DerivationDescription=b"Lossy compression with JPEG extended 12 bit")),
    "name": (sent(PatientName=b"A^B"), sent(PatientName=b"A^^B")),
    "name, group": (sent(PatientName=b"A^B"), sent(PatientName=b"=A^B")),
    "name, inner space": (sent(PatientName=b"Van Berg"), sent(PatientName=b"VanBerg")),
    "same bytes in another set": (
        sent(PatientName=b"\xfc", SpecificCharacterSet=b"ISO_IR 100"),
        sent(PatientName=b"\xfc", SpecificCharacterSet=b"ISO_IR 144"),
    ),
    "an unknown set, which is held": (
        sent(PatientName=b"\xfc", SpecificCharacterSet=b"NONSENSE"),
        sent(PatientName=b"\xfc", SpecificCharacterSet=b""),
    ),
    "undecodable bytes": (
        sent(PatientName=b"\xc3(", SpecificCharacterSet=b"ISO_IR 192"),
        sent(PatientName=b"\xc4(", SpecificCharacterSet=b"ISO_IR 192"),
    ),
    "position": (sent(ImagePositionPatient=b"1\\2\\3"), sent(ImagePositionPatient=b"1\\2\\3.01")),
    "UID, leading zero": (sent(FrameOfReferenceUID=b"1.2.3"), sent(FrameOfReferenceUID=b"1.02.3")),
    "no number": (sent(InstanceNumber=b"7"), sent(InstanceNumber=b"7a")),
    "time of minutes": (sent(StudyTime=b"1015"), sent(StudyTime=b"101500")),
    "comment, leading space": (sent(DeidentificationMethod=b"a"), sent(DeidentificationMethod=b"a\\b")),
    "bits above that no overlay names": (pixels(), pixels(lambda words: words | np.uint16(0xA000))),
    "sign": (pixels(), pixels(lambda words: words, bits=12, signed=True)),
    "one pixel": (pixels(), pixels(lambda words: words + (np.arange(1024).reshape(32, 32) == 5).astype("<u2"))),
    "a value within bits stored": (pixels(bits=16), pixels(lambda words: words | np.uint16(0xA000), bits=16)),
    "one more row": (pixels(), pixels(lambda words: np.append(words, words[:1]))),
    "item": (sent(), lambda ds, _z: put_items(ds, "ProcedureCodeSequence", [item(CodeValue=b"1")])),
}


def item(**values: bytes) -> Dataset:
    ds = Dataset()
    sent(**values)(ds, 0)
    return seal(ds)


@pytest.mark.parametrize("what", SAME)
def test_copies_that_mean_the_same_have_one_digest(tmp_path: Path, what: str) -> None:
    one, two = SAME[what]
    assert digest(tmp_path / "a", one) == digest(tmp_path / "b", two)


@pytest.mark.parametrize("what", OTHER)
def test_another_meaning_has_another_digest(tmp_path: Path, what: str) -> None:
    one, two = OTHER[what]
    assert digest(tmp_path / "a", one) != digest(tmp_path / "b", two)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("signed", [False, True])
def test_the_same_pixels_in_another_transfer_syntax_are_the_same_job_and_noise(
    tmp_path: Path, syntax: str, signed: bool
) -> None:
    paths = make_series(tmp_path, slices=2, edit=pixels(signed=signed, bits=16))
    headers = [read_header(path) for path in paths]
    seed = seed_of(read_volume(paths).hu, (-40.0, 400.0))
    for path in paths:
        ds = dcmread(path)
        ds.compress(syntax, generate_instance_uid=False)
        ds.save_as(path)
    again = [read_header(path) for path in paths]
    assert [h.transfer_syntax_uid for h in again] == [syntax] * 2
    assert job_key(again, "b", "p") == job_key(headers, "b", "p")
    assert seed_of(read_volume(paths).hu, (-40.0, 400.0)) == seed


def test_what_cannot_be_decoded_counts_by_its_bytes(tmp_path: Path) -> None:
    def compressed(folder: Path, change: Callable[[bytearray], None]) -> str:
        path = make_series(folder, slices=1)[0]
        ds = dcmread(path)
        ds.compress(JPEGLSLossless, generate_instance_uid=False)
        data = bytearray(ds.PixelData)
        change(data)
        ds.PixelData = bytes(data)
        ds.save_as(path)
        return read_header(path).content_sha256

    def cut(data: bytearray) -> None:
        del data[24:-10]

    def cut_less(data: bytearray) -> None:
        del data[26:-10]

    damaged = compressed(tmp_path / "a", cut)
    assert damaged == compressed(tmp_path / "b", cut)
    assert damaged != compressed(tmp_path / "c", cut_less)
    short = digest(tmp_path / "d", sent(PixelData=b"\1\0"))
    assert short != digest(tmp_path / "e", sent(PixelData=b"\2\0"))


def test_bits_stored_counts_where_it_would_clip_a_result(tmp_path: Path) -> None:
    narrow = sent(RescaleSlope=b"0.1", RescaleIntercept=b"-100")
    assert digest(tmp_path / "a", pixels(), narrow) != digest(tmp_path / "b", pixels(bits=16), narrow)


# Of the edits left out, one form changes what another edit wrote before it, and the other form leaves it.
_UNMIXABLE = ("name", "ASCII", "note on a lossless copy")
HARMLESS = [edits for what, edits in SAME.items() if not what.startswith(_UNMIXABLE)]
HARMFUL: list[Edit] = [
    lambda ds, _z: put(ds, "PatientID", "TEST-2"),
    lambda ds, _z: put(ds, "PatientName", "Test^Other"),
    lambda ds, _z: put(ds, "ImagePositionPatient", "0", "0", "99"),
    lambda ds, _z: put(ds, "RescaleIntercept", "-1000"),
    lambda ds, _z: put_raw(ds, "PixelData", bytes([1]) + (element_bytes(ds, tag_of("PixelData")) or b"")[1:]),
]
_SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_SETTINGS
@given(data=st.data())
def test_any_mixture_of_forms_is_one_content_and_any_change_is_another(tmp_path: Path, data: st.DataObject) -> None:
    pairs = data.draw(st.lists(st.sampled_from(HARMLESS), max_size=6))
    folder = tmp_path / str(data.draw(st.uuids()))
    expected = digest(folder / "a", *(one for one, _ in pairs))
    mixed = [data.draw(st.sampled_from(pair)) for pair in pairs]
    harm = data.draw(st.sampled_from([None, *HARMFUL]))
    found = digest(folder / "b", *mixed, *([harm] if harm else []))
    assert (found == expected) is (harm is None)


def test_a_name_that_is_written_in_two_ways_is_one_patient(tmp_path: Path) -> None:
    names = [b"A^B", b"A ^B^^", b"A^B="]
    paths = [make_series(tmp_path / str(n), slices=1, raw={"PatientName": name})[0] for n, name in enumerate(names)]
    assert len({read_header(path).patient for path in paths}) == 1


def test_an_implicit_copy_of_odd_values_agrees(tmp_path: Path) -> None:
    raw = {"PatientName": b"\xc8\xe2", "SpecificCharacterSet": b"ISO 2022 IR 6\\IS", "StudyDescription": b"x" * 90}
    path = make_series(tmp_path, slices=1, raw=raw)[0]
    with quiet_pydicom():
        ds = dcmread(path)
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dcmwrite(tmp_path / "implicit.dcm", ds, implicit_vr=True, little_endian=True, force_encoding=True)
    assert read_header(tmp_path / "implicit.dcm").content_sha256 == read_header(path).content_sha256
