"""Every target in short, by Hypothesis: some inputs that are changed seeds, and some that are any bytes.

The same inputs each time, so that a failure here is one of the change that it came with; `make fuzz` looks for others.
"""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.edits import KINDS, Edit, edited
from tests.fuzz.target import Run, Target
from tests.fuzz.targets import TARGETS

_AT = st.integers(0, (1 << 24) - 1)
_EDITS = st.lists(st.builds(Edit, st.integers(0, len(KINDS) - 1), _AT, st.integers(0, 300), _AT), max_size=6)
_SHORT_BYTES = 4096


@pytest.fixture(params=list(TARGETS.values()), ids=list(TARGETS))
def opened(request: pytest.FixtureRequest) -> Iterator[tuple[Target, Run]]:
    target: Target = request.param
    with target.open() as run:
        yield target, run


def test_nothing_but_its_answers_comes_of_any_input(opened: tuple[Target, Run]) -> None:
    target, run = opened
    seeds = list(target.seeds())

    @settings(
        derandomize=True,
        max_examples=target.examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(st.sampled_from(seeds), st.binary(max_size=200)), _EDITS)
    def look(seed: bytes, edits: list[Edit]) -> None:
        try:
            run(edited(seed, edits, seeds, target.tokens, min(target.max_bytes, _SHORT_BYTES)))
        except target.ends:
            return

    look()
