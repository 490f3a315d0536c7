"""What a second bundle made of a job is kept beside it, on SQLite and on PostgreSQL alike."""

from datetime import timedelta

import pytest

from storage.shadows import LEFT_BEHIND_AFTER, MAX_ATTEMPTS, ShadowStore
from tests.contract.store_bench import Bench, at

SECOND = "second 1 (abc)"


class WithShadows(Bench):
    """A store with one series that waits for its translation."""

    def __init__(self, database):
        super().__init__(database)
        self.shadows = ShadowStore(database)


@pytest.fixture
def bench(database):
    bench = WithShadows(database)
    bench.receive()
    bench.queue()
    return bench


def test_a_job_with_a_result_is_taken_once_by_each_bundle(bench):
    assert bench.shadows.begin(SECOND, at(20)) is None, "there is no result yet"
    bench.produce()
    job = bench.shadows.begin(SECOND, at(20))
    assert (job.job_id, len(job.sources), job.product_dir) == (1, 3, "derived/1-1")
    assert bench.shadows.begin(SECOND, at(21)) is None, "it is in hand"
    assert bench.shadows.begin("third", at(21)).job_id == 1
    bench.shadows.measured(1, SECOND, {"mean_abs_hu": 1.5}, "too bright", at(22))
    bench.shadows.failed(1, "third", "no", at(23))
    assert bench.shadows.begin(SECOND, at(24)) is bench.shadows.begin("third", at(24)) is None
    first, other = bench.shadows.views(1)
    assert (first.outcome, first.reason, first.measurements) == ("MEASURED", "too bright", {"mean_abs_hu": 1.5})
    assert (other.outcome, other.reason, other.updated_at) == ("FAILED", "no", at(23))
    assert bench.shadows.views() == [first, other]
    assert bench.shadows.views(7) == []


def test_what_was_interrupted_is_done_later_and_what_kills_is_given_up(bench):
    bench.produce()
    assert bench.shadows.begin(SECOND, at(20))
    bench.shadows.drop(1, SECOND)
    now = at(20)
    for _ in range(MAX_ATTEMPTS):
        assert bench.shadows.begin(SECOND, now), "nobody has it in hand any more"
        now += LEFT_BEHIND_AFTER + timedelta(seconds=1)
    assert bench.shadows.begin(SECOND, now) is None
    (view,) = bench.shadows.views()
    assert (view.outcome, view.reason) == ("FAILED", "the worker ended each time while it was translated")


def test_a_real_job_that_is_due_is_seen(bench):
    assert bench.shadows.work_waits(at(20))
    bench.produce()
    assert not bench.shadows.work_waits(at(20))
