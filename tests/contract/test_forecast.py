"""The end of a job is told from the queue and from what was measured, and else not at all."""

from datetime import timedelta

import pytest

from storage.forecast import Forecast
from storage.jobs import Progress
from tests.contract.store_bench import Bench, at
from tests.contract.test_listing import add


@pytest.fixture
def bench(database):
    return Bench(database)


def measured(bench, number=1, *, translating_s=30, sending_s=10, now=0.0, **series):
    """A series of one slice that was translated and sent in so many seconds."""
    add(bench, number, patient="P", now=now, **series)
    claimed = now + 20
    bench.jobs.claim("w", 600, at(claimed))
    job_id = number
    from storage.jobs import ProducedInstance, ProducedSeries

    made = (ProducedInstance(f"9.{number}", f"1.2.{number}.1", "0.dcm", "0" * 64),)
    product = ProducedSeries(f"9.9.{number}", f"derived/{number}", made, {})
    done = claimed + translating_s
    bench.jobs.finish(job_id, "w", product, destinations=("tps",), held_reason=None, now=at(done))
    bench.send(now=at(done + sending_s))


def ends(bench, seconds):
    found = Forecast(bench.database).ends(bench.overview.cases(), at(seconds))
    return {key: (moment - at(0)).total_seconds() for key, moment in found.items()}


def test_nothing_is_told_before_anything_was_measured(bench):
    add(bench, 1, patient="P")
    add(bench, 2, patient="P", now=5, queue=False)
    assert ends(bench, 20) == {}
    bench.jobs.claim("w", 60, at(21))
    assert ends(bench, 22) == {}


def test_a_queued_job_waits_for_those_before_it(bench):
    measured(bench)
    for number in (2, 3):
        add(bench, number, patient="P", now=100 * number)
    assert ends(bench, 1000) == {"2": 1040, "3": 1070}
    bench.jobs.claim("w", 600, at(1000))
    assert ends(bench, 1010) == {"2": 1040, "3": 1070}
    assert ends(bench, 1500)["2"] == 1510  # it takes longer than measured: the next moment is the best guess


def test_several_workers_share_the_queue(bench):
    measured(bench)
    for number in (2, 3, 4):
        add(bench, number, patient="P", now=100 * number)
    bench.jobs.claim("w1", 600, at(1000))
    bench.jobs.claim("w2", 600, at(1000))
    assert ends(bench, 1000) == {"2": 1040, "3": 1040, "4": 1070}


def test_a_job_that_is_to_be_tried_later_begins_later_and_one_that_failed_twice_has_no_end(bench):
    measured(bench)
    add(bench, 2, patient="P", now=100)
    bench.jobs.claim("w", 600, at(1000))
    bench.jobs.requeue(2, "w", "the device is busy", not_before=at(2000), now=at(1001))
    assert ends(bench, 1002) == {"2": 2040}
    bench.jobs.claim("w", 600, at(2000))
    bench.jobs.requeue(2, "w", "the device is busy", not_before=at(3000), now=at(2001))
    assert ends(bench, 2002) == {}


def test_the_pace_of_one_bundle_says_nothing_of_another(bench):
    measured(bench)
    add(bench, 2, patient="P", now=100, bundle="other 2 (def)")
    add(bench, 3, patient="P", now=200)
    assert ends(bench, 1000) == {}  # the other's stands before it
    bench.jobs.cancel(2, "operator", "", at(1000))
    assert ends(bench, 1000) == {"3": 1040}


def test_a_delivery_is_told_from_what_is_missing_and_not_after_a_failed_attempt(bench):
    measured(bench)
    bench.receive(series="1.2.9", now=at(300))
    bench.queue("x", now=at(310))
    bench.produce(uid="5", now=at(320))
    assert ends(bench, 400) == {"2": 430}
    delivery = bench.outbox.claim("c", "tps", 60, at(400))
    bench.accept(delivery, delivery.missing[0], now=at(405))
    assert ends(bench, 405) == {"2": 425}
    for second in (410, 420):
        bench.outbox.postpone(delivery.id, "c", "refused", not_before=at(second), now=at(second))
        delivery = bench.outbox.claim("c", "tps", 60, at(second))
    assert ends(bench, 421) == {}


def test_a_destination_that_got_nothing_yet_has_no_pace(bench):
    measured(bench)
    bench.receive(series="1.2.9", now=at(300))
    bench.queue("x", now=at(310))
    bench.produce(uid="5", destinations=("tps", "archive"), now=at(320))
    assert ends(bench, 400) == {}


def test_what_a_running_job_did_already_is_not_counted_twice(bench):
    measured(bench)
    add(bench, 2, patient="P", now=100)
    bench.jobs.claim("w", 600, at(1000))
    bench.jobs.heartbeat(2, "w", 600, at(1020), progress=Progress("translate", 1, 2, at(1000)))
    assert ends(bench, 1020) == {"2": 1040}
    assert bench.overview.case("2").counts_from + timedelta(seconds=900) == at(1000)
