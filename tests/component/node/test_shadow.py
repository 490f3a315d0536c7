"""A second bundle is measured beside the first; it sends nothing, changes nothing, and gives way to every real job."""

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.load import load_settings
from models import read_card
from models.testing import write_tiny_bundle
from node.beats import no_beat
from node.bootstrap.bundles import bundle_label
from node.bootstrap.worker import job_options, make_worker, open_executor
from node.errors import Permanent
from node.operate.cases import shadow_text
from node.translate.shadow import ShadowRunner
from storage.shadows import LEFT_BEHIND_AFTER, MAX_ATTEMPTS

GO_ON = threading.Event()


def of(node):
    """Everything that a shadow must not touch."""
    case = node.overview.case("1")
    files = [path for path in node.spool.root.rglob("*") if path.is_file()]
    return case, node.overview.events(case), sorted(files)


class Second:
    """The bundle of a shadow: the real translator, around which a test does what it wants."""

    bundle = "second 1 (abc)"

    def __init__(self, node):
        self.real, self.error, self.stages = open_executor(node.settings.model), None, []
        self.during = lambda: None

    def run(self, paths, options, out_dir, progress):
        def told(stage, done, total):
            self.stages.append(stage)
            self.during()
            progress(stage, done, total)

        if self.error is not None:
            raise self.error
        return self.real.run(paths, options, out_dir, told)


@pytest.fixture
def second(made):
    return Second(made)


@pytest.fixture
def runner(made, second):
    def make(**options):
        return ShadowRunner(
            made.shadows,
            made.spool,
            second.bundle,
            lambda: second,
            lambda job, now: job_options(made.settings, now, repeat=job.repeat, version=job.version),
            name="w",
            **options,
        )

    return make


def test_a_shadow_is_measured_and_leaves_nothing_but_its_row(made, second, runner) -> None:
    before = of(made)
    assert runner().run_once(GO_ON)
    assert of(made) == before
    (view,) = made.shadows.views(1)
    assert (view.outcome, view.bundle) == ("MEASURED", second.bundle)
    assert view.measurements["mean_abs_hu"] == view.measurements["max_abs_hu"] == 0, "the same bundle, the same result"
    assert {"changed_share", "mean_shift_hu"} <= view.measurements.keys()
    assert not runner().run_once(GO_ON), "each job once"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Permanent("the scan is too large"), "the scan is too large"),
        (RuntimeError("CUDA out of memory"), "unexpected RuntimeError; the worker's log has the details"),
    ],
)
def test_what_goes_wrong_stands_in_the_row_of_the_shadow_only(made, second, runner, error, reason) -> None:
    before, second.error = of(made), error
    assert runner().run_once(GO_ON)
    (view,) = made.shadows.views()
    assert (view.outcome, view.reason) == ("FAILED", reason)
    assert shadow_text(view) == f"FAILED: {reason}"
    assert of(made) == before
    assert not runner().run_once(GO_ON)


def test_a_real_job_interrupts_it_at_its_next_step(made, second, runner, monkeypatch) -> None:
    monkeypatch.setattr("node.translate.shadow.ASK_EVERY_S", 0)
    waits: list[bool] = []
    monkeypatch.setattr(made.shadows.__class__, "work_waits", lambda *_: bool(waits))
    second.during = lambda: waits.append(True)
    runner().run_once(GO_ON)
    assert len(second.stages) == 1
    assert made.shadows.views() == [], "it is done later, as if it had never begun"
    waits.clear()
    second.during = lambda: None
    runner().run_once(GO_ON)
    assert made.shadows.views()[0].outcome == "MEASURED"


def test_a_worker_that_is_told_to_stop_stops(made, second, runner) -> None:
    stop = threading.Event()
    second.during = stop.set
    runner().run_once(stop)
    assert (len(second.stages), made.shadows.views()) == (1, [])


class Killed(BaseException):
    """The process is gone at this line."""


def test_a_kill_leaves_nothing_and_a_series_that_kills_is_given_up(made, second, runner) -> None:
    def die():
        raise Killed

    before, now = of(made), datetime.now(UTC)
    second.during = die
    for attempt in range(MAX_ATTEMPTS):
        clock = now + attempt * 2 * LEFT_BEHIND_AFTER
        with pytest.raises(Killed):
            runner(clock=lambda clock=clock: clock).run_once(GO_ON)
        again = runner(clock=lambda clock=clock: clock + timedelta(minutes=1))  # the process that takes its place
        assert of(made) == before
        assert not again.run_once(GO_ON), "another process may still be at it"
    late = now + MAX_ATTEMPTS * 2 * LEFT_BEHIND_AFTER
    assert not runner(clock=lambda: late).run_once(GO_ON)
    assert made.shadows.views()[0].reason == "the worker ended each time while it was translated"


def test_the_worker_of_the_settings_measures_and_commands_show_it(run, made, tmp_path: Path, config) -> None:
    write_tiny_bundle(tmp_path / "other", seed=1)
    config.write_text(config.read_text() + f'shadow = "{tmp_path / "other"}"\n')
    label = bundle_label(read_card(tmp_path / "other"))
    object.__setattr__(made, "settings", load_settings(config))
    stop = threading.Event()
    worker = make_worker(made, "1", lambda _words: None, no_beat)
    waited = threading.Thread(target=worker.run, args=(stop,))
    waited.start()
    while not any(view.outcome != "PENDING" for view in made.shadows.views()):
        stop.wait(0.05)
    stop.set()
    waited.join()
    assert f"shadow {label}" in run("jobs", "show", "1")[1]
    (row,) = json.loads(run("models", "shadow", "--json")[1])
    assert (row["bundle"], row["measured"], row["failed"]) == (label, 1, 0)
    assert label in run("models", "shadow")[1]


def test_the_same_bundle_twice_is_refused(run, config) -> None:
    config.write_text(config.read_text() + '[model]\nbundle = "demo"\nshadow = "demo"\n')
    code, _, err = run("config", "show")
    assert (code, "shadow must be another bundle" in err) == (2, True)
