"""Builds the TLS contexts of the profiles BCP 195 RFC 8996 (PS3.15 B.12) and Modified BCP 195 RFC 8996 (B.13).

It opens no connection.
"""

import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.destinations import HttpsSettings
from config.settings import TlsSettings, WebTlsSettings
from node.errors import Misconfigured

# The suites that PS3.15 B.12 asks for below TLS 1.3; OpenSSL's own list still contains CBC and DHE.
_GCM: Final = (
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
)
# Those that B.13 has besides. Its Camellia suites are optional since CP 2311, and OpenSSL has none of them.
_MODIFIED: Final = (
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-CCM:ECDHE-ECDSA-AES256-CCM8:"
    "ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES128-CCM8"
)
# Level 2 of OpenSSL turns RSA keys below 2048 bits and signatures with SHA-1 away, whatever the system's default is.
_LEVEL: Final = "@SECLEVEL=2"
CIPHERS: Final = {
    "bcp195-rfc8996": f"{_GCM}:{_LEVEL}",
    "bcp195-rfc8996-modified": f"{_GCM}:{_MODIFIED}:{_LEVEL}",
}
_PAGE_PROFILE: Final = "bcp195-rfc8996"


class UnusableCertificate(Misconfigured):
    """A certificate, a key or a CA file cannot be used; an administrator has to replace or correct it."""


@dataclass(frozen=True)
class PeerCertificate:
    """What the certificate of a peer proves, once its signature was verified.

    names: common names and DNS names in lower case. fingerprint: SHA-256 of the certificate. identity: SHA-256 of its
    subject, which a renewed certificate has too.
    """

    names: frozenset[str]
    fingerprint: str
    identity: str


def peer_certificate(connection: ssl.SSLSocket) -> PeerCertificate | None:
    """The certificate of the peer of a connection after the handshake; None where it showed none."""
    encoded, fields = connection.getpeercert(binary_form=True), connection.getpeercert()
    if not encoded or not fields:
        return None
    subject: Any = fields.get("subject", ())
    alternatives: Any = fields.get("subjectAltName", ())
    names = {value for part in subject for key, value in part if key == "commonName"}
    names |= {value for kind, value in alternatives if kind == "DNS"}
    # A certificate without a subject is named by its alternative names (RFC 5280 4.2.1.6).
    identity = hashlib.sha256(repr(subject or alternatives).encode())
    return PeerCertificate(
        frozenset(name.lower() for name in names), hashlib.sha256(encoded).hexdigest(), identity.hexdigest()
    )


def server_context(tls: TlsSettings) -> ssl.SSLContext:
    """Context of the receiver: a peer without a certificate signed by `ca` is turned away. Raises UnusableCertificate.

    AE titles prove nothing; the client certificate is what authenticates a peer.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: TlsSettings) -> ssl.SSLContext:
    """Context of the courier: the peer's certificate must be signed by `ca` and name the host (subjectAltName).

    Raises UnusableCertificate.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, tls)


def https_context(tls: HttpsSettings) -> ssl.SSLContext:
    """Context of requests to a DICOMweb server: its certificate must be signed by `ca`, or by whom this machine trusts.

    It must name the host of the URL. Raises UnusableCertificate.
    """
    context = _bare(ssl.PROTOCOL_TLS_CLIENT, _PAGE_PROFILE)
    if tls.certificate is not None and tls.private_key is not None:
        _show(context, tls.certificate, tls.private_key)
    if tls.ca is not None:
        _trust(context, tls.ca)
    else:
        context.load_default_certs()
    return context


def page_context(tls: WebTlsSettings) -> ssl.SSLContext:
    """Context of the status page, to which any browser may connect. Raises UnusableCertificate."""
    return _own(ssl.PROTOCOL_TLS_SERVER, _PAGE_PROFILE, tls.certificate, tls.private_key)


def _context(protocol: int, tls: TlsSettings) -> ssl.SSLContext:
    context = _own(protocol, tls.profile, tls.certificate, tls.private_key)
    _trust(context, tls.ca)
    if tls.crl is not None:
        _revoke(context, tls.crl)
    return context


def _trust(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(ca)
    except (OSError, ValueError) as error:
        raise UnusableCertificate(f"the CA file {ca} cannot be used: {error}") from None


def _revoke(context: ssl.SSLContext, crl: Path) -> None:
    """Turn away the certificates that are on a revocation list of their authority (RFC 5280 section 5)."""
    trusted = context.cert_store_stats()["x509"]
    try:
        context.load_verify_locations(crl)
    except (OSError, ValueError):
        raise UnusableCertificate(
            f"the revocation list {crl} cannot be used: it cannot be read, or is no PEM"
        ) from None
    found = context.cert_store_stats()
    if not found["crl"]:
        raise UnusableCertificate(f"the revocation list {crl} cannot be used: it holds no X509 CRL")
    if found["x509"] != trusted:  # whoever signs with one of them would be trusted from now on
        raise UnusableCertificate(f"the revocation list {crl} cannot be used: it holds certificates; they belong to ca")
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _own(protocol: int, profile: str, certificate: Path, private_key: Path) -> ssl.SSLContext:
    context = _bare(protocol, profile)
    _show(context, certificate, private_key)
    return context


def _bare(protocol: int, profile: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS[profile])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context


def _show(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    try:
        context.load_cert_chain(certificate, private_key, password=_no_password)
    except (OSError, ValueError) as error:
        raise UnusableCertificate(
            f"certificate {certificate} with key {private_key} cannot be used: {_why(error)}"
        ) from None


def _no_password() -> str:
    """OpenSSL would ask the terminal for it, and a process without one would wait."""
    raise ValueError("the key is encrypted, and nobody could type its password")


def _why(error: Exception) -> str:
    """What OpenSSL means, where its own words do not say it."""
    if "KEY_VALUES_MISMATCH" in str(error):
        return "the key does not belong to the certificate"
    return "one of them is no PEM file" if "PEM lib" in str(error) else str(error)
