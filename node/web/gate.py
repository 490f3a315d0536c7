"""The gate before every page: it refuses what no page should see, finds out who asks, and closes each answer.

A path that is not open (`_OPEN`) is reached by nobody without a login: a page that forgets to ask is still closed.
"""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final
from urllib.parse import parse_qs, quote

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.bootstrap.store import Node
from node.bootstrap.watch import node_name
from node.operate.texts import now_utc
from node.ops.audit import Auditor
from node.ops.audit_syslog import Syslog
from node.web import login
from node.web.access import CSRF_FIELD, CSRF_HEADER, POLL_HEADER, Person
from node.web.caller import Caller, Forged
from node.web.entrance import Entrance
from storage.errors import StorageError

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 64 * 1024
BODY_WITHIN_S: Final = 10.0
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS: Final = _SAFE_METHODS | {"POST", "PUT", "PATCH", "DELETE"}
_OPEN: Final = frozenset({"/login"})
_MONITORED: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_STATIC: Final = "/static/"
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With `no-referrer` a browser sends "Origin: null" with the page's own forms, and they could not be checked.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Answer = Callable[[Scope, Receive, Send], Awaitable[None]]


def guard(app: FastAPI, node: Node, now: Callable[[], datetime] = now_utc) -> None:
    """Put the gate before an application, and the login into it."""
    settings = node.settings.web
    syslog = Syslog(settings.audit_syslog) if settings.audit_syslog else None
    app.state.auditor = Auditor(node.audit, node_name(node.settings), syslog)
    app.state.entrance = Entrance(settings, node.users, app.state.auditor, now)
    app.include_router(login.router)
    app.add_middleware(Gate, entrance=app.state.entrance)


class Refusal(Exception):
    """An answer instead of the page."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class Gate:
    """Middleware (ASGI)."""

    def __init__(self, app: ASGIApp, entrance: Entrance) -> None:
        self._app, self._entrance = app, entrance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # no page has one
            return
        closing = _Closing(send, is_static=scope["path"].startswith(_STATIC))
        try:
            answer, receive = await self._admit(scope, receive)
            await answer(scope, receive, closing)
        except Exception:
            log.exception("a page ended by an error", extra={"event": "page_failed"})
            if not closing.has_begun:
                await PlainTextResponse("The page ended by an error; the log has it.\n", 500)(scope, receive, closing)

    async def _admit(self, scope: Scope, receive: Receive) -> tuple[Answer, Receive]:
        """What answers a request, and its body from then on."""
        try:
            caller = Caller(scope, self._entrance.trust)
            caller.check_length()
            caller.check_host()
            state = scope.setdefault("state", {})
            state["caller"], state["address"], state["is_monitor"] = caller, caller.address, caller.is_monitor
            state["cookies"] = _cookies(caller)
            if scope["method"] not in _METHODS:
                raise Refusal(_sentence("this method is not known here", 405))
            body = await _whole_body(scope, caller, receive)
            state["person"] = await self._person(scope, caller)
            if scope["method"] not in _SAFE_METHODS:
                self._check_form(scope, caller, body)
        except Forged as error:
            answer = _sentence(str(error), 400)
            answer.headers["Connection"] = "close"  # what follows on it may be no request of its sender
            return answer, receive
        except Refusal as refusal:
            return refusal.response, receive
        except StorageError as error:
            return _sentence(str(error), 503), receive
        scope["headers"] = caller.clean_headers()
        return self._app, _replay(body, receive)

    async def _person(self, scope: Scope, caller: Caller) -> Person | None:
        path, state = scope["path"], scope["state"]
        if path.startswith(_STATIC) or (path in _MONITORED and state["is_monitor"]):
            return None  # health must be told also where the store does not answer
        caller.check_way()
        extends = not caller.header(POLL_HEADER.lower().encode())
        person = await run_in_threadpool(self._entrance.person, caller, state["cookies"], extends=extends)
        if person is None and path not in _OPEN:
            raise Refusal(_to_login(scope, caller))
        return person

    def _check_form(self, scope: Scope, caller: Caller, body: bytes) -> None:
        """Whatever changes something carries the token of its person; /login asks for one of its own."""
        try:
            caller.check_origin()
        except Forged as error:
            raise Refusal(_sentence(str(error), 403)) from error
        if scope["path"] in _OPEN:
            return
        person: Person | None = scope["state"]["person"]
        given = caller.header(CSRF_HEADER.lower().encode()) or _form_field(caller, body, CSRF_FIELD)
        if person is None or not hmac.compare_digest(given.encode(errors="replace"), person.csrf.encode()):
            raise Refusal(_sentence("this form is too old, or not of this page: load the page again", 403))


class _Closing:
    """Sends an answer with the headers that let a browser do nothing else with it."""

    def __init__(self, send: Send, *, is_static: bool) -> None:
        self._send, self._is_static = send, is_static
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
            if not self._is_static:
                headers["Cache-Control"] = "no-store"
        await self._send(message)


async def _whole_body(scope: Scope, caller: Caller, receive: Receive) -> bytes:
    """The body of a request, which has to be small and to come soon."""
    length = caller.header(b"content-length")
    if length and not (length.isascii() and length.isdecimal() and int(length[:20]) <= MAX_BODY_BYTES):
        raise Refusal(_sentence(f"a request has at most {MAX_BODY_BYTES} bytes", 413))
    if scope["method"] in _SAFE_METHODS:
        return b""
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            return await _read(receive)
    except TimeoutError as error:
        raise Refusal(_sentence("the request did not arrive in time", 408)) from error


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(_sentence("the request did not arrive", 400))
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise Refusal(_sentence(f"a request has at most {MAX_BODY_BYTES} bytes", 413))
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body once more, and then whatever comes."""
    given = False

    async def again() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


def _form_field(caller: Caller, body: bytes, name: str) -> str:
    if not caller.header(b"content-type").lower().startswith("application/x-www-form-urlencoded"):
        return ""
    try:
        return parse_qs(body.decode("ascii"), max_num_fields=200).get(name, [""])[0]
    except ValueError:
        return ""


def _cookies(caller: Caller) -> dict[str, str]:
    """Cookies as they stand there: those of the page need no quotes, and `http.cookies` takes seconds for many quotes.

    Of two of one name the last counts.
    """
    parts = (part.partition("=") for part in caller.header(b"cookie").split(";"))
    return {name.strip(): value.strip() for name, _, value in parts}


def _to_login(scope: Scope, caller: Caller) -> Response:
    """A person goes to the form and comes back; a script is told."""
    if caller.header(b"hx-request"):
        return PlainTextResponse("nobody is logged in\n", 401, {"HX-Redirect": "/login"})
    if scope["method"] != "GET" or "text/html" not in caller.header(b"accept"):
        return _sentence("nobody is logged in", 401)
    query = scope.get("query_string", b"").decode("latin-1")
    wanted = quote(scope["path"]) + (f"?{query}" if query else "")
    return RedirectResponse("/login" if wanted == "/" else f"/login?next={quote(wanted, safe='')}", 303)


def _sentence(text: str, status: int) -> Response:
    return PlainTextResponse(f"{text}\n", status)
