"""Reads and checks command sets in their raw bytes, and writes the answers to them; it knows no data set.

Command sets are Implicit VR Little Endian without sequences (PS3.7 section 6.3.1).
"""

import re
import struct
from dataclasses import dataclass

from node.errors import UnreadableInstance

_CLASS_UID, _FIELD, _MESSAGE_ID, _RESPONDED_TO = 0x0002, 0x0100, 0x0110, 0x0120
_PRIORITY, _DATA_SET_TYPE, _STATUS, _ERROR_COMMENT, _INSTANCE_UID = 0x0700, 0x0800, 0x0900, 0x0902, 0x1000
_C_STORE_RQ, _C_ECHO_RQ, _RESPONSE, _NO_DATA_SET = 0x0001, 0x0030, 0x8000, 0x0101
_VERIFICATION = "1.2.840.10008.1.1"

# The elements of any request whose values are text of the peer (PS3.7 table E.1-1).
_UIDS = (0x0002, 0x0003, 0x1000, 0x1001)
_AE_TITLES = (0x0600, 0x1030)

_UID = re.compile(rb"[0-9.]{1,64}")
_REGULAR_UID = re.compile(rb"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")  # PS3.5 section 9.1
_AE_TITLE = re.compile(rb"[\x20-\x5b\x5d-\x7e]{0,16}")


@dataclass(frozen=True)
class StoreCommand:
    """The command set of one C-STORE request that announces a data set (PS3.7 table 9.3-1)."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str


def read_command(raw: bytes) -> StoreCommand | None:
    """The C-STORE request of a complete and regular command set; None for any other.

    Raises UnreadableInstance unless every text of the command set has the alphabet of its VR.
    """
    return _store_command(_values(raw))


def read_echo(raw: bytes) -> int | None:
    """The message id of a C-ECHO request; None for any other command set. Raises as `read_command`."""
    values = _values(raw)
    numbers = [values.get(tag, b"") for tag in (_FIELD, _MESSAGE_ID, _DATA_SET_TYPE)]
    if any(len(number) != 2 for number in numbers):
        return None
    field, message_id, data_set_type = struct.unpack("<3H", b"".join(numbers))
    return message_id if (field, data_set_type) == (_C_ECHO_RQ, _NO_DATA_SET) else None


def store_response(command: StoreCommand, status: int, comment: str) -> bytes:
    """The command set that answers a C-STORE request (PS3.7 table 9.3-2); at most 64 characters of `comment` go out."""
    about = [
        *([(_ERROR_COMMENT, _even(comment[:64], b" "))] if comment else []),
        (_INSTANCE_UID, _even(command.sop_instance_uid, b"\0")),
    ]
    return _response(_C_STORE_RQ, command.sop_class_uid, command.message_id, status, about)


def echo_response(message_id: int) -> bytes:
    """The command set that answers a C-ECHO request (PS3.7 table 9.3-13)."""
    return _response(_C_ECHO_RQ, _VERIFICATION, message_id, 0x0000, [])


def _response(field: int, class_uid: str, message_id: int, status: int, about: list[tuple[int, bytes]]) -> bytes:
    elements = [
        (_CLASS_UID, _even(class_uid, b"\0")),
        (_FIELD, struct.pack("<H", field | _RESPONSE)),
        (_RESPONDED_TO, struct.pack("<H", message_id)),
        (_DATA_SET_TYPE, struct.pack("<H", _NO_DATA_SET)),
        (_STATUS, struct.pack("<H", status)),
        *about,
    ]
    body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _values(raw: bytes) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    position = 0
    while position < len(raw):
        if position + 8 > len(raw):
            raise UnreadableInstance("the command set ends inside an element")
        group, tag, length = struct.unpack_from("<HHL", raw, position)
        position += 8
        if length > len(raw) - position:
            raise UnreadableInstance("an element is longer than the command set")
        value = raw[position : position + length]
        position += length
        if group == 0:
            _check_text(tag, value.rstrip(b"\0 "))
            values[tag] = value
    return values


def _check_text(tag: int, value: bytes) -> None:
    if (tag in _UIDS and not _UID.fullmatch(value)) or (tag in _AE_TITLES and not _AE_TITLE.fullmatch(value)):
        raise UnreadableInstance(f"(0000,{tag:04X}) of the command set is malformed")


def _store_command(values: dict[int, bytes]) -> StoreCommand | None:
    numbers = [values.get(tag, b"") for tag in (_FIELD, _MESSAGE_ID, _PRIORITY, _DATA_SET_TYPE)]
    uids = [values.get(tag, b"").rstrip(b"\0 ") for tag in (_CLASS_UID, _INSTANCE_UID)]
    if any(len(number) != 2 for number in numbers) or not all(_REGULAR_UID.fullmatch(uid) for uid in uids):
        return None
    field, message_id, _, data_set_type = struct.unpack("<4H", b"".join(numbers))
    if field != _C_STORE_RQ or data_set_type == _NO_DATA_SET:
        return None
    return StoreCommand(message_id, uids[0].decode("ascii"), uids[1].decode("ascii"))


def _even(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)
