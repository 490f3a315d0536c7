"""Of the page as it is put together, nothing but the login and its style is reached without a login."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount
from starlette.testclient import TestClient

from config.settings import Settings
from node.bootstrap.store import Node
from node.web.app import make_app
from storage.database import Database

OPEN = {"/login"}


@pytest.fixture
def app(sqlite_file) -> FastAPI:
    return make_app(Node(Settings(), Database(f"sqlite:///{sqlite_file}"), "", writable=True))


def ways(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every method and path of the page, the parameters of paths filled in."""
    for route in iter_route_contexts(app.routes):
        if route.methods and route.path is not None:
            path = "/".join("1" if part.startswith("{") else part for part in route.path.split("/"))
            yield from ((method, path) for method in route.methods)


def test_every_route_but_the_login_asks_who_comes(app):
    stranger = TestClient(app, "http://localhost:8042", client=("10.0.0.7", 50000), follow_redirects=False)
    found = [way for way in ways(app) if way[1] not in OPEN]
    assert ("POST", "/logout") in found
    for method, path in found:
        answer = stranger.request(method, path)
        assert answer.status_code == 401, (method, path)
        assert answer.text == ("" if method == "HEAD" else "nobody is logged in\n"), (method, path)


def test_what_lies_beside_the_routes_is_static(app):
    beside = [route for route in iter_route_contexts(app.routes) if not route.methods]
    assert [(type(route.original_route), route.path) for route in beside] == [(Mount, "/static")]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/vendor/../../app.py",
        "/static/%00",
    ],
)
def test_no_path_leads_out_of_the_static_files(app, path):
    stranger = TestClient(app, "http://localhost:8042", client=("10.0.0.7", 50000), follow_redirects=False)
    answer = stranger.get(path)
    assert answer.status_code in (400, 401, 404), answer.text
    assert stranger.get("/static/login.css").status_code == 200
