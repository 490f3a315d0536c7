"""Which addresses the hosts of `scp.allowed_peers` stand for: an address, a network, or a name that is looked up.

A name is looked up in a thread of its own, so that a name server that does not answer delays nobody but the peer that
is named, and that one by at most `FIRST_ANSWER_S`.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable

from config.syntax import IpAddress, network_of, plain_address

log = logging.getLogger(__name__)

REFRESH_S = 60.0
RETRY_S = 5.0
FIRST_ANSWER_S = 3.0  # how long the first association of a named peer waits for the first look-up of its name

Resolve = Callable[[str], Iterable[str]]


def resolve(name: str) -> set[str]:
    """Every address of a host name; raises socket.gaierror, and may take many seconds."""
    return {str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}


class PeerHosts:
    """Answers whether an address belongs to a configured host; names are looked up anew when they are old."""

    def __init__(
        self, hosts: Iterable[str], resolver: Resolve = resolve, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._networks = {host: network_of(host) for host in hosts if host}
        self._names = {
            host: _Name(host, resolver, clock_s) for host, network in self._networks.items() if network is None
        }

    def has(self, host: str, address: str, *, wait_s: float = 0.0) -> bool:
        """Whether `address` belongs to `host`, one of the hosts given; a name may be waited for `wait_s` at most."""
        try:
            plain = plain_address(address)
        except ValueError:
            return False
        network = self._networks[host]
        if network is None:
            return plain in self._names[host].addresses(wait_s)
        return plain in network

    def any_has(self, address: str) -> bool:
        """Whether `address` belongs to one of the hosts, as far as is known now; waits for nothing."""
        return any(self.has(host, address) for host in self._networks)


class _Name:
    """The addresses of one name as last looked up."""

    def __init__(self, name: str, resolver: Resolve, clock_s: Callable[[], float]) -> None:
        self._name, self._resolver, self._clock_s = name, resolver, clock_s
        self._addresses: frozenset[IpAddress] = frozenset()
        self._answered = threading.Event()
        self._lock = threading.Lock()
        self._looking = self._failed = False
        self._due_s = clock_s()
        self._refresh()

    def addresses(self, wait_s: float) -> frozenset[IpAddress]:
        self._refresh()
        self._answered.wait(wait_s)
        return self._addresses

    def _refresh(self) -> None:
        with self._lock:
            if self._looking or self._clock_s() < self._due_s:
                return
            self._looking = True
        threading.Thread(target=self._look, daemon=True, name=f"look-up-{self._name}").start()

    def _look(self) -> None:
        try:
            self._addresses = frozenset(plain_address(address) for address in self._resolver(self._name))
            self._tell(failed=False, why="")
        except (OSError, ValueError) as error:  # ValueError: a name that no name server could be asked for
            # A name server that is down takes no peer's right away that it had; a name that is gone does.
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
                self._addresses = frozenset()
            self._tell(failed=True, why=getattr(error, "strerror", None) or str(error))
        finally:
            with self._lock:
                self._looking = False
                self._due_s = self._clock_s() + (RETRY_S if self._failed else REFRESH_S)
            self._answered.set()

    def _tell(self, *, failed: bool, why: str) -> None:
        """One line when a name stops being found, and one when it is found again."""
        if failed and not self._failed:
            log.warning("scp.allowed_peers: the name %s cannot be looked up: %s; %s", self._name, why, self._effect())
        if self._failed and not failed:
            log.info("scp.allowed_peers: the name %s is found again", self._name)
        self._failed = failed

    def _effect(self) -> str:
        return "its last addresses still count" if self._addresses else "its peer is refused until it is found"
