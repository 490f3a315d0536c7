"""Opens associations as a requestor, bounded in time, and says in a sentence why there is none; it sends no data.

pynetdicom connects and negotiates. Then its two threads are ended, and the connection goes to a `Link`.
"""

import logging
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from config.settings import DestinationSettings
from node.dicom.constants import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import NodeError
from node.network.tls import UnusableCertificate, client_context
from node.send.link import Broken, Context, Link

_PROBE_TIMEOUT_S = 3.0

# PS3.8 table 9-21, where result is 1 (permanent): (source, diagnostic) -> what an administrator has to look at.
_REJECTIONS = {
    (1, 2): "it does not support the DICOM application context",
    (1, 3): "it does not know our AE title {calling}; it has to be added there",
    (1, 7): "its AE title is not {called}",
    (2, 2): "it does not support our protocol version",
}


@dataclass(frozen=True)
class Timeouts:
    """Bounds of one association; to get one, or to send one instance, takes less than the courier's lease of 60 s."""

    connection_s: float = 10.0
    acse_s: float = 15.0
    dimse_s: float = 30.0
    send_s: float = 20.0


class Outcome(Enum):
    """How an attempt ended; each member has exactly one reaction."""

    DONE = "done"
    STOPPED = "stopped"
    TRANSIENT = "transient"  # tried again, at first after seconds
    MISCONFIGURED = "misconfigured"  # tried again slowly: an administrator can put it right while the series waits
    UNCLEAR = "unclear"  # tried again a limited number of times
    PERMANENT = "permanent"


class NoAssociation(NodeError):
    """There is no association, or none any more; `outcome` says whether and how soon to try again."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


@contextmanager
def associate(
    destination: DestinationSettings,
    calling_ae: str,
    contexts: Sequence[PresentationContext],
    timeouts: Timeouts = Timeouts(),
) -> Iterator[Link]:
    """An established association in which at least one of `contexts` was accepted; released on leaving.

    Raises NoAssociation, also in place of the `Broken` of the link. An association that broke is never used again.
    """
    _configure_pynetdicom()
    opened = threading.Event()
    negotiated = _request(destination, calling_ae, contexts, timeouts, opened)
    if not negotiated.is_established:
        raise _why_none(negotiated, destination, calling_ae, connected=opened.is_set())
    link = _take_over(negotiated, timeouts)
    try:
        yield link
    except Broken as broken:
        raise NoAssociation(Outcome.TRANSIENT, str(broken)) from None
    finally:
        link.release()


def _request(
    destination: DestinationSettings,
    calling_ae: str,
    contexts: Sequence[PresentationContext],
    timeouts: Timeouts,
    opened: threading.Event,
) -> Association:
    def prepare(event: Any) -> None:
        connection = event.assoc.dul.socket.socket
        # A peer that stops reading would block pynetdicom's thread, which cannot be ended from outside, for ever.
        connection.settimeout(timeouts.send_s)
        # The end of an instance would wait for the acknowledgement of what went before, which is delayed by 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.set()

    ae = AE(ae_title=calling_ae)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = timeouts.connection_s
    ae.acse_timeout = timeouts.acse_s
    ae.dimse_timeout = timeouts.dimse_s
    tls = _tls(destination)
    try:
        return ae.associate(
            destination.host,
            destination.port,
            contexts=list(contexts),
            ae_title=destination.ae_title,
            tls_args=None if tls is None else (tls, destination.host),
            evt_handlers=[(evt.EVT_CONN_OPEN, prepare)],
        )
    except socket.gaierror:
        raise NoAssociation(Outcome.TRANSIENT, f"the host name {destination.host} cannot be resolved") from None
    except OSError as error:
        raise NoAssociation(Outcome.TRANSIENT, f"no connection could be made: {error.strerror or error}") from None


def _take_over(negotiated: Association, timeouts: Timeouts) -> Link:
    """The connection of an association, which no thread of pynetdicom reads any more. Raises NoAssociation."""
    upper_layer: Any = negotiated.dul
    upper_layer.kill_dul()
    upper_layer.join(timeouts.acse_s)
    connection = upper_layer.socket.socket
    untouched = upper_layer.state_machine.current_state == "Sta6" and upper_layer.event_queue.empty()
    if upper_layer.is_alive() or connection is None or not untouched:
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        raise _broken_off()
    negotiated.join()  # ends by itself now
    accepted: list[Any] = negotiated.accepted_contexts
    acceptor: Any = negotiated.acceptor
    return Link(
        connection,
        [Context(context.context_id, context.abstract_syntax, context.transfer_syntax[0]) for context in accepted],
        max_pdu_bytes=acceptor.maximum_length,
        send_s=timeouts.send_s,
        answer_s=timeouts.dimse_s,
        release_s=timeouts.acse_s,
    )


def _tls(destination: DestinationSettings) -> ssl.SSLContext | None:
    if destination.tls is None:
        return None
    try:
        return client_context(destination.tls.certificate, destination.tls.private_key, destination.tls.ca)
    except UnusableCertificate as error:
        raise NoAssociation(Outcome.MISCONFIGURED, str(error)) from None


def _broken_off() -> NoAssociation:
    return NoAssociation(Outcome.TRANSIENT, "the peer accepted the association and broke it off at once")


def _why_none(
    link: Association, destination: DestinationSettings, calling_ae: str, *, connected: bool
) -> NoAssociation:
    where = f"{destination.ae_title} at {destination.host} port {destination.port}"
    answer = link.acceptor.primitive
    if link.is_rejected and answer is not None:
        return _rejection(where, answer, destination, calling_ae)
    if link.accepted_contexts:
        return _broken_off()
    if answer is not None and answer.result == 0:
        return NoAssociation(Outcome.PERMANENT, f"{where} accepts none of the SOP classes that were offered")
    if not connected:
        outcome, why = _why_unreachable(destination)
        return NoAssociation(outcome, f"{where} cannot be reached: {why}")
    hint = "; does it trust our certificate?" if destination.tls is not None else ""
    return NoAssociation(Outcome.TRANSIENT, f"{where} did not answer the association request{hint}")


def _rejection(where: str, answer: Any, destination: DestinationSettings, calling_ae: str) -> NoAssociation:
    if answer.result == 2:
        why = "it has too many associations" if answer.result_source == 3 else "no reason given"
        return NoAssociation(Outcome.TRANSIENT, f"{where} rejects associations for now: {why}")
    text = _REJECTIONS.get((answer.result_source, answer.diagnostic), "no reason given")
    why = text.format(calling=calling_ae, called=destination.ae_title)
    return NoAssociation(Outcome.MISCONFIGURED, f"{where} rejects our association: {why}")


def _why_unreachable(destination: DestinationSettings) -> tuple[Outcome, str]:
    """Try the connection once more without DICOM: pynetdicom logs the reason, but does not tell it."""
    tls = _tls(destination)
    try:
        with socket.create_connection((destination.host, destination.port), timeout=_PROBE_TIMEOUT_S) as connection:
            if tls is not None:
                tls.wrap_socket(connection, server_hostname=destination.host).close()
    except ssl.SSLCertVerificationError as error:
        return Outcome.MISCONFIGURED, f"TLS: its certificate is not accepted: {error.verify_message}"
    except ssl.SSLError as error:
        return Outcome.MISCONFIGURED, f"TLS: {error.reason or 'the handshake failed'}"
    except TimeoutError:
        return Outcome.TRANSIENT, "it does not answer"
    except OSError as error:
        return Outcome.TRANSIENT, (error.strerror or type(error).__name__).lower()
    return Outcome.TRANSIENT, "the connection was lost while it was opened"


def _configure_pynetdicom() -> None:
    """Set the switches that pynetdicom only has for a whole process."""
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its errors quote what a peer sent
