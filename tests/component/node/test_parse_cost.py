"""refuse_costly: a header that costs more to parse than an image is refused before anything parses it."""

import struct
import time
import zlib
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from node.dicom.headers import read_header
from node.dicom.identity import MAX_DEPTH, MAX_ELEMENTS, MAX_HEADER_BYTES, MAX_INFLATED_TO_PARSE_BYTES, refuse_costly
from node.errors import UnreadableInstance
from tests.builders import make_series

SEQUENCE = struct.pack("<HH2sHL", 0x0018, 0x9346, b"SQ", 0, 0xFFFFFFFF)
ITEM, ITEM_END, END = (
    struct.pack("<HHL", 0xFFFE, tag, n) for tag, n in ((0xE000, 0xFFFFFFFF), (0xE00D, 0), (0xE0DD, 0))
)


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    long = vr in (b"OB", b"OW", b"SQ", b"UN", b"UT")
    return head + (struct.pack("<HL", 0, len(value)) if long else struct.pack("<H", len(value))) + value


def with_bytes(folder: Path, more: bytes, *, before: int = 0x7FE00010) -> Path:
    """A slice with these bytes in front of an element."""
    (path,) = make_series(folder, slices=1)
    data = path.read_bytes()
    at = data.index(struct.pack("<HH", before >> 16, before & 0xFFFF), 140)
    path.write_bytes(data[:at] + more + data[at:])
    return path


BOMBS = [
    (SEQUENCE + struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 25_000_000 + END, f"more than {MAX_ELEMENTS} elements"),
    ((SEQUENCE + ITEM) * 100 + (ITEM_END + END) * 100, f"nests more than {MAX_DEPTH} sequences"),
    (element(0x00189346, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 30_000), "elements"),
    (element(0x00189346, b"UN", struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 30_000), "elements"),
    (element(0x00282000, b"OB", bytes(100 << 20)), "100 MiB beside its pixels, and 32 MiB are allowed"),
    (element(0x60003000, b"OW", bytes(MAX_HEADER_BYTES)), "MiB beside its pixels"),
    (element(0x00291010, b"UN", bytes(MAX_HEADER_BYTES)), "MiB beside its pixels"),
    (
        element(0x00204000, b"UT", b"no " * 40_000),
        r"\(0020,4000\) has 120000 bytes, and its kind of value at most 65534",
    ),
    (SEQUENCE + ITEM + element(0x00080104, b"UT", bytes(65536)) + ITEM_END + END, r"\(0008,0104\) has 65536 bytes"),
    (
        struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
        + struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 5_000_000
        + END,
        f"more than {MAX_ELEMENTS} fragments",
    ),
    (element(0x0020000E, b"UI", b"1.2.3\0"), r"holds \(0020,000E\) twice"),
    (element(0x00100020, b"LO", b"OTHER "), r"holds \(0010,0020\) twice"),
    (element(0x00000100, b"US", b"\1\0"), r"holds \(0000,0100\), an element of a file or a command"),
    (element(0x00020010, b"UI", b"1.2.840.10008.1.2\0"), r"holds \(0002,0010\), an element of a file or a command"),
]


@pytest.mark.parametrize(("more", "said"), BOMBS, ids=[said for _, said in BOMBS])
def test_what_costs_too_much_or_is_said_twice_is_refused_at_once(tmp_path: Path, more: bytes, said: str) -> None:
    path = with_bytes(tmp_path, more)
    begin_s = time.process_time()
    with pytest.raises(UnreadableInstance, match=said):
        read_header(path)
    assert time.process_time() - begin_s < 1.0  # 200 MB took pydicom 22 s; most of this is reading the file


def test_ordinary_sequences_and_private_blocks_are_no_cost(tmp_path: Path) -> None:
    def fill(ds: Dataset, _z: int) -> None:
        inner = Dataset()
        inner.CodeValue = "A"
        outer = Dataset()
        outer.PurposeOfReferenceCodeSequence = Sequence([inner] * 20)
        ds.ReferencedImageSequence = Sequence([outer] * 20)
        ds.add_new(0x00291010, "OB", bytes(1 << 20))

    (path,) = make_series(tmp_path, slices=1)
    ds = dcmread(path)
    fill(ds, 0)
    for undefined in (False, True):
        ds["ReferencedImageSequence"].is_undefined_length = undefined
        for implicit in (False, True):
            if implicit:
                ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            ds.save_as(path, implicit_vr=implicit or ds.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian)
            refuse_costly(path.read_bytes())


def test_a_group_length_is_no_element_of_a_command(tmp_path: Path) -> None:
    path = with_bytes(tmp_path, element(0x00080000, b"UL", bytes(4)), before=0x00080008)
    assert read_header(path).modality == "CT"


def test_a_patient_id_in_a_sequence_is_not_the_patients(tmp_path: Path) -> None:
    other = element(0x00100020, b"LO", b"OTHER ")
    path = with_bytes(tmp_path, SEQUENCE + ITEM + other + ITEM_END + END, before=0x0020000D)
    assert read_header(path).patient_id == "TEST-1"


@pytest.mark.parametrize("size", [MAX_INFLATED_TO_PARSE_BYTES + 1])
def test_a_deflated_data_set_that_inflates_without_end_is_refused(tmp_path: Path, size: int) -> None:
    (path,) = make_series(tmp_path, slices=1)
    ds = dcmread(path)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(path)
    data = path.read_bytes()
    begin = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path.write_bytes(data[:begin] + packer.compress(bytes(size)) + packer.flush())
    with pytest.raises(UnreadableInstance, match="inflates beyond 128 MiB"):
        read_header(path)
