"""Command sets in their raw bytes, as requestor and acceptor both need them; it knows no service and no sockets.

They are Implicit VR Little Endian without sequences, all of group 0000 (PS3.7 section 6.3.1 and annex E).
"""

import struct
from collections.abc import Iterable

CLASS_UID, FIELD, MESSAGE_ID, RESPONDED_TO = 0x0002, 0x0100, 0x0110, 0x0120
PRIORITY, DATA_SET_TYPE, STATUS, ERROR_COMMENT, INSTANCE_UID = 0x0700, 0x0800, 0x0900, 0x0902, 0x1000
RESPONSE = 0x8000  # set in the Command Field of every answer
NO_DATA_SET = 0x0101


def encode_command(elements: Iterable[tuple[int, bytes]]) -> bytes:
    """A command set of (element number, value) in ascending order, with its group length before it."""
    body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def decode_command(raw: bytes) -> dict[int, bytes]:
    """The values of group 0000 by element number, padding included; raises ValueError where the lengths are wrong."""
    values: dict[int, bytes] = {}
    position = 0
    while position < len(raw):
        if position + 8 > len(raw):
            raise ValueError("the command set ends inside an element")
        group, tag, length = struct.unpack_from("<HHL", raw, position)
        position += 8 + length
        if position > len(raw):
            raise ValueError("an element is longer than the command set")
        if group == 0:
            values[tag] = raw[position - length : position]
    return values


def number(value: int) -> bytes:
    """A value of VR US."""
    return struct.pack("<H", value)


def even(text: str, padding: bytes) -> bytes:
    """Text of the default repertoire with an even length; what is not ASCII becomes a question mark."""
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)
