"""Checks TLS files before a peer does: they are there, fit each other, and have not expired."""

import re
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from config.settings import AskedPeer, Settings, TlsSettings, WebSettings
from node.network.tls import UnusableCertificate, page_context, server_context
from node.ops.findings import Finding, warning, why_unreadable

PAGE_KEY = "web.tls"
WARNED_BEFORE = timedelta(days=30)
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
_CONTEXT_0, _UTC_TIME = 0xA0, 0x17  # tags of ASN.1 (X.690): [0], UTCTime


def tls_of(settings: Settings) -> Iterator[tuple[str, TlsSettings]]:
    """Every place of the settings that names TLS files, by its key such as scp.tls."""
    found = [("scp.tls", settings.scp.tls)]
    found += [(f"destination.{number}.tls", peer.tls) for number, peer in enumerate(settings.destination)]
    if isinstance(settings.completion.count_from, AskedPeer):
        found.append(("completion.count_from.tls", settings.completion.count_from.tls))
    for key, tls in found:
        if tls is not None:
            yield key, tls


def certificate_files(settings: Settings) -> Iterator[tuple[str, str, Path]]:
    """Every file of certificates: the place that names it, such as scp.tls, its name there, and the file."""
    for key, tls in tls_of(settings):
        yield key, "certificate", tls.certificate
        yield key, "ca", tls.ca
    if settings.web.tls is not None:
        yield PAGE_KEY, "certificate", settings.web.tls.certificate


def check_all_tls(settings: Settings, now: datetime) -> Iterator[tuple[str, Finding]]:
    """What is wrong with the TLS files of the settings, each with the place that names them."""
    for key, tls in tls_of(settings):
        for finding in check_tls(key, tls, now):
            yield key, finding
    for finding in check_page_tls(settings.web, now):
        yield PAGE_KEY, finding


def check_tls(key: str, tls: TlsSettings, now: datetime) -> Iterator[Finding]:
    """What is wrong with the three files; `key` is the place of the settings, such as scp.tls."""
    files = {"certificate": tls.certificate, "private_key": tls.private_key, "ca": tls.ca}
    yield from _check(key, files, partial(server_context, **files), now)


def check_page_tls(settings: WebSettings, now: datetime) -> Iterator[Finding]:
    """What is wrong with the two files of the status page, where it has any."""
    tls = settings.tls
    if settings.enabled and tls is not None:
        files = {"certificate": tls.certificate, "private_key": tls.private_key}
        yield from _check(PAGE_KEY, files, partial(page_context, **files), now)


def _check(key: str, files: dict[str, Path], context: Callable[[], object], now: datetime) -> Iterator[Finding]:
    unreadable = False
    for name, path in files.items():
        if why := why_unreadable(path):
            unreadable = True
            yield Finding(f"{key}.{name} = {str(path)!r} cannot be read: {why}")
    if unreadable:
        return
    try:
        context()
    except UnusableCertificate as error:
        yield Finding(f"{key}: {error}")
        return
    for name in (name for name in files if name != "private_key"):
        path = files[name]
        for begins, ends in validity(path):
            yield from _judge(f"{key}.{name} = {str(path)!r}", begins, ends, now)


def _judge(what: str, begins: datetime, ends: datetime, now: datetime) -> Iterator[Finding]:
    if now < begins:
        yield Finding(f"{what} is not valid before {begins:%Y-%m-%d %H:%M} UTC")
    elif now >= ends:
        yield Finding(f"{what} has expired on {ends:%Y-%m-%d}")
    elif now + WARNED_BEFORE >= ends:
        yield warning(f"{what} expires on {ends:%Y-%m-%d}, in {(ends - now).days} days")


def validity(path: Path) -> list[tuple[datetime, datetime]]:
    """First and last moment of every certificate in a PEM file that OpenSSL could read."""
    text = path.read_text(encoding="ascii", errors="replace")
    return [validity_of(ssl.PEM_cert_to_DER_cert(block)) for block in _PEM.findall(text)]


def validity_of(der: bytes) -> tuple[datetime, datetime]:
    """First and last moment of one certificate in DER (RFC 5280 4.1)."""
    _, certificate, _ = _element(der)
    _, fields, _ = _element(certificate)
    tag, _, after_version = _element(fields)
    rest = after_version if tag == _CONTEXT_0 else fields
    for _ in ("serialNumber", "signature", "issuer"):  # they stand before the validity
        _, _, rest = _element(rest)
    _, times, _ = _element(rest)
    begin_tag, begin, rest = _element(times)
    end_tag, end, _ = _element(rest)
    return _moment(begin_tag, begin), _moment(end_tag, end)


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and contents of the first element of ASN.1 DER, and what follows it."""
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    return data[0], data[start : start + length], data[start + length :]


def _moment(tag: int, text: bytes) -> datetime:
    # RFC 5280 4.1.2.5: seconds and Z always; two digits of a year from 50 on are of the 20th century
    digits = text.decode("ascii")
    if tag == _UTC_TIME:
        digits = ("19" if digits >= "50" else "20") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
