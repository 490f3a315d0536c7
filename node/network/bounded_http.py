"""Bounded HTTP to a DICOMweb server: what requests leaves open is closed here; it knows no store and no policy.

Whatever a server does, a request takes a bounded time and its answer a bounded place. No proxy, password or authority
comes from the environment, no redirect is followed, and nothing of a request or an answer reaches a log or a reason.
"""

import base64
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from config.destinations import DicomwebSettings, HttpsSettings
from node.beats import STEP_LIMIT_S
from node.dicom.constants import IMPLEMENTATION_VERSION_NAME
from node.network.no_association import NoAssociation, Outcome
from node.network.renewal import https_tls
from node.network.requestor import Timeouts
from node.network.secret_file import UnusableSecret, read_secret, read_token
from node.network.tls import UnusableCertificate
from node.network.tls_faults import why_no_tls

MAX_ANSWER_BYTES: Final = 4 << 20  # what is said of an instance is 1 to 4 kB, and `node.network.qido` asks for 100
_SLOWEST_BYTES_PER_S: Final = 100_000  # of a body that is sent
_LONGEST_S: Final = 0.8 * STEP_LIMIT_S  # of one request, before its courier is taken for hung
_LIBRARIES: Final = ("dicomweb_client", "requests", "retrying", "urllib3")
"""Whose loggers are silent: they tell of URLs with a PatientID, and of what a peer said."""

_CAN_BE_READ: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT)  # with 2xx: the body says more (PS3.18 10.5.3)

# What an administrator has to look at.
_WHY: Final[dict[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "does it know our token, user name or certificate?",
    HTTPStatus.FORBIDDEN: "may this node store and search there?",
    HTTPStatus.NOT_FOUND: "is the path of url right?",
    HTTPStatus.METHOD_NOT_ALLOWED: "does it offer this service under url?",
    HTTPStatus.NOT_ACCEPTABLE: "it cannot answer in DICOM JSON",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "a proxy stands before it",
    HTTPStatus.LENGTH_REQUIRED: "a proxy before it may be the reason",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "it, or a proxy before it, takes no body as long as an instance",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "does it offer STOW-RS under url?",
    HTTPStatus.NOT_IMPLEMENTED: "does it offer this service under url?",
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: "it does not speak HTTP/1.1",
}
_NOT_THERE: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_MAY_PASS: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class NoAnswer(NoAssociation):
    """A DICOMweb server gave no answer that can be used; `outcome` says whether and how soon to try again.

    reached: whether it answered at all. wait_s: how long it asks to be left alone, seconds; 0 where it does not say.
    lacks: whether it says that it does not have what was asked for, which a wrong path of url looks like, too.
    """

    def __init__(
        self, outcome: Outcome, reason: str, *, reached: bool = False, wait_s: float = 0.0, lacks: bool = False
    ) -> None:
        super().__init__(outcome, reason)
        self.reached, self.wait_s, self.lacks = reached, wait_s, lacks


class Session(requests.Session):
    """A session to one server; raises NoAnswer, and so does `send`, for what is no answer of 2xx, 400 or 409.

    answer_bytes: bound of the body of an answer.
    """

    def __init__(self, server: DicomwebSettings, timeouts: Timeouts, *, answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        super().__init__()
        self._answer_bytes = answer_bytes
        for name in _LIBRARIES:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._server, self._timeouts = server, timeouts
        self._watch = _Watch()
        self.trust_env = False
        self.headers.clear()
        self.headers.update({"User-Agent": IMPLEMENTATION_VERSION_NAME, "Accept-Encoding": "identity"})
        if authorization := _authorization(server):
            self.headers["Authorization"] = authorization
        self.adapters.clear()
        self.mount(f"{server.url.partition(':')[0]}://", _Adapter(_tls(server), self._watch))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: the server that the settings name is meant, and gets what is sent."""

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request and read the whole answer; raises NoAnswer."""
        request.headers.pop("Host", None)  # dicomweb-client leaves the port out
        timeouts = (self._timeouts.connection_s, self._timeouts.dimse_s)
        size_bytes = int(request.headers.get("Content-Length") or 0)
        whole_s = min(self._timeouts.answers_s + size_bytes / _SLOWEST_BYTES_PER_S, _LONGEST_S)
        try:
            with self._watch.limit(whole_s):
                response = super().send(request, **kwargs | {"stream": True, "timeout": timeouts})
                response._content = self._body_of(response)
        except (requests.RequestException, HTTPError, HTTPException, OSError, ValueError) as error:
            if not self._watch.has_ended:
                raise self._failed(error) from None
        if self._watch.has_ended:  # what http.client may take for the end of an answer
            raise self._none(Outcome.TRANSIENT, f"did not come to the end of an answer within {whole_s:.0f} s")
        if refusal := self._refusal(response, request.method or ""):
            raise refusal
        return response

    def close(self) -> None:
        """Close every connection."""
        super().close()
        self._watch.close()

    def _body_of(self, response: requests.Response) -> bytes:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise self._none(Outcome.UNCLEAR, "answers compressed, which was not asked for", reached=True)
        body = bytearray()
        for piece in response.raw.stream(1 << 16, decode_content=False):
            body += piece
            if len(body) > self._answer_bytes:
                response.close()
                words = f"answers {response.status_code} and then more than {self._answer_bytes >> 20} MiB"
                raise self._none(Outcome.UNCLEAR, words, reached=True)
        return bytes(body)

    def _refusal(self, response: requests.Response, method: str) -> NoAnswer | None:
        """Why an answer is none, by its HTTP status (RFC 9110 section 15); None where its body counts."""
        status = response.status_code
        if 200 <= status < 300 or (method == "POST" and status in _CAN_BE_READ):
            return None
        why = _WHY.get(status)
        outcome = Outcome.MISCONFIGURED if why else Outcome.UNCLEAR
        if 300 <= status < 400:
            outcome, why = Outcome.MISCONFIGURED, "it refers to another address, which is not followed; correct url"
        elif why is None and (status >= 500 or status in _MAY_PASS):
            outcome = Outcome.TRANSIENT
        wait_s = _wait_s(response.headers.get("Retry-After", ""))
        words = f"answers {status}" + (f": {why}" if why else "")
        return NoAnswer(outcome, f"{self._server.url} {words}", reached=True, wait_s=wait_s, lacks=status in _NOT_THERE)

    def _failed(self, error: Exception) -> NoAnswer:
        """What a failed request means; nothing that the server sent is quoted."""
        causes = list(_causes(error))
        fault = next((one for one in causes if isinstance(one, ssl.SSLError)), None)
        if isinstance(fault, ssl.SSLEOFError):  # with TLS 1.3 a server looks at our certificate after the handshake
            words = "closed the connection; does it speak TLS, and does it accept our certificate?"
            return self._none(Outcome.TRANSIENT, words)
        if fault is not None and not isinstance(fault, TimeoutError):
            return self._none(Outcome.MISCONFIGURED, f"cannot be reached: TLS: {why_no_tls(fault)}")
        if any(isinstance(one, socket.gaierror) for one in causes):
            return self._none(Outcome.TRANSIENT, "cannot be reached: its host name cannot be resolved")
        if isinstance(error, requests.ConnectTimeout):
            return self._none(Outcome.TRANSIENT, "cannot be reached: it does not answer")
        if any(isinstance(one, TimeoutError) for one in causes):
            return self._none(Outcome.TRANSIENT, f"did not answer within {self._timeouts.dimse_s:.0f} s")
        refused = next((one for one in causes if isinstance(one, OSError) and one.errno and one.strerror), None)
        if refused is not None:
            return self._none(Outcome.TRANSIENT, f"cannot be reached: {(refused.strerror or '').lower()}")
        return self._none(Outcome.TRANSIENT, "broke the connection off, or its answer is no HTTP")

    def _none(self, outcome: Outcome, words: str, *, reached: bool = False) -> NoAnswer:
        return NoAnswer(outcome, f"{self._server.url} {words}", reached=reached)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it: requests and urllib3 pack errors into each other, by arguments and attributes."""
    todo, seen = [error], set()
    while todo:
        one = todo.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        todo += [cause for cause in inner if isinstance(cause, BaseException)]


def _wait_s(text: str) -> float:
    """Seconds of a Retry-After header (RFC 9110 section 10.2.3); 0 where it says nothing that can be read."""
    if text.isascii() and text.isdecimal() and len(text) < 9:
        return float(text)
    try:
        at = parsedate_to_datetime(text)
        return max(0.0, (at - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _tls(server: DicomwebSettings) -> ssl.SSLContext | None:
    if server.url.startswith("http:"):
        return None
    try:
        return https_tls(server.tls or HttpsSettings())()
    except UnusableCertificate as error:
        raise NoAnswer(Outcome.MISCONFIGURED, str(error)) from None


def _authorization(server: DicomwebSettings) -> str:
    """The header Authorization, "" for none; raises NoAnswer where the file with the secret cannot be used."""
    try:
        if server.token_file is not None:
            return f"Bearer {read_token(server.token_file)}"
        if server.password_file is not None:
            pair = f"{server.username}:{read_secret(server.password_file)}"
            return f"Basic {base64.b64encode(pair.encode()).decode()}"
    except UnusableSecret as error:
        raise NoAnswer(Outcome.MISCONFIGURED, str(error)) from None
    return ""


# -- connections -----------------------------------------------------------------------------------------------


class _Watch:
    """Ends the connections of a session when a request takes too long as a whole, in whatever it hangs.

    Each time limit of a socket begins anew with every byte, so that a server that drips would be listened to for ever.
    """

    def __init__(self) -> None:
        self._doubles: list[socket.socket] = []
        self.has_ended = False

    def keep(self, connection: socket.socket) -> socket.socket:
        """Know a connection, before TLS takes it over."""
        double = connection.dup()
        self._doubles.append(double)
        if self.has_ended:
            self._end()
        return connection

    @contextmanager
    def limit(self, whole_s: float) -> Iterator[None]:
        """End all connections after so many seconds, unless the block ends before."""
        timer = threading.Timer(whole_s, self._end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def close(self) -> None:
        """Let go of all connections."""
        for double in self._doubles:
            double.close()

    def _end(self) -> None:
        self.has_ended = True
        for double in list(self._doubles):
            with suppress(OSError):
                double.shutdown(socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    """Requests by connections that a `_Watch` knows, with one TLS context and no other authority than its own."""

    def __init__(self, tls: ssl.SSLContext | None, watch: _Watch) -> None:
        self._tls, self._watch = tls, watch
        super().__init__()

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        """Make the pools; requests calls it."""
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._tls, **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = _pools(self._watch)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing: requests would add the authorities of certifi to those of our context."""


def _pools(watch: _Watch) -> dict[str, Any]:
    """The pools of urllib3, whose connections `watch` knows."""

    class Http(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return watch.keep(super()._new_conn())

    class Https(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return watch.keep(super()._new_conn())

    class HttpPool(HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(HTTPSConnectionPool):
        ConnectionCls = Https

    return {"http": HttpPool, "https": HttpsPool}
