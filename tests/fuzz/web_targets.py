"""What browsers send to the status page: hostile values in every address, query, form field, header and cookie."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from argon2 import PasswordHasher
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from config.settings import Settings
from node.bootstrap.store import Node
from node.web import passwords
from node.web.access import Role
from node.web.actions import BUTTONS
from node.web.app import make_app
from node.web.asked import FILTERS, TABS
from storage.database import Database
from storage.schema import ensure_schema
from tests.departments import START, Department
from tests.fuzz.hostile import AE_TITLES, TEXTS, UIDS
from tests.fuzz.target import KB, MB, Run, Source, Target
from tests.fuzz.wire_targets import OneLine

_PASSWORD: Final = "correct horse battery"
_MARK: Final = "<q7z"
_VALUES: Final = (
    *(text for text in TEXTS if len(text) <= 5000),
    *(f"{_MARK}>{text}" for text in ("", "'\"", "&", "\x00", "]]>", "-->")),
    *(f'"{_MARK} onload=x>', f"'{_MARK}>", f"{{{{{_MARK}}}}}", f"javascript:{_MARK}"),
    *("HELD", "QUEUED,FAILED", "held", "1d", "2026-11-27", "tps", "CTSIM", "yes", "release", "1", "2", "3-1", "demo"),
)
_FIELDS: Final = (
    *FILTERS,
    "tab",
    "after",
    "did",
    "next",
    "name",
    "password",
    "csrf",
    "reason",
    "seen",
    "confirmed",
    "to",
    "z",
    "slice",
)
_HEADERS: Final = (
    "cookie",
    "hx-request",
    "origin",
    "referer",
    "accept",
    "x-forwarded-for",
    "user-agent",
    "content-type",
    "range",
)
_ROLES: Final = (None, Role.VIEWER, Role.PHYSICIST, Role.ADMIN)


def _department(node: Node) -> Department:
    """Cases in most states, and of hostile names where the network could bring them."""
    made = Department(node)
    made.held(), made.sent(), made.skipped(), made.incomplete(), made.failed(), made.sending()
    made.stuck_without_product(), made.produced(), made.delivery_held(), made.send_failed()
    for text in (f"{_MARK}>", "\u202e54321", "A\nB", "x" * 64):
        made.skipped(patient=text, description=text)
    made.arrive()
    return made


def _paths(app: Any) -> list[tuple[str, str]]:
    found = {
        (method, route.path) for route in iter_route_contexts(app.routes) if route.methods for method in route.methods
    }
    return sorted((method, path) for method, path in found if path)


@contextmanager
def _page() -> Iterator[Run]:
    with ExitStack() as kept:
        folder = Path(kept.enter_context(tempfile.TemporaryDirectory()))
        kept.callback(setattr, passwords, "_HASHER", passwords._HASHER)
        vars(passwords)["_HASHER"] = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
        settings = Settings.model_validate({"node": {"data_dir": str(folder)}})
        database = Database(f"sqlite:///{folder / 'store.sqlite3'}")
        ensure_schema(database)
        kept.callback(database.close)
        node = Node(settings, database, "", writable=True)
        _department(node)
        app = make_app(node)
        for role in _ROLES[1:]:
            assert role is not None
            node.users.add(str(role), f"Dr. {_MARK}>", role, passwords.hash_password(_PASSWORD), START)
        browsers = [_browser(app, role) for role in _ROLES]
        lines = kept.enter_context(OneLine().listening("node", "storage"))
        paths = [one for one in _paths(app) if one[1] != "/logout"]

        def run(data: bytes) -> None:
            source = Source(data)
            for _ in range(1 + source.integer(3)):
                _ask(source, paths, source.pick(browsers))
            broken, lines.broken = lines.broken, []
            assert not broken, f"a line of the log is not one printable line: {broken[0]!r}"

        yield run


def _browser(app: Any, role: Role | None) -> tuple[TestClient, str]:
    browser = TestClient(app, "http://localhost:8042", headers={"accept": "text/html"}, follow_redirects=False)
    form = browser.get("/login").text.split('name="csrf" value="')[1].split('"')[0]
    if role is None:
        return browser, form
    answer = browser.post("/login", data={"name": str(role), "password": _PASSWORD, "csrf": form})
    assert answer.status_code == 303, answer.text
    return browser, browser.get("/").text.split('name="csrf" value="')[1].split('"')[0]


def _ask(source: Source, paths: list[tuple[str, str]], who: tuple[TestClient, str]) -> None:
    browser, csrf = who
    method, path = source.pick(paths)
    parts = [_part(source, one) if one.startswith("{") else one for one in path.split("/")]
    url = "/".join(parts) + ("?" + _encoded(source, _pairs(source)) if source.flag() else "")
    headers = {source.pick(_HEADERS).encode(): _header(source) for _ in range(source.integer(2))}
    content = None
    if method == "POST":
        pairs = [*([("csrf", csrf)] if source.integer(7) else []), *_pairs(source)]
        headers.setdefault(b"content-type", b"application/x-www-form-urlencoded")
        content = _encoded(source, pairs).encode()
    answer = browser.request(method, url, content=content, headers=headers)
    assert answer.status_code < 500 or answer.status_code == 503, f"status {answer.status_code}: {method} {url}"
    if "text/html" in answer.headers.get("content-type", ""):
        assert _MARK not in answer.text, f"a value stands in the page as it came: {method} {url}"
    assert all(value.isprintable() for value in answer.headers.values()), f"a header of several lines: {method} {url}"


def _part(source: Source, name: str) -> str:
    if name == "{verb}":
        return source.pick((*BUTTONS, quote(source.text(_VALUES), safe="")))
    kind = source.integer(3)
    if kind < 2:
        return str(1 + source.integer(16))
    return quote(source.text(_VALUES), safe="") or "-"


def _pairs(source: Source) -> list[tuple[str, str]]:
    named = [(source.pick(_FIELDS), source.text(_VALUES)) for _ in range(source.integer(5))]
    return [("tab", source.pick(tuple(TABS))), *named] if source.flag() else named


def _encoded(source: Source, pairs: list[tuple[str, str]]) -> str:
    if source.integer(15):
        return urlencode(pairs)
    return (
        "&".join(f"{name}={quote(value.encode('utf-16', 'surrogatepass'))}" for name, value in pairs)
        + "&%ff%fe=%zz&=&;"
    )


def _header(source: Source) -> bytes:
    text = source.text(
        (*AE_TITLES, *UIDS, "true", "null", "application/json", "multipart/form-data", "bytes=0-", "a=b")
    )
    return bytes(byte for byte in text.encode("utf-8", "replace")[:300] if byte >= 0x20 and byte != 0x7F).strip()


def _noise() -> list[bytes]:
    from random import Random

    chance = Random(18)
    return [chance.randbytes(120) for _ in range(150)]


WEB: Final = (Target("page", _page, _noise, max_bytes=2 * KB, memory_bytes=32 * MB, examples=30, share=4),)
