"""What a receiver has recorded, several things in one transaction, and in which order these follow each other.

Each of them waits for rows, and keeps them until the whole transaction ends. All receivers of a database go by one
order: else one would wait for a series that another has, and that one for a series that the first has. The server ends
one of such two, and with it the instances of a whole group.
"""

from enum import IntEnum
from typing import Protocol, TypeVar

from sqlalchemy import Connection

T_co = TypeVar("T_co", covariant=True)


class Turn(IntEnum):
    """The kinds of rows that are waited for, in their order."""

    OPENING = 0
    LOSS_OF_NO_SERIES = 1
    SERIES = 2  # and then its job, and the deliveries of that
    SENDER = 3
    CLOSING = 4  # an association ends after what it brought


class Entry(Protocol[T_co]):
    """What a receiver has recorded; several may follow each other in one transaction."""

    @property
    def turn(self) -> tuple[Turn, str]:
        """The kind of row that it waits for, and which one; "" where it waits for none."""

    def record(self, connection: Connection) -> T_co:
        """Write the entry in the connection's transaction.

        Raises IntegrityError where another transaction made the same row meanwhile; the transaction is spoilt then.
        """
