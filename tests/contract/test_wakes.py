"""On PostgreSQL a process wakes when its work comes, and sees to it all the same where no message of that comes."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, text

from storage import wakes
from storage.database import Database
from storage.transitions import Topic, wake
from storage.wakes import Bell, Polling, Wakes, waking
from tests.contract.store_bench import Bench

LONG_S = 600.0
"""Nobody waits for so long."""

on_postgresql = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def bench(database: Database) -> Bench:
    return Bench(database)


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def listening(database: Database, stop: threading.Event, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wakes]:
    """Bells that ring; nobody looks without a reason."""
    monkeypatch.setattr(wakes, "SLOW_S", LONG_S)
    with waking(database, stop, now) as found:
        assert found.listens.wait(10)
        yield found


def quiet(bell: Bell) -> Bell:
    """A bell that knows everything until now."""
    bell.listen()
    bell.rest()
    assert not bell.is_due()
    return bell


def rings(bell: Bell, stop: threading.Event, what: Callable[[], object]) -> bool:
    """Whether who waits by a bell goes on once something happened."""
    waiter = threading.Thread(target=bell.wait, args=(stop,), daemon=True)
    waiter.start()
    what()
    waiter.join(10)
    return not waiter.is_alive()


@on_postgresql
def test_each_step_of_a_series_wakes_whose_turn_it_is_then(
    bench: Bench, listening: Wakes, stop: threading.Event
) -> None:
    completion, worker, courier = (
        quiet(bell) for bell in (listening.completion(), listening.worker(), listening.courier("tps"))
    )
    assert rings(completion, stop, bench.receive)
    assert not worker.is_due()
    assert rings(worker, stop, bench.queue)
    courier.listen()  # it also rang because the series may go on
    assert rings(courier, stop, bench.produce)


@on_postgresql
def test_what_is_rolled_back_wakes_nobody(database: Database, listening: Wakes, stop: threading.Event) -> None:
    worker, completion = quiet(listening.worker()), quiet(listening.completion())

    def tell(topic: Topic, *, then_fail: bool) -> None:
        with database.write() as session:
            wake(session, [topic])
            if then_fail:
                raise KeyError

    with pytest.raises(KeyError):
        tell(Topic.WORK, then_fail=True)
    assert rings(completion, stop, lambda: tell(Topic.COMPLETE, then_fail=False))
    assert not worker.is_due()


@on_postgresql
def test_a_series_that_is_not_judged_is_looked_at_in_every_tick(bench: Bench, listening: Wakes) -> None:
    completion = quiet(listening.completion())
    bench.receive()
    completion.listen()
    completion.rest()
    assert completion.is_due()


@on_postgresql
def test_what_may_be_tried_later_is_looked_at_then(bench: Bench, listening: Wakes, stop: threading.Event) -> None:
    bench.receive()
    bench.queue()
    job = bench.jobs.claim("w", 60, now())
    assert job is not None
    soon, worker = now() + timedelta(seconds=0.2), listening.worker()
    bench.jobs.requeue(job.id, "w", "no memory", not_before=soon, now=now())
    while bench.jobs.claim("w", 60, now()) is None:
        worker.listen()
        worker.wait(stop)
    assert now() >= soon


@on_postgresql
def test_a_delivery_or_a_note_that_comes_due_is_looked_at_then(
    bench: Bench, listening: Wakes, stop: threading.Event
) -> None:
    bench.receive()
    bench.queue()
    bench.produce()
    delivery = bench.outbox.claim("c", "tps", 60, now())
    assert delivery is not None
    soon, courier, other = now() + timedelta(seconds=0.2), listening.courier("tps"), listening.courier("other")
    bench.outbox.postpone(delivery.id, "c", "no answer", not_before=soon, now=now())
    while bench.outbox.claim("c", "tps", 60, now()) is None:
        courier.listen()
        courier.wait(stop)
    assert now() >= soon
    other.listen()
    other.rest()
    assert not other.is_due()


@on_postgresql
def test_who_lost_the_server_looks_as_soon_as_it_is_back(
    database: Database, listening: Wakes, stop: threading.Event
) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'test'"
    worker, other = quiet(listening.worker()), create_engine(database.url)
    with other.begin() as connection:
        connection.execute(text(end))
    other.dispose()
    deadline_s = time.monotonic() + 10
    while not worker.is_due():
        assert time.monotonic() < deadline_s
        stop.wait(0.02)
    assert listening.listens.wait(10)


@on_postgresql
def test_who_is_told_to_stop_waits_no_longer(listening: Wakes, stop: threading.Event) -> None:
    assert rings(quiet(listening.worker()), stop, stop.set)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_where_nothing_tells_everybody_looks_at_a_fixed_pace(bench: Bench, stop: threading.Event) -> None:
    with waking(bench.database, stop, now) as found:
        bells = [found.completion(), found.worker(), found.courier("tps")]
    assert all(isinstance(bell, Polling) and bell.is_due() for bell in bells)
    bench.receive()
    assert bench.queue()
