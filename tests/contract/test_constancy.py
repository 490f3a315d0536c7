"""Constancy runs are kept, and their series goes nowhere but where the run said, on SQLite and PostgreSQL alike."""

import pytest

from storage.constancy import FAILED, PASSED, ConstancyStore
from storage.errors import NotFound
from tests.contract.store_bench import Bench, at

SERIES = "1.2.3"  # that of the bench
HERE = {"arithmetic": "cpu, 1 threads, fp32", "torch": "2.9"}


class WithConstancy(Bench):
    """A store with one series that waits for its translation."""

    def __init__(self, database):
        super().__init__(database)
        self.constancy = ConstancyStore(database)

    def places(self):
        return [view.destination for case in self.overview.cases() for view in case.deliveries]


@pytest.fixture
def bench(database):
    bench = WithConstancy(database)
    bench.receive()
    bench.queue()
    return bench


def test_a_run_ends_with_its_figures_and_can_be_found_by_its_bundle(bench) -> None:
    store = bench.constancy
    assert (store.last(), store.views(), store.counts()) == (None, [], {})
    first = store.begin("demo 1 (abc)", "a" * 64, at(0), series_uid=SERIES, destination="test")
    assert (store.view(first).outcome, store.view(first).way, store.last()) == ("RUNNING", "node", None)
    store.translated(SERIES, "demo 2 (def)", "d" * 64, HERE)
    done = store.finish(first, PASSED, "", HERE, {"mae_hu": 3.5})
    assert (done.bundle, done.bundle_digest, done.environment) == ("demo 2 (def)", "d" * 64, HERE)
    assert (done.figures, done.series_uid, done.destination) == ({"mae_hu": 3.5}, SERIES, "test")
    second = store.begin("demo 2 (def)", "d" * 64, at(9))
    assert [view.id for view in store.ended("d" * 64)] == [first], "the other one is not at its end"
    failed = store.finish(second, FAILED, "too dark", HERE, {})
    assert (failed.way, failed.series_uid, failed.reason) == ("offline", "", "too dark")
    assert (store.last(), store.counts()) == (failed, {"PASSED": 1, "FAILED": 1})
    assert [view.id for view in store.ended("d" * 64)] == [first, second]
    assert store.ended("e" * 64) == []
    with pytest.raises(NotFound):
        store.finish(99, PASSED, "", {}, {})
    with pytest.raises(NotFound):
        store.view(99)


def test_what_a_worker_says_after_the_end_of_a_run_changes_nothing(bench) -> None:
    run = bench.constancy.begin("demo", "a" * 64, at(0), series_uid=SERIES, destination="test")
    before = bench.constancy.finish(run, PASSED, "", HERE, {})
    assert bench.constancy.translated(SERIES, "other", "b" * 64, {}) == before == bench.constancy.view(run)
    assert bench.constancy.translated("1.2.4", "other", "b" * 64, {}) is None
    assert bench.constancy.translated("", "other", "b" * 64, {}) is None


def test_the_series_of_a_run_goes_to_its_own_destination_alone(bench) -> None:
    bench.constancy.begin("demo", "a" * 64, at(0), series_uid=SERIES, destination="test")
    bench.produce(destinations=("tps", "pacs"))
    assert bench.places() == ["test"]
    bench.jobs.resend(1, ["tps"], "operator", "", at(30))
    assert bench.places() == ["test"]


def test_it_goes_there_where_no_other_destination_is_set(bench) -> None:
    bench.constancy.begin("demo", "a" * 64, at(0), series_uid=SERIES, destination="test")
    bench.produce(destinations=())
    assert bench.places() == ["test"]


def test_a_held_one_goes_nowhere_before_its_release(bench) -> None:
    bench.constancy.begin("demo", "a" * 64, at(0), series_uid=SERIES, destination="test")
    bench.produce(destinations=(), held="doubt")
    assert bench.places() == []
    bench.jobs.release(1, [], "operator", "seen", at(20))
    assert bench.places() == ["test"]


def test_a_release_by_a_person_sends_it_nowhere_else(bench) -> None:
    bench.constancy.begin("demo", "a" * 64, at(0), series_uid=SERIES, destination="test")
    bench.produce(held="doubt")
    bench.jobs.release(1, ["tps", "pacs"], "operator", "seen", at(20))
    assert bench.places() == ["test"]


def test_any_other_series_goes_where_the_settings_say(bench) -> None:
    bench.constancy.begin("demo", "a" * 64, at(0), series_uid="1.2.4", destination="test")
    bench.constancy.begin("demo", "a" * 64, at(0))
    bench.produce(destinations=("tps", "pacs"))
    assert bench.places() == ["tps", "pacs"]
