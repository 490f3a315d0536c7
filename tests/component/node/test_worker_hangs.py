"""A device that never answers: the supervisor ends the worker, the job takes the next measure, and others go on."""

import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node.ops import supervisor as supervisor_module
from node.ops.supervisor import Supervisor
from storage.database import Database
from storage.overview import Overview
from storage.series import Arrival, JobRequest, SeriesFacts, SeriesStore
from tests.component.node.hanging_worker import HANGING
from tests.slice.harness import wait_for

T0 = datetime.now(UTC) - timedelta(minutes=1)


class Bench:
    """Two queued jobs, the first of which hangs, and a supervisor with a worker for them."""

    def __init__(self, folder: Path, sqlite_file: Path) -> None:
        self.folder, self.url = folder, f"sqlite:///{sqlite_file}"
        database = Database(self.url)
        self.overview, series = Overview(database), SeriesStore(database)
        for number, name in enumerate((HANGING, "other"), 1):
            uid = f"1.2.{number}"
            association = series.open_association("r", "CTSIM", "h", T0)
            series.record(association, "CTSIM", Arrival("1.2", uid, f"{uid}.1", "c", "t", "0" * 64, name, 1), T0)
            series.close_association(association, released=True, now=T0)
            (received,) = series.undecided(T0 + timedelta(seconds=9), 5)
            series.queue(received, SeriesFacts("", ""), JobRequest(str(number) * 64, "demo"), T0)

    def states(self) -> dict[str, str]:
        return {case.id: case.state for case in self.overview.cases()}

    def work_until(self, how: str, done: Callable[[], bool]) -> None:
        command = [sys.executable, "-m", "tests.component.node.hanging_worker", how, str(self.folder), self.url]
        stop = threading.Event()
        thread = threading.Thread(target=Supervisor({"work": command}).run, args=(stop,))
        thread.start()
        try:
            wait_for("the end of the jobs", done, 40)
        finally:
            stop.set()
            thread.join(60)
        assert not thread.is_alive()

    def opened_for(self) -> list[int]:
        return [int(line) for line in (self.folder / "opened").read_text().split()]


@pytest.fixture
def bench(tmp_path: Path, sqlite_file: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(supervisor_module, "LONGEST_DELAY_S", 0.05)
    return Bench(tmp_path, sqlite_file)


def test_a_job_over_which_the_device_hangs_twice_is_failed_and_others_go_on(bench: Bench) -> None:
    bench.work_until("holds", lambda: bench.states() == {"1": "FAILED", "2": "PRODUCED"})
    reason = bench.overview.case("1").reason
    assert "2 worker processes ended or stopped answering" in reason
    assert "made no progress" in reason
    assert "job 1: translate 1 of 2" in reason
    reasons = [event.reason for event in bench.overview.events(bench.overview.case("1"))]
    assert any(reason.startswith("the worker was killed: it made no progress") for reason in reasons)


def test_a_job_whose_device_answers_after_the_next_measure_is_produced(bench: Bench) -> None:
    bench.work_until("waits-once", lambda: bench.states() == {"1": "PRODUCED", "2": "PRODUCED"})
    assert 1 in bench.opened_for(), "one slice at a time in a new process"
