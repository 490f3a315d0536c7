"""Which processes run on which host: they report themselves, a silent host is told of, and a person forgets it."""

import json
import socket
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from config.load import load_settings
from node.beats import CANNOT_WORK
from node.bootstrap.store import open_store
from node.bootstrap.watch import _elsewhere, make_watch
from node.operate.doctor.processes import processes as processes_of
from node.operate.situation import essentials, health_of
from node.operate.turns import waits_of
from node.ops import reporting
from node.ops.processes import AlreadyRunning, process_lock, process_name
from node.ops.reporting import reported
from storage.database import Database
from storage.errors import StoreUnavailable
from storage.hosts import HostStore, ReportedProcess
from storage.outage import Outage
from storage.states import Stage
from storage.tables import Association
from tests.departments import Department
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
        with reported(database, sign, "1.2.3", threading.Event()):
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
    now = process("work", "a")
    hosts.report(now)
    hosts.leave("work@a", 7, now.started_at - timedelta(seconds=90))  # a predecessor, also of pid 7 in its container
    assert [len(host.processes) for host in hosts.all()] == [1]
    hosts.leave("work@a", 7, now.started_at)
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
    told = {line.found.partition(" did not ")[0]: line.remedy for line in processes_of(load_settings(config))}
    assert told["the process deliver@a"] == "start it again, or `syncect hosts forget a`"
    assert any(found.startswith("the host b is gone") for found in told)
    assert [line.split()[:3] for line in run("hosts", "ls")[1].splitlines()[1:]] == [
        ["a", "SILENT", "deliver"],
        ["a", "runs", "work"],
        ["b", "GONE", "web"],
        ["b", "GONE", "work"],
    ]
    with open_store(load_settings(config)) as node:
        make_watch(node, []).tick()
        alerts = {alert.subject: alert.text for alert in node.alerts.open() if alert.kind == "host"}
        assert set(alerts) == {"b", "deliver@a"}
        assert "`syncect hosts forget b`" in alerts["b"]
        assert run("hosts", "forget", "c")[0] == 3
        assert run("hosts", "forget", "b")[0] == 0
        assert run("hosts", "forget", "a")[0] == 0, "of its processes one is gone"
        assert run("hosts", "forget", "a")[0] == 4
        make_watch(node, []).tick()
        assert [alert for alert in node.alerts.open() if alert.kind == "host"] == []
    assert [[one.name for one in host.processes] for host in hosts.all()] == [["work@a"]]


class Waiting(threading.Event):
    """`stop` of a process; `on_wait` is called in the place of waiting."""

    def __init__(self, on_wait) -> None:
        super().__init__()
        self.on_wait = on_wait

    def wait(self, timeout: float | None = None) -> bool:
        self.on_wait()
        return self.is_set()


def here(silent_s: float = 0) -> ReportedProcess:
    return replace(process("work", socket.gethostname(), silent_s), name=process_name("work"))


@on_postgresql
def test_a_process_does_not_begin_beside_one_of_its_name_on_a_host_of_the_same_name(
    database: Database, tmp_path: Path
) -> None:
    hosts = HostStore(database)
    hosts.report(here())
    lives = Waiting(lambda: hosts.report(here()))
    with (
        process_lock(tmp_path, "work", "1") as sign,
        pytest.raises(AlreadyRunning, match="two hosts have one name"),
        reported(database, sign, "1.2.3", lives),
    ):
        pytest.fail("it would take back the jobs of the other one")
    hosts.report(here(silent_s=30))  # it was killed, and its folder with it
    with process_lock(tmp_path, "work", "1") as sign, reported(database, sign, "1.2.3", Waiting(pytest.fail)):
        pass


@on_postgresql
def test_a_process_that_was_killed_is_followed_at_once_where_its_lock_file_says_that_it_is_dead(
    database: Database, tmp_path: Path
) -> None:
    hosts = HostStore(database)
    with process_lock(tmp_path, "work", "1") as sign:
        hosts.report(replace(here(), pid=sign.view.pid, started_at=sign.view.start))
    with process_lock(tmp_path, "work", "1") as sign, reported(database, sign, "1.2.3", Waiting(pytest.fail)):
        pass


@on_postgresql
def test_a_dead_predecessor_has_not_taken_the_name_of_one_whose_first_report_failed(
    database: Database, tmp_path: Path, monkeypatch
) -> None:
    hosts, stop, told, report = HostStore(database), threading.Event(), threading.Event(), HostStore.report
    hosts.report(here(silent_s=30))
    answers = iter([StoreUnavailable("it was restarted")])

    def report_second(store: HostStore, one: ReportedProcess) -> None:
        if (error := next(answers, None)) is not None:
            raise error
        report(store, one)
        told.set()

    monkeypatch.setattr(HostStore, "report", report_second)
    monkeypatch.setattr(Outage, "failed", lambda _outage, _error: 0.01)
    with process_lock(tmp_path, "work", "1") as sign, reported(database, sign, "1.2.3", stop):
        assert told.wait(20)
    assert not stop.is_set()


@on_postgresql
def test_a_process_whose_name_was_taken_ends(database: Database, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(reporting, "REPORT_EVERY_S", 0.01)
    hosts, stop = HostStore(database), threading.Event()

    def twin() -> None:
        with process_lock(tmp_path, "work", "1") as sign, reported(database, sign, "1.2.3", stop):
            for _ in range(400):
                hosts.report(here())
                if stop.wait(0.05):
                    break

    with pytest.raises(AlreadyRunning):
        twin()
    assert [one.pid for host in hosts.all() for one in host.processes] == [7]


ROLES = ("receive", "complete", "deliver", "watch", "web")


@on_postgresql
def test_what_runs_on_another_host_is_not_missing_here(run, config: Path, database: Database, tmp_path) -> None:
    from node.operate.measured import make_collector
    from node.web.lights import strip_of

    hosts = HostStore(database)
    for role in ROLES:
        hosts.report(process(role, "a"))
    with open_store(load_settings(config)) as node, process_lock(node.run_dir, "work", "1"):
        code, out, _ = run("status")
        assert (code, out.splitlines()[0]) == (0, "OK: all processes run, nothing waits for a person")
        lights = {light.name: (light.word, light.text) for light in strip_of(node).lights}
        assert lights["Receiver"] == ("OK", "runs on a")
        up = next(one for one in make_collector(node).collect() if one.name == "syncect_process_up")
        assert {sample.value for sample in up.samples} == {1}
        assert "on other hosts: the receiver, the completion" in list(processes_of(node.settings))[-1].found
        with process_lock(node.run_dir, "serve", "1"):  # which runs every role
            assert "the receiver does not run" in run("status")[1]
        (receiver,) = (one for host in hosts.all() for one in host.processes if one.role == "receive")
        hosts.leave(receiver.name, receiver.pid, receiver.started_at)
        code, out, _ = run("status")
        assert (code, "on no host; start `syncect receive` where it belongs" in out) == (2, True)
    assert "work NOT RUNNING" in " ".join(run("status")[1].split()), "it ended in order, and nobody else works"


def test_the_doctor_finds_no_process_where_there_is_no_store_yet(tmp_path: Path, vacant_url) -> None:
    write_settings(tmp_path / "node.toml", vacant_url("postgresql"))
    (line,) = processes_of(load_settings(tmp_path / "node.toml"))
    assert line.found.startswith("not running: the receiver, ")


@on_postgresql
def test_a_role_that_no_host_runs_is_an_alert_also_of_a_watch_that_was_started_alone(
    config: Path, database: Database, monkeypatch
) -> None:
    monkeypatch.setattr("node.ops.alert_machine.MISSING_AFTER_S", 0)
    for role in ("receive", "complete", "deliver"):
        HostStore(database).report(process(role, "a"))
    with open_store(load_settings(config)) as node:
        make_watch(node, []).tick()
        assert {alert.subject for alert in node.alerts.open() if alert.kind == "process"} == {"work"}
        monkeypatch.setattr(HostStore, "all", fail_to_answer)
        assert list(_elsewhere(node, ["work"], [])) == ["work"], "while the store cannot tell, any role may run"


def fail_to_answer(_store: HostStore) -> None:
    raise StoreUnavailable("it was restarted")


@on_postgresql
def test_images_are_taken_while_one_receiver_is_not_paused(config: Path, database: Database) -> None:
    hosts = HostStore(database)
    for name in ("a", "b"):
        hosts.report(process("receive", name))
    with open_store(load_settings(config)) as node:

        def takes_images() -> bool:
            return health_of(node, essentials(node)).takes_images

        for name, taken in (("a", True), ("b", False)):
            node.pauses.pause([Stage.RECEIVE], name, "operator", "network", datetime.now(UTC))
            assert takes_images() is taken
        node.pauses.resume([Stage.RECEIVE], "a")
        assert takes_images()


@on_postgresql
def test_a_host_whose_receiver_was_killed_has_no_association_in_hand(config: Path, database: Database) -> None:
    hosts = HostStore(database)
    with open_store(load_settings(config)) as node:
        for name, silent_s in (("a", 90), ("b", 0)):
            hosts.report(process("receive", name, silent_s))
            node.series.open_association(f"receive@{name}", "CTSIM", "h", datetime.now(UTC))
        assert {name: one.associations for name, one in node.waiting.in_hand().items()} == {"a": 0, "b": 1}
        hosts.forget("a")
        with database.read() as session:
            outcomes = dict(session.execute(select(Association.receiver, Association.outcome)).tuples().all())
    assert outcomes == {"receive@a": "LOST", "receive@b": "OPEN"}


@on_postgresql
def test_a_worker_elsewhere_that_cannot_work_is_told_of(run, config: Path, database: Database) -> None:
    HostStore(database).report(replace(process("work", "b"), details=f"{CANNOT_WORK}there is no GPU"))
    assert "the worker of b cannot work: there is no GPU" in run("status")[1]


@on_postgresql
def test_a_delivery_waits_for_a_drained_host_only_where_no_other_courier_lives(
    config: Path, database: Database
) -> None:
    hosts = HostStore(database)
    hosts.report(process("deliver", "a"))
    hosts.report(process("work", "b"))
    with open_store(load_settings(config)) as node:
        Department(node).produced()
        case, now = node.overview.case("1"), datetime.now(UTC)
        node.pauses.pause(list(Stage), "b", "operator", "new card", now, drains=True)
        assert waits_of(node, [case], now) == {}
        node.pauses.pause([Stage.SEND], "a", "operator", "new TPS", now)
        assert waits_of(node, [case], now)["1"].startswith("sending is paused on a by operator since ")
        hosts.report(process("deliver", "c"))
        assert waits_of(node, [case], now) == {}


@on_postgresql
def test_what_a_person_decides_counts_by_the_clock_of_the_store(
    run, config: Path, database: Database, monkeypatch
) -> None:
    """The clock of the host on which somebody types may be wrong by minutes: a retry would wait for them."""
    theirs = datetime.now(UTC) - timedelta(minutes=10)
    monkeypatch.setattr(Database, "now", lambda _database: theirs)
    with open_store(load_settings(config)) as node:
        department = Department(node)
        job_id = node.overview.case(department.failed()).job_id
        assert run("jobs", "retry", "1")[0] == 0
        claimed = node.jobs.claim("w@b", 60, theirs + timedelta(seconds=60))
        assert claimed is not None
        assert claimed.id == job_id
        assert run("queue", "pause", "-m", "new TPS")[0] == 0
        assert {pause.at - theirs < timedelta(minutes=1) for pause in node.pauses.all()} == {True}


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
    stop = threading.Event()
    with process_lock(tmp_path, "work", "1") as sign, reported(database, sign, "1.2.3", stop):
        assert HostStore(database).all() == []
    assert json.loads(run("hosts", "ls", "--json")[1]) == []
    assert "there is one" in run("hosts", "ls")[2]
