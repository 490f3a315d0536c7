"""The store under processes that end over one series: it is read once more, and then left for a person."""

from datetime import timedelta

import pytest

from storage.jobs import JobStore
from storage.series import SeriesStore
from storage.states import MAX_NODE_DEATHS
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


class Night:
    """The same store as processes see it that were started by different nodes, or boots of the machine."""

    def __init__(self, bench):
        self.bench, self.nodes = bench, 0
        self.begin_node()

    def begin_node(self):
        self.nodes += 1
        starter = f"node {self.nodes}"
        self.series = SeriesStore(self.bench.database, starter)
        self.jobs = JobStore(self.bench.database, starter)


def series_in_hand(night, now):
    night.series.take_in_hand(1, "complete-1@here")
    return lambda: night.series.count_deaths("complete-1@here", now)


def job_in_hand(night, now):
    assert night.jobs.claim("work-1@here", 60, now) is not None
    return lambda: night.jobs.release_expired(now, dead_worker="work-1@here")


def job_whose_lease_runs_out(night, now):
    assert night.jobs.claim("work-1@here", 60, now) is not None
    return lambda: night.jobs.release_expired(now + timedelta(seconds=61))


IN_HAND = [series_in_hand, job_in_hand, job_whose_lease_runs_out]


@pytest.fixture
def night(bench, request):
    bench.receive()
    if request.node.callspec.params["take"] is not series_in_hand:
        bench.queue()
    return Night(bench)


@pytest.mark.parametrize("take", IN_HAND)
def test_power_cuts_are_not_the_fault_of_what_was_in_hand(night, take):
    before = night.bench.overview.case("1").state
    for cut in range(MAX_NODE_DEATHS - 1):
        find = take(night, at(100 + 100 * cut))
        night.begin_node()
        assert find() != []
        assert night.bench.overview.case("1").state == before


@pytest.mark.parametrize("take", IN_HAND)
def test_what_ends_the_whole_node_again_and_again_is_left_alone_too(night, take):
    for cut in range(MAX_NODE_DEATHS):
        find = take(night, at(100 + 100 * cut))
        night.begin_node()
        find()
    case = night.bench.overview.case("1")
    assert case.state == "FAILED"
    assert f"the whole node ended {MAX_NODE_DEATHS} times" in case.reason


@pytest.mark.parametrize("take", IN_HAND)
def test_a_power_cut_between_forgives_no_process_that_ended_alone(night, take):
    take(night, at(100))()
    find = take(night, at(200))
    night.begin_node()
    find()
    assert night.bench.overview.case("1").state != "FAILED"
    take(night, at(300))()
    assert night.bench.overview.case("1").state == "FAILED"
