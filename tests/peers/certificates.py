"""Certificates that OpenSSL makes for the TLS tests."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from config.settings import TlsSettings

SUBJECTS = {"renewed": "node"}


@dataclass(frozen=True)
class Certificates:
    """A CA with certificates for 127.0.0.1, and a stranger that the CA did not sign.

    `renewed` is another certificate of the subject of `node`, `other` one of another subject.
    """

    folder: Path

    def settings(self, owner: str = "node", *, ca: str = "ca") -> TlsSettings:
        return TlsSettings(
            certificate=self.folder / f"{owner}.pem",
            private_key=self.folder / f"{owner}.key",
            ca=self.folder / f"{ca}.pem",
        )

    def files(self, owner: str = "node", *, ca: str = "ca") -> tuple[Path, Path, Path]:
        tls = self.settings(owner, ca=ca)
        return tls.certificate, tls.private_key, tls.ca


def make_certificates(folder: Path, openssl_program: str) -> Certificates:
    def openssl(*arguments: str) -> None:
        subprocess.run([openssl_program, *arguments], cwd=folder, check=True, capture_output=True, timeout=30)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    name = ["-addext", "subjectAltName=IP:127.0.0.1"]
    for issuer in ("ca", "stranger-ca"):
        openssl("req", "-x509", *key, "-keyout", f"{issuer}.key", "-out", f"{issuer}.pem", "-subj", f"/CN={issuer}")
    for owner, issuer in (("node", "ca"), ("renewed", "ca"), ("other", "ca"), ("stranger", "stranger-ca")):
        signed = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key"]
        out = ["-keyout", f"{owner}.key", "-out", f"{owner}.pem", "-subj", f"/CN={SUBJECTS.get(owner, owner)}"]
        openssl("req", "-x509", *key, *signed, *name, *out)
    return Certificates(folder)
