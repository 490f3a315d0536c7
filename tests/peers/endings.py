"""The ways in which a peer can end an association, or make the receiver end it; each waits for the connection's end."""

from collections.abc import Callable
from contextlib import suppress

from tests.peers.raw_peer import (
    ABORT,
    COMMAND,
    CT_CONTEXT,
    LAST,
    RELEASE,
    RawPeer,
    Rejected,
    associate_rq,
    connect,
    is_ended_by_receiver,
    p_data,
)

Ending = Callable[[int], None]

GARBAGE = p_data(CT_CONTEXT, COMMAND | LAST, b"\xff" * 40)  # no command set
_WAIT_S = 4.0


def release(port: int) -> None:
    """A-RELEASE between two messages."""
    _associated(port, RELEASE)


def abort(port: int) -> None:
    """A-ABORT between two messages."""
    _associated(port, ABORT)


def abort_for_an_unknown_reason(port: int) -> None:
    """A-ABORT with a source that PS3.8 table 9-26 does not have."""
    _associated(port, b"\x07\0\0\0\0\4\0\0\x63\0")


def broken_inside_a_data_set(port: int) -> None:
    """The connection ends in the middle of a data set."""
    with RawPeer(port) as peer:
        peer.request_store()
        peer.send_data(bytes(1000), last=False)


def release_and_half_a_pdu(port: int) -> None:
    """A-RELEASE, and then a PDU that never becomes whole."""
    _associated(port, RELEASE + b"\x04")


def garbage_and_half_a_pdu(port: int) -> None:
    """What is answered with A-ABORT, and then a PDU that never becomes whole."""
    _associated(port, GARBAGE + b"\x04")


def data_before_the_answer(port: int) -> None:
    """P-DATA before the association request is answered, and so much of it that the answer comes in between."""
    _asked(port, associate_rq() + 1000 * p_data(CT_CONTEXT, 0, b""))


def malformed_request(port: int) -> None:
    """An association request whose first variable item is longer than the request."""
    request = associate_rq()
    _asked(port, request[:76] + b"\xff\xff" + request[78:])


def even_context(port: int) -> None:
    """An association request with an even presentation context ID, which PS3.8 table 9-13 forbids."""
    _asked(port, associate_rq().replace(b"\x20\0\0\x38\3", b"\x20\0\0\x38\2"))


def other_protocol_version(port: int) -> None:
    """An association request for version 2 of the protocol."""
    request = associate_rq()
    _asked(port, request[:6] + b"\0\2" + request[8:])


def unwanted(port: int) -> None:
    """An association request that the service rejects in EVT_REQUESTED."""
    with suppress(Rejected):
        RawPeer(port, calling="UNWANTED").connection.close()


def _associated(port: int, pdus: bytes) -> None:
    with RawPeer(port) as peer:
        peer.connection.sendall(pdus)
        is_ended_by_receiver(peer.connection, _WAIT_S)


def _asked(port: int, request: bytes) -> None:
    with connect(port) as connection:
        connection.sendall(request)
        is_ended_by_receiver(connection, _WAIT_S)


ALL: tuple[Ending, ...] = (
    release,
    abort,
    broken_inside_a_data_set,
    unwanted,
    malformed_request,
    even_context,
    other_protocol_version,
    data_before_the_answer,
    abort_for_an_unknown_reason,
    release_and_half_a_pdu,
    garbage_and_half_a_pdu,
)
