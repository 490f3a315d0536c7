"""The login: one form, which works without JavaScript and says the same of a wrong name as of a wrong password."""

import hmac
import math
import secrets
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from node.ops.audit import LOCKED, LOGIN, LOGOUT, OK, REFUSED
from node.web.access import person_of
from node.web.caller import Caller
from node.web.entrance import FORM_COOKIE, SESSION_COOKIE, Entrance, cookie_name, digest
from node.web.passwords import TooBusy, newer_hash
from node.web.templating import page
from storage.audit import AuditEntry
from storage.users import User, user_name

WRONG: Final = (
    "Name or password is wrong, or there were too many attempts. After some minutes a locked name is open again."
)
_MAX_NEXT_CHARS: Final = 2000

router = APIRouter()
Field = Annotated[str, Form()]


@router.get("/login")
def show(request: Request, next: str = "/") -> Response:
    """The form."""
    if getattr(request.state, "person", None) is not None:
        return RedirectResponse(own_path(next), 303)
    return _form(request, own_path(next))


@router.post("/login")
def log_in(request: Request, name: Field = "", password: Field = "", csrf: Field = "", next: Field = "/") -> Response:
    """Begin a session, always with a new token."""
    entrance, address, wanted = _entrance(request), str(request.state.address), own_path(next)
    if not _is_own_form(request, csrf):
        return _form(request, wanted, "The form was too old, or this browser takes no cookies. Please try again.", 403)
    if entrance.is_without_users():
        return _form(request, wanted)
    wait_s = entrance.attempts.take(address)
    if wait_s:
        return _busy(request, wanted, wait_s)
    try:
        user = _user_of(request, name, password)
    except TooBusy:
        return _busy(request, wanted, 5.0)
    if user is None:
        return _form(request, wanted, WRONG, 401, name=name)
    token = secrets.token_urlsafe(32)
    csrf, now = secrets.token_urlsafe(32), entrance.now()
    if not entrance.users.log_in(user, digest(token), csrf, address, now):
        _note(request, user.name, LOCKED)
        return _form(request, wanted, WRONG, 401, name=name)
    _note(request, user.name, OK)
    entrance.attempts.give_back(address)
    _end_old(request)
    entrance.users.forget_sessions(now - timedelta(seconds=entrance.settings.session_s))
    answer = RedirectResponse(wanted, 303)
    _set_cookie(request, answer, SESSION_COOKIE, token)
    _drop_cookie(request, answer, FORM_COOKIE)
    return answer


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End the session of this browser."""
    person = person_of(request)
    entrance = _entrance(request)
    entrance.auditor.note(AuditEntry(entrance.now(), person.name, str(request.state.address), LOGOUT, OK))
    _end_old(request)
    answer = RedirectResponse("/login", 303)
    _drop_cookie(request, answer, SESSION_COOKIE)
    return answer


def own_path(wanted: str) -> str:
    """Where to go after the login: a path of this page; "/" for anything that could lead elsewhere."""
    try:
        parts = urlsplit(wanted) if wanted.isascii() and wanted.isprintable() else None
    except ValueError:  # such as of "//["
        parts = None
    is_own = parts is not None and not parts.scheme and not parts.netloc and wanted.startswith("/")
    if not is_own or wanted[1:2] in ("/", "\\") or "\\" in wanted or len(wanted) > _MAX_NEXT_CHARS:
        return "/"
    return "/" if wanted.startswith("/login") else wanted


def _user_of(request: Request, name: str, password: str) -> User | None:
    """Whose password this is; None where it is wrong, or the name is locked or unknown, which all take as long.

    What was typed as an unknown name is not noted: it may be a password. Raises TooBusy.
    """
    entrance, now = _entrance(request), _entrance(request).now()
    user = _find(entrance, name)
    is_right = entrance.comparer.matches(password, None if user is None else user.secret)
    if user is None:
        _note(request, "", REFUSED, "unknown name")
        return None
    if user.is_locked(now):
        _note(request, user.name, LOCKED)
        return None
    if not is_right:
        entrance.users.refused(user.name, now)
        _note(request, user.name, REFUSED)
        return None
    if newer := newer_hash(password, user.secret):
        entrance.users.rehash(user.name, user.secret, newer)
        user = replace(user, secret=newer)
    return user


def _find(entrance: Entrance, name: str) -> User | None:
    try:
        return entrance.users.find(user_name(name))
    except ValueError:
        return None


def _note(request: Request, who: str, outcome: str, detail: str = "") -> None:
    entrance = _entrance(request)
    address = str(request.state.address)
    entrance.auditor.note(AuditEntry(entrance.now(), who, address, LOGIN, outcome, detail=detail))


def _is_own_form(request: Request, csrf: str) -> bool:
    """Whether the form was made here for this browser: else somebody could log it in under his own name."""
    key = _cookie(request, FORM_COOKIE)
    return bool(key) and hmac.compare_digest(
        csrf.encode(errors="replace"), _entrance(request).token_for("login", key).encode()
    )


def _form(request: Request, wanted: str, said: str = "", status: int = 200, *, name: str = "") -> Response:
    entrance = _entrance(request)
    key = _cookie(request, FORM_COOKIE) or secrets.token_urlsafe(16)
    is_new = entrance.is_without_users()
    answer = page(
        request,
        "login.html",
        status,
        title="syncect has no users yet" if is_new else "Log in to syncect",
        is_new=is_new,
        said=said,
        csrf=entrance.token_for("login", key),
        next=wanted,
        name=name[:64],
    )
    _set_cookie(request, answer, FORM_COOKIE, key)
    return answer


def _busy(request: Request, wanted: str, wait_s: float) -> Response:
    answer = _form(request, wanted, "There were too many attempts to log in. Please try again later.", 429)
    answer.headers["Retry-After"] = str(math.ceil(wait_s))
    return answer


def _end_old(request: Request) -> None:
    """End the session that the browser had until now."""
    if token := _cookie(request, SESSION_COOKIE):
        _entrance(request).users.end_session(digest(token))


def _cookie(request: Request, name: str) -> str:
    cookies: dict[str, str] = request.state.cookies
    return cookies.get(cookie_name(name, _caller(request)), "")


def _set_cookie(request: Request, answer: Response, name: str, value: str) -> None:
    caller = _caller(request)
    answer.set_cookie(
        cookie_name(name, caller), value, path="/", httponly=True, samesite="strict", secure=caller.is_secure
    )


def _drop_cookie(request: Request, answer: Response, name: str) -> None:
    caller = _caller(request)
    answer.delete_cookie(cookie_name(name, caller), path="/", httponly=True, samesite="strict", secure=caller.is_secure)


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


def _entrance(request: Request) -> Entrance:
    entrance: Entrance = request.app.state.entrance
    return entrance
