"""What is wrong with the settings of an object store is said of the settings, and not of the bucket."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("obstore")

from config.spool import SpoolSettings
from storage import objects as objects_module
from storage.errors import ObjectsUnavailable
from storage.objects import Objects, open_objects

BROKEN = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"no certificate", "it is no certificate in PEM form"),
        (BROKEN, "it is no certificate in PEM form"),
    ],
)
def test_a_ca_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, why: str) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_bytes(content)
    objects = open_objects(
        SpoolSettings(url="s3://bucket", endpoint="https://127.0.0.1:1", ca=ca), lambda: ("key", "secret")
    )
    with pytest.raises(ObjectsUnavailable) as refused:
        objects.head("store.json")
    assert str(refused.value) == f"spool.ca {ca} cannot be used: {why}"


class Answer(BaseHTTPRequestHandler):
    """One answer of a `Server`."""

    server: "Server"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.path, dict(self.headers)))
        self.send_response(self.server.status)
        self.send_header("ETag", '"1"')
        self.send_header("content-length", str(len(self.server.text)))
        self.end_headers()
        self.wfile.write(self.server.text)

    def log_message(self, *_: object) -> None: ...


class Server(ThreadingHTTPServer):
    """Answers every request in one way, and keeps the headers that came."""

    def __init__(self, status: int = 200, code: str = "") -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.status = status
        self.text = f"<Error><Code>{code}</Code><Message>of MUSTERMANN</Message></Error>".encode() if code else b""
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def serves() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def serve(status: int = 200, code: str = "") -> Server:
        servers.append(Server(status, code))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield serve
    for one in servers:
        one.shutdown()
        one.server_close()


def opened(endpoint: str) -> Objects:
    return open_objects(SpoolSettings(url="s3://bucket", endpoint=endpoint), lambda: ("key", "secret"))


@pytest.mark.parametrize(
    ("status", "code", "why"),
    [
        (403, "InvalidAccessKeyId", "the object store refuses these credentials"),
        (403, "AccessDenied", "the object store forbids this to these credentials"),
        (403, "RequestTimeTooSkewed", "the object store says the clock of this host is wrong"),
        (301, "PermanentRedirect", "the object store needs another spool.region"),
        (400, "AuthorizationHeaderMalformed", "the object store needs another spool.region"),
        (404, "NoSuchBucket", "the object store has no such bucket"),
        (503, "SlowDown", "the object store has too much to do"),
        (507, "XMinioStorageFull", "the object store is full"),
        (500, "InternalError", "the object store answers with an error of its own"),
    ],
)
def test_the_cause_is_named_and_nothing_that_the_server_wrote(
    serves: Callable[..., Server], status: int, code: str, why: str
) -> None:
    with pytest.raises(ObjectsUnavailable) as refused:
        opened(serves(status, code).endpoint).put("a", b"x")
    assert str(refused.value) == why


def test_a_server_that_takes_no_connection_is_named() -> None:
    with pytest.raises(ObjectsUnavailable, match="takes no connection"):
        opened("http://127.0.0.1:1").put("a", b"x")


@pytest.mark.parametrize("name", ["http_proxy", "ALL_PROXY"])
def test_images_in_clear_never_go_to_a_proxy_that_the_environment_names(
    serves: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    store, proxy = serves(), serves()
    monkeypatch.setenv(name, proxy.endpoint)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    opened(store.endpoint).put("a", b"x")
    assert ([path for path, _ in store.asked], proxy.asked) == (["/bucket/a"], [])


def test_credentials_of_the_file_are_not_mixed_with_those_of_the_environment(
    serves: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_SESSION_TOKEN": "of another program",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_UNSIGNED_PAYLOAD": "true",
    }.items():
        monkeypatch.setenv(name, value)
    store = serves()
    opened(store.endpoint).put("a", b"x")
    ((_, headers),) = store.asked
    names = {name.lower(): value for name, value in headers.items()}
    assert "Credential=key/" in names["authorization"]
    assert "x-amz-security-token" not in names
    assert names["x-amz-content-sha256"] != "UNSIGNED-PAYLOAD"


def test_a_renewed_file_is_taken_into_use_before_the_old_credentials_are_refused() -> None:
    now = [("key", "secret")]

    def credentials() -> tuple[str, str]:
        if not now:
            raise ObjectsUnavailable("the file cannot be read")
        return now[0]

    provide = objects_module._renewed(("key", "secret"), credentials)
    assert provide()["access_key_id"] == "key"
    now[:] = [("renewed", "secret")]
    assert provide()["access_key_id"] == "renewed"
    now.clear()
    assert provide()["access_key_id"] == "renewed", "somebody writes it at this moment"
