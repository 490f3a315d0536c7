"""How a DICOMweb server and the node know each other: by secrets in files, and by certificates."""

import ssl
from pathlib import Path
from typing import Any

import pytest

from config.destinations import HttpsSettings
from node.network.no_association import Outcome
from node.network.renewal import https_tls
from node.network.requestor import Timeouts
from node.network.tls import server_context
from node.send.stow import StowSender
from tests.peers.dicomweb_server import DicomwebServer

PATIENT = Timeouts(connection_s=20, dimse_s=20)  # nothing here waits for one


@pytest.fixture
def server(make_dicomweb: Any) -> DicomwebServer:
    made: DicomwebServer = make_dicomweb()
    return made


@pytest.mark.parametrize(
    ("login", "header"),
    [
        ({"token_file": "secret"}, "Bearer abc.DEF-1="),
        ({"username": "node", "password_file": "secret"}, "Basic bm9kZTphYmMuREVGLTE9"),
    ],
)
def test_a_secret_comes_from_its_file_and_from_nowhere_else(
    produce: Any,
    store: Any,
    server: DicomwebServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    login: dict[str, str],
    header: str,
) -> None:
    (netrc := tmp_path / "netrc").write_text("machine 127.0.0.1\nlogin me\npassword it\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    produce(1)
    items = store.derived()
    secret = tmp_path / "secret"
    login = {key: value if key == "username" else str(secret) for key, value in login.items()}
    destination = server.destination(**login)
    assert StowSender(destination, PATIENT).send(items).reason == f"{secret} cannot be read: No such file or directory"
    secret.write_text("abc.DEF-1=\n")
    secret.chmod(0o644)
    report = StowSender(destination, PATIENT).send(items)
    assert report.outcome is Outcome.MISCONFIGURED
    assert report.reason == f"{secret} holds a secret, and other users of this machine can read or change it"
    secret.chmod(0o600)
    assert StowSender(destination, PATIENT).send(items).outcome is Outcome.DONE
    secret.write_text("a\x00b\n")
    assert StowSender(destination, PATIENT).send(items).outcome is Outcome.MISCONFIGURED
    assert StowSender(server.destination(), PATIENT).send(items).outcome is Outcome.DONE
    assert [asked.headers.get("Authorization") for asked in server.asked] == [header, None]


def test_a_server_is_known_by_an_authority_of_its_own_and_the_node_shows_its_certificate(
    produce: Any, store: Any, make_dicomweb: Any, certificates: Any
) -> None:
    produce(1)
    items = store.derived()
    mutual, foreign = (make_dicomweb(tls=server_context(certificates.settings(one))) for one in ("node", "stranger"))
    certificate, key, ca = certificates.files("other")
    shown = {"ca": ca, "certificate": certificate, "private_key": key}

    def send(server: DicomwebServer, **tls: Path) -> Any:
        return StowSender(server.destination(tls=tls or None), PATIENT).send(items)

    assert send(mutual, **shown).outcome is Outcome.DONE
    for report, words in (
        (send(foreign, **shown), "its certificate is not accepted: it is not signed by an authority of our ca"),
        (send(mutual), "its certificate is not accepted: it is not signed by an authority of our ca"),
        (send(mutual, ca=key), f"the CA file {key} cannot be used"),
    ):
        assert report.outcome is Outcome.MISCONFIGURED
        assert words in report.reason
    assert send(mutual, ca=ca).outcome in (Outcome.MISCONFIGURED, Outcome.TRANSIENT)  # its alert may come too late
    plain = StowSender(mutual.destination(url=f"http://127.0.0.1:{mutual.port}"), PATIENT).send(items)
    assert plain.outcome is not Outcome.DONE
    assert len(mutual.asked) == 1


def test_no_authority_of_a_library_is_trusted(
    server: DicomwebServer, make_dicomweb: Any, certificates: Any, produce: Any, store: Any
) -> None:
    """requests would add those of certifi to whatever context it is given."""
    produce(1)
    certificate, key, ca = certificates.files("other")
    mutual = make_dicomweb(tls=server_context(certificates.settings()))
    destination = mutual.destination(tls={"ca": ca, "certificate": certificate, "private_key": key})
    assert StowSender(destination, PATIENT).send(store.derived()).outcome is Outcome.DONE
    context: ssl.SSLContext = https_tls(destination.tls or HttpsSettings())()
    assert context.cert_store_stats()["x509_ca"] == 1
