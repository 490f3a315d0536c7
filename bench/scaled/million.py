"""How long the node's questions take over 1,000,000 jobs on PostgreSQL: readers, workers, couriers, ticks, the page.

The store is filled once (about four minutes); a database that holds one already is measured as it is. Aim: under
0.2 s for whatever a person waits for, and for each claim.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from starlette.testclient import TestClient

from bench.gpu.report import Section
from bench.listing import STARTS, median_s
from bench.page import browser_of, get
from bench.scaled.figures import figure
from bench.scaled.large_store import fill
from bench.scaled.services import Services
from config.load import load_settings
from node.bootstrap.roles import make_completion, make_retention
from node.bootstrap.store import Node, open_store
from node.bootstrap.watch import make_watch
from node.operate.situation import facts
from node.web.asked import TABS
from node.web.lights import strip_of
from storage.copies import is_vacant
from storage.database import Database
from storage.gauges import Gauges
from storage.mark import adopt_mark
from storage.retention import Ages

JOBS: Final = 1_000_000
_LEASE_S: Final = 60.0
_DESTINATIONS: Final = "".join(
    f'\n[[destination]]\nname = "{name}"\nae_title = "{name.upper()}"\nhost = "127.0.0.1"\nport = {port}\n'
    for name, port in (("tps", 1), ("archive", 2))
)


def million(section: Section, services: Services, *, short: bool) -> None:
    """Every question of a person and each claim, over a store of its own."""
    jobs, commands = (300, {}) if short else (JOBS, _COMMANDS)
    for name, seconds in ask(services.new_database("million"), jobs, commands).items():
        figure(section, f"{jobs} jobs, {name}: s", seconds)


def ask(url: str, jobs: int, commands: Mapping[str, list[str]]) -> dict[str, float]:
    """Medians in seconds by what was asked, of a PostgreSQL database at `url` that is empty or was filled here."""
    with tempfile.TemporaryDirectory(prefix="syncect-million-") as folder:
        config = _configure(Path(folder), url)
        database = Database(url)
        try:
            if is_vacant(database):
                fill(database, jobs)
            adopt_mark(database, Path(folder) / "data" / "spool", datetime.now(UTC))
        finally:
            database.close()
        with open_store(load_settings(config)) as node:
            figures = {name: median_s(ask) for name, ask in _questions(node, jobs).items()}
            figures |= _claims(node)
            with browser_of(node) as browser:
                figures |= {name: median_s(ask) for name, ask in _pages(node, browser, jobs).items()}
        return figures | {f"{name}, command": _command_s(config, words) for name, words in commands.items()}


def _configure(folder: Path, url: str) -> Path:
    config = folder / "node.toml"
    node = f'[node]\ndata_dir = "{folder / "data"}"\ndatabase_url = "{url}"\n'
    text = f"{node}{_DESTINATIONS}\n[retention]\ndays = 30\nhistory_days = 36500\n"
    config.write_text(text, encoding="utf-8")
    return config


def _questions(node: Node, jobs: int) -> dict[str, Callable[[], Any]]:
    cases, now = node.overview.cases, datetime.now(UTC)
    completion, retention = make_completion(node), make_retention(node)
    watch = make_watch(node, [])
    return {
        "jobs ls": cases,
        **{f"jobs ls --state {name}": partial(cases, states=[name]) for name in ("QUEUED", "HELD", "FAILED", "SENT")},
        "jobs ls --patient, whole": partial(cases, patient=f"PAT{jobs // 10}"),
        "jobs ls --patient, beginning": partial(cases, patient=f"PAT{jobs // 1000}*"),
        "jobs ls --patient, nobody": partial(cases, patient="NOBODY"),
        "jobs show": partial(_show, node, jobs // 2 + 1),
        "completion, a tick": completion.tick,
        "retention, a tick": retention.tick,
        "retention, what goes next": partial(node.retention.first_to_go, Ages(now, now)),
        "retention, looks for old history": partial(node.retention.forget, datetime(2000, 1, 1, tzinfo=UTC)),
        "retention, forgets 200 histories": partial(node.retention.forget, now),
        "alert rules, a tick": watch.tick,
        "gauges, cases by state": Gauges(node.database).cases,
        "status": partial(facts, node),
    }


def _show(node: Node, number: int) -> None:
    case = node.overview.case(str(number))
    for ask in (node.overview.events, node.overview.linked, node.overview.products):
        ask(case)


def _claims(node: Node) -> dict[str, float]:
    """Each claim takes other work; all of it is given back at the end."""
    jobs, outbox, taken = node.jobs, node.outbox, []

    def claim_job() -> None:
        taken.append(jobs.claim("bench", _LEASE_S, datetime.now(UTC)))

    def claim_delivery() -> None:
        sent.append(outbox.claim("bench", "tps", _LEASE_S, datetime.now(UTC)))

    sent: list[Any] = []
    figures = {"worker, a claim": median_s(claim_job), "courier, a claim": median_s(claim_delivery)}
    now = datetime.now(UTC)
    for job in taken:
        if job is not None:
            jobs.give_back(job.id, "bench", "measured", now=now)
    for delivery in sent:
        if delivery is not None:
            outbox.give_back(delivery.id, "bench", "measured", now)
    if None in (*taken, *sent):
        raise RuntimeError("there was nothing to claim")
    return figures


def _pages(node: Node, browser: TestClient, jobs: int) -> dict[str, Callable[[], Any]]:
    return {
        **{f"page, tab {tab}": partial(get, browser, f"/?tab={tab}") for tab in TABS},
        "page, rows": partial(get, browser, "/rows"),
        "page, a patient": partial(get, browser, f"/?patient=PAT{jobs // 10}"),
        "page, old rows": partial(get, browser, f"/?tab=all&after={jobs // 10}"),
        "page, one case": partial(get, browser, f"/cases/{jobs // 2 + 1}"),
        "page, lights made anew": partial(strip_of, node),
        "page, /metrics": partial(get, browser, "/metrics"),
    }


_COMMANDS: Final = {"jobs ls": ["jobs", "ls"], "jobs show": ["jobs", "show", "1001"], "status": ["status"]}


def _command_s(config: Path, words: list[str]) -> float:
    command = [sys.executable, "-m", "node.cli", "--config", str(config), *words]
    environment = os.environ | {"COLUMNS": "160"}
    # `status` ends with 2 where no process runs
    return median_s(lambda: subprocess.run(command, check=False, capture_output=True, env=environment), STARTS)


if __name__ == "__main__":
    for name, seconds in ask(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else JOBS, _COMMANDS).items():
        sys.stdout.write(f"{seconds:9.3f} s  {name}\n")
