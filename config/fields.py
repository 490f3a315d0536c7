"""What several sections of the settings are made of: AE titles, hosts, ports, and the base of every section."""

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from config.syntax import check_uid_root, is_ae_title, network_of


def _ae_title(value: str) -> str:
    if not is_ae_title(value):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters without backslash (PS3.5 VR AE)")
    return value


def _ae_title_or_none(value: str) -> str:
    return _ae_title(value) if value else value


def _uid_root(value: str) -> str:
    if value:
        check_uid_root(value)
    return value


def check_host(value: str) -> str:
    """The host, where it is one; raises ValueError."""
    network = network_of(value)
    if network is not None and network.num_addresses > 1:
        raise ValueError("a network is no host; write one IP address or a host name")
    return value


_URL = re.compile(r"https?://[A-Za-z0-9._\[\]:-]+(?P<path>(/[A-Za-z0-9._~-]+)*)/?")


def check_url(value: str, wanted: str, *, with_path: bool) -> str:
    """The address of a service by HTTP, without a slash at its end; raises ValueError, which says what is `wanted`."""
    found = _URL.fullmatch(value)
    try:
        parts = urlsplit(value)
        check_host(parts.hostname or "")
        is_whole = found is not None and parts.port != 0 and (with_path or not found["path"])
    except ValueError:
        is_whole = False
    if not is_whole:
        raise ValueError(f"it should be {wanted}")
    return value.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether what is sent to a host or an address does not leave this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hosts(value: str) -> str:
    if value:
        network_of(value)
    return value


_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")


def _certificate(value: str) -> str:
    """A name in lower case, or a fingerprint without the colons that OpenSSL prints."""
    if value.lower().startswith("sha256:"):
        fingerprint = "sha256:" + value.lower().removeprefix("sha256:").replace(":", "")
        if not _FINGERPRINT.fullmatch(fingerprint):
            raise ValueError("a fingerprint is sha256: and 64 hexadecimal digits")
        return fingerprint
    if not value.isprintable() or value != value.strip() or len(value) > 253:
        raise ValueError("it is neither the name in a certificate nor its fingerprint, sha256: and 64 digits")
    return value.lower()


def _timezone(value: str) -> str:
    if value and value not in available_timezones():
        raise ValueError("it is no name of the IANA time zone database, such as Europe/Berlin")
    return value


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Host = Annotated[str, AfterValidator(check_host)]
UidRoot = Annotated[str, AfterValidator(_uid_root)]
Hosts = Annotated[str, AfterValidator(_hosts)]
CertificateName = Annotated[str, AfterValidator(_certificate)]
TimeZone = Annotated[str, AfterValidator(_timezone)]
OptionalAeTitle = Annotated[str, AfterValidator(_ae_title_or_none)]
Port = Annotated[int, Field(ge=1, le=65535)]


_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Section(BaseModel):
    """Base of all sections: immutable, a key that nobody reads is an error, and so is a text of several lines.

    No path of the system may have a NUL, and a line break would end a line of the log or a header of a mail.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _on_one_line(cls, value: object) -> object:
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str) and _CONTROLS.search(text):
                raise ValueError("it should be one line, without control characters")
        return value
