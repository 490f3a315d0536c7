"""A power cut at each sync of a whole session loses no instance that was acknowledged; a disk that lies does."""

from collections.abc import Callable

import pytest

from tests.torture.calls import Outcome, Paths
from tests.torture.power import Session, cut_points, cuts
from tests.torture.shim import Kind

_EACH = 16  # of the cut points; `make torture` takes them all


def _cut(paths: Paths, *, is_first_start: bool = False, lies: frozenset[Kind] = frozenset()) -> list[Outcome]:
    session = Session(paths, is_first_start=is_first_start, lies=lies)
    return list(cuts(paths, cut_points(session.records)[::_EACH], session, recover_every=6))


def test_a_power_cut_loses_nothing_that_was_acknowledged(paths_at: Callable[..., Paths]) -> None:
    outcomes = _cut(paths_at(records=True))
    assert len(outcomes) > 10
    assert [outcome for outcome in outcomes if not outcome.verdict.is_clean] == []
    assert max(outcome.verdict.acknowledged for outcome in outcomes) == 8


@pytest.mark.parametrize("lie", [Kind.SYNC, Kind.SYNC_DIRECTORY])
def test_a_disk_that_does_not_sync_is_found_out(paths_at: Callable[..., Paths], lie: Kind) -> None:
    outcomes = _cut(paths_at(records=True), lies=frozenset({lie}))
    assert sum(bool(outcome.verdict.lost) for outcome in outcomes) > len(outcomes) / 2


def test_a_power_cut_in_the_first_session_of_a_node_loses_nothing(paths_at: Callable[..., Paths]) -> None:
    outcomes = _cut(paths_at(records=True), is_first_start=True)
    assert [outcome for outcome in outcomes if not outcome.verdict.is_clean] == []
