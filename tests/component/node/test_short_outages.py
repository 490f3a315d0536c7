"""A database that is away while a job or a delivery is in hand: no fault of either, and neither waits for long."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from config.load import load_settings
from node.bootstrap.roles import make_courier
from node.bootstrap.store import open_store
from node.errors import Doubtful
from node.translate.heartbeat import LEASE_S
from node.translate.job import DerivedFile, JobResult
from node.translate.leases import GRACE_S, ExpiredLeases
from node.translate.worker import Worker
from storage.errors import StoreUnavailable
from storage.jobs import JobStore
from storage.outbox import OutboxStore
from tests.component.node.test_spool_commands import Kept
from tests.departments import START


@pytest.fixture
def kept(config: Path) -> Iterator[Kept]:
    with open_store(load_settings(config)) as node:
        yield Kept(node)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Lets the first calls of a method find no database; the events of each, and then the role is told to stop."""
    monkeypatch.setattr("storage.outage.PAUSES_S", (0.001,))

    def of(store: type, method: str, times: int, stop: threading.Event) -> list[str]:
        real, calls = getattr(store, method), list[str]()

        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(method)
            if len(calls) <= times:
                raise StoreUnavailable("the store is away")
            stop.set()
            return real(*arguments, **options)

        monkeypatch.setattr(store, method, call)
        return calls

    return of


class Executor:
    bundle, description, spare_devices = "demo 1 (abc)", "fake on nothing", 0
    runs = 0

    def run(self, _paths: Any, _options: Any, out_dir: Path, _progress: Any) -> JobResult:
        self.runs += 1
        path = out_dir / "0001.dcm"
        path.write_bytes(b"derived")
        digest = hashlib.sha256(b"derived").hexdigest()
        return JobResult("9", "1.2", (DerivedFile("9.1", "1.2.3.1.0", path, digest),), None, {})


def work(kept: Kept, stop: threading.Event) -> int:
    """Let a worker `w` work until `stop` is set; how often it translated."""
    executor = Executor()
    opened: Any = lambda _bundle, _faults: executor  # noqa: E731
    options: Any = lambda _job, _now: None  # noqa: E731
    Worker(kept.node.jobs, kept.node.spool, opened, options, ["tps"], name="w", clock=lambda: START).run(stop)
    return executor.runs


def ends(kept: Kept, case_id: str) -> list[tuple[str, str]]:
    """To which state each claim of a job came, and why."""
    events = kept.node.overview.events(kept.node.overview.case(case_id))
    return [(event.to_state, event.reason) for event in events if event.from_state == "RUNNING"]


AWAY = "the database could not be used when the job was to be recorded"


def test_a_result_that_cannot_be_recorded_for_now_is_recorded_later_and_not_made_again(kept: Kept, away: Any) -> None:
    case_id, stop = kept.queued(), threading.Event()
    calls = away(JobStore, "finish", 4, stop)
    assert work(kept, stop) == 1
    case = kept.node.overview.case(case_id)
    assert (len(calls), case.state, case.attempts) == (5, "PRODUCED", 1)
    assert ends(kept, case_id) == [("PRODUCED", "")]
    assert kept.node.spool.path(f"{case.product_dir}/0001.dcm").read_bytes() == b"derived"


def test_a_job_without_a_result_when_the_database_went_away_is_queued_again(kept: Kept, away: Any) -> None:
    case_id, stop = kept.queued(), threading.Event()
    away(JobStore, "hold", 1, threading.Event())
    away(JobStore, "give_back", 1, stop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Executor, "run", lambda *_: (_ for _ in ()).throw(Doubtful("odd")))
        assert work(kept, stop) == 0
    assert ends(kept, case_id) == [("QUEUED", AWAY)]
    assert kept.node.overview.case(case_id).attempts == 0


def meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[Callable[[], None]], object]) -> list[str]:
    """The first try to record a result finds no database, after `act(record)`; the calls."""
    monkeypatch.setattr("storage.outage.PAUSES_S", (0.001,))
    real, calls = JobStore.finish, list[str]()

    def finish(jobs: JobStore, job_id: int, worker: str, product: Any, **options: Any) -> None:
        calls.append(product.product_dir)
        if len(calls) > 1:
            real(jobs, job_id, worker, product, **options)
            return
        act(lambda: real(jobs, job_id, worker, product, **options))
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(JobStore, "finish", finish)
    return calls


def until_settled(kept: Kept, stop: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell the worker to stop when it looks for the next job and there is none."""
    real = JobStore.claim

    def claim(*arguments: Any) -> Any:
        found = real(*arguments)
        if found is None:
            stop.set()
        return found

    monkeypatch.setattr(JobStore, "claim", claim)


def test_a_result_whose_files_are_gone_after_an_outage_is_made_again(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    case_id, stop = kept.queued(), threading.Event()
    calls = meanwhile(monkeypatch, lambda _: (kept.node.spool.path("derived/1-1/0001.dcm")).write_bytes(b"torn"))
    until_settled(kept, stop, monkeypatch)
    assert (work(kept, stop), len(set(calls))) == (2, 2)
    assert ends(kept, case_id) == [("QUEUED", f"{AWAY}, and its files are not there any more"), ("PRODUCED", "")]
    assert kept.node.spool.path(f"{calls[1]}/0001.dcm").read_bytes() == b"derived"


def test_a_result_that_was_recorded_although_nobody_heard_it_is_kept(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ended between the commit and its answer."""
    case_id, stop = kept.queued(), threading.Event()
    calls = meanwhile(monkeypatch, lambda record: record())
    until_settled(kept, stop, monkeypatch)
    assert (work(kept, stop), len(calls)) == (1, 2)
    assert ends(kept, case_id) == [("PRODUCED", "")]
    assert kept.node.spool.path("derived/1-1/0001.dcm").read_bytes() == b"derived"


def test_a_job_that_another_worker_took_during_an_outage_has_the_result_of_that_one(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    case_id, stop = kept.queued(), threading.Event()

    def other(_: object) -> None:
        later = START + timedelta(seconds=LEASE_S + 1)
        jobs = kept.node.jobs
        assert jobs.release_expired(later) != []
        job = jobs.claim("other", LEASE_S, later)
        assert job is not None
        jobs.hold(job.id, "other", "odd", later)

    calls = meanwhile(monkeypatch, other)
    until_settled(kept, stop, monkeypatch)
    assert (work(kept, stop), len(calls)) == (1, 2)
    assert [state for state, _ in ends(kept, case_id)] == ["QUEUED", "HELD"]
    assert not kept.node.spool.path("derived/1-1").exists(), "nobody refers to it"


def test_a_delivery_that_cannot_be_recorded_for_now_does_not_wait_for_its_lease(kept: Kept, away: Any) -> None:
    case_id, stop = kept.produced(), threading.Event()
    calls = away(OutboxStore, "keep", 2, stop)
    courier = make_courier(kept.node, "c")
    thread = threading.Thread(target=courier.run, args=(stop,), daemon=True)
    thread.start()
    thread.join(20.0)
    assert not thread.is_alive()
    case = kept.node.overview.case(case_id)
    events = [event.reason for event in kept.node.overview.events(case) if event.from_state == "SENDING"]
    assert (len(calls), events[:2]) == (3, ["the database could not be used"] * 2)
    assert "attribute of type" in events[2], "now it is looked at"


def test_leases_that_ran_out_while_the_database_was_away_are_extended_first(kept: Kept) -> None:
    """Their workers live, and had nobody to tell it."""
    case_id, jobs, seconds, is_away = kept.queued(), kept.node.jobs, [0.0], [False]

    class Store:
        def __getattr__(self, name: str) -> Any:
            if is_away[0]:
                raise StoreUnavailable("the store is away")
            return getattr(jobs, name)

    store: Any = Store()
    leases = ExpiredLeases(store, lambda: START + timedelta(seconds=seconds[0]), clock_s=lambda: seconds[0])

    def state_at(moment_s: float) -> str:
        seconds[0] = moment_s
        leases.tick()
        return kept.node.overview.case(case_id).state

    job = jobs.claim("w", LEASE_S, START)
    assert job is not None
    assert state_at(5.0) == "RUNNING"
    is_away[0] = True
    with pytest.raises(StoreUnavailable):
        state_at(LEASE_S - 1)
    with pytest.raises(StoreUnavailable):
        state_at(LEASE_S + 60)
    is_away[0] = False
    assert state_at(LEASE_S + 65) == "RUNNING"
    jobs.heartbeat(job.id, "w", LEASE_S, START + timedelta(seconds=LEASE_S + 66))
    assert state_at(LEASE_S + 66 + GRACE_S) == "RUNNING"
    assert state_at(2 * LEASE_S + 67) == "QUEUED", "a worker that says nothing any more is not waited for"
