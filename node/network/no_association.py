"""Says in a sentence why there is no association, and whether it is worth another try; it retries nothing itself."""

import socket
import ssl
from enum import Enum
from typing import Any, Protocol

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE

from config.settings import TlsSettings
from node.errors import NodeError
from node.network.renewal import courier_tls
from node.network.tls import UnusableCertificate
from node.network.tls_faults import NO_TLS, why_no_tls

_PROBE_TIMEOUT_S = 3.0

# PS3.8 table 9-21, where result is 1 (permanent): (source, diagnostic) -> what an administrator has to look at.
_REJECTIONS = {
    (1, 2): "it does not support the DICOM application context",
    (1, 3): "it does not know our AE title {calling}; it has to be added there",
    (1, 7): "its AE title is not {called}",
    (2, 2): "it does not support our protocol version",
}


class Peer(Protocol):
    """A peer that associations are requested of."""

    @property
    def ae_title(self) -> str:
        """Its AE title."""

    @property
    def host(self) -> str:
        """Its host name or address."""

    @property
    def port(self) -> int:
        """Its TCP port."""

    @property
    def tls(self) -> TlsSettings | None:
        """How it is spoken to by TLS; None for plain TCP."""


class Outcome(Enum):
    """How an attempt ended; each member has exactly one reaction."""

    DONE = "done"
    STOPPED = "stopped"
    TRANSIENT = "transient"  # tried again, at first after seconds
    MISCONFIGURED = "misconfigured"  # tried again slowly: an administrator can put it right while the series waits
    UNCLEAR = "unclear"  # tried again a limited number of times
    DAMAGED = "damaged"  # a file is not as it was produced: the result is made again
    HELD = "held"  # a person must look before anything is sent
    PERMANENT = "permanent"


class NoAssociation(NodeError):
    """There is no association, or none any more; `outcome` says whether and how soon to try again."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


def client_tls(destination: Peer) -> ssl.SSLContext | None:
    """The TLS context for a destination, None where it speaks plain TCP. Raises NoAssociation."""
    if destination.tls is None:
        return None
    try:
        return courier_tls(destination.tls)()
    except UnusableCertificate as error:
        raise NoAssociation(Outcome.MISCONFIGURED, str(error)) from None


def why_none(
    association: Association, destination: Peer, calling_ae: str, *, connected: bool, fault: ssl.SSLError | None
) -> NoAssociation:
    """Why a requested association was not established.

    connected: whether there was a connection. fault: why TLS ended after that.
    """
    where = f"{destination.ae_title} at {destination.host} port {destination.port}"
    answer = _answer(association)
    if answer is not None and answer.result != 0:
        return _rejection(where, answer, destination, calling_ae)
    if association.accepted_contexts:
        return NoAssociation(Outcome.TRANSIENT, "the peer accepted the association and broke it off at once")
    if answer is not None and answer.result == 0:
        return NoAssociation(Outcome.PERMANENT, f"{where} accepts none of the SOP classes that were offered")
    if not connected:
        outcome, why = _why_unreachable(destination)
        return NoAssociation(outcome, f"{where} cannot be reached: {why}")
    if fault is not None:
        return NoAssociation(Outcome.MISCONFIGURED, f"{where} ended the connection: TLS: {why_no_tls(fault)}")
    if destination.tls is None and _speaks_tls(destination):
        why = "it speaks TLS on this port, and tls is not set for it here"
        return NoAssociation(Outcome.MISCONFIGURED, f"{where} cannot be reached: {why}")
    hint = "; does it trust our certificate?" if destination.tls is not None else ""
    return NoAssociation(Outcome.TRANSIENT, f"{where} did not answer the association request{hint}")


def _answer(association: Association) -> Any:
    """The answer to the association request, None where there was none.

    pynetdicom does not look at an answer that rejects, and whose connection is closed, before the requesting thread
    has noticed that there was a connection.
    """
    unread = association.dul.peek_next_pdu()
    return unread if isinstance(unread, A_ASSOCIATE) else association.acceptor.primitive


def _rejection(where: str, answer: Any, destination: Peer, calling_ae: str) -> NoAssociation:
    if answer.result == 2:
        why = "it has too many associations" if answer.result_source == 3 else "no reason given"
        return NoAssociation(Outcome.TRANSIENT, f"{where} rejects associations for now: {why}")
    text = _REJECTIONS.get((answer.result_source, answer.diagnostic), "no reason given")
    why = text.format(calling=calling_ae, called=destination.ae_title)
    return NoAssociation(Outcome.MISCONFIGURED, f"{where} rejects our association: {why}")


def _why_unreachable(destination: Peer) -> tuple[Outcome, str]:
    """Try the connection once more without DICOM: pynetdicom logs the reason, but does not tell it."""
    tls = client_tls(destination)
    try:
        with socket.create_connection((destination.host, destination.port), timeout=_PROBE_TIMEOUT_S) as connection:
            if tls is not None:
                tls.wrap_socket(connection, server_hostname=destination.host).close()
    except ssl.SSLError as error:
        return Outcome.MISCONFIGURED, f"TLS: {why_no_tls(error)}"
    except TimeoutError:
        return Outcome.TRANSIENT, "it does not answer"
    except OSError as error:
        return Outcome.TRANSIENT, (error.strerror or type(error).__name__).lower()
    return Outcome.TRANSIENT, "the connection was lost while it was opened"


def _speaks_tls(destination: Peer) -> bool:
    """Whether a peer that did not answer plain DICOM answers a TLS handshake, with whatever certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent, and the connection closed
    try:
        with socket.create_connection((destination.host, destination.port), timeout=_PROBE_TIMEOUT_S) as connection:
            context.wrap_socket(connection).close()
    except ssl.SSLError as error:
        return not isinstance(error, ssl.SSLEOFError) and why_no_tls(error) != NO_TLS
    except OSError:
        return False
    return True
