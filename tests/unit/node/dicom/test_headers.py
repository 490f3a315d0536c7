"""read_header: one image has one digest however it was sent, and a damaged file raises UnreadableInstance only."""

import contextlib
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from node.dicom.headers import SliceHeader, read_header
from node.errors import UnreadableInstance
from tests.builders import make_series, put_raw


@pytest.fixture
def one_slice(tmp_path: Path) -> Path:
    return make_series(tmp_path, slices=1)[0]


def test_header_fields(one_slice: Path) -> None:
    header = read_header(one_slice, keywords=["ImagePositionPatient"])
    assert header.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert header.image_position_mm == (-15.5, -15.5, 0.0)
    assert header.attribute("ImagePositionPatient") == ("-15.5", "-15.5", "0")
    assert (header.rows, header.columns, header.bits_stored, header.pixel_representation) == (32, 32, 12, 0)
    assert (header.rescale_slope, header.rescale_intercept, header.rescale_type) == (1.0, -1024.0, "HU")
    assert header.patient.patient_id == header.patient_id == "TEST-1"
    assert header.contrast_agent == ""
    assert header.number_of_frames is None


def test_no_patient_data_in_the_text_form_of_a_header(one_slice: Path) -> None:
    text = repr(read_header(one_slice, keywords=["PatientName"]))
    assert "TEST-1" not in text
    assert "Person" not in text


def test_digest_does_not_depend_on_the_transfer_syntax(one_slice: Path) -> None:
    expected = read_header(one_slice).content_sha256
    for number, (syntax, implicit, little) in enumerate(
        ((ImplicitVRLittleEndian, True, True), (ExplicitVRBigEndian, False, False))
    ):
        ds = dcmread(one_slice)
        if not little:
            ds["PixelData"].value = dcmread(one_slice).pixel_array.astype(">u2").tobytes()
        ds.file_meta.TransferSyntaxUID = syntax
        other = one_slice.with_name(f"other{number}.dcm")
        dcmwrite(other, ds, implicit_vr=implicit, little_endian=little, force_encoding=True)
        assert read_header(other).content_sha256 == expected
    compressed = dcmread(one_slice)
    compressed.compress(RLELossless, generate_instance_uid=False)
    compressed.save_as(one_slice.with_name("rle.dcm"))
    assert read_header(one_slice.with_name("rle.dcm")).content_sha256 == expected


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "TEST-2"),
        ("ImagePositionPatient", ["-15.5", "-15.5", "0.01"]),
        ("RescaleIntercept", "-1000"),
        ("SeriesDescription", "another"),
        ("ContrastBolusAgent", "IODINE"),
        ("StationName", "CT2"),
    ],
)
def test_digest_changes_with_what_reaches_the_derived_series(one_slice: Path, keyword: str, value: object) -> None:
    ds = dcmread(one_slice)
    setattr(ds, keyword, value)
    ds.save_as(one_slice.with_name("changed.dcm"))
    assert read_header(one_slice.with_name("changed.dcm")).content_sha256 != read_header(one_slice).content_sha256


def test_digest_changes_with_one_pixel_but_not_with_a_private_element(one_slice: Path) -> None:
    ds = dcmread(one_slice)
    ds.private_block(0x0009, "SOMEBODY", create=True).add_new(0x01, "LO", "private")
    ds.save_as(one_slice.with_name("private.dcm"))
    same = read_header(one_slice).content_sha256
    assert read_header(one_slice.with_name("private.dcm")).content_sha256 == same
    pixels = bytearray(ds.PixelData)
    pixels[100] ^= 1
    ds.PixelData = bytes(pixels)
    ds.save_as(one_slice.with_name("pixel.dcm"))
    assert read_header(one_slice.with_name("pixel.dcm")).content_sha256 != same


def test_digest_keeps_neighbouring_values_apart(tmp_path: Path) -> None:
    first = make_series(tmp_path / "a", slices=1, attributes={"StudyDescription": "ab", "SeriesDescription": "c"})
    second = make_series(tmp_path / "b", slices=1, attributes={"StudyDescription": "a", "SeriesDescription": "bc"})
    assert read_header(first[0]).content_sha256 != read_header(second[0]).content_sha256


def test_attributes_for_site_rules_are_captured_and_others_are_an_error(one_slice: Path) -> None:
    header = read_header(one_slice, keywords=["ConvolutionKernel", "ProtocolName", "Rows", "ImageType"])
    assert header.attribute("ConvolutionKernel") == ("B40",)
    assert header.attribute("ProtocolName") == ()
    assert header.attribute("Rows") == ("32",)
    assert header.attribute("ImageType") == ("ORIGINAL", "PRIMARY", "AXIAL")
    with pytest.raises(KeyError):
        header.attribute("StationName")


@pytest.mark.parametrize(
    ("charset", "name", "decoded"),
    [
        (b"ISO_IR 192", "Müller^Jürgen".encode(), "Müller^Jürgen"),
        (b"ISO_IR 100", "Müller".encode("latin-1"), "Müller"),
        (b"ISO_IR 101", "Šimůnek".encode("iso8859-2"), "Šimůnek"),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
        (b"GB18030", "王^小东".encode("gb18030"), "王^小东"),
    ],
)
def test_text_in_many_character_sets(tmp_path: Path, charset: bytes, name: bytes, decoded: str) -> None:
    paths = make_series(tmp_path, slices=1, raw={"SpecificCharacterSet": charset, "PatientName": name})
    assert read_header(paths[0]).patient.name == decoded


@pytest.mark.parametrize(
    "charset", [b"ISO_IR 192", b"ISO-IR-FOO", b"\\\\", b"ISO 2022 IR 87\\nonsense", b"\xff\xfe", b""]
)
def test_undecodable_text_never_fails(tmp_path: Path, charset: bytes) -> None:
    raw = {"SpecificCharacterSet": charset, "PatientName": b"M\xfcller\x1b$B\xff", "PatientID": b"\xc3("}
    assert read_header(make_series(tmp_path, slices=1, raw=raw)[0]).patient.name


@pytest.mark.parametrize(
    "value", [b"abc\\def", b"1\\2", b"nan\\0\\0", b"1e999\\0\\0", b"1_0\\0\\0", b"\\\\", b"\xff\xff\xff"]
)
def test_an_unusable_position_is_none(tmp_path: Path, value: bytes) -> None:
    assert (
        read_header(make_series(tmp_path, slices=1, raw={"ImagePositionPatient": value})[0]).image_position_mm is None
    )


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
@pytest.mark.parametrize("value", [b"../../etc/passwd", b"", b"1.2.a", b"1" * 130])
def test_without_valid_uids_it_is_no_instance(tmp_path: Path, keyword: str, value: bytes) -> None:
    path = make_series(tmp_path, slices=1)[0]
    ds = dcmread(path)
    put_raw(ds, keyword, value)
    ds.save_as(path)
    with pytest.raises(UnreadableInstance):
        read_header(path)


@pytest.mark.parametrize(
    "data", [b"", b"DICM", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 200, b"%PDF-1.4"]
)
def test_what_is_no_instance(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(data)
    with pytest.raises(UnreadableInstance):
        read_header(path)


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInstance):
        read_header(tmp_path / "absent")


def test_deeply_nested_sequences_are_refused_not_a_crash(one_slice: Path) -> None:
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff"
    one_slice.write_bytes(one_slice.read_bytes()[:-2060] + b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + item * 5000)
    with pytest.raises(UnreadableInstance):
        read_header(one_slice)


def test_a_deflated_bomb_is_refused_before_it_inflates(one_slice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.dicom.identity.MAX_INFLATED_TO_PARSE_BYTES", 1 << 20)
    ds = dcmread(one_slice)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(one_slice)
    whole = read_header(one_slice)
    assert whole.rows == 32
    data = one_slice.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    one_slice.write_bytes(data[:start] + packer.compress(b"\0" * (4 << 20)) + packer.flush())
    with pytest.raises(UnreadableInstance, match="inflates"):
        read_header(one_slice)


_FUZZ = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_FUZZ
@given(data=st.data())
def test_damaged_files_raise_unreadable_instance_only(one_slice: Path, data: st.DataObject) -> None:
    content = bytearray(one_slice.read_bytes()[:-1900])
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(132, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    damaged = one_slice.with_name("damaged.dcm")
    damaged.write_bytes(bytes(content[:cut] if data.draw(st.booleans()) else content))
    with contextlib.suppress(UnreadableInstance):
        assert isinstance(read_header(damaged, keywords=["ImageType", "RequestAttributesSequence"]), SliceHeader)
