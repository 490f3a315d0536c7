"""After a jump of the clock a living worker keeps its job and a quiet series is judged when it would have been."""

from datetime import UTC, datetime, timedelta

import pytest

from storage.database import Database
from storage.jobs import JobStore
from storage.overview import Overview
from storage.series import Arrival, JobRequest, SeriesFacts, SeriesStore
from storage.shifted import LONGEST_WAIT, shift_waiting
from storage.transitions import NEVER
from tests.contract.store_bench import Bench, at

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def receive_two(series: SeriesStore) -> None:
    """Two series of one image each, in one association that is over."""
    association = series.open_association("r", "CTSIM", "h", NOW)
    for n in (1, 2):
        uids = ("1.2", f"1.2.{n}", f"1.2.{n}.1", "1.2.840", "1.2.840.10008.1.2.1")
        series.record(association, "CTSIM", Arrival(*uids, "f" * 64, f"received/{n}.dcm", 1), NOW)
    series.close_association(association, released=True, now=NOW)


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)], ids=str)
def test_leases_and_waiting_times_move_with_the_clock(database: Database, jump: timedelta) -> None:
    series, jobs = SeriesStore(database), JobStore(database)
    receive_two(series)
    first, second = series.undecided(NOW, 0.0)
    assert series.queue(first, SeriesFacts("", ""), JobRequest("k" * 64, "bundle"), NOW)
    job = jobs.claim("w", 60.0, NOW)
    assert job is not None
    shift_waiting(database, jump, NOW + jump)
    then = NOW + timedelta(seconds=5) + jump
    assert jobs.release_expired(then) == []
    assert [one.series_uid for one in series.undecided(then, 5.0)] == [second.series_uid]
    assert series.undecided(then, 6.0) == []
    assert {case.counts_from for case in Overview(database).cases()} == {NOW + jump}  # when its result is due
    assert jobs.release_expired(then + timedelta(seconds=60)) == [job.id]


def test_who_asks_a_peer_for_what_it_holds_waits_no_hour_longer(database: Database) -> None:
    bench = Bench(database)
    bench.receive()
    bench.queue()
    bench.produce()
    delivery, jump = bench.send(), timedelta(hours=-1)
    outbox = bench.outbox
    outbox.postpone_confirmation(delivery.id, "c", "not yet", not_before=at(130), now=at(120))
    shift_waiting(database, jump, at(125) + jump)
    assert outbox.awaiting_confirmation("tps", at(130) + jump) is not None
    outbox.postpone_confirmation(delivery.id, "c", "given up", not_before=None, now=at(130) + jump)
    shift_waiting(database, jump, at(131) + 2 * jump)
    assert outbox.awaiting_confirmation("tps", NEVER - timedelta(days=1)) is None


def test_what_was_queued_while_the_clock_was_ahead_keeps_its_turn(database: Database) -> None:
    bench, ahead = Bench(database), timedelta(days=365)
    for number in (1, 2):
        bench.receive([number], series=f"1.2.{number}", now=at(number) + ahead)
        assert bench.queue(f"k{number}x", now=at(number + 10) + ahead)
    bench.produce(now=at(15) + ahead)
    shift_waiting(database, -ahead, at(100))
    bench.receive([3], series="1.2.3", now=at(200))
    assert bench.queue("k3x", now=at(210))
    assert {case.id: case.due_at for case in bench.overview.cases()} == {"1": at(400), "2": at(400), "3": at(510)}
    assert [bench.produce(uid=f"{number}", now=at(220)).id for number in (10, 11)] == [2, 3]
    sent = [bench.outbox.claim("c", "tps", 60, at(300)) for _ in range(3)]
    assert [one and one.job_id for one in sent] == [1, 2, 3]


def test_a_machine_that_began_in_1970_waits_for_nothing_of_before(database: Database) -> None:
    """Nobody knows the jump of a start; when the clock is right again, nothing is sent to the year 2082."""
    series, jobs = SeriesStore(database), JobStore(database)
    receive_two(series)
    assert series.queue(series.undecided(NOW, 0.0)[0], SeriesFacts("", ""), JobRequest("k" * 64, "bundle"), NOW)
    job = jobs.claim("w", 60.0, NOW)
    assert job is not None
    boot, ntp = datetime(1970, 1, 1, 0, 1, tzinfo=UTC), NOW + timedelta(minutes=5)
    shift_waiting(database, timedelta(0), boot)
    assert len(series.undecided(boot + timedelta(seconds=5), 5.0)) == 1
    assert jobs.release_expired(boot + LONGEST_WAIT + timedelta(seconds=1)) == [job.id]
    shift_waiting(database, ntp - boot, ntp)
    assert len(series.undecided(ntp + timedelta(seconds=5), 5.0)) == 1
    assert jobs.claim("w", 60.0, ntp + LONGEST_WAIT) is not None
    assert {case.due_at for case in Overview(database).cases() if case.job_id} == {NOW}
