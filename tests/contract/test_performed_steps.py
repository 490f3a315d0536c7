"""What the store keeps of performed procedure steps, and for how long."""

from datetime import timedelta

import pytest

from config.syntax import COMPLETED, DISCONTINUED, IN_PROGRESS
from storage import performed_steps
from storage.performed_steps import (
    KEPT,
    Late,
    PerformedStepStore,
    StepReport,
    Taken,
)
from tests.contract.store_bench import Bench, at

BEGUN = StepReport(IN_PROGRESS, "1.2")
ALL = {"1.2.3": ("1.2.3.0", "1.2.3.1", "1.2.3.2")}


class Stepping(Bench):
    """A store of steps beside the usual ones."""

    def __init__(self, database):
        super().__init__(database)
        self.steps = PerformedStepStore(database)

    def create(self, uid="1.9", *, ae="CTSIM", shown="", told=BEGUN, now=0):
        return self.steps.create(uid, ae, shown, told, at(now))

    def change(self, state, series=None, *, uid="1.9", ae="CTSIM", shown="", scanners=("CTSIM",), now=20):
        return self.steps.change(uid, ae, shown, StepReport(state, series=series), scanners=scanners, now=at(now))

    def listed(self, series="1.2.3", study="1.2"):
        return [
            (step.state, None if step.listed is None else sorted(step.listed))
            for step in self.steps.of_series(study, series)
        ]


@pytest.fixture
def bench(database):
    return Stepping(database)


def test_a_step_is_created_once_and_ends_once(bench):
    assert bench.create() is Taken.TAKEN
    assert bench.create() is Taken.DUPLICATE
    assert bench.change("", {"1.2.3": ("1.2.3.0",)})[0] is Taken.TAKEN
    assert bench.listed() == [(IN_PROGRESS, ["1.2.3.0"])]
    assert bench.change(COMPLETED, ALL)[0] is Taken.TAKEN
    assert bench.listed() == [(COMPLETED, list(ALL["1.2.3"]))]
    assert bench.change(DISCONTINUED, {})[0] is Taken.ENDED
    assert bench.listed() == [(COMPLETED, list(ALL["1.2.3"]))]


def test_only_its_own_peer_changes_a_step(bench):
    bench.create()
    assert bench.change(COMPLETED, ALL, ae="OTHER")[0] is Taken.FOREIGN
    assert bench.change(COMPLETED, ALL, uid="1.8")[0] is Taken.UNKNOWN
    assert bench.listed() == [(IN_PROGRESS, None)]
    bench.create("1.8", shown="a")
    assert bench.change(COMPLETED, ALL, uid="1.8", shown="b")[0] is Taken.FOREIGN
    assert bench.change(COMPLETED, ALL, uid="1.8", shown="a")[0] is Taken.TAKEN


def test_a_step_is_found_by_its_study_and_by_a_series_that_it_lists(bench):
    bench.create()
    bench.create("1.8", told=StepReport(IN_PROGRESS, "", {"1.2.4": ()}))
    assert bench.listed("1.2.3") == [(IN_PROGRESS, None)]
    assert bench.listed("1.2.4", "1.3") == [(IN_PROGRESS, [])]
    assert bench.listed("1.2.5", "") == []


def test_what_an_ended_step_says_of_a_series_that_was_judged_is_an_event(bench):
    bench.receive()
    bench.queue()
    more = {"1.2.3": (*ALL["1.2.3"], "1.2.3.9")}
    for uid, scanners, expected in (("1.7", ("RIS",), []), ("1.8", ("CTSIM",), [Late("1.2.3", 4, 3)])):
        bench.create(uid)
        assert bench.change(COMPLETED, more, uid=uid, scanners=scanners) == (Taken.TAKEN, expected)
    bench.create()
    assert bench.change(COMPLETED, ALL) == (Taken.TAKEN, []), "all of them are there"
    said = [event.reason for event in bench.overview.events(bench.overview.case("1")) if "step" in event.reason]
    assert said == ["a performed step that ended after this series was judged lists 4 images, of which 3 arrived"]


def test_old_steps_go_and_one_peer_keeps_so_many(bench, monkeypatch):
    monkeypatch.setattr(performed_steps, "MAX_STEPS", 2)
    bench.create("1.0", ae="OTHER")
    for number in range(1, 5):
        bench.create(f"1.{number}", now=number, told=StepReport(IN_PROGRESS, "1.2", ALL))
    found = [step.sop_instance_uid for step in bench.steps.of_series("1.2", "1.2.3")]
    assert found == ["1.4", "1.3", "1.0"]
    bench.create("1.5", now=(KEPT + timedelta(seconds=3.5)).total_seconds())
    assert [step.sop_instance_uid for step in bench.steps.of_series("1.2", "1.2.3")] == ["1.5", "1.4"]
