"""The page itself over TLS, with the certificate of the settings."""

import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from config.settings import Settings, WebSettings, WebTlsSettings
from node.beats import no_beat
from node.bootstrap.checks import check_settings
from node.bootstrap.store import Node
from node.errors import Misconfigured
from node.ops.certificates import check_page_tls
from node.web.server import Page
from storage.database import Database
from tests.slice.harness import free_port


@pytest.fixture(scope="module")
def tls(tmp_path_factory) -> WebTlsSettings:
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ct"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run([*command.split(), *map(str, files)], check=True, capture_output=True)
    return WebTlsSettings(certificate=folder / "cert.pem", private_key=folder / "key.pem")


def test_the_page_is_served_over_tls(tls, sqlite_file):
    web = WebSettings(tls=tls, port=free_port())
    node = Node(Settings(web=web), Database(f"sqlite:///{sqlite_file}"), "", writable=True)
    page, stop = Page(web), threading.Event()
    thread = threading.Thread(target=page.run, args=(node, stop, no_beat))
    thread.start()
    try:
        assert page.address == f"https://127.0.0.1:{web.port}"
        context = ssl.create_default_context(cafile=str(tls.certificate))
        answer = fetch(page.address + "/login", context)
        assert b"syncect users add" in answer.read()
        assert answer.headers["set-cookie"].startswith("__Host-syncect-login=")
        assert answer.headers["server"] is None
    finally:
        stop.set()
        thread.join()


def fetch(url: str, context: ssl.SSLContext):
    """The answer, as soon as the page listens."""
    for _ in range(100):
        try:
            return urlopen(url, timeout=10, context=context)
        except URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
            threading.Event().wait(0.05)
    raise AssertionError("the page does not listen")


def test_files_that_cannot_be_used_are_told_before_the_page_begins(tls, tmp_path):
    other = WebTlsSettings(certificate=tls.certificate, private_key=tmp_path / "none.pem")
    page = Page(WebSettings(tls=other))
    with pytest.raises(Misconfigured, match="cannot be used"):
        page.run(Node(Settings(), Database.empty(), "", writable=True), threading.Event(), no_beat)
    now = datetime.now(UTC)
    (missing,) = check_page_tls(WebSettings(tls=other), now)
    assert missing.text.startswith("web.tls.private_key = ")
    assert "No such file" in missing.text
    (soon,) = check_page_tls(WebSettings(tls=tls), now)
    assert "expires on" in soon.text
    (over,) = check_page_tls(WebSettings(tls=tls), now + timedelta(days=3))
    assert (over.is_mistake, "has expired" in over.text) == (True, True)
    assert not list(check_page_tls(WebSettings(tls=tls, enabled=False), now))
    settings = Settings(web=WebSettings(tls=other))
    assert missing.text in [finding.text for finding in check_settings(settings)]
