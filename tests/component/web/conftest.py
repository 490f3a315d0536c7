"""The gate and the login before three small pages, and browsers that come to it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
from argon2 import PasswordHasher
from fastapi import Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse
from starlette.testclient import TestClient

from config.settings import Settings, WebSettings
from node.bootstrap.store import Node
from node.web import passwords
from node.web.access import Person, Role, audit, needs, needs_monitor, person_of
from node.web.gate import guard
from storage.database import Database

PASSWORD = "correct horse battery"
CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
_HASH = CHEAP.hash(PASSWORD)


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch):
    """What makes passwords safe makes tests slow."""
    monkeypatch.setattr(passwords, "_HASHER", CHEAP)


@pytest.fixture(autouse=True)
def _slow_night(monkeypatch):
    """What the tests make is a minute old when they are collected: it is not overdue when their turn comes."""
    monkeypatch.setenv("SYNCECT_ALERTS__DUE_S", "14400")


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Door:
    """A page with its gate; `browser` gives a browser at an address."""

    def __init__(self, node: Node, clock: Clock) -> None:
        self.node, self.clock, self.app = node, clock, _pages()
        self.app.state.node = node
        guard(self.app, node, clock)

    def user(self, name: str, role: Role = Role.VIEWER) -> None:
        self.node.users.add(name, "", role, _HASH, self.clock())

    def browser(self, address="10.0.0.7", url="http://localhost:8042", **headers: str) -> TestClient:
        headers = {"accept": "text/html", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return TestClient(self.app, url, client=(address, 50000), headers=headers, follow_redirects=False)

    def logged_in(self, name: str, role: Role = Role.VIEWER, **options: Any) -> TestClient:
        if self.node.users.find(name) is None:
            self.user(name, role)
        browser = self.browser(**options)
        assert log_in(browser, name).status_code == 303
        return browser

    def audited(self) -> list[tuple[str, str, str]]:
        """Who did what, and with which outcome, the oldest first."""
        return [(entry.who, entry.action, entry.outcome) for entry in reversed(self.node.audit.newest())]


def form_of(browser: TestClient) -> str:
    """The token in the login form."""
    return browser.get("/login").text.split('name="csrf" value="')[1].split('"')[0]


def log_in(browser: TestClient, name: str, password=PASSWORD, **fields: str):
    return browser.post("/login", data={"name": name, "password": password, "csrf": form_of(browser), **fields})


def _pages() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    def front(request: Request) -> PlainTextResponse:
        return PlainTextResponse(person_of(request).csrf)

    @app.get("/me")
    def me(request: Request) -> dict[str, str]:
        person = person_of(request)
        return {"name": person.name, "role": person.role, "headers": " ".join(request.headers.keys())}

    @app.get("/forgotten")
    def forgotten() -> PlainTextResponse:
        """It asks nobody who he is."""
        return PlainTextResponse("secret")

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("DOE^JANE")

    for role in Role:

        @app.post(f"/press/{role}")
        def press(request: Request, person: Annotated[Person, Depends(needs(role))]) -> PlainTextResponse:
            audit(request, "release", case="12", detail="checked by eye", study_uid="1.2.3")
            return PlainTextResponse(f"pressed by {person.name}")

    @app.get("/metrics", dependencies=[Depends(needs_monitor)])
    @app.get("/healthz", dependencies=[Depends(needs_monitor)])
    def numbers() -> PlainTextResponse:
        return PlainTextResponse("numbers 1")

    return app


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_door(sqlite_file, tmp_path, clock) -> Callable[..., Door]:
    database = Database(f"sqlite:///{sqlite_file}")

    def make(**web: Any) -> Door:
        settings = Settings(web=WebSettings(**web))
        return Door(Node(settings, database, "", writable=True), clock)

    return make


@pytest.fixture
def door(make_door) -> Door:
    return make_door()


@pytest.fixture
def ward(department):
    """The whole page over the store of a department, and visitors of every role."""
    from tests.component.web.ward import Ward

    return Ward(department)
