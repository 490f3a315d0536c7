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

    def run(self, _paths: Any, _options: Any, out_dir: Path, _progress: Any) -> JobResult:
        path = out_dir / "0001.dcm"
        path.write_bytes(b"derived")
        digest = hashlib.sha256(b"derived").hexdigest()
        return JobResult("9", "1.2", (DerivedFile("9.1", "1.2.3.1.0", path, digest),), None, {})


def test_a_job_whose_result_cannot_be_recorded_for_now_counts_no_death(kept: Kept, away: Any) -> None:
    case_id, stop = kept.queued(), threading.Event()
    calls = away(JobStore, "finish", 4, stop)
    opened: Any = lambda _bundle, _faults: Executor()  # noqa: E731
    options: Any = lambda _job, _now: None  # noqa: E731
    Worker(kept.node.jobs, kept.node.spool, opened, options, ["tps"], name="w", clock=lambda: START).run(stop)
    case = kept.node.overview.case(case_id)
    assert (len(calls), case.state, case.attempts) == (5, "PRODUCED", 1)
    events = [event.reason for event in kept.node.overview.events(case) if event.from_state == "RUNNING"]
    assert events[:4] == ["the database could not be used when the job was to be recorded"] * 4


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
