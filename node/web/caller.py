"""What a connection and its headers say of who asks; a header counts only where a proxy that is trusted sent it."""

import ipaddress
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

from config.settings import WebSettings
from config.syntax import IpNetwork
from storage.roles import Role
from storage.users import user_name

Scope = MutableMapping[str, Any]
_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_UNSPECIFIED: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - nobody calls a page by these


class Forged(ValueError):
    """Headers that no honest browser or proxy sends; the text says which."""


@dataclass(frozen=True)
class Said:
    """Whom a trusted proxy names; role: None where it names none."""

    name: str
    role: Role | None


class Networks:
    """Addresses and networks of the settings."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks: list[IpNetwork] = [ipaddress.ip_network(text) for text in texts]

    def __contains__(self, address: object) -> bool:
        try:
            found = ipaddress.ip_address(str(address).partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self._networks)


class Trust:
    """Whom the settings trust with what."""

    def __init__(self, settings: WebSettings) -> None:
        self.proxies, self.monitors = Networks(settings.trusted_proxies), Networks(settings.monitors)
        self.is_behind_proxies = bool(settings.trusted_proxies)
        own = {settings.host.lower()} - _UNSPECIFIED
        self.names = _LOCAL_NAMES | own | set(settings.allowed_hosts)
        self.user_header = settings.user_header.lower().encode()
        self.role_header = settings.role_header.lower().encode()


class Caller:
    """One request, as far as its connection and its headers tell who sent it."""

    def __init__(self, scope: Scope, trust: Trust) -> None:
        self._scope, self._trust = scope, trust
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._peer = str((scope.get("client") or ("", 0))[0])
        self._by_proxy = self._peer in trust.proxies

    @cached_property
    def address(self) -> str:
        """Where the request comes from: behind a trusted proxy, the nearest address that is no such proxy."""
        hop = self._nearest_hop
        return hop if _is_address(hop) else self._peer

    @cached_property
    def _nearest_hop(self) -> str:
        """What a trusted proxy says of who asked it, which may be no address; "" where it says nothing."""
        hops = ",".join(self._all(b"x-forwarded-for")).split(",") if self._by_proxy else []
        return next((hop for hop in map(str.strip, reversed(hops)) if hop not in self._trust.proxies), "")

    @property
    def is_monitor(self) -> bool:
        """Whether it may read health and metrics without a login; nobody may whose address the proxy does not tell."""
        return self.address in self._trust.monitors and (not self._nearest_hop or _is_address(self._nearest_hop))

    @property
    def is_secure(self) -> bool:
        """Whether the browser's own connection is encrypted."""
        if self._scope["scheme"] == "https":
            return True
        return self._by_proxy and self._all(b"x-forwarded-proto") == ["https"]

    def check_way(self) -> None:
        """Raise Forged where a password or a cookie of this request crossed the network in clear.

        The settings let that happen only past a proxy that should have been asked.
        """
        if self._trust.is_behind_proxies and not self._by_proxy and not self.is_secure and not _is_local(self._peer):
            raise Forged("this page is reached by its proxy only, because nothing is encrypted here")

    def check_host(self) -> None:
        """Raise Forged unless the page was called by one of its names: another one may be an attack by DNS rebinding.

        The address at which the connection arrived is a name too: no DNS gives an address another one.
        """
        hosts = self._all(b"host")
        if len(hosts) != 1:
            raise Forged("a request names one host")
        name = _name_of(hosts[0])
        arrived = str((self._scope.get("server") or ("", 0))[0])
        if name not in self._trust.names and not (_is_address(name) and name == arrived):
            raise Forged("the page has no such name; the setting web.allowed_hosts gives it more names")

    def check_length(self) -> None:
        """Raise Forged where a request tells its length in two ways: a proxy may take the other one (RFC 9112 6.1)."""
        if self._all(b"content-length") and self._all(b"transfer-encoding"):
            raise Forged("a request tells its length in one way")

    def check_origin(self) -> None:
        """Raise Forged where a browser says that a page of somebody else sent this."""
        if any(value not in ("same-origin", "none") for value in self._all(b"sec-fetch-site")):
            raise Forged("the request comes from another page")
        for origin in self._all(b"origin"):
            host = _authority(origin)
            is_proxys = self._by_proxy and _name_of(host) in self._trust.names
            if not is_proxys and host not in {value.lower() for value in self._all(b"host")}:
                raise Forged("the request comes from another page")

    def said(self) -> Said | None:
        """Whom a trusted proxy names. Raises Forged for what is no name or no role."""
        users = self._all(self._trust.user_header) if self._trust.user_header and self._by_proxy else []
        if not users:
            return None
        roles = self._all(self._trust.role_header) if self._trust.role_header else []
        if len(users) > 1 or len(roles) > 1:
            raise Forged("the proxy names two people or two roles")
        try:
            name = user_name(users[0])
            if not self._trust.role_header:
                return Said(name, None)
            return Said(name, Role(roles[0].strip().lower()) if roles else Role.VIEWER)
        except ValueError as error:
            raise Forged("the proxy's header holds no name of a user, or no role") from error

    def clean_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers without those that nothing behind here reads: those in which a proxy names people, and cookies.

        FastAPI would parse the cookies of every request with `http.cookies`.
        """
        names = {self._trust.user_header, self._trust.role_header, b"cookie"}
        return [(name, value) for name, value in self._headers if name not in names]

    def header(self, name: bytes) -> str:
        """The value of a header; "" where it is missing or there twice."""
        found = self._all(name)
        return found[0] if len(found) == 1 else ""

    def _all(self, name: bytes) -> list[str]:
        return [value.decode("latin-1") for key, value in self._headers if key == name]


def _name_of(host: str) -> str:
    """The name in `name:port`, `1.2.3.4:port` or `[::1]:port`, in lower case; "" for anything else."""
    try:
        parts = urlsplit(f"//{host}")
        _port = parts.port
    except ValueError:
        return ""
    is_plain = parts.netloc == host and "@" not in host
    return (parts.hostname or "").removesuffix(".") if is_plain else ""


def _authority(origin: str) -> str:
    """`name:port` of an origin, in lower case; "" for anything that is none, such as `null`."""
    try:
        return urlsplit(origin).netloc.lower() if "//" in origin else ""
    except ValueError:
        return ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_local(text: str) -> bool:
    return _is_address(text) and ipaddress.ip_address(text).is_loopback
