"""How long the status page takes over 100,000 jobs: every tab as a browser asks for it, beside its cases alone."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from starlette.testclient import TestClient

from bench.listing import SIZES, configure, fill, median_s
from config.load import load_settings
from node.bootstrap.store import Node, open_store
from node.operate.listing import cases_of
from node.web.access import Role
from node.web.app import make_app
from node.web.asked import ROWS, TABS, Address, asked_of
from node.web.lights import strip_of
from node.web.passwords import hash_password
from storage.errors import IllegalTransition

_NAME, _PASSWORD = "bench", "correct horse battery"
_JOBS = SIZES[-1]


def page(folder: Path) -> dict[str, float]:
    """Medians in seconds of whole answers, through the gate with the login looked up, and their ratio to a query."""
    rows: dict[str, float] = {}
    with open_store(load_settings(configure(folder / "page"))) as node:
        fill(node.database, _JOBS)
        with browser_of(node) as browser:
            for tab in TABS:
                whole_s = median_s(lambda tab=tab: get(browser, f"/?tab={tab}"))
                rows[f"page, tab {tab} over {_JOBS} jobs: s"] = whole_s
                alone_s = median_s(lambda tab=tab: cases_of(node, asked_of(Address(tab)), datetime.now(UTC)))
                rows[f"page, tab {tab} / its {ROWS} cases alone"] = whole_s / alone_s
            others = {
                "rows, the refresh": "/rows",
                "a patient": f"/?patient=BENCH{_JOBS // 2}",
                "old rows": f"/?tab=all&after={_JOBS // 10}",
                "one case": f"/cases/{_JOBS}",
            }
            for name, path in others.items():
                rows[f"page, {name} over {_JOBS} jobs: s"] = median_s(lambda path=path: get(browser, path))
        rows[f"page, lights made anew over {_JOBS} jobs: s"] = median_s(lambda: strip_of(node))
    return rows


@contextmanager
def browser_of(node: Node) -> Iterator[TestClient]:
    """A browser in which somebody has logged in."""
    with suppress(IllegalTransition):  # a store that was measured before has the user
        node.users.add(_NAME, "", Role.VIEWER, hash_password(_PASSWORD), datetime.now(UTC))
    with TestClient(make_app(node), "http://localhost:8042", headers={"accept": "text/html"}) as browser:
        token = browser.get("/login").text.split('name="csrf" value="')[1].split('"')[0]
        browser.post("/login", data={"name": _NAME, "password": _PASSWORD, "csrf": token})
        yield browser


def get(browser: TestClient, path: str) -> None:
    """Ask for one page; raises RuntimeError where the answer is another than 200."""
    answer = browser.get(path)
    if answer.status_code != 200:
        raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text}")
