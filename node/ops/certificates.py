"""Checks TLS files before a peer does: they are there, fit each other, and have not expired."""

import base64
import re
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from config.destinations import HttpsSettings
from config.settings import AskedPeer, Settings, TlsSettings, WebSettings
from node.network.tls import UnusableCertificate, https_context, page_context, server_context
from node.ops.findings import Finding, warning, why_unreadable

PAGE_KEY = "web.tls"
WARNED_BEFORE = timedelta(days=30)
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
_PEM_LIST = re.compile(r"-----BEGIN X509 CRL-----(.+?)-----END X509 CRL-----", re.DOTALL)
_CONTEXT_0, _INTEGER, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x02, 0x17, 0x18  # tags of ASN.1 (X.690)


PeerTls = TlsSettings | HttpsSettings


def tls_of(settings: Settings) -> Iterator[tuple[str, PeerTls]]:
    """Every place of the settings that names TLS files, by its key such as scp.tls."""
    found: list[tuple[str, PeerTls | None]] = [("scp.tls", settings.scp.tls)]
    found += [(f"destination.{number}.tls", peer.tls) for number, peer in enumerate(settings.destination)]
    if isinstance(settings.completion.count_from, AskedPeer):
        found.append(("completion.count_from.tls", settings.completion.count_from.tls))
    for key, tls in found:
        if tls is not None:
            yield key, tls


def certificate_files(settings: Settings) -> Iterator[tuple[str, str, Path]]:
    """Every file of certificates: the place that names it, such as scp.tls, its name there, and the file."""
    for key, tls in tls_of(settings):
        for name, path in files_of(tls).items():
            if name != "private_key":
                yield key, name, path
    if settings.web.tls is not None:
        yield PAGE_KEY, "certificate", settings.web.tls.certificate


def check_all_tls(settings: Settings, now: datetime) -> Iterator[tuple[str, Finding]]:
    """What is wrong with the TLS files of the settings, each with the place that names them."""
    for key, tls in tls_of(settings):
        for finding in check_tls(key, tls, now):
            yield key, finding
    for finding in check_page_tls(settings.web, now):
        yield PAGE_KEY, finding


def files_of(tls: PeerTls) -> dict[str, Path]:
    """The files that a section of TLS names, by their keys."""
    return {name: value for name, value in tls if isinstance(value, Path)}


def check_tls(key: str, tls: PeerTls, now: datetime) -> Iterator[Finding]:
    """What is wrong with the files; `key` is the place of the settings, such as scp.tls."""
    context = partial(https_context, tls) if isinstance(tls, HttpsSettings) else partial(server_context, tls)
    yield from _check(key, files_of(tls), context, now)


def check_page_tls(settings: WebSettings, now: datetime) -> Iterator[Finding]:
    """What is wrong with the two files of the status page, where it has any."""
    tls = settings.tls
    if settings.enabled and tls is not None:
        files = {"certificate": tls.certificate, "private_key": tls.private_key}
        yield from _check(PAGE_KEY, files, partial(page_context, tls), now)


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
            # An authority issues a list of some days long before the former one ends.
            before = min(WARNED_BEFORE, (ends - begins) / 4) if name == "crl" else WARNED_BEFORE
            yield from _judge(f"{key}.{name} = {str(path)!r}", begins, ends, now, before)


def _judge(what: str, begins: datetime, ends: datetime, now: datetime, before: timedelta) -> Iterator[Finding]:
    if now < begins:
        yield Finding(f"{what} is not valid before {begins:%Y-%m-%d %H:%M} UTC")
    elif now >= ends:
        every = "; until it is renewed every peer is turned away" if ".crl = " in what else ""
        yield Finding(f"{what} has expired on {ends:%Y-%m-%d}{every}")
    elif now + before >= ends:
        yield warning(f"{what} expires on {ends:%Y-%m-%d}, in {(ends - now).days} days")


def first_to_end(settings: Settings) -> tuple[datetime, str] | None:
    """When the first certificate or revocation list ends, and the key such as scp.tls that names it; None without any.

    Raises OSError and ValueError where a file cannot be read.
    """
    ends = [(end, key) for key, _, path in certificate_files(settings) for _, end in validity(path)]
    return min(ends, default=None)


def validity(path: Path) -> list[tuple[datetime, datetime]]:
    """First and last moment of every certificate and revocation list in a PEM file that OpenSSL could read.

    A list that names no next one has no last moment, and is left out. Raises OSError, and ValueError for other files.
    """
    text = path.read_text(encoding="ascii", errors="replace")
    certificates = [validity_of(ssl.PEM_cert_to_DER_cert(block)) for block in _PEM.findall(text)]
    lists = [_validity_of_list(base64.b64decode(block)) for block in _PEM_LIST.findall(text)]
    return certificates + [one for one in lists if one is not None]


def _validity_of_list(der: bytes) -> tuple[datetime, datetime] | None:
    """First and last moment of a revocation list in DER (RFC 5280 5.1): thisUpdate and nextUpdate."""
    _, whole, _ = _element(der)
    _, fields, _ = _element(whole)
    tag, _, after_version = _element(fields)
    rest = after_version if tag == _INTEGER else fields
    for _ in ("signature", "issuer"):
        _, _, rest = _element(rest)
    begin_tag, begin, rest = _element(rest)
    if not rest or rest[0] not in (_UTC_TIME, _GENERALIZED_TIME):
        return None
    end_tag, end, _ = _element(rest)
    return _moment(begin_tag, begin), _moment(end_tag, end)


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
    """Tag and contents of the first element of ASN.1 DER, and what follows; raises ValueError where there is none."""
    if len(data) < 2:
        raise ValueError("the certificate or the revocation list is cut off")
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
