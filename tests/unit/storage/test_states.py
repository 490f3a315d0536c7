"""Every pair of states: an arrow of the table passes, everything else is refused with a sentence."""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from storage.errors import IllegalTransition
from storage.states import (
    DELIVERY_ARROWS,
    DELIVERY_TRANSITIONS,
    JOB_ARROWS,
    JOB_TRANSITIONS,
    LIVE_JOB_STATES,
    SERIES_ARROWS,
    SERIES_TRANSITIONS,
    JobState,
    SeriesState,
    check_transition,
    state_graph,
)

MACHINES: list[Mapping[Any, frozenset[Any]]] = [SERIES_TRANSITIONS, JOB_TRANSITIONS, DELIVERY_TRANSITIONS]
PAIRS = [(table, a, b) for table in MACHINES for a, b in itertools.product(table, repeat=2)]


@pytest.mark.parametrize(
    ("table", "current", "to"), PAIRS, ids=lambda value: str(value) if value not in MACHINES else ""
)
def test_only_arrows_of_the_table_pass(table, current, to):
    if to in table[current]:
        check_transition(current, to)
    else:
        with pytest.raises(IllegalTransition, match=f"{current} cannot become {to}"):
            check_transition(current, to)


def test_every_state_has_a_row():
    for table in MACHINES:
        states: Any = type(next(iter(table)))
        assert set(table) == set(states)


def test_a_state_of_another_machine_is_refused_although_it_has_the_same_name():
    assert SeriesState.QUEUED == JobState.QUEUED  # type: ignore[comparison-overlap]  # both are strings
    with pytest.raises(IllegalTransition):
        check_transition(SeriesState.COMPLETE, JobState.QUEUED)


def test_only_a_person_takes_a_closed_job_back_and_none_stands_for_its_series():
    assert JOB_TRANSITIONS[JobState.REJECTED] == {JobState.HELD}
    assert JOB_TRANSITIONS[JobState.CANCELLED] == {JobState.QUEUED, JobState.HELD, JobState.PRODUCED}
    assert not JOB_TRANSITIONS[JobState.SUPERSEDED]
    assert not {JobState.REJECTED, JobState.SUPERSEDED, JobState.CANCELLED} & set(LIVE_JOB_STATES)


def test_the_graphs_of_the_documents_are_those_of_the_program():
    page = (Path(__file__).parents[3] / "docs" / "operate" / "states.md").read_text(encoding="utf-8")
    drawn = re.findall(r"```mermaid\n(.*?)```", page, re.DOTALL)
    assert drawn == [state_graph(arrows) for arrows in (SERIES_ARROWS, JOB_ARROWS, DELIVERY_ARROWS)]
