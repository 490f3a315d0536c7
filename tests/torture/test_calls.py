"""The durable paths are ended, or get an error, at a few calls; `make torture` takes every call."""

import errno
from collections.abc import Callable

import pytest

from tests.torture.calls import CHAIN, Paths, some, strike
from tests.torture.shim import EVERY_KIND, EXIT, NEEDS_SPACE, TORN, Kind

_EACH = 1  # of each operation

_FAULTS = [
    pytest.param(EXIT, EVERY_KIND, id="killed"),
    pytest.param(TORN, (Kind.WRITE,), id="killed within a write"),
    pytest.param(errno.ENOSPC, NEEDS_SPACE, id="no space"),
    pytest.param(errno.EIO, EVERY_KIND, id="input/output error"),
]


@pytest.mark.parametrize(("action", "kinds"), _FAULTS)
def test_a_durable_path_that_ends_anywhere_begins_again(
    paths_at: Callable[..., Paths], action: int, kinds: tuple[Kind, ...]
) -> None:
    paths = paths_at()
    paths.prepare()
    bad = []
    for operation in CHAIN[1:]:
        for outcome in strike(paths, operation, action, some(_EACH, paths.calls[operation]), kinds=kinds):
            bad += [] if outcome.verdict.is_clean else [outcome]
    assert bad == []


def test_the_receiving_path_on_postgresql(paths_at: Callable[..., Paths], postgres_url: str) -> None:
    paths = paths_at(postgres_url=postgres_url.replace("/postgres?", "/calls?"))
    paths.prepare()
    outcomes = list(strike(paths, "receive", EXIT, some(2 * _EACH, paths.calls["receive"])))
    assert [outcome for outcome in outcomes if not outcome.verdict.is_clean] == []
    assert len(outcomes) == 2 * _EACH


def test_a_first_start_that_ends_anywhere_begins_again(paths_at: Callable[..., Paths]) -> None:
    paths = paths_at()
    paths.prepare()
    outcomes = list(strike(paths, "create", EXIT, some(2 * _EACH, paths.calls["create"])))
    assert [outcome for outcome in outcomes if not outcome.verdict.is_clean] == []
