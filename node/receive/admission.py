"""Who may have an association, and which places are kept for whom, for every server of this node."""

import ipaddress
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakValueDictionary

from pynetdicom import evt
from pynetdicom.pdu_primitives import A_RELEASE

from config.settings import DestinationSettings, PeerSettings, ScpSettings
from config.syntax import MAX_AE_TITLE_CHARS, NOT_IN_AE_TITLE, IpNetwork, network_of
from node.network import server
from node.network.server import Rejection
from node.network.tls import PeerCertificate
from node.receive.host_names import FIRST_ANSWER_S, HostName, IpAddress, Resolve, look_up
from storage.owners import Credentials

log = logging.getLogger(__name__)

# PS3.8 table 9-21
WRONG_APPLICATION, WRONG_CALLED_AE, WRONG_CALLING_AE = Rejection(1, 1, 2), Rejection(1, 1, 7), Rejection(1, 1, 3)
LIMIT_REACHED = Rejection(2, 3, 2)

SPARE_S = 30.0  # an association that stored nothing for so long gives its place to one that wants it
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # DICOM's only one, PS3.7 annex A.2.1
_MAPPED_BITS = 96  # of an IPv6 address that stands for one of IPv4
KEPT_PLACES = 2  # for each allowed peer, which no other peer can take
REPORTING_PLACES = 2  # for each destination that only reports, beyond all others


class Turn:
    """The right of one association to be negotiated; a caller's associations are negotiated one after the other.

    A scanner that opens 25 at once, with 128 presentation contexts each, would take the processor from all others for a
    second.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock, self._held = lock, False

    def take(self, timeout_s: float) -> None:
        """Wait until it comes, but no longer than `timeout_s`."""
        self._held = self._lock.acquire(timeout=timeout_s)

    def give_up(self) -> None:
        """Let the next one come; a second time does nothing."""
        held, self._held = self._held, False
        if held:
            self._lock.release()


@dataclass(eq=False)
class Session:
    """What is known of one association; its row in the store is opened with its first instance.

    called_ae: the AE title by which it called, one of the settings. only_reports: of a destination that may
    report on storage commitment and may do nothing else. report_port: where the peer listens for reports of storage
    commitment, 0 where that is not known.
    """

    calling_ae: str
    peer_host: str
    peer: str
    turn: Turn
    shown: Credentials
    called_ae: str = ""
    only_reports: bool = False
    report_port: int = 0
    progress_s: float = 0.0  # monotonic time of its beginning or of the last instance that it stored
    association_id: int | None = None
    stored: int = 0
    refused: int = 0
    abort: Callable[[], None] = field(default=lambda: None)

    @property
    def ids(self) -> dict[str, object]:
        """What lines of the log about this association have."""
        return {"calling_ae": self.calling_ae, "association": self.association_id}


class PeerHosts:
    """Answers whether an address belongs to a host of `scp.allowed_peers`: an address, a network, or a name."""

    def __init__(
        self, hosts: Iterable[str], resolver: Resolve = look_up, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._networks = {host: _network(host) for host in hosts if host}
        self._names = {
            host: HostName(host, resolver, clock_s) for host, network in self._networks.items() if network is None
        }

    def has(self, host: str, address: str, *, wait_s: float = 0.0) -> bool:
        """Whether `address` belongs to `host`, one of the hosts given; a name may be waited for `wait_s` at most."""
        try:
            plain = _plain(address)
        except ValueError:
            return False
        network = self._networks[host]
        if network is None:
            return plain in self._names[host].addresses(wait_s)
        return plain in network

    def any_has(self, address: str) -> bool:
        """Whether `address` belongs to one of the hosts, as far as is known now; waits for nothing."""
        return any(self.has(host, address) for host in self._networks)


class Places:
    """The places for associations: `max_associations` in total, at most a share for each peer, some kept for each.

    A peer is an entry of `allowed_peers`; where the list is empty it is an address. `reporting` are destinations that
    report on storage commitment: those that are no allowed peer have places of their own, for that alone.
    """

    def __init__(
        self,
        settings: ScpSettings,
        clock_s: Callable[[], float] = time.monotonic,
        *,
        reporting: Sequence[DestinationSettings] = (),
    ) -> None:
        self._settings, self._clock_s, self._reporting = settings, clock_s, tuple(reporting)
        self._titles = frozenset(settings.ae_titles)
        self._hosts = PeerHosts([peer.host for peer in settings.allowed_peers] + [one.host for one in reporting])
        self._share = settings.max_associations_per_peer or settings.max_associations
        count = len(settings.allowed_peers)
        self._kept = min(KEPT_PLACES, settings.max_associations // count, self._share) if count else 0
        self._sessions: list[Session] = []
        self._reports: list[Session] = []  # those of destinations that only report
        self._turns: WeakValueDictionary[tuple[str, str], threading.Lock] = WeakValueDictionary()
        self._lock = threading.Lock()

    def admit(
        self, called_ae: str, calling_ae: str, host: str, certificate: PeerCertificate | None
    ) -> Session | Rejection:
        """A session with a place, or why there is none. A session that stores nothing may be aborted to make room."""
        calling_ae = safe_title(calling_ae)
        entries = self._entries(calling_ae, host)
        if not entries and (name := self._reports_as(calling_ae, host)):
            return self._admit_report(called_ae, calling_ae, host, name)
        if not entries:
            return _rejected(WRONG_CALLING_AE, calling_ae, host, "not in scp.allowed_peers")
        peer, entry = next((one for one in entries if _is_shown(one[1].certificate, certificate)), ("", None))
        if entry is None:
            told = f"association rejected: its certificate ({_name(certificate)}) is not the one of scp.allowed_peers"
            return _rejected(replace(WRONG_CALLING_AE, told=told), calling_ae, host, told)
        if called_ae.strip(" ") not in self._titles:
            return _rejected(WRONG_CALLED_AE, calling_ae, host, "it called another AE title")
        with self._lock:
            shown = Credentials(host, certificate.identity if certificate else "", bool(entry.certificate))
            turn, now_s, called = self._turn(calling_ae, host), self._clock_s(), called_ae.strip(" ")
            session = Session(calling_ae, host, peer, turn, shown, called, report_port=entry.port, progress_s=now_s)
            idle = self._make_room(peer)
            if idle is None:
                return _rejected(LIMIT_REACHED, calling_ae, host, "all places for this peer are taken")
            self._sessions.append(session)
        for one in idle:
            log.warning(
                "association from %s aborted: it stored nothing for %g s and others wait",
                one.calling_ae,
                SPARE_S,
                extra={"event": "association_aborted", **one.ids},
            )
            one.abort()
        return session

    def leave(self, session: Session) -> None:
        """Free the place of a session; a second time does nothing."""
        with self._lock:
            for sessions in (self._sessions, self._reports):
                if session in sessions:
                    sessions.remove(session)

    def progressed(self, session: Session) -> None:
        """Note that a session has stored something."""
        session.progress_s = self._clock_s()

    def is_known_host(self, host: str) -> bool:
        """Whether an allowed peer is known to have this address; it waits for no look-up of a name."""
        return self._hosts.any_has(host)

    def _reports_as(self, calling_ae: str, host: str) -> str:
        """The name of the destination that the asking one is, "" for none that reports."""
        for one in self._reporting:
            if one.ae_title == calling_ae and self._hosts.has(one.host, host, wait_s=FIRST_ANSWER_S):
                return one.name
        return ""

    def _admit_report(self, called_ae: str, calling_ae: str, host: str, name: str) -> Session | Rejection:
        if called_ae.strip(" ") not in self._titles:
            return _rejected(WRONG_CALLED_AE, calling_ae, host, "it called another AE title")
        with self._lock:
            peer = f"destination {name}"
            if sum(one.peer == peer for one in self._reports) >= REPORTING_PLACES:
                return _rejected(LIMIT_REACHED, calling_ae, host, "all places for the reports of this peer are taken")
            turn, shown = self._turn(calling_ae, host), Credentials(host, "", False)
            session = Session(calling_ae, host, peer, turn, shown, only_reports=True)
            self._reports.append(session)
        return session

    def handlers(self) -> list[tuple[evt.EventType, Callable[[Any], None]]]:
        """What a server does at the events of an association that was admitted here, from its turn to its release."""
        return [
            (evt.EVT_CONN_OPEN, _opened),
            (evt.EVT_REQUESTED, _requested),
            (evt.EVT_ACCEPTED, lambda event: session_of(event).turn.give_up()),
            (evt.EVT_ACSE_RECV, self._released),
        ]

    def _released(self, event: Any) -> None:
        """Free the place before the peer hears that it was released: it may ask for the next association at once."""
        if isinstance(event.primitive, A_RELEASE):
            self.leave(session_of(event))

    def _turn(self, calling_ae: str, host: str) -> Turn:
        lock = self._turns.setdefault((calling_ae, host), threading.Lock())
        return Turn(lock)

    def _entries(self, calling_ae: str, host: str) -> list[tuple[str, PeerSettings]]:
        """The peers that the asking one may be, each with what the settings say of it; none for a stranger.

        A peer is called by its place in `allowed_peers`, or by its address where the list is empty.
        """
        peers = self._settings.allowed_peers
        if not peers:
            return [(host, PeerSettings(ae_title="ANY"))]
        return [(f"peer {number}", peer) for number, peer in enumerate(peers) if self._may_be(peer, calling_ae, host)]

    def _may_be(self, peer: PeerSettings, calling_ae: str, host: str) -> bool:
        if peer.ae_title != calling_ae:
            return False
        return not peer.host or self._hosts.has(peer.host, host, wait_s=FIRST_ANSWER_S)

    def _make_room(self, peer: str) -> list[Session] | None:
        """The sessions that have to end for one more session of `peer`; None where there is no room."""
        own = [session for session in self._sessions if session.peer == peer]
        if len(own) >= self._share:
            return self._idle_one(own)
        if len(own) < self._kept or self._free() > 0:
            return []
        others = [one for one in self._sessions if one.peer == peer or self._count(one.peer) > self._kept]
        return self._idle_one(others)

    def _free(self) -> int:
        """Places that are neither taken nor kept for a peer."""
        kept = self._kept * len(self._settings.allowed_peers)
        beyond = sum(max(self._count(peer) - self._kept, 0) for peer in {one.peer for one in self._sessions})
        return self._settings.max_associations - kept - beyond

    def _count(self, peer: str) -> int:
        return sum(session.peer == peer for session in self._sessions)

    def _idle_one(self, sessions: list[Session]) -> list[Session] | None:
        """The session that has stored nothing for the longest time, if that is long; it has no place any more."""
        idle = min(sessions, key=lambda session: session.progress_s)
        if self._clock_s() - idle.progress_s < SPARE_S:
            return None
        self._sessions.remove(idle)
        return [idle]


def session_of(event: Any) -> Session:
    """The session of the association of an event."""
    session = event.assoc.dul.session
    assert isinstance(session, Session)
    return session


def _opened(event: Any) -> None:
    association, session = event.assoc, session_of(event)
    session.abort = lambda: association.abort(block=False)
    session.turn.take(server.ACSE_TIMEOUT_S)


def _requested(event: Any) -> None:
    """Reject what only the whole request tells; titles, address and places were looked at before."""
    if event.assoc.requestor.primitive.application_context_name != _APPLICATION_CONTEXT:
        event.assoc.acse.send_reject(WRONG_APPLICATION.result, WRONG_APPLICATION.source, WRONG_APPLICATION.reason)
        event.assoc.kill()


def safe_title(title: str) -> str:
    """A peer's AE title as it may be stored and logged; only spaces at its ends mean nothing (PS3.5 VR AE)."""
    return NOT_IN_AE_TITLE.sub("?", title.strip(" "))[:MAX_AE_TITLE_CHARS]


def _is_shown(bound: str, certificate: PeerCertificate | None) -> bool:
    """Whether a peer showed the certificate that the settings bind to its AE title, where they do."""
    if not bound or certificate is None:
        return not bound
    if bound.startswith("sha256:"):
        return bound == f"sha256:{certificate.fingerprint}"
    return bound in certificate.names


def _name(certificate: PeerCertificate | None) -> str:
    """How a certificate is called in a sentence."""
    if certificate is None:
        return "none"
    names = [NOT_IN_AE_TITLE.sub("?", name)[:64] for name in sorted(certificate.names)[:2]]
    return ", ".join([*names, f"sha256:{certificate.fingerprint[:16]}..."])


def _rejected(rejection: Rejection, calling_ae: str, host: str, why: str) -> Rejection:
    log.warning(
        "association from %s at %s rejected: %s",
        calling_ae,
        host,
        why,
        extra={"event": "association_rejected", "calling_ae": calling_ae, "peer": host},
    )
    return rejection


def _network(host: str) -> IpNetwork | None:
    """The addresses that are given by themselves, those of IPv4 as such; None for a name."""
    network = network_of(host)
    if not isinstance(network, ipaddress.IPv6Network) or network.prefixlen < _MAPPED_BITS:
        return network
    mapped = network.network_address.ipv4_mapped
    return network if mapped is None else ipaddress.ip_network((mapped, network.prefixlen - _MAPPED_BITS))


def _plain(host: str) -> IpAddress:
    """An address without the IPv6 form that a dual-stack socket gives to IPv4; raises ValueError."""
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped
