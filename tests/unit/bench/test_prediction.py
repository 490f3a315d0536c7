"""What one worker needed becomes the times of the model, whether other programs took a part of the cores or not."""

import os

import pytest

from bench.gpu.node_store import Course
from bench.scaled.prediction import Phase, cpu_seconds, predict, times_of


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def phase(rivals: float, job_s: float) -> Phase:
    """Ten series of one worker that is never idle; each costs it 1.6 s of a processor."""
    courses = [
        Course(
            opened_at=100.0 + n,
            closed_at=100.5 + n,
            queued_at=102.0 + n,
            running_at=102.0 + n * job_s,
            produced_at=102.0 + (n + 1) * job_s,
            sending_at=102.2 + (n + 1) * job_s,
            sent_at=102.5 + (n + 1) * job_s,
        )
        for n in range(10)
    ]
    return Phase(courses, {"work": 16.0, "complete": 1.0}, 1.0, rivals)


def test_what_is_not_processor_time_is_waiting() -> None:
    times = times_of(phase(rivals=0.0, job_s=2.0))
    assert times.job.cpu_s == pytest.approx(1.6)
    assert times.job.wait_s == pytest.approx(0.4)
    assert times.judge.cpu_s == pytest.approx(0.1)
    assert times.receive.cpu_s == pytest.approx(0.5)


def test_what_other_programs_took_is_no_waiting() -> None:
    busy = phase(rivals=3.0, job_s=4.0)
    assert busy.slowness == pytest.approx(2.0)
    times = times_of(busy)
    assert times.job.wait_s == pytest.approx(4.0 - 2 * 1.6)
    assert times.deliver.cpu_s == pytest.approx(0.3 / 2)


def test_the_model_gives_back_the_run_from_which_it_was_told_and_is_bound_by_the_cores_with_more_workers() -> None:
    measured = phase(rivals=0.0, job_s=2.0)
    times = times_of(measured)
    made = {workers: max(predict(times, workers, measured)[0].sojourns_s) for workers in (1, 2, 4)}
    assert made[1] == pytest.approx(max(measured.backlog_s()), rel=0.1)
    least_s = 10 * (0.5 + 0.1 + 1.6 + 0.3) / 2
    assert least_s < made[4] <= made[2] < 0.75 * made[1]


def test_processor_time_is_read_by_the_role_of_each_descendant() -> None:
    assert set(cpu_seconds()) <= {"other"}
    assert os.sysconf("SC_CLK_TCK") > 0
