"""Which priority a job gets by its route, and which may begin at what hour."""

from datetime import UTC, datetime

import pytest

from config.settings import Settings
from node.bootstrap.routes import routes_of, turn_of
from node.bootstrap.turns import rules_at
from node.receive.routing import Call, choose
from storage.states import Priority
from storage.turns import Rules

SETTINGS = Settings.model_validate(
    {
        "node": {"timezone": "Europe/Berlin"},
        "queue": {"target_s": 600, "off_peak": "20:00-06:00", "most_running_per_sender": 2},
        "route": [
            {"name": "old", "calling_ae": ["ARCHIVE"], "priority": "off_peak", "target_s": 86400},
            {"name": "er", "calling_ae": ["CTER"], "priority": "urgent"},
        ],
    }
)


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("ARCHIVE", (Priority.OFF_PEAK, 86400.0)),
        ("CTER", (Priority.URGENT, 600.0)),
        ("CTSIM", (Priority.ROUTINE, 600.0)),
    ],
)
def test_a_route_gives_priority_and_target(title: str, expected: tuple[Priority, float]) -> None:
    assert turn_of(SETTINGS, choose(routes_of(SETTINGS), Call("SYNCECT", title), [])) == expected


@pytest.mark.parametrize(("hour", "latest"), [(18, Priority.ROUTINE), (19, Priority.OFF_PEAK)])
def test_jobs_begin_off_peak_in_the_hours_of_the_node(hour: int, latest: Priority) -> None:
    assert rules_at(SETTINGS, datetime(2026, 1, 31, hour, tzinfo=UTC)) == Rules(latest, 2)


def test_without_hours_they_begin_at_any() -> None:
    assert rules_at(Settings(), datetime(2026, 1, 31, 12, tzinfo=UTC)) == Rules(Priority.OFF_PEAK, 0)
