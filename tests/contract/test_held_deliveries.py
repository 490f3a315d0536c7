"""A delivery that waits for a person, on SQLite and on PostgreSQL alike: nobody sends it, everybody sees it."""

from collections import Counter

import pytest

from storage.errors import IllegalTransition, NotFound
from storage.gauges import Gauges
from storage.states import DeliveryState
from tests.contract.store_bench import Bench, at

WHY = "tps knows the PatientID under another PatientName"


@pytest.fixture
def bench(database):
    bench = Bench(database)
    bench.receive()
    bench.queue()
    bench.produce(destinations=("tps", "archive"))
    return bench


def hold(bench, seconds=20):
    delivery = bench.outbox.claim("c", "tps", 60, at(seconds))
    bench.outbox.hold(delivery.id, "c", WHY, at(seconds))
    return delivery


def case(bench):
    (found,) = bench.overview.cases()
    return found


def test_a_held_delivery_is_claimed_by_nobody_and_its_case_is_held(bench):
    hold(bench)
    assert bench.outbox.claim("c", "tps", 60, at(10_000)) is None
    held = case(bench)
    assert (held.state, held.reason) == ("HELD", f"tps: {WHY}".replace("tps: tps", "tps"))
    assert [(view.state, view.held_for, view.attempts) for view in held.deliveries] == [
        ("PENDING", WHY, 0),
        ("PENDING", "", 0),
    ]
    bench.send(to="archive")
    assert case(bench).state == "HELD"


def test_lists_alerts_and_gauges_find_it_among_what_is_held(bench, database):
    hold(bench)
    assert [found.id for found in bench.overview.cases(states=["HELD"])] == ["1"]
    assert [found.id for found in bench.overview.cases(troubled_since=at(0))] == ["1"]
    assert bench.overview.cases(states=["PRODUCED", "SENDING"]) == []
    assert +Gauges(database).cases() == Counter(HELD=1)
    assert set(Gauges(database).oldest()) == {"HELD", "PRODUCED"}  # the archive waits too
    assert bench.overview.longest_waiting() is None


def test_a_person_lets_it_go_once(bench):
    delivery = hold(bench)
    assert not delivery.is_released
    assert bench.outbox.release_held(delivery.job_id, "operator mia", "married last week", at(30)) == ["tps"]
    view = case(bench).deliveries[0]
    assert (view.held_for, view.override) == ("", f"HELD: {WHY}. Released by operator mia: married last week")
    assert case(bench).state == "PRODUCED"
    assert bench.send(now=at(31)).is_released
    bench.send(to="archive", now=at(31))
    bench.jobs.resend(delivery.job_id, ["tps"], "operator mia", "", at(40))
    again = bench.outbox.claim("c", "tps", 60, at(41))
    assert not again.is_released
    events = bench.overview.events(case(bench))
    said = [(event.from_state, event.to_state, event.actor, event.reason) for event in events]
    assert ("SENDING", "PENDING", "c", WHY) in said
    assert ("PENDING", "PENDING", "operator mia", "released: married last week") in said


def test_a_retry_lets_the_destination_be_asked_again(bench):
    delivery = hold(bench)
    assert bench.outbox.retry(delivery.job_id, "operator mia", "corrected there", at(30)) == 2
    again = bench.outbox.claim("c", "tps", 60, at(30))
    assert (again.id, again.is_released) == (delivery.id, False)


def test_what_was_cancelled_and_reopened_is_still_held(bench):
    delivery = hold(bench)
    bench.jobs.cancel(delivery.job_id, "operator mia", "", at(30))
    assert case(bench).state == "CANCELLED"
    bench.jobs.reopen(delivery.job_id, "operator mia", "", at(31))
    assert case(bench).state == "HELD"
    assert bench.outbox.claim("c", "tps", 60, at(10_000)) is None


def test_only_what_is_held_can_be_let_go(bench):
    job_id = bench.outbox.claim("c", "archive", 60, at(20)).job_id
    with pytest.raises(IllegalTransition, match="no delivery of this job is held"):
        bench.outbox.release_held(job_id, "operator mia", "why", at(30))
    with pytest.raises(NotFound):
        bench.outbox.release_held(99, "operator mia", "why", at(30))
    delivery = hold(bench)
    bench.jobs.cancel(job_id, "operator mia", "", at(31))
    with pytest.raises(IllegalTransition):
        bench.outbox.release_held(delivery.job_id, "operator mia", "why", at(32))
    assert {view.state for view in case(bench).deliveries} == {DeliveryState.CANCELLED}
