"""Certificates that OpenSSL makes for the TLS tests."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from config.settings import TlsSettings

SUBJECTS = {"renewed": "node"}
OTHERS = ("expired", "early", "revoked", "elsewhere")


@dataclass(frozen=True)
class Certificates:
    """A CA with certificates for 127.0.0.1, and a stranger that the CA did not sign.

    `renewed` is another certificate of the subject of `node`, `other` one of another subject.
    """

    folder: Path

    def settings(self, owner: str = "node", *, ca: str = "ca", **more: object) -> TlsSettings:
        return TlsSettings.model_validate(
            {
                "certificate": self.folder / f"{owner}.pem",
                "private_key": self.folder / f"{owner}.key",
                "ca": self.folder / f"{ca}.pem",
            }
            | more
        )

    def files(self, owner: str = "node", *, ca: str = "ca") -> tuple[Path, Path, Path]:
        tls = self.settings(owner, ca=ca)
        return tls.certificate, tls.private_key, tls.ca

    def copied_to(self, folder: Path, owner: str = "node") -> TlsSettings:
        """The files of `owner` as node.pem, node.key and ca.pem of a folder, where a test may replace them."""
        own = Certificates(folder)
        self.replace(own, "private_key", owner)
        self.replace(own, "certificate", owner)
        shutil.copy(self.folder / "ca.pem", folder)
        return own.settings()

    def replace(self, where: "Certificates | TlsSettings", name: str, owner: str) -> None:
        """Put one file of `owner` into the place of another, at once and whole, as `install` and `mv` do."""
        tls = where if isinstance(where, TlsSettings) else where.settings()
        target: Path = getattr(tls, name)
        fresh = target.with_suffix(".new")
        shutil.copy(getattr(self.settings(owner), name), fresh)
        fresh.rename(target)


def make_certificates(folder: Path, openssl_program: str) -> Certificates:
    openssl = _Openssl(folder, openssl_program)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    name = ["-addext", "subjectAltName=IP:127.0.0.1"]
    for issuer in ("ca", "stranger-ca"):
        openssl("req", "-x509", *key, "-keyout", f"{issuer}.key", "-out", f"{issuer}.pem", "-subj", f"/CN={issuer}")
    for owner, issuer in (("node", "ca"), ("renewed", "ca"), ("other", "ca"), ("stranger", "stranger-ca")):
        signed = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key"]
        out = ["-keyout", f"{owner}.key", "-out", f"{owner}.pem", "-subj", f"/CN={SUBJECTS.get(owner, owner)}"]
        openssl("req", "-x509", *key, *signed, *name, *out)
    return Certificates(folder)


def make_faulty_certificates(made: Certificates, openssl_program: str) -> None:
    """Beside those of `made`: `expired`, `early` (not yet valid), `elsewhere` (of another host) and `revoked`.

    ca.crl lists `revoked`; over.crl does, too, and has expired; stranger.crl is of the other authority.
    """
    openssl = _Openssl(made.folder, openssl_program)
    (made.folder / "index.txt").touch()
    (made.folder / "serial").write_text("01\n")
    (made.folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca = ca\ndatabase = index.txt\nserial = serial\nnew_certs_dir = .\n"
        "default_md = sha256\npolicy = any\nunique_subject = no\ncopy_extensions = copy\n[any]\ncommonName = supplied\n"
    )
    times = {
        "expired": ["-startdate", "20200101000000Z", "-enddate", "20210101000000Z"],
        "early": ["-startdate", "20900101000000Z", "-enddate", "20910101000000Z"],
    }
    signed = ["ca", "-batch", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key"]
    for owner in OTHERS:
        host = "DNS:elsewhere.example" if owner == "elsewhere" else "IP:127.0.0.1"
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{owner}.key"]
        openssl("req", *key, "-out", f"{owner}.csr", "-subj", f"/CN={owner}", "-addext", f"subjectAltName={host}")
        openssl(*signed, "-notext", "-in", f"{owner}.csr", "-out", f"{owner}.pem", *times.get(owner, ["-days", "2"]))
    openssl(*signed, "-revoke", "revoked.pem")
    openssl(*signed, "-gencrl", "-crldays", "2", "-out", "ca.crl")
    over = ["-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20210101000000Z"]
    openssl(*signed, "-gencrl", *over, "-out", "over.crl")
    strange = ["ca", "-batch", "-config", "ca.cnf", "-cert", "stranger-ca.pem", "-keyfile", "stranger-ca.key"]
    openssl(*strange, "-gencrl", "-crldays", "2", "-out", "stranger.crl")


@dataclass(frozen=True)
class _Openssl:
    folder: Path
    program: str

    def __call__(self, *arguments: str) -> None:
        subprocess.run([self.program, *arguments], cwd=self.folder, check=True, capture_output=True, timeout=30)
