"""Opens associations as a requestor, bounded in time, and ends them; it knows no store and no policy.

An association is pynetdicom's own. Its reactor, the thread that would serve requests of the peer, sleeps as long as it
lasts: `Association.send_c_store` trusts a flag that this thread may not have cleared yet, so that the thread can take
the answer to a request off the queue before the sender does.
"""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import decode
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from node.dicom.constants import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.network.answers import Answers, BoundedSocket
from node.network.library import configure_libraries
from node.network.no_association import NoAssociation, Outcome, Peer, client_tls, why_none

PDU_BYTES = 16_382  # that a peer may send: answers only
_END_S = 1.0  # for an A-ABORT to go out and for threads that have nothing left to wait for


@dataclass(frozen=True)
class Timeouts:
    """Bounds of one association: to get one, or one answer, takes less than a minute; `answers_s` is for all to one."""

    connection_s: float = 10.0
    acse_s: float = 15.0
    dimse_s: float = 30.0
    send_s: float = 20.0
    answers_s: float = 60.0


@contextmanager
def associate(
    destination: Peer,
    calling_ae: str,
    contexts: Sequence[PresentationContext],
    timeouts: Timeouts = Timeouts(),
    *,
    takes_reports: bool = False,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Iterator[Association]:
    """An established association in which at least one of `contexts` was accepted; released on leaving.

    takes_reports: whether the peer may send N-EVENT-REPORT requests, which `take_report` hands out. roles: those that
    this node asks for (PS3.7 D.3.3.4), without one that of an SCU.

    Raises NoAssociation; so do `send_c_store` and the like where the association ends before the answer, which always
    is the answer to the request that was sent. No thread and no connection is left behind.
    """
    configure_libraries()
    parking = _Parking()
    association = _request(
        destination, calling_ae, contexts, timeouts, parking, takes_reports=takes_reports, roles=roles
    )
    try:
        if not association.is_established:
            used = _socket(association)
            raise why_none(association, destination, calling_ae, connected=used.opened is not None, fault=used.fault)
        yield association
    finally:
        _end(association, parking)


def take_report(
    association: Association, take: Callable[[str, int, Callable[[], Dataset]], int], wait_s: float
) -> None:
    """Wait for one N-EVENT-REPORT request of the peer, but no longer than `wait_s`, and answer it; never raises.

    take: gets the SOP Instance UID, the Event Type ID and what reads the Event Information; returns the status.
    """
    answers = association.dimse
    assert isinstance(answers, Answers)
    found = answers.report(wait_s)
    if found is None:
        return
    context_id, asked = found
    syntaxes = {one.context_id: one.transfer_syntax[0] for one in association.accepted_contexts}
    if context_id not in syntaxes:
        return
    syntax = syntaxes[context_id]

    def read() -> Dataset:
        return decode(asked.EventInformation, syntax.is_implicit_VR, syntax.is_little_endian)

    answers.answer_report(context_id, asked, take(str(asked.AffectedSOPInstanceUID or ""), asked.EventTypeID, read))


class _Parking(threading.Event):
    """The checkpoint of an association's reactor, which waits in it from its first turn until `open` is called."""

    def set(self) -> None:
        """Do nothing: pynetdicom calls it after every answer."""

    def open(self) -> None:
        """Let the reactor go on, so that it can end."""
        super().set()


class _Ae(AE):
    """An application entity whose associations use a `BoundedSocket`."""

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[SSLContext, str] | None
    ) -> BoundedSocket:
        bounded = BoundedSocket(assoc, address=address)
        bounded.tls_args = tls_args
        return bounded


def _request(
    destination: Peer,
    calling_ae: str,
    contexts: Sequence[PresentationContext],
    timeouts: Timeouts,
    parking: _Parking,
    *,
    takes_reports: bool,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation],
) -> Association:
    def connected(event: Any) -> None:
        event.assoc.dimse = Answers(event.assoc, timeouts.answers_s, takes_reports=takes_reports)
        _socket(event.assoc).prepare(timeouts.send_s)

    def established(event: Any) -> None:
        event.assoc._reactor_checkpoint = parking  # before the reactor is started

    ae = _Ae(ae_title=calling_ae)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = timeouts.connection_s
    ae.acse_timeout = timeouts.acse_s
    ae.dimse_timeout = timeouts.dimse_s
    ae.maximum_pdu_size = PDU_BYTES
    tls = client_tls(destination)
    try:
        return ae.associate(
            destination.host,
            destination.port,
            contexts=list(contexts),
            ae_title=destination.ae_title,
            ext_neg=list(roles),
            tls_args=None if tls is None else (tls, destination.host),
            evt_handlers=[
                (evt.EVT_CONN_OPEN, connected),
                (evt.EVT_ESTABLISHED, established),
                (evt.EVT_ABORTED, lambda event: _finish(event.assoc)),
            ],
        )
    except socket.gaierror:
        raise NoAssociation(Outcome.TRANSIENT, f"the host name {destination.host} cannot be resolved") from None
    except OSError as error:
        raise NoAssociation(Outcome.TRANSIENT, f"no connection could be made: {error.strerror or error}") from None


def _end(association: Association, parking: _Parking) -> None:
    """Release the association, or abort it where it cannot be used any more; then end its threads and connection."""
    answers = association.dimse
    if association.is_established and isinstance(answers, Answers) and association.dul.is_alive():
        if answers.ended:
            if association.dul.state_machine.current_state == "Sta6":
                association.abort(block=False)
        elif not answers.answer_release() and association.dul.peek_next_pdu() is None:
            association.release()
    _finish(association)
    association.dul.kill_dul()
    association.kill()
    parking.open()
    if association.is_alive():
        association.join(_END_S)
    _socket(association).discard()


def _finish(association: Association) -> None:
    """Wait until the last PDU is out; a thread that hangs in the connection meanwhile is freed.

    pynetdicom calls it, too, after it has queued an A-ABORT: it would wait for that thread without an end.
    """
    association.dul.join(_END_S)
    _socket(association).interrupt()
    association.dul.join(_END_S)


def _socket(association: Association) -> BoundedSocket:
    bounded = association.dul.socket
    assert isinstance(bounded, BoundedSocket)
    return bounded
