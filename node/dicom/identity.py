"""What an instance is, read from its bytes before anything parses it, and the head of the file that it becomes.

A walk over the element headers, one after the other: no string of the peer but four UIDs is looked at. pydicom's reader
takes three times as long for a CT slice, makes objects of every item and recurses: 200 MB of nested item headers took
it 22 s and tens of GB. The walk makes none, and ends at `MAX_ELEMENTS` or `MAX_DEPTH`; whoever parses a file with
pydicom walks it first.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16

from config.syntax import FOREIGN_UID, MAX_FOREIGN_UID_CHARS, UID_ALPHABET
from node.dicom.constants import IMPLEMENTATION_CLASS_UID, MULTI_FRAME_CT_CLASSES, PRODUCT_NAME
from node.errors import AmbiguousInstance, UnreadableInstance

MAX_ELEMENTS: Final = 20_000  # with those inside sequences; a CT slice has some hundred
MAX_MULTI_FRAME_ELEMENTS: Final = 420_000  # 200 more for each of 2000 frames, which have some 60 to 150
MAX_REQUEST_ELEMENTS: Final = 101_000  # 20,000 references have five each: item, two UIDs, a reason, a delimiter
MAX_REQUEST_LIST_BYTES: Final = 20_000 * 66  # a list of UIDs, each padded
MAX_DEPTH: Final = 32  # sequences and their items, each; a CT slice has up to 6
UNDEFINED: Final = 0xFFFFFFFF
PIXEL_DATA: Final = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_ITEM_BYTES, _SEQUENCE_END_BYTES = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_MAY_HOLD_ITEMS = frozenset((b"", b"SQ", b"UN"))
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_STUDY_INSTANCE_UID = 0x0020000D
_SERIES_INSTANCE_UID = 0x0020000E
_WANTED = (_SOP_CLASS_UID, _SOP_INSTANCE_UID, _STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID)

MAX_UID_BYTES = MAX_FOREIGN_UID_CHARS + 2  # one byte more than allowed with its padding, so that it is seen to be
MAX_SHORT_BYTES: Final = 0xFFFE  # of the VRs whose length has 16 bits in explicit VR (PS3.5 7.1.2)
MAX_INFLATED_BYTES = 8 * 1024**2
MAX_HEADER_BYTES: Final = 32 << 20  # all but the pixel data; the private elements of a CT slice have up to 1 MB
MAX_INFLATED_TO_PARSE_BYTES: Final = 128 << 20  # a slice of 4096 x 4096 pixels has 32 MiB
_DATA_SET, _MEDIA_STORAGE_CLASS, _TRANSFER_SYNTAX = 0x00080000, 0x00020002, 0x00020010
_META_BEGINS: Final = 132
_META_GROUP: Final = b"\x02\x00"
_IMPLICIT: Final = "1.2.840.10008.1.2"
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"


@dataclass(frozen=True)
class InstanceIdentity:
    """The UIDs of one instance as they came: digits and dots, at most 64 (PS3.5 section 9), of study and series 128."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str


def read_identity(data: bytes, *, implicit_vr: bool) -> InstanceIdentity:
    """Read the identity of a little-endian data set.

    Raises UnreadableInstance where the bytes are no data set or one of the four UIDs is missing or malformed.
    """
    found = {tag: _uid(raw, tag) for tag, raw in _raw_uids(data, implicit_vr=implicit_vr)}
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
        for tag, raw in _raw_uids(data, implicit_vr=implicit_vr):
            with suppress(UnreadableInstance):
                found[tag] = _uid(raw, tag)
    return InstanceIdentity(*(found[tag] for tag in _WANTED))


def inflated(data: bytes) -> bytes:
    """The beginning of a deflated data set, at most `MAX_INFLATED_BYTES`; raises UnreadableInstance."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MAX_INFLATED_BYTES)
    except zlib.error:
        raise UnreadableInstance("the data set is not deflated, as its transfer syntax says") from None


def _raw_uids(data: bytes, *, implicit_vr: bool) -> Iterator[tuple[int, bytes]]:
    """The four UIDs as bytes, as far as they are there; raises UnreadableInstance where the bytes are no data set."""
    last_tag = -1
    for element in walk(data, 0, implicit_vr=implicit_vr):
        if element.depth:
            continue
        if element.tag <= last_tag:
            raise UnreadableInstance("the elements of the data set are not in ascending order")
        if element.tag > _SERIES_INSTANCE_UID:
            break
        last_tag = element.tag
        if element.tag in _WANTED and element.length != UNDEFINED:
            yield element.tag, data[element.begin : element.begin + min(element.length, MAX_UID_BYTES)]


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


class Element(NamedTuple):
    """An element header. vr: b"" where the encoding has none. begin: where its value begins. depth: 0 at the top."""

    depth: int
    tag: int
    vr: bytes
    begin: int
    length: int


class _Open(NamedTuple):
    """A sequence, item or list of fragments that is being walked; end: None where a delimiter closes it."""

    end: int | None
    implicit_vr: bool
    holds_fragments: bool


def walk(data: bytes, begin: int, *, implicit_vr: bool, max_elements: int = MAX_ELEMENTS) -> Iterator[Element]:
    """The elements of a little endian data set from `begin` to the end of `data`, those of its items behind their own.

    The fragments of compressed pixel data are passed over. Raises UnreadableInstance where the bytes are no data set,
    or one that costs more to read than an image does.
    """
    position, count = begin, 0
    stack: list[_Open] = []
    while _close(stack, position) or position < len(data):
        count += 1
        if count > max_elements:
            raise UnreadableInstance(f"the data set has more than {max_elements} elements")
        implicit = stack[-1].implicit_vr if stack else implicit_vr
        tag, vr, length, position = _header(data, position, implicit_vr=implicit)
        if tag in (_ITEM_END, _SEQUENCE_END):
            if stack and stack.pop().end is not None:
                raise UnreadableInstance("the data set ends a sequence that it did not begin")
            continue
        element = Element(len(stack), tag, vr, position, length)
        yield element
        if tag == PIXEL_DATA and length == UNDEFINED and not stack:
            position = _end_of_fragments(data, position, max_elements)
        elif (length == UNDEFINED or vr in _MAY_HOLD_ITEMS) and (
            inner := _opened(data, element, stack, implicit_vr=implicit)
        ):
            stack.append(inner)
            if len(stack) > 2 * MAX_DEPTH:
                raise UnreadableInstance(f"the data set nests more than {MAX_DEPTH} sequences")
        else:
            position += length
        if length != UNDEFINED and position > len(data):
            raise UnreadableInstance("an element is longer than the data set")


def _end_of_fragments(data: bytes, begin: int, max_fragments: int) -> int:
    """Where compressed pixel data end, as pydicom finds it: by the lengths of their fragments, which hold any bytes.

    Only where these lead nowhere, the first delimiter ends them.
    """
    position = begin
    for _ in range(max_fragments):
        if data.startswith(_SEQUENCE_END_BYTES, position):
            return position + 8
        if not data.startswith(_ITEM_BYTES, position):
            break
        position += 8 + int.from_bytes(data[position + 4 : position + 8], "little")
    else:
        raise UnreadableInstance(f"the pixel data have more than {max_fragments} fragments")
    end = data.find(_SEQUENCE_END_BYTES, begin)
    if end < 0:
        raise UnreadableInstance("the data set ends inside its pixel data")
    return end + 8


def _close(stack: list[_Open], position: int) -> bool:
    """Leave what ends here by its length; whether anything is open then."""
    while stack and (end := stack[-1].end) is not None and position >= end:
        stack.pop()
    return bool(stack)


def _header(data: bytes, position: int, *, implicit_vr: bool) -> tuple[int, bytes, int, int]:
    """Tag, VR, length and where the value begins."""
    if position + 8 > len(data):
        raise UnreadableInstance("the data set ends inside an element or a sequence")
    group, element, vr, short, long = *struct.unpack_from("<HH2sH", data, position), 0
    tag = group << 16 | element
    # Some writers switch to implicit VR inside private sequences; a VR is two capital letters or it is none.
    if implicit_vr or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
        (long,) = struct.unpack_from("<L", data, position + 4)
        return tag, b"", long, position + 8
    if vr not in _LONG_VRS:
        return tag, vr, short, position + 8
    if position + 12 > len(data):
        raise UnreadableInstance("the data set ends inside an element")
    (long,) = struct.unpack_from("<L", data, position + 8)
    return tag, vr, long, position + 12


def _opened(data: bytes, element: Element, stack: list[_Open], *, implicit_vr: bool) -> _Open | None:
    """What an element opens; None for one that has a plain value."""
    tag, vr, begin, length = element.tag, element.vr, element.begin, element.length
    end = None if length == UNDEFINED else begin + length
    if tag == _ITEM:
        return None if stack and stack[-1].holds_fragments else _Open(end, implicit_vr, holds_fragments=False)
    if length == UNDEFINED or vr == b"SQ":
        # A UN of undefined length holds implicit VR whatever the transfer syntax is (PS3.5 6.2.2 note 2).
        return _Open(end, implicit_vr or vr == b"UN", holds_fragments=vr not in (b"", b"SQ", b"UN"))
    if vr in (b"", b"UN") and data.startswith(_ITEM_BYTES, begin) and _is_sequence(tag):
        return _Open(end, implicit_vr=True, holds_fragments=False)
    return None


def _is_sequence(tag: int) -> bool:
    return dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"


def _is_uid(tag: int) -> bool:
    return dictionary_has_tag(tag) and dictionary_VR(tag) == "UI"


def refuse_costly(data: bytes) -> dict[int, int]:
    """Refuse a Part 10 file that would cost more to parse than a CT image does; the file has its prefix.

    Returns where the values of its elements begin, by tag, without those inside sequences; nothing where it is big
    endian. Raises UnreadableInstance where the data set has too many elements, a text beyond 64 KiB, nests too deep,
    has more than 32 MiB beside its pixels, inflates beyond 128 MiB, holds an element twice at its top, or elements of
    the groups of file and command.
    """
    class_uid, syntax, begin = _meta(data)
    if syntax == _BIG_ENDIAN:  # the walk reads little endian; nothing sends this syntax any more
        if len(data) > 2 * MAX_HEADER_BYTES:
            raise UnreadableInstance(f"the file is larger than {2 * MAX_HEADER_BYTES >> 20} MiB and big endian")
        return {}
    if syntax == _DEFLATED:
        data, begin = _inflated_whole(data[begin:]), 0
    vr = data[begin + 4 : begin + 6]
    limit = MAX_MULTI_FRAME_ELEMENTS if class_uid in MULTI_FRAME_CT_CLASSES else MAX_ELEMENTS
    implicit_vr = syntax == _IMPLICIT and not (vr.isalpha() and vr.isupper())
    return _look_at(data, begin, implicit_vr=implicit_vr, max_elements=limit)


def refuse_costly_request(data: bytes, *, implicit_vr: bool) -> None:
    """Refuse the data set of a request that would cost more to parse than the names of 20,000 instances do.

    Raises UnreadableInstance where it has too many elements or too long a list of values, and where more than 64 KiB
    are no data set: 4 MiB of empty items, or of one-digit numbers in one element, took pydicom 9 s and 560 MB.
    """
    try:
        for element in walk(data, 0, implicit_vr=implicit_vr, max_elements=MAX_REQUEST_ELEMENTS):
            is_list = element.length <= MAX_REQUEST_LIST_BYTES and _is_uid(element.tag)
            if _is_too_long(element) and not is_list:
                raise UnreadableInstance(f"{_named(element)} has {element.length} bytes")
    except UnreadableInstance:
        if len(data) > MAX_SHORT_BYTES:  # of fewer bytes nothing costly can be made, and its service says what is wrong
            raise


def _meta(data: bytes) -> tuple[str, str, int]:
    """SOP class and transfer syntax of a Part 10 file, "" where it has none, and where its data set begins."""
    uids, end = {_MEDIA_STORAGE_CLASS: "", _TRANSFER_SYNTAX: ""}, _META_BEGINS
    elements = walk(data, _META_BEGINS, implicit_vr=False)
    # The group is looked at beforehand: what follows the meta information may be deflated, which is no element.
    while data[end : end + 2] == _META_GROUP and (element := next(elements, None)):
        end = element.begin + element.length
        if element.tag in uids:
            uids[element.tag] = data[element.begin : end].rstrip(b"\0 ").decode("latin-1")
    return uids[_MEDIA_STORAGE_CLASS], uids[_TRANSFER_SYNTAX], end


def _look_at(data: bytes, begin: int, *, implicit_vr: bool, max_elements: int) -> dict[int, int]:
    pixel_bytes, seen = 0, dict[int, int]()
    for element in walk(data, begin, implicit_vr=implicit_vr, max_elements=max_elements):
        if _is_too_long(element):  # texts are searched for words
            raise UnreadableInstance(
                f"{_named(element)} has {element.length} bytes, and its kind of value at most {MAX_SHORT_BYTES}"
            )
        if element.depth:
            continue
        if element.tag in seen:
            raise AmbiguousInstance(f"the data set holds {_named(element)} twice")
        if element.tag < _DATA_SET:
            raise AmbiguousInstance(f"the data set holds {_named(element)}, an element of a file or a command")
        seen[element.tag] = element.begin
        if element.tag == PIXEL_DATA:
            pixel_bytes = len(data) - element.begin if element.length == UNDEFINED else element.length
    if len(data) - pixel_bytes > MAX_HEADER_BYTES:
        raise UnreadableInstance(
            f"the data set has {(len(data) - pixel_bytes) >> 20} MiB beside its pixels, and {MAX_HEADER_BYTES >> 20} "
            "MiB are allowed"
        )
    return seen


def _is_too_long(element: Element) -> bool:
    """Whether a text or number is longer than explicit VR could write it, whatever VR it came with."""
    is_long = MAX_SHORT_BYTES < element.length < UNDEFINED and dictionary_has_tag(element.tag)
    return is_long and dictionary_VR(element.tag) in EXPLICIT_VR_LENGTH_16


def _named(element: Element) -> str:
    return f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X})"


def _inflated_whole(deflated: bytes) -> bytes:
    """A deflated data set, of which no more is made than is allowed."""
    try:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, MAX_INFLATED_TO_PARSE_BYTES + 1)
    except zlib.error:
        raise UnreadableInstance("the data set is not deflated, as its transfer syntax says") from None
    if len(data) > MAX_INFLATED_TO_PARSE_BYTES:
        raise UnreadableInstance(f"the deflated data set inflates beyond {MAX_INFLATED_TO_PARSE_BYTES >> 20} MiB")
    return data
