"""Checks of the peers: can they be found, do they answer, do they take CT images, who may send to this node."""

import socket
import ssl
import time
from datetime import UTC, datetime
from functools import partial
from typing import Final

from config.destinations import DicomwebSettings, HttpsSettings
from config.settings import AnyDestination, AskedPeer, DestinationSettings, Settings
from config.syntax import network_of
from node.network.no_association import NoAssociation, Peer, client_tls
from node.network.query import takes_questions
from node.network.renewal import https_tls
from node.operate.doctor.listening import SHORT
from node.operate.doctor.report import Check, Line, Lines, Mark, of_finding
from node.ops.certificates import WARNED_BEFORE, validity_of
from node.ops.checks import WITHOUT_DICOMWEB, check_callers, is_without_dicomweb, look_up
from node.send.peer import sender_for

_CONNECT_S: Final = 2.5
_PEER_S: Final = 8.0
_NOT_FOUND: Final = "correct the name, the name server of this machine or /etc/hosts"


def destination_checks(settings: Settings) -> list[Check]:
    """One check for each destination, so that one that hangs hides no other."""
    return [
        Check(f"destination {peer.name}", partial(_destination, peer), limit_s=_PEER_S) for peer in settings.destination
    ]


def _destination(peer: AnyDestination, settings: Settings) -> Lines:
    name = f"destination {peer.name}"
    if isinstance(peer, DicomwebSettings):
        yield from _dicomweb(name, peer, settings)
        return
    key = f"destination {peer.name}: host and port"
    reached = _reach(name, peer, key)
    yield from reached.lines
    if not reached.ok:
        return
    answer = sender_for(peer, settings.scp.ae_title, SHORT).echo()
    if not answer.ok:
        remedy = f"at {peer.ae_title}: allow the AE title {settings.scp.ae_title} of this machine for CT Image Storage"
        yield Line(name, Mark.FAIL, answer.detail, remedy)
        return
    syntaxes = ", ".join(answer.transfer_syntaxes)
    found = f"{peer.ae_title} at {peer.host}:{peer.port} {answer.detail} ({syntaxes}), {answer.latency_s * 1000:.0f} ms"
    yield Line(name, Mark.OK, f"{found}; {reached.words}")
    if peer.identity_check:
        yield from _questions(name, peer, settings.scp.ae_title, "identity_check: takes queries")
    if peer.tls is not None:
        yield from _certificate_of(name, peer)


def _dicomweb(name: str, peer: DicomwebSettings, settings: Settings) -> Lines:
    """The same of one that is reached by DICOMweb; the question by QIDO-RS is the one that `identity_check` asks."""
    reached = _reach(name, peer, f"destination {peer.name}: url")
    yield from reached.lines
    if not reached.ok:
        return
    if is_without_dicomweb(peer):
        yield Line(name, Mark.FAIL, WITHOUT_DICOMWEB, "install syncect[dicomweb]")
        return
    answer = sender_for(peer, settings.scp.ae_title, SHORT).echo()
    if not answer.ok:
        yield Line(name, Mark.FAIL, answer.detail, f"correct url, tls or the login of {name}, or what it allows there")
        return
    words = f"{peer.url} {answer.detail}, {answer.latency_s * 1000:.0f} ms; {reached.words}"
    yield Line(name, Mark.OK, words)
    if peer.url.startswith("https:"):
        yield from _certificate_of(name, peer)


def _called(peer: Peer | DicomwebSettings) -> str:
    return peer.host if isinstance(peer, DicomwebSettings) else peer.ae_title


class _Reached:
    """What came of the name and of the port of a peer."""

    def __init__(self) -> None:
        self.ok, self.words = False, ""
        self.lines: list[Line] = []


def _reach(name: str, peer: Peer | DicomwebSettings, key: str) -> _Reached:
    """Look up the name and open a connection, each timed; what is wrong is a line."""
    found = _Reached()
    began_s = time.monotonic()
    try:
        addresses = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        found.lines.append(Line(name, Mark.FAIL, f"{peer.host} cannot be looked up: {why}", _NOT_FOUND))
        return found
    named_s, address = time.monotonic() - began_s, addresses[0][4][0]
    try:
        socket.create_connection((peer.host, peer.port), timeout=_CONNECT_S).close()
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else (error.strerror or type(error).__name__).lower()
        words = f"{peer.host} ({address}) port {peer.port}: {why} (TCP)"
        remedy = f"is {_called(peer)} on, and does the firewall let this machine through? Else correct {key}"
        found.lines.append(Line(name, Mark.FAIL, words, remedy))
        return found
    connected_s = time.monotonic() - began_s - named_s
    found.ok, found.words = True, f"name {named_s * 1000:.0f} ms, TCP {connected_s * 1000:.0f} ms"
    return found


def _certificate_of(name: str, peer: AnyDestination) -> Lines:
    """How long the certificate of a peer is valid, by this machine's clock."""
    try:
        if isinstance(peer, DicomwebSettings):
            context: ssl.SSLContext | None = https_tls(peer.tls or HttpsSettings())()
        else:
            context = client_tls(peer)
        assert context is not None
        with (
            socket.create_connection((peer.host, peer.port), timeout=_CONNECT_S) as connection,
            context.wrap_socket(connection, server_hostname=peer.host) as secure,
        ):
            encoded = secure.getpeercert(binary_form=True)
    except (OSError, ssl.SSLError, NoAssociation):
        return  # the association a moment ago went well
    if encoded is None:
        return
    begins, ends = validity_of(encoded)
    now = datetime.now(UTC)
    days = (ends - now).days
    if now + WARNED_BEFORE >= ends:
        yield Line(name, Mark.WARN, f"its certificate expires in {days} days", f"tell who runs {_called(peer)}")
    elif (now - begins).total_seconds() < 0:
        yield Line(name, Mark.FAIL, f"its certificate begins {begins:%Y-%m-%d %H:%M} UTC", "compare the clocks")
    else:
        yield Line(name, Mark.OK, f"its certificate is valid for {days} days")


def callers(settings: Settings) -> Lines:
    """Who may send, and whether the names of `scp.allowed_peers` can be looked up."""
    scp = settings.scp
    names = {peer.host for peer in scp.allowed_peers if peer.host and network_of(peer.host) is None}
    unknown = {host: why for host, why in look_up(names).items() if isinstance(why, str)}
    for host, why in sorted(unknown.items()):
        found = f"scp.allowed_peers: {host} cannot be looked up ({why}): this peer is rejected"
        yield Line("callers", Mark.FAIL, found, f"{_NOT_FOUND}; or write its address")
    findings = list(check_callers(scp))
    remedy = "name each sender in scp.allowed_peers, with [scp.tls] also its certificate"
    yield from (of_finding("callers", one, remedy) for one in findings)
    if not findings and not unknown:
        titles = ", ".join(peer.ae_title for peer in scp.allowed_peers)
        yield Line("callers", Mark.OK, f"{titles or 'only programs of this machine, which alone reach it,'} may send")


def counting_peer(settings: Settings) -> Lines:
    """Whether the peer of `completion.count_from` answers questions."""
    source = settings.completion.count_from
    if not source:
        yield Line(
            "count_from", Mark.SKIP, "completion.count_from is not set: nobody is asked how many images there are"
        )
        return
    peer = source if isinstance(source, AskedPeer) else _named(settings, source)
    if peer is None:
        known = ", ".join(one.name for one in settings.dimse_destinations) or "none"
        found = f"completion.count_from = {source!r} names no destination; there are {known}"
        yield Line("count_from", Mark.FAIL, found, "write the name of a [[destination]], or a table")
        return
    reached = _reach("count_from", peer, "completion.count_from")
    yield from reached.lines
    if not reached.ok:
        return
    words = f"{peer.ae_title} at {peer.host}:{peer.port} takes queries; {reached.words}"
    yield from _questions("count_from", peer, settings.scp.ae_title, words)


def _questions(name: str, peer: Peer, calling_ae: str, words: str) -> Lines:
    """Whether a peer takes queries; words: what is told where it does."""
    try:
        takes_questions(peer, calling_ae, SHORT)
    except NoAssociation as error:
        remedy = f"at {peer.ae_title}: allow {calling_ae} for Study Root Query/Retrieve FIND"
        yield Line(name, Mark.FAIL, error.reason, remedy)
        return
    yield Line(name, Mark.OK, words)


def _named(settings: Settings, name: str) -> DestinationSettings | None:
    return next((peer for peer in settings.dimse_destinations if peer.name == name), None)
