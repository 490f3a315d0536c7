"""A DICOMweb server of a test: it keeps what it is sent and lists it, or answers as the test says."""

import http.server
import io
import json
import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydicom import dcmread

from config.destinations import DicomwebSettings

JSON = {"Content-Type": "application/dicom+json"}
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"


@dataclass(frozen=True)
class Asked:
    """One request: parts are the files that it carries."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    parts: tuple[bytes, ...]

    @property
    def uids(self) -> list[str]:
        return [str(dcmread(io.BytesIO(part)).SOPInstanceUID) for part in self.parts]


@dataclass(frozen=True)
class Told:
    """An answer; `raw` is written as it is, in place of all of it, and the connection closed."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] | None = None
    raw: Callable[[Any], object] | None = None


def element(*values: Any) -> dict[str, Any]:
    return {"Value": list(values)}


def item(uid: str, **numbers: int) -> dict[str, Any]:
    """An item of the Store Instances Response Module; failure, warning: the number."""
    tags = {"failure": "00081197", "warning": "00081196"}
    return {"00081155": element(uid)} | {tags[name]: element(number) for name, number in numbers.items()}


def stored(*items: dict[str, Any], failed: tuple[dict[str, Any], ...] = (), status: int = 200) -> Told:
    module = {"00081199": element(*items), "00081198": element(*failed)}
    return Told(status, json.dumps(module).encode(), JSON)


class DicomwebServer(http.server.ThreadingHTTPServer):
    """`on_store` and `on_search` give the answer to a request; None lets the server do its work."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tls = tls
        self.asked: list[Asked] = []
        self.held: dict[str, bytes] = {}
        self.connections = 0
        self.page = 1000  # answers that it gives at most, whatever it is asked for
        self.on_store: Callable[[Asked], Told | None] = lambda asked: None
        self.on_search: Callable[[Asked], Told | None] = lambda asked: None
        self.patients: list[dict[str, Any]] = []
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def get_request(self) -> Any:
        connection, address = super().get_request()
        self.connections += 1
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that ends in the middle is what some tests are about."""

    def stop(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    def destination(self, **changes: Any) -> DicomwebSettings:
        scheme = "http" if self.tls is None else "https"
        known: dict[str, Any] = {"name": "tps", "kind": "dicomweb", "url": f"{scheme}://127.0.0.1:{self.port}/rs"}
        return DicomwebSettings.model_validate(known | changes)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def answer(self, asked: Asked) -> Told:
        self.asked.append(asked)
        if asked.method == "POST":
            if told := self.on_store(asked):
                return told
            self.held |= dict(zip(asked.uids, asked.parts, strict=True))
            return stored(*map(item, asked.uids))
        return self.on_search(asked) or self._found(asked)

    def _found(self, asked: Asked) -> Told:
        if asked.path.endswith("/studies"):
            found = self.patients if "PatientID" in asked.query else []
        else:
            _, _, _, study, _, series, _ = asked.path.split("/")
            found = [{STUDY: element(study), SERIES: element(series), INSTANCE: element(uid)} for uid in self.held]
        offset, limit = int(asked.query.get("offset", 0)), min(self.page, int(asked.query["limit"]))
        return Told(200, json.dumps(found[offset : offset + limit]).encode(), JSON)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    wbufsize = -1  # header and body in one packet: the second would wait for the acknowledgement of the first

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        found = re.fullmatch(
            r'multipart/related; type="application/dicom"; boundary=([0-9a-f]{32})', self.headers["Content-Type"]
        )
        assert found is not None
        boundary = b"--" + found[1].encode()
        first, *parts, last = body.split(boundary)
        assert (first, last) == (b"", b"--\r\n")
        head = b"\r\nContent-Type: application/dicom\r\n\r\n"
        assert all(part.startswith(head) and part.endswith(b"\r\n") for part in parts)
        self._answer(tuple(part[len(head) : -2] for part in parts))

    def do_GET(self) -> None:
        self._answer(())

    def _answer(self, parts: tuple[bytes, ...]) -> None:
        place = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(place.query).items()}
        server: Any = self.server
        told = server.answer(Asked(self.command, place.path, query, dict(self.headers), parts))
        if told.raw is not None:
            self.close_connection = True
            told.raw(self.wfile)
            return
        self.send_response(told.status)
        for name, value in ({"Content-Length": str(len(told.body))} | (told.headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(told.body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        pass
