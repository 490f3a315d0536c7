"""One association from its request to its end, in the thread of its connection; what is sent in it goes to `incoming`.

The acceptor's half of PS3.8 section 9.2 without its queues: a thread that reads a request is the one that answers it.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from node.dicom.constants import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.dicom.p_data import InvalidPdu
from node.errors import UnreadableInstance
from node.network.contexts import negotiate
from node.receive import pdu
from node.receive.connection import Connection, Stopped, UnknownPdu
from node.receive.incoming import IncomingMessages, StoreContext, StoreRequest, TooLarge
from storage.spool import Spool

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rejection:
    """An association that is not wanted: result, source and reason of PS3.8 table 9-21."""

    result: int
    source: int
    reason: int


WRONG_PROTOCOL, WRONG_APPLICATION, WRONG_CALLED_AE = Rejection(1, 2, 2), Rejection(1, 1, 2), Rejection(1, 1, 7)
WRONG_CALLING_AE, LIMIT_REACHED = Rejection(1, 1, 3), Rejection(2, 3, 2)


@dataclass(eq=False)
class Session:
    """What is known of one accepted association; its row is opened with its first C-STORE."""

    calling_ae: str
    peer_host: str
    association_id: int | None = None
    stored: int = 0
    refused: int = 0
    released: bool = False


@dataclass(frozen=True)
class Limits:
    """Bounds of one association, in bytes and seconds."""

    max_pdu_bytes: int
    max_dataset_bytes: int
    request_s: float  # from the connection to a whole association request
    quiet_s: float  # between two PDUs
    pdu_s: float  # from the first byte of a PDU to its last


@dataclass(frozen=True)
class House:
    """What an association needs of the receiver.

    `admit` makes a session of a request or rejects it, `serve` answers a C-STORE request and never raises. When the
    last request of a session has been answered, `leave` frees its place before the peer hears of it, and `finished`
    closes its books after that. Each is called once.
    """

    limits: Limits
    spool: Spool
    admit: Callable[[pdu.AssociateRequest, str], Session | Rejection]
    serve: Callable[[Session, StoreRequest], tuple[int, str]]
    leave: Callable[[Session], None]
    finished: Callable[[Session], None]


def run_association(connection: Connection, peer_host: str, house: House) -> None:
    """Serve one connection until it ends; raises OSError where it broke before an association."""
    try:
        request = _request(connection, house.limits)
    except Stopped:
        return
    except UnknownPdu:
        _end(connection, pdu.abort(pdu.UNRECOGNIZED_PDU))
        return
    except InvalidPdu:
        _end(connection, pdu.abort(pdu.INVALID_VALUE))
        return
    if request is None:
        return
    session = house.admit(request, peer_host)
    if isinstance(session, Rejection):
        _end(connection, pdu.associate_reject(session.result, session.source, session.reason))
        return
    last = b""
    try:
        last = _run(connection, request, session, house)
    finally:
        house.leave(session)
        _say(connection, last)
        house.finished(session)
    connection.let_go()


def _end(connection: Connection, last: bytes) -> None:
    _say(connection, last)
    connection.let_go()


def _say(connection: Connection, last: bytes) -> None:
    with contextlib.suppress(OSError):  # the peer need not wait for it
        connection.send(last)


def _request(connection: Connection, limits: Limits) -> pdu.AssociateRequest | None:
    received = connection.read_pdu(wait_s=limits.request_s, whole_s=limits.request_s)
    if received is None:
        return None
    kind, body = received
    if kind != pdu.ASSOCIATE_RQ:
        raise InvalidPdu("the first PDU is no association request")
    return pdu.read_associate_request(bytes(body))


def _run(connection: Connection, request: pdu.AssociateRequest, session: Session, house: House) -> bytes:
    """Accept and serve; returns what is to be said last, nothing where nobody hears it."""
    answers = negotiate(request.proposals)
    syntaxes = {answer.id: answer.transfer_syntax for answer in answers if answer.result == pdu.ACCEPTED}
    messages = IncomingMessages(
        {
            proposal.id: StoreContext(proposal.id, proposal.abstract_syntax, syntaxes[proposal.id])
            for proposal in request.proposals
            if proposal.id in syntaxes
        },
        house.spool,
        lambda store: house.serve(session, store),
        lambda context_id, message: connection.send(
            pdu.command_pdus(context_id, message, max_pdu_bytes=request.max_pdu_bytes)
        ),
        max_dataset_bytes=house.limits.max_dataset_bytes,
    )
    try:
        connection.send(
            pdu.associate_accept(
                request,
                answers,
                max_pdu_bytes=house.limits.max_pdu_bytes,
                class_uid=IMPLEMENTATION_CLASS_UID,
                version_name=IMPLEMENTATION_VERSION_NAME,
            )
        )
        return _transfer(connection, messages, session, house.limits)
    except OSError:
        return b""  # the peer has gone
    finally:
        messages.abandon()


def _transfer(connection: Connection, messages: IncomingMessages, session: Session, limits: Limits) -> bytes:
    """Serve PDUs until the association ends; returns what is to be said last, nothing where the peer aborted."""
    try:
        while (received := connection.read_pdu(wait_s=limits.quiet_s, whole_s=limits.pdu_s)) is not None:
            kind, body = received
            if kind == pdu.DATA:
                messages.receive(body)
            elif kind == pdu.RELEASE_RQ:
                session.released = True
                return pdu.RELEASE_RP
            elif kind == pdu.ABORT:
                return b""
            else:
                return pdu.abort(pdu.UNEXPECTED_PDU)
    except (Stopped, TimeoutError):
        return pdu.abort(pdu.BY_USER)
    except UnknownPdu:
        return pdu.abort(pdu.UNRECOGNIZED_PDU)
    except (InvalidPdu, UnreadableInstance, TooLarge) as error:
        log.warning("aborting an association: not a DIMSE message: %s", error)
        return pdu.abort(pdu.INVALID_VALUE)
    return b""
