"""Which processes run on which host: they report themselves, a silent host is told of, and a person forgets it."""

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.load import load_settings
from node.bootstrap.store import open_store
from node.bootstrap.watch import make_watch
from node.ops.processes import process_lock, process_name
from node.ops.reporting import reported
from storage.database import Database
from storage.hosts import HostStore, ReportedProcess
from tests.restorable import write_settings

on_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@pytest.fixture
def config(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "node.toml"
    write_settings(path, database.url.render_as_string(hide_password=False))
    monkeypatch.setenv("SYNCECT_CONFIG", str(path))
    with open_store(load_settings(path)):
        return path


def process(name: str, host: str, silent_s: float = 0) -> ReportedProcess:
    seen_at = datetime.now(UTC) - timedelta(seconds=silent_s)
    return ReportedProcess(f"{name}@{host}", host, name, 7, "1.2.3", "cuda:0", [], seen_at, seen_at)


@on_postgresql
def test_a_process_reports_itself_while_it_runs_and_leaves_at_its_end(database: Database, tmp_path: Path) -> None:
    hosts, told = HostStore(database), threading.Event()
    report = HostStore.report
    with process_lock(tmp_path, "work", "1", "cuda:0") as sign, pytest.MonkeyPatch.context() as patch:

        def report_and_tell(store: HostStore, one: ReportedProcess) -> None:
            report(store, one)
            told.set()

        patch.setattr(HostStore, "report", report_and_tell)
        with reported(database, sign, "1.2.3"):
            assert told.wait(20)
            (host,) = hosts.all()
            (one,) = host.processes
            assert (one.name, one.role, one.version, one.details) == (process_name("work"), "work", "1.2.3", "cuda:0")
            assert not host.is_gone
    assert hosts.all() == []


@on_postgresql
def test_a_report_replaces_the_one_before_and_only_its_own_process_leaves(database: Database) -> None:
    hosts = HostStore(database)
    hosts.report(process("work", "a", silent_s=90))
    hosts.report(process("work", "a"))
    hosts.leave("work@a", pid=8)  # a predecessor
    assert [len(host.processes) for host in hosts.all()] == [1]
    hosts.leave("work@a", pid=7)
    assert hosts.all() == []


@on_postgresql
def test_a_host_that_is_silent_is_told_of_until_somebody_forgets_it(run, config: Path, database: Database) -> None:
    hosts = HostStore(database)
    for one in (process("work", "a"), process("deliver", "a", 90), process("work", "b", 90), process("web", "b", 90)):
        hosts.report(one)
    facts = json.loads(run("status", "--json")[1])
    assert {host["name"]: (host["is_gone"], host["silent"]) for host in facts["hosts"]} == {
        "a": (False, ["deliver@a"]),
        "b": (True, ["web@b", "work@b"]),
    }
    assert any(reason.startswith("the host b is gone: none of its 2 processes") for reason in facts["reasons"])
    assert "DELIVER SILENT, work; version 1.2.3" in run("status")[1]
    assert [line.split()[:3] for line in run("hosts", "ls")[1].splitlines()[1:]] == [
        ["a", "SILENT", "deliver"],
        ["a", "runs", "work"],
        ["b", "GONE", "web"],
        ["b", "GONE", "work"],
    ]
    with open_store(load_settings(config)) as node:
        make_watch(node, [], supervised=False).tick()
        (alert,) = [alert for alert in node.alerts.open() if alert.kind == "host"]
        assert alert.subject == "b"
        assert "`syncect hosts forget b`" in alert.text
        assert run("hosts", "forget", "a")[0] == 4
        assert run("hosts", "forget", "c")[0] == 3
        assert run("hosts", "forget", "b")[0] == 0
        make_watch(node, [], supervised=False).tick()
        assert [alert for alert in node.alerts.open() if alert.kind == "host"] == []
    assert [host.name for host in hosts.all()] == ["a"]


@on_postgresql
def test_the_page_has_a_light_for_each_host(config: Path, database: Database) -> None:
    from node.web.lights import strip_of

    hosts = HostStore(database)
    for one in (process("work", "a"), process("work", "b", 90)):
        hosts.report(one)
    with open_store(load_settings(config)) as node:
        lights = {light.name: light for light in strip_of(node).lights}
    assert (lights["Host a"].word, lights["Host a"].text) == ("OK", "work; version 1.2.3")
    assert lights["Host b"].word == "DOWN"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_with_sqlite_there_is_one_host_and_nothing_is_reported(run, config: Path, database: Database, tmp_path) -> None:
    with process_lock(tmp_path, "work", "1") as sign, reported(database, sign, "1.2.3"):
        assert HostStore(database).all() == []
    assert json.loads(run("hosts", "ls", "--json")[1]) == []
    assert "there is one" in run("hosts", "ls")[2]
