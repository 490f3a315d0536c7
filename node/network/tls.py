"""Builds the TLS contexts of the BCP 195 RFC 8996 profile (PS3.15 B.12); it opens no connection."""

import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.errors import Misconfigured

# The suites that PS3.15 B.12 asks for below TLS 1.3; OpenSSL's own list still contains CBC and DHE.
CIPHERS = (
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"
)


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


def server_context(certificate: Path, private_key: Path, ca: Path) -> ssl.SSLContext:
    """Context of the receiver: a peer without a certificate signed by `ca` is turned away. Raises UnusableCertificate.

    AE titles prove nothing; the client certificate is what authenticates a peer.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, certificate, private_key, ca)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(certificate: Path, private_key: Path, ca: Path) -> ssl.SSLContext:
    """Context of the courier: the peer's certificate must be signed by `ca` and name the host (subjectAltName).

    Raises UnusableCertificate.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, certificate, private_key, ca)


def page_context(certificate: Path, private_key: Path) -> ssl.SSLContext:
    """Context of the status page, to which any browser may connect. Raises UnusableCertificate."""
    return _own(ssl.PROTOCOL_TLS_SERVER, certificate, private_key)


def _context(protocol: int, certificate: Path, private_key: Path, ca: Path) -> ssl.SSLContext:
    context = _own(protocol, certificate, private_key)
    try:
        context.load_verify_locations(ca)
    except (OSError, ValueError) as error:
        raise UnusableCertificate(f"the CA file {ca} cannot be used: {error}") from None
    return context


def _own(protocol: int, certificate: Path, private_key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(certificate, private_key, password=_no_password)
    except (OSError, ValueError) as error:
        raise UnusableCertificate(
            f"certificate {certificate} with key {private_key} cannot be used: {_why(error)}"
        ) from None
    return context


def _no_password() -> str:
    """OpenSSL would ask the terminal for it, and a process without one would wait."""
    raise ValueError("the key is encrypted, and nobody could type its password")


def _why(error: Exception) -> str:
    """What OpenSSL means, where its own words do not say it."""
    if "KEY_VALUES_MISMATCH" in str(error):
        return "the key does not belong to the certificate"
    return "one of them is no PEM file" if "PEM lib" in str(error) else str(error)
