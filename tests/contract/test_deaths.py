"""The store under processes that end over one series: it is read once more, and then left for a person."""

import pytest

from tests.contract.store_bench import Bench, at


@pytest.fixture
def bench(database):
    return Bench(database)


def read_to_death(bench, count):
    """A process takes series 1 in hand and ends, so many times; what the store says of it after each."""
    states = []
    for death in range(count):
        bench.series.take_in_hand(1, "complete-1@here")
        assert bench.series.count_deaths("complete-1@there", at(20 + death)) == []
        assert bench.series.count_deaths("complete-1@here", at(20 + death)) == [bench.overview.case("1").series_uid]
        states.append(bench.overview.case("1").state)
    return states


def test_a_series_over_which_two_processes_ended_is_failed_and_left_alone(bench):
    bench.receive()
    assert read_to_death(bench, 2) == ["RECEIVING", "FAILED"]
    case = bench.overview.case("1")
    assert "2 processes ended while they read it" in case.reason
    assert bench.series.undecided(at(1000), 1) == []
    assert bench.jobs.claim("w", 60, at(1000)) is None
    assert bench.series.count_deaths("complete-1@here", at(1001)) == []


def test_a_person_may_let_it_be_read_once_more(bench):
    bench.receive()
    read_to_death(bench, 2)
    bench.jobs.retry(bench.overview.case("1").job_id, "operator", "looked at it", at(30))
    assert [case.state for case in bench.overview.cases()] == ["RECEIVING", "SUPERSEDED"]
    assert bench.jobs.claim("w", 60, at(1000)) is None
    bench.series.take_in_hand(1, "complete-1@here")
    bench.series.count_deaths("complete-1@here", at(40))
    assert [case.state for case in bench.overview.cases()] == ["FAILED", "SUPERSEDED"]


def test_a_cancelled_one_that_is_reopened_is_judged_and_not_translated(bench):
    bench.receive()
    read_to_death(bench, 2)
    job_id = bench.overview.case("1").job_id
    bench.jobs.cancel(job_id, "operator", "", at(30))
    bench.jobs.reopen(job_id, "operator", "", at(31))
    assert bench.overview.cases()[0].state == "RECEIVING"
    assert bench.jobs.claim("w", 60, at(1000)) is None


def test_a_series_that_was_judged_to_the_end_has_no_deaths(bench):
    bench.receive()
    read_to_death(bench, 1)
    bench.series.take_in_hand(1, "complete-1@here")
    bench.series.put_down(1, judged=True)
    assert read_to_death(bench, 1) == ["RECEIVING"]


def test_naming_a_series_forgives_no_death(bench):
    bench.receive()
    read_to_death(bench, 1)
    bench.series.take_in_hand(1, "complete-1@here")
    bench.series.put_down(1, judged=False)
    assert read_to_death(bench, 1) == ["FAILED"]


def test_other_contents_of_a_series_that_could_not_be_read_are_read(bench):
    bench.receive()
    read_to_death(bench, 2)
    bench.receive([7], now=at(50))
    assert [case.state for case in bench.overview.cases()] == ["RECEIVING", "SUPERSEDED"]
    assert bench.queue(now=at(100))
    assert bench.overview.cases()[0].state == "QUEUED"


def test_the_same_contents_are_not_read_again(bench):
    bench.receive()
    read_to_death(bench, 2)
    bench.receive(now=at(50))
    assert [case.state for case in bench.overview.cases()] == ["FAILED"]
