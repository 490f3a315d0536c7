"""The world of the documents has what the documents say."""

from pathlib import Path

from config.load import load_settings
from node.bootstrap.store import read_store
from tests.docs.world import STATES


def test_there_is_a_case_in_every_state(world: Path) -> None:
    with read_store(load_settings(world / "node.toml")) as node:
        assert {case.id: case.state for case in node.overview.cases()} == STATES
