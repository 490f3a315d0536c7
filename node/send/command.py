"""The requests that this node sends and the answers it gets, as command sets; it knows no sockets.

The tables are in PS3.7 section 9.3.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from node.dicom.command_set import (
    CLASS_UID,
    DATA_SET_TYPE,
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

_LOW, _A_DATA_SET = 0x0002, 0x0001


class Service(IntEnum):
    """Command Field of a request (PS3.7 table E.1-1)."""

    STORE = 0x0001
    FIND = 0x0020
    ECHO = 0x0030


@dataclass(frozen=True)
class Request:
    """What is asked of a peer. C-STORE and C-FIND are followed by a data set; C-STORE alone names an instance."""

    service: Service
    sop_class_uid: str
    sop_instance_uid: str = ""
    message_id: int = 1

    def encoded(self) -> bytes:
        """The command set."""
        carries_data = self.service is not Service.ECHO
        return encode_command(
            [
                (CLASS_UID, even(self.sop_class_uid, b"\0")),
                (FIELD, number(self.service)),
                (MESSAGE_ID, number(self.message_id)),
                *([(PRIORITY, number(_LOW))] if carries_data else []),
                (DATA_SET_TYPE, number(_A_DATA_SET if carries_data else NO_DATA_SET)),
                *([(INSTANCE_UID, even(self.sop_instance_uid, b"\0"))] if self.sop_instance_uid else []),
            ]
        )


@dataclass(frozen=True)
class Answer:
    """What a peer says to a request; `data` is the data set that came with it, still encoded."""

    status: int
    data: bytes = b""


def read_answer(raw: bytes, request: Request) -> tuple[int, bool]:
    """Status of the answer to `request`, and whether a data set follows; raises ValueError for anything else."""
    values = decode_command(raw)
    numbers = [values.get(tag, b"") for tag in (FIELD, RESPONDED_TO, DATA_SET_TYPE, STATUS)]
    if any(len(value) != 2 for value in numbers):
        raise ValueError("an element of an answer is missing")
    field, responded_to, data_set_type, status = struct.unpack("<4H", b"".join(numbers))
    if field != request.service | RESPONSE or responded_to != request.message_id:
        raise ValueError("a message answers no request of ours")
    return status, data_set_type != NO_DATA_SET
