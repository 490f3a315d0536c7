"""One word for a monitoring system, and the reasons for whoever it calls."""

from datetime import UTC, datetime, timedelta

import pytest

from node.ops.health import REFUSING_FOR, Facts, State, down, judge

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
WELL = {"missing": (), "counts": {"job:PRODUCED": 7}, "free_gb": 100.0, "reserve_gb": 2.0, "now": NOW}


def facts(**changes: object) -> Facts:
    return Facts(**(WELL | changes))  # type: ignore[arg-type]


def test_all_is_well() -> None:
    health = judge(facts())
    assert (health.state, health.state.exit_code, dict(health.needs_person)) == (State.OK, 0, {})
    assert health.headline == "OK: all processes run, nothing waits for a person"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"missing": ["work"]}, "the worker does not run"),
        ({"missing": ["deliver"]}, "the courier does not run"),
        ({"counts": {"job:HELD": 2, "series:INCOMPLETE": 1}}, "waiting for a person: 1 incomplete series, 2 held"),
        ({"counts": {"job:FAILED": 1, "delivery:FAILED": 3}}, "waiting for a person: 1 failed, 3 failed deliveries"),
        ({"standing": {"tps": 2}}, "waiting for a person: 2 withdrawn results to delete at tps"),
        ({"free_gb": 1.44}, "every C-STORE is refused: 1.4 GB are free, and retention.min_free_gb is 2"),
        ({"refused": [(NOW - REFUSING_FOR, "CT", "no room")]}, "from CT: no room"),
        ({"pauses": ["sending is paused on all hosts"]}, "sending is paused on all hosts"),
        ({"unreachable": {"tps": (NOW - timedelta(days=1), "refused")}}, "tps cannot be reached since 2026-01-3"),
    ],
)
def test_each_trouble_degrades_and_says_why(changes: dict[str, object], reason: str) -> None:
    health = judge(facts(**changes))
    assert (health.state, health.state.exit_code) == (State.DEGRADED, 1)
    assert len(health.reasons) == 1
    assert reason in health.reasons[0]
    assert health.headline == f"DEGRADED: {health.reasons[0]}"


def test_what_was_refused_long_ago_is_no_trouble_now() -> None:
    long_ago = NOW - REFUSING_FOR - timedelta(seconds=1)
    assert judge(facts(refused=[(long_ago, "CT", "no room")])).state is State.OK


def test_without_a_receiver_or_without_facts_the_node_is_down() -> None:
    health = judge(facts(missing=["receive", "work"], counts={"job:HELD": 1}))
    assert (health.state.exit_code, len(health.reasons)) == (2, 3)
    assert health.headline.startswith("DOWN: the receiver does not run; the worker does not run; waiting")
    assert down(["the store is gone"]).headline == "DOWN: the store is gone"


def test_a_node_takes_images_unless_it_is_down_or_its_disk_is_full() -> None:
    assert judge(facts()).takes_images
    assert judge(facts(missing=["work"])).takes_images
    assert not judge(facts(free_gb=1.44)).takes_images
    assert not judge(facts(missing=["receive"])).takes_images
    assert not judge(facts(receiving_is_paused=True)).takes_images
    assert not down(["the store cannot be read"]).takes_images
