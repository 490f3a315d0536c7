"""Command sets in their raw bytes: the requests that this node sends and the answers it gets; it knows no sockets.

They are Implicit VR Little Endian without sequences (PS3.7 section 6.3.1); the tables are in PS3.7 section 9.3.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

_CLASS_UID, _FIELD, _MESSAGE_ID, _RESPONDED_TO = 0x0002, 0x0100, 0x0110, 0x0120
_PRIORITY, _DATA_SET_TYPE, _STATUS, _INSTANCE_UID = 0x0700, 0x0800, 0x0900, 0x1000
_LOW, _A_DATA_SET, _NO_DATA_SET = 0x0002, 0x0001, 0x0101
_RESPONSE = 0x8000  # set in the Command Field of every answer


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
        elements = [
            (_CLASS_UID, _uid(self.sop_class_uid)),
            (_FIELD, _number(self.service)),
            (_MESSAGE_ID, _number(self.message_id)),
            *([(_PRIORITY, _number(_LOW))] if carries_data else []),
            (_DATA_SET_TYPE, _number(_A_DATA_SET if carries_data else _NO_DATA_SET)),
            *([(_INSTANCE_UID, _uid(self.sop_instance_uid))] if self.sop_instance_uid else []),
        ]
        body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)
        return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


@dataclass(frozen=True)
class Answer:
    """What a peer says to a request; `data` is the data set that came with it, still encoded."""

    status: int
    data: bytes = b""


def read_answer(raw: bytes, request: Request) -> tuple[int, bool]:
    """Status of the answer to `request`, and whether a data set follows; raises ValueError for anything else."""
    values: dict[int, bytes] = {}
    position = 0
    while position < len(raw):
        if position + 8 > len(raw):
            raise ValueError("a command set ends inside an element")
        group, tag, length = struct.unpack_from("<HHL", raw, position)
        position += 8 + length
        if position > len(raw):
            raise ValueError("an element is longer than its command set")
        if group == 0:
            values[tag] = raw[position - length : position]
    numbers = [values.get(tag, b"") for tag in (_FIELD, _RESPONDED_TO, _DATA_SET_TYPE, _STATUS)]
    if any(len(number) != 2 for number in numbers):
        raise ValueError("an element of an answer is missing")
    field, responded_to, data_set_type, status = struct.unpack("<4H", b"".join(numbers))
    if field != request.service | _RESPONSE or responded_to != request.message_id:
        raise ValueError("a message answers no request of ours")
    return status, data_set_type != _NO_DATA_SET


def _number(value: int) -> bytes:
    return struct.pack("<H", value)


def _uid(text: str) -> bytes:
    value = text.encode("ascii")
    return value + b"\0" * (len(value) % 2)
