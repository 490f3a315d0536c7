"""The items of a P-DATA-TF PDU as both sides read them (PS3.8 section 9.3.5); it knows no messages."""

import struct
from collections.abc import Iterator

# The message control header, the first byte of every value (PS3.8 section E.2)
COMMAND, LAST = 0b01, 0b10


class InvalidPdu(ValueError):
    """Bytes that are no PDU of the kind they claim to be; the association has to be aborted."""


def data_values(body: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The presentation data values of a P-DATA-TF body: context, and message control header with fragment.

    The views are of `body`: nothing is copied. Raises InvalidPdu where the lengths do not add up.
    """
    position, size = 0, len(body)
    while position < size:
        if position + 6 > size:
            raise InvalidPdu("a PDU ends inside an item")
        length, context_id = struct.unpack_from(">LB", body, position)
        end = position + 4 + length
        if length < 2 or end > size:
            raise InvalidPdu("an item is longer than its PDU, or empty")
        yield context_id, body[position + 5 : end]
        position = end
