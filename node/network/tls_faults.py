"""Says in plain words why a TLS handshake failed; OpenSSL's own words name its functions and alerts."""

import ssl
from typing import Final

NO_TLS: Final = "it does not speak TLS on this connection"
_OLD: Final = "it speaks no version of TLS from 1.2 on"
_ISSUER: Final = "it is not signed by an authority of our ca"
_NAME: Final = "it does not name the host by which the peer is called"
_WEAK: Final = "a key or a signature in its chain is too weak"
_OURS: Final = "it does not accept our certificate"

# X509_V_ERR of OpenSSL: what is wrong with the certificate of the peer.
_CERTIFICATE: Final = {
    3: "the revocation list of our crl is of another authority",
    9: "it is not valid yet; compare the clocks",
    10: "it has expired",
    11: "the revocation list of our crl is not valid yet; compare the clocks",
    12: "the revocation list of our crl has expired",
    18: _ISSUER,
    19: _ISSUER,
    20: _ISSUER,
    21: _ISSUER,
    23: "it is revoked",
    62: _NAME,
    64: _NAME,
    66: _WEAK,
    67: _WEAK,
    68: _WEAK,
}
# Reasons of OpenSSL; ALERT is in those that the peer sent (RFC 8446 section 6.2).
_REASONS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "UNSUPPORTED_PROTOCOL": _OLD,
    "TLSV1_ALERT_PROTOCOL_VERSION": _OLD,
    "WRONG_VERSION_NUMBER": NO_TLS,
    "HTTP_REQUEST": NO_TLS,
    "NO_SHARED_CIPHER": "it has no cipher suite of our profile",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "it has no signature algorithm that fits our certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it has no cipher suite of our profile, or misses a certificate of ours",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": f"{_OURS}: it got none",
    "TLSV1_ALERT_UNKNOWN_CA": f"{_OURS}: it does not trust the authority that signed it",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": f"{_OURS}: it, or the revocation list of the peer, has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": f"{_OURS}: it is revoked",
    "SSLV3_ALERT_BAD_CERTIFICATE": f"{_OURS}: does it name the host by which we are called, and is it valid yet?",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _OURS,
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection during the handshake; does it speak TLS?",
}


def why_no_tls(error: ssl.SSLError) -> str:
    """What an administrator has to look at; `it` is the peer. Nothing of it was sent by the peer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = _CERTIFICATE.get(error.verify_code, error.verify_message)
        return f"its certificate is not accepted: {why}"
    reason = error.reason or ("UNEXPECTED_EOF_WHILE_READING" if isinstance(error, ssl.SSLEOFError) else "")
    return _REASONS.get(reason, reason or "the handshake failed")
