"""Who may open an association: calling AE title and host against the allow-list; it opens and closes nothing."""

import ipaddress
import re
from collections.abc import Iterable

from config.settings import PeerSettings


def is_allowed(peers: Iterable[PeerSettings], calling_ae: str, host: str) -> bool:
    """Whether one of `peers` has this AE title and this address; no peers at all means that everyone may."""
    known = tuple(peers)
    return not known or any(
        peer.ae_title == calling_ae and (not peer.host or _same_host(peer.host, host)) for peer in known
    )


def safe_ae_title(title: str) -> str:
    """A peer's AE title as it may be stored and logged: at most 16 printable ASCII characters, no backslash."""
    return re.sub(r"[^\x20-\x5b\x5d-\x7e]", "?", title.strip())[:16]


def _same_host(configured: str, actual: str) -> bool:
    try:
        return _plain(configured) == _plain(actual)
    except ValueError:
        return False


def _plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address without the IPv6 clothes that a dual-stack socket gives to IPv4."""
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped
