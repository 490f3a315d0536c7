"""The addresses of the host names in `scp.allowed_peers`.

A name is looked up in a thread of its own, so that a name server that does not answer delays nobody but the peer that
is named, and that one by at most `FIRST_ANSWER_S`.
"""

import ipaddress
import logging
import socket
import threading
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

REFRESH_S = 60.0
RETRY_S = 5.0
FIRST_ANSWER_S = 3.0  # how long the first association of a named peer waits for the first look-up of its name

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str], Iterable[str]]


def look_up(name: str) -> set[str]:
    """Every address of a host name; raises socket.gaierror, and may take many seconds."""
    return {str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}


class HostName:
    """The addresses of one name as last looked up; they are looked up anew when they are old."""

    def __init__(self, name: str, resolver: Resolve, clock_s: Callable[[], float]) -> None:
        self._name, self._resolver, self._clock_s = name, resolver, clock_s
        self._addresses: frozenset[IpAddress] = frozenset()
        self._answered = threading.Event()
        self._lock = threading.Lock()
        self._looking = self._failed = False
        self._due_s = clock_s()
        self._refresh()

    def addresses(self, wait_s: float) -> frozenset[IpAddress]:
        """What is known now; the first look-up is waited for, for `wait_s` at most."""
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
            self._addresses = frozenset(ipaddress.ip_address(address) for address in self._resolver(self._name))
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
            log.warning(
                "scp.allowed_peers: the name %s cannot be looked up: %s; %s",
                self._name,
                why,
                self._effect(),
                extra={"event": "host_name_not_found", "peer": self._name},
            )
        if self._failed and not failed:
            log.info(
                "scp.allowed_peers: the name %s is found again",
                self._name,
                extra={"event": "host_name_found", "peer": self._name},
            )
        self._failed = failed

    def _effect(self) -> str:
        return "its last addresses still count" if self._addresses else "its peer is refused until it is found"
