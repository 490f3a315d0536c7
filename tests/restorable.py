"""A node with series, jobs and deliveries in every state and real files, and all that must come back of it."""

import hashlib
import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, inspect, select

from config.load import load_settings
from node.bootstrap.store import Node, open_store
from storage.database import Database
from storage.states import DeliveryState, JobState, SeriesState
from storage.tables import Instance
from tests.departments import START, Department

ONLY_OF_THE_MOMENT = {"web_session", "association"}
"""Tables that a restore changes on purpose."""

STATES = {
    "series": {*SeriesState} - {SeriesState.COMPLETE},  # of which one transaction makes QUEUED or SKIPPED
    "job": {*JobState},
    "delivery": {*DeliveryState},
}


def populate(node: Node) -> Department:
    """Bring series, jobs and deliveries into every state in which a backup may find them."""
    department = Department(node)
    department.incomplete()
    department.skipped()
    department.failed()
    department.held()
    department.sent()
    confirm(node)
    department.sent()
    department.send_failed()
    node.jobs.cancel(job_of(node, department.held("not the right patient position")), "op", "wrong", START)
    node.jobs.cancel(job_of(node, department.produced()), "op", "not wanted", START)
    node.jobs.reject(job_of(node, department.held("looks strange")), "op", "bad", START)
    department.change(department.held("superseded soon"))
    department.sending(accepted=1)
    department.produced()
    assert node.outbox.claim("courier", "tps", 60, START)
    department.running()
    department.queued()
    department.arrive()
    fill(node)
    return department


def one_result(node: Node) -> None:
    """One series and its result, which is to be sent."""
    Department(node).produced()
    fill(node)


def set_up(path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, begin: Callable[[Node], object]) -> Path:
    """Write the settings of a node with this database, name them in the environment, let `begin` fill its store."""
    write_settings(path, database.url.render_as_string(hide_password=False))
    monkeypatch.setenv("SYNCECT_CONFIG", str(path))
    with open_store(load_settings(path)) as node:
        begin(node)
    return path


def job_of(node: Node, case_id: str) -> int:
    """The number of a case's job."""
    job = node.overview.case(case_id).job_id
    assert job is not None
    return job


def confirm(node: Node) -> None:
    """SENT -> CONFIRMED."""
    sent = node.outbox.awaiting_confirmation("tps", START)
    assert sent is not None
    node.outbox.confirm(sent.id, "c", "all are there", START)


def fill(node: Node) -> None:
    """Give every received instance a file of its own, with the digest that its row says."""
    with node.database.write() as session:
        for row in session.scalars(select(Instance)):
            data = f"pixels of {row.sop_instance_uid} {row.id}".encode()
            path = node.spool.path(row.spool_name)
            if path.exists():
                continue
            path.write_bytes(data)
            row.sha256, row.size_bytes = hashlib.sha256(data).hexdigest(), len(data)


def rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table that must come back, as values that are the same on every database."""
    metadata = MetaData()
    with database.engine.connect() as connection:
        metadata.reflect(connection)
        names = set(inspect(connection).get_table_names()) - ONLY_OF_THE_MOMENT
        return {
            name: [
                {key: _plain(value) for key, value in row.items()}
                for row in connection.execute(
                    select(metadata.tables[name]).order_by(*metadata.tables[name].primary_key.columns)
                ).mappings()
            ]
            for name in sorted(names)
        }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp() if value.tzinfo else value.replace(tzinfo=START.tzinfo).timestamp()
    return json.dumps(value) if isinstance(value, dict | list) else value


def files(data_dir: Path) -> dict[str, str]:
    """Name and digest of every file that the spool keeps."""
    spool = data_dir / "spool"
    return {
        str(path.relative_to(spool)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(spool.rglob("*.dcm"))
    }


def write_settings(path: Path, url: str) -> None:
    """Settings of a node with one destination and this database."""
    path.write_text(
        f'[node]\ndatabase_url = "{url}"\n'
        '[[destination]]\nname = "tps"\nae_title = "TPS"\nhost = "127.0.0.1"\nport = 1\n'
    )


def destroy(config: Path, data_dir: Path, url: str) -> None:
    """What is left of a node is its settings file, which names another database, an empty one."""
    shutil.rmtree(data_dir)
    write_settings(config, url)


def dies_at(count: int, work: Callable[[Callable[[], None]], object]) -> bool:
    """Do some work in a process that kills itself (SIGKILL) at this step of it; False where there is no such step."""
    pid = os.fork()
    if pid == 0:
        steps = itertools.count(1)

        def step() -> None:
            if next(steps) == count:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            work(step)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)
