"""Reads the UIDs of a received data set, and writes what stands before it in its file; it decodes nothing else.

An own walk over the top-level elements: no string of the peer but these UIDs is looked at, nesting costs no recursion,
and reading stops at (0020,000E) or after `MAX_ELEMENTS`. pydicom's reader takes three times as long for a CT slice,
makes objects of every item (a data set of 200 MB that is all item headers would take tens of GB) and recurses.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info

from config.syntax import FOREIGN_UID, MAX_FOREIGN_UID_CHARS, UID_ALPHABET
from node.dicom.constants import IMPLEMENTATION_CLASS_UID, PRODUCT_NAME
from node.errors import UnreadableInstance

_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_STUDY_INSTANCE_UID = 0x0020000D
_SERIES_INSTANCE_UID = 0x0020000E
_WANTED = (_SOP_CLASS_UID, _SOP_INSTANCE_UID, _STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID)

_ITEM_END, _SEQUENCE_END = 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
MAX_UID_BYTES = MAX_FOREIGN_UID_CHARS + 2  # one byte more than allowed with its padding, so that it is seen to be
MAX_INFLATED_BYTES = 8 * 1024**2
MAX_ELEMENTS = 100_000  # with those inside sequences; a CT slice has some hundred up to (0020,000E)


@dataclass(frozen=True)
class InstanceIdentity:
    """The UIDs of one instance as they came: digits and dots, at most 64 (PS3.5 section 9), of study and series 128."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str


def read_identity(stream: BinaryIO, size_bytes: int, *, implicit_vr: bool) -> InstanceIdentity:
    """Read the identity of a little-endian data set that begins at the stream's position and ends at `size_bytes`.

    Raises UnreadableInstance where the bytes are no data set or one of the four UIDs is missing or malformed.
    """
    found = {tag: _uid(raw, tag) for tag, raw in _raw_uids(stream, size_bytes, implicit_vr=implicit_vr)}
    missing = [tag for tag in _WANTED if tag not in found]
    if missing:
        names = ", ".join(f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in missing)
        raise UnreadableInstance(f"the data set lacks {names}")
    return InstanceIdentity(
        sop_class_uid=found[_SOP_CLASS_UID],
        sop_instance_uid=found[_SOP_INSTANCE_UID],
        study_uid=found[_STUDY_INSTANCE_UID],
        series_uid=found[_SERIES_INSTANCE_UID],
    )


def glimpse(data: bytes, *, implicit_vr: bool) -> InstanceIdentity:
    """What the beginning of a data set that is not stored tells of its identity; "" for what it does not. No error."""
    found = dict.fromkeys(_WANTED, "")
    with suppress(UnreadableInstance):
        for tag, raw in _raw_uids(BytesIO(data), len(data), implicit_vr=implicit_vr):
            with suppress(UnreadableInstance):
                found[tag] = _uid(raw, tag)
    return InstanceIdentity(*(found[tag] for tag in _WANTED))


def inflated(data: bytes) -> bytes:
    """The beginning of a deflated data set, at most `MAX_INFLATED_BYTES`; raises UnreadableInstance."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MAX_INFLATED_BYTES)
    except zlib.error:
        raise UnreadableInstance("the data set is not deflated, as its transfer syntax says") from None


def _raw_uids(stream: BinaryIO, size_bytes: int, *, implicit_vr: bool) -> Iterator[tuple[int, bytes]]:
    """The four UIDs as bytes, as far as they are there; raises UnreadableInstance where the bytes are no data set."""
    elements = _Elements(stream, size_bytes)
    last_tag = -1
    while (header := elements.next(implicit_vr=implicit_vr)) is not None:
        tag, vr, length = header
        if tag <= last_tag:
            raise UnreadableInstance("the elements of the data set are not in ascending order")
        if tag > _SERIES_INSTANCE_UID:
            break
        last_tag = tag
        if tag in _WANTED and length != _UNDEFINED:
            yield tag, stream.read(min(length, MAX_UID_BYTES))
            elements.skip(max(0, length - MAX_UID_BYTES))
        elif length == _UNDEFINED:
            elements.skip_undefined(implicit_vr=implicit_vr or vr == b"UN")
        else:
            elements.skip(length)


class _Elements:
    """The element headers of a stream that ends at `size_bytes`, counted."""

    def __init__(self, stream: BinaryIO, size_bytes: int) -> None:
        self._stream, self._size_bytes = stream, size_bytes
        self._count = 0

    def next(self, *, implicit_vr: bool) -> tuple[int, bytes, int] | None:
        """Tag, VR (empty where the encoding has none) and length of the next element; None at the end."""
        raw = self._stream.read(8)
        if not raw:
            return None
        if len(raw) < 8:
            raise UnreadableInstance("the data set ends inside an element")
        self._count += 1
        if self._count > MAX_ELEMENTS:
            raise UnreadableInstance(f"more than {MAX_ELEMENTS} elements stand before the Series Instance UID")
        group, element = struct.unpack("<HH", raw[:4])
        tag, vr = group << 16 | element, raw[4:6]
        # Some writers switch to implicit VR inside private sequences; a VR is two capital letters or it is none.
        if implicit_vr or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
            return tag, b"", struct.unpack("<L", raw[4:])[0]
        if vr not in _LONG_VRS:
            return tag, vr, struct.unpack("<H", raw[6:])[0]
        extended = self._stream.read(4)
        if len(extended) < 4:
            raise UnreadableInstance("the data set ends inside an element")
        return tag, vr, struct.unpack("<L", extended)[0]

    def skip(self, length: int) -> None:
        """Skip a value."""
        if self._stream.tell() + length > self._size_bytes:
            raise UnreadableInstance("an element is longer than the data set")
        self._stream.seek(length, 1)

    def skip_undefined(self, *, implicit_vr: bool) -> None:
        """Skip a value of undefined length: every open sequence or item is closed by one delimiter (PS3.5 7.5)."""
        encodings = [implicit_vr]
        while encodings:
            header = self.next(implicit_vr=encodings[-1])
            if header is None:
                raise UnreadableInstance("the data set ends inside a sequence")
            tag, vr, length = header
            if tag in (_ITEM_END, _SEQUENCE_END):
                encodings.pop()
            elif length == _UNDEFINED:
                # A UN of undefined length holds implicit VR whatever the transfer syntax is (PS3.5 6.2.2 note 2).
                encodings.append(encodings[-1] or vr == b"UN")
            else:
                self.skip(length)


def _uid(raw: bytes, tag: int) -> str:
    value = raw.rstrip(b"\0 ").decode("latin-1")
    allowed = FOREIGN_UID if tag in (_STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID) else UID_ALPHABET
    if allowed.fullmatch(value) is None:
        raise UnreadableInstance(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is not a UID")
    return value


def part10_head(class_uid: str, instance_uid: str, transfer_syntax: str) -> bytes:
    """A preamble of zeros, the prefix and the file meta information; one instance gets the same bytes every time.

    The preamble stays empty because its bytes could make another kind of file of it (CVE-2019-11687).
    """
    meta = FileMetaDataset()
    for tag, vr, value in (
        (0x00020000, "UL", 0),  # filled in when it is written
        (0x00020001, "OB", b"\0\1"),
        (0x00020002, "UI", class_uid),
        (0x00020003, "UI", instance_uid),
        (0x00020010, "UI", transfer_syntax),
        (0x00020012, "UI", IMPLEMENTATION_CLASS_UID),
        (0x00020013, "SH", PRODUCT_NAME.upper()),  # without a number, which would change the bytes
    ):
        meta[tag] = DataElement(tag, vr, value, validation_mode=IGNORE)  # a foreign UID is kept as it came
    stream = DicomBytesIO()
    stream.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(stream, meta, enforce_standard=False)
    return stream.getvalue()
