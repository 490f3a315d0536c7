"""What performed steps say of a series, and whose steps count for it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from config.settings import PeerSettings
from config.syntax import COMPLETED, DISCONTINUED, IN_PROGRESS
from node.receive.performed_steps import NOTHING, StepPeers, StepWord, judge_steps
from storage.performed_steps import StepView

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)


def step(
    state: str, listed: str | None = None, *, names_series: bool | None = None, discontinued_for: str = ""
) -> StepView:
    """A step; listed: one letter for each image that it lists of the series, None where it does not name it."""
    images = None if listed is None else frozenset(listed)
    names = listed is not None if names_series is None else names_series
    return StepView("1.2.9", "CTSIM", "", state, discontinued_for, names, images, T0)


@pytest.mark.parametrize(
    ("steps", "word"),
    [
        pytest.param([], NOTHING, id="no step"),
        pytest.param([step(COMPLETED, "abcd")], StepWord(listed=4, is_whole=True), id="exactly what is listed"),
        pytest.param([step(COMPLETED, "abc")], StepWord(listed=3), id="more came than it lists"),
        pytest.param([step(COMPLETED, "abcdef")], StepWord(listed=6, missing=("e", "f")), id="two are missing"),
        pytest.param(
            [step(COMPLETED, "ab"), step(COMPLETED, "cd")],
            StepWord(listed=4, is_whole=True),
            id="two steps, one series",
        ),
        pytest.param([step(COMPLETED, names_series=True)], NOTHING, id="a step that lists other series"),
        pytest.param([step(COMPLETED, "")], NOTHING, id="a step that lists nothing that is kept here"),
        pytest.param([step(IN_PROGRESS)], StepWord(is_awaited=True), id="in progress"),
        pytest.param(
            [step(IN_PROGRESS), step(COMPLETED, "abcd")],
            StepWord(listed=4, is_whole=True),
            id="another step of the study goes on",
        ),
        pytest.param(
            [step(COMPLETED, names_series=True), step(DISCONTINUED)], NOTHING, id="begun again under another step"
        ),
        pytest.param([step(DISCONTINUED, names_series=True)], NOTHING, id="another series was discontinued"),
    ],
)
def test_what_steps_say_of_a_series_of_four_images(steps: list[StepView], word: StepWord) -> None:
    assert judge_steps(steps, frozenset("abcd")) == word


@pytest.mark.parametrize("listed", ["abcd", None])
def test_a_discontinued_step_needs_a_person(listed: str | None) -> None:
    assert judge_steps([step(DISCONTINUED, listed)], frozenset("abcd")).stopped.startswith(
        "the scanner discontinued the performed step of this series; `syncect jobs complete`"
    )


def test_a_wrong_worklist_entry_is_said_to_be_another_patient() -> None:
    told = judge_steps([step(DISCONTINUED, discontinued_for="110514"), step(DISCONTINUED)], frozenset("abcd"))
    assert "the images may be another patient's" in told.stopped


def test_a_discontinued_step_is_not_forgotten_while_another_goes_on() -> None:
    told = judge_steps([step(IN_PROGRESS), step(DISCONTINUED, "abcd")], frozenset("abcd"))
    assert told.is_awaited
    assert told.stopped


@pytest.mark.parametrize(
    ("told", "of", "counts"),
    [
        ({}, {}, True),
        ({"calling_ae": "OTHER"}, {}, False),
        ({"calling_ae": "RIS"}, {}, True),
        ({"calling_ae": "RIS"}, {"calling_ae": "CT3"}, False),
        ({"certificate": "a"}, {"certificate": "a"}, True),
        ({"certificate": "b"}, {"certificate": "a"}, False),
        ({"certificate": "b"}, {}, True),
        ({"calling_ae": "RIS", "certificate": "b"}, {"certificate": "a"}, True),
    ],
)
def test_a_step_counts_for_its_own_peer_and_for_those_that_it_forwards(
    told: dict[str, str], of: dict[str, str], counts: bool
) -> None:
    peers = StepPeers([PeerSettings(ae_title="CT3"), PeerSettings(ae_title="RIS", steps_of=("CTSIM", "CT2"))])
    reported = replace(step(COMPLETED, "a"), **told)  # type: ignore[arg-type] # texts
    found = peers.counting([reported], of.get("calling_ae", "CTSIM"), of.get("certificate", ""))
    assert bool(found) is counts


def test_a_forwarding_peer_speaks_for_its_scanners_and_for_itself() -> None:
    peers = StepPeers([PeerSettings(ae_title="RIS", steps_of=("CT1", "CT2"))])
    assert peers.scanners_of("RIS") == {"RIS", "CT1", "CT2"}
    assert peers.scanners_of("CT1") == {"CT1"}
