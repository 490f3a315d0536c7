"""Reads and checks command sets in their raw bytes, and writes the answers to them; it knows no data set.

Texts of a peer are checked before anything is made of them.
"""

import re
import struct
from dataclasses import dataclass

from node.dicom.command_set import (
    CLASS_UID,
    DATA_SET_TYPE,
    ERROR_COMMENT,
    FIELD,
    INSTANCE_UID,
    MESSAGE_ID,
    NO_DATA_SET,
    PRIORITY,
    RESPONDED_TO,
    RESPONSE,
    STATUS,
    decode_command,
    encode_command,
    even,
    number,
)
from node.errors import UnreadableInstance

_C_STORE_RQ, _C_ECHO_RQ = 0x0001, 0x0030
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
    numbers = [values.get(tag, b"") for tag in (FIELD, MESSAGE_ID, DATA_SET_TYPE)]
    if any(len(value) != 2 for value in numbers):
        return None
    field, message_id, data_set_type = struct.unpack("<3H", b"".join(numbers))
    return message_id if (field, data_set_type) == (_C_ECHO_RQ, NO_DATA_SET) else None


def store_response(command: StoreCommand, status: int, comment: str) -> bytes:
    """The command set that answers a C-STORE request (PS3.7 table 9.3-2); at most 64 characters of `comment` go out."""
    about = [
        *([(ERROR_COMMENT, even(comment[:64], b" "))] if comment else []),
        (INSTANCE_UID, even(command.sop_instance_uid, b"\0")),
    ]
    return _response(_C_STORE_RQ, command.sop_class_uid, command.message_id, status, about)


def echo_response(message_id: int) -> bytes:
    """The command set that answers a C-ECHO request (PS3.7 table 9.3-13)."""
    return _response(_C_ECHO_RQ, _VERIFICATION, message_id, 0x0000, [])


def _response(field: int, class_uid: str, message_id: int, status: int, about: list[tuple[int, bytes]]) -> bytes:
    return encode_command(
        [
            (CLASS_UID, even(class_uid, b"\0")),
            (FIELD, number(field | RESPONSE)),
            (RESPONDED_TO, number(message_id)),
            (DATA_SET_TYPE, number(NO_DATA_SET)),
            (STATUS, number(status)),
            *about,
        ]
    )


def _values(raw: bytes) -> dict[int, bytes]:
    try:
        values = decode_command(raw)
    except ValueError as error:
        raise UnreadableInstance(str(error)) from None
    for tag, value in values.items():
        _check_text(tag, value.rstrip(b"\0 "))
    return values


def _check_text(tag: int, value: bytes) -> None:
    if (tag in _UIDS and not _UID.fullmatch(value)) or (tag in _AE_TITLES and not _AE_TITLE.fullmatch(value)):
        raise UnreadableInstance(f"(0000,{tag:04X}) of the command set is malformed")


def _store_command(values: dict[int, bytes]) -> StoreCommand | None:
    numbers = [values.get(tag, b"") for tag in (FIELD, MESSAGE_ID, PRIORITY, DATA_SET_TYPE)]
    uids = [values.get(tag, b"").rstrip(b"\0 ") for tag in (CLASS_UID, INSTANCE_UID)]
    if any(len(value) != 2 for value in numbers) or not all(_REGULAR_UID.fullmatch(uid) for uid in uids):
        return None
    field, message_id, _, data_set_type = struct.unpack("<4H", b"".join(numbers))
    if field != _C_STORE_RQ or data_set_type == NO_DATA_SET:
        return None
    return StoreCommand(message_id, uids[0].decode("ascii"), uids[1].decode("ascii"))
