"""Reads and checks the UIDs of a received data set in its raw bytes; it decodes no other text and no pixels.

An own walk over the top-level elements, because a general reader would decode sequences and character sets on the
way: no string of the peer but these UIDs is looked at, nesting costs no recursion, and reading stops at (0020,000E).
"""

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from node.errors import UnreadableInstance

_SOP_CLASS_UID = 0x00080016
_SOP_INSTANCE_UID = 0x00080018
_STUDY_INSTANCE_UID = 0x0020000D
_SERIES_INSTANCE_UID = 0x0020000E
_WANTED = (_SOP_CLASS_UID, _SOP_INSTANCE_UID, _STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID)

_ITEM_END, _SEQUENCE_END = 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_LONG_VRS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_UID = re.compile(rb"[0-9.]{1,64}")


@dataclass(frozen=True)
class InstanceIdentity:
    """The UIDs of one instance, each 1 to 64 digits and dots (PS3.5 section 9)."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str


def read_identity(stream: BinaryIO, size_bytes: int, *, implicit_vr: bool) -> InstanceIdentity:
    """Read the identity of a little-endian data set that begins at the stream's position and ends at `size_bytes`.

    Raises UnreadableInstance where the bytes are no data set or one of the four UIDs is missing or malformed.
    """
    found: dict[int, str] = {}
    last_tag = -1
    while (header := _next_header(stream, implicit_vr=implicit_vr)) is not None:
        tag, vr, length = header
        if tag <= last_tag:
            raise UnreadableInstance("the elements of the data set are not in ascending order")
        if tag > _SERIES_INSTANCE_UID:
            break
        last_tag = tag
        if tag in _WANTED and length != _UNDEFINED:
            found[tag] = _uid(stream.read(min(length, 128)), tag)
        elif length == _UNDEFINED:
            _skip_undefined(stream, size_bytes, implicit_vr=implicit_vr or vr == b"UN")
        else:
            _skip(stream, length, size_bytes)
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


def _next_header(stream: BinaryIO, *, implicit_vr: bool) -> tuple[int, bytes, int] | None:
    """Tag, VR (empty where the encoding has none) and length of the next element; None at the end."""
    raw = stream.read(8)
    if not raw:
        return None
    if len(raw) < 8:
        raise UnreadableInstance("the data set ends inside an element")
    group, element = struct.unpack("<HH", raw[:4])
    tag, vr = group << 16 | element, raw[4:6]
    # Some writers switch to implicit VR inside private sequences; a VR is two capital letters or it is none.
    if implicit_vr or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
        return tag, b"", struct.unpack("<L", raw[4:])[0]
    if vr not in _LONG_VRS:
        return tag, vr, struct.unpack("<H", raw[6:])[0]
    extended = stream.read(4)
    if len(extended) < 4:
        raise UnreadableInstance("the data set ends inside an element")
    return tag, vr, struct.unpack("<L", extended)[0]


def _skip(stream: BinaryIO, length: int, size_bytes: int) -> None:
    if stream.tell() + length > size_bytes:
        raise UnreadableInstance("an element is longer than the data set")
    stream.seek(length, 1)


def _skip_undefined(stream: BinaryIO, size_bytes: int, *, implicit_vr: bool) -> None:
    """Skip a value of undefined length: every open sequence or item is closed by exactly one delimiter (PS3.5 7.5)."""
    encodings = [implicit_vr]
    while encodings:
        header = _next_header(stream, implicit_vr=encodings[-1])
        if header is None:
            raise UnreadableInstance("the data set ends inside a sequence")
        tag, vr, length = header
        if tag in (_ITEM_END, _SEQUENCE_END):
            encodings.pop()
        elif length == _UNDEFINED:
            # A UN of undefined length holds implicit VR whatever the transfer syntax is (PS3.5 6.2.2 note 2).
            encodings.append(encodings[-1] or vr == b"UN")
        else:
            _skip(stream, length, size_bytes)


def _uid(raw: bytes, tag: int) -> str:
    value = raw.rstrip(b"\0 ")
    if _UID.fullmatch(value) is None:
        raise UnreadableInstance(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is not a UID")
    return value.decode("ascii")
