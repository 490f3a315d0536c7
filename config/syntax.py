"""The syntax of AE titles and UIDs, for what an operator writes and for what a peer sends; each rule stands here once.

It lies in the lowest package, so that the settings, the receiver and the maker of UIDs can all ask it.
"""

import ipaddress
import re
from typing import Final, Literal

MAX_UID_CHARS: Final = 64  # PS3.5 section 9.1

UID_ALPHABET: Final = re.compile(rf"[0-9.]{{1,{MAX_UID_CHARS}}}")
"""What the receiver takes for a UID: no other character can reach the store or the log."""

MAX_FOREIGN_UID_CHARS: Final = 128

FOREIGN_UID: Final = re.compile(rf"[0-9.]{{1,{MAX_FOREIGN_UID_CHARS}}}")
"""What a reader takes for the UID of a study, series or frame of reference: too long a one is kept, to be named."""

MIN_UID_DIGITS: Final = 24
"""Digits of a hash behind a UID root; with 24, the chance that two of 10^9 UIDs are the same is 5 in 10 million."""

MAX_UID_ROOT_CHARS: Final = MAX_UID_CHARS - 1 - MIN_UID_DIGITS

Companion = Literal["segmentation", "parametric_map", "report", "presentation"]
"""What a destination can get beside the derived CT series, as the settings name it."""

IN_PROGRESS, COMPLETED, DISCONTINUED = "IN PROGRESS", "COMPLETED", "DISCONTINUED"
"""Performed Procedure Step Status (0040,0252), PS3.3 C.4.14."""

WRONG_WORKLIST_ENTRY: Final = "110514"
"""The Discontinuation Reason (DCM, CID 9300) after which the images may be another patient's."""

_UID_ROOT: Final = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
MAX_AE_TITLE_CHARS: Final = 16

NOT_IN_AE_TITLE: Final = re.compile(r"[^\x20-\x5b\x5d-\x7e]")
"""A character that no AE title has: not printable ASCII, or a backslash (PS3.5 VR AE)."""


def is_ae_title(text: str) -> bool:
    """Whether a text can be an AE title: 1 to 16 printable ASCII characters, no backslash, no space at either end."""
    return 1 <= len(text) <= MAX_AE_TITLE_CHARS and text == text.strip(" ") and not NOT_IN_AE_TITLE.search(text)


def check_uid_root(root: str) -> None:
    """Raise ValueError, with what is allowed, unless a text can be the root of UIDs with enough digits behind it.

    A root that Medical Connections gives away has 27 or 28 characters, so a shorter bound would refuse it.
    """
    if _UID_ROOT.fullmatch(root) is None:
        raise ValueError(
            "a UID root consists of numbers and dots, without leading zeros, such as 1.2.826.0.1.3680043.10.99999"
        )
    if len(root) > MAX_UID_ROOT_CHARS:
        raise ValueError(
            f"a UID root has at most {MAX_UID_ROOT_CHARS} characters, so that {MIN_UID_DIGITS} digits fit behind it "
            "(PS3.5 9.1)"
        )


_LABEL: Final = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\.?")
"""A name after RFC 1123, and with the underscore that names of Windows machines have."""

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def network_of(host: str) -> IpNetwork | None:
    """The addresses that a text stands for: one, or a network such as 10.1.2.0/24; None for a host name.

    Raises ValueError for a text that is none of the three.
    """
    try:
        return ipaddress.ip_network(host)
    except ValueError as error:
        if "/" in host:
            raise ValueError(_why_no_network(host, error)) from error
    # A name of numbers only is a mistyped address: the last label of a name has a letter (RFC 3696 2).
    if _HOST_NAME.fullmatch(host) is None or host.rstrip(".").rsplit(".", 1)[-1].isdecimal():
        raise ValueError("it is neither an IP address nor a host name")
    return None


def _why_no_network(host: str, error: ValueError) -> str:
    try:
        meant = ipaddress.ip_network(host, strict=False)
    except ValueError:
        return f"it is no network: {error}"
    return f"it is no network, because it names a host in one; write {meant}, or the address alone"
