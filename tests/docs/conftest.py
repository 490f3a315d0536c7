"""The world of the documents is made once."""

from pathlib import Path

import pytest

from tests.docs.world import make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of which each page gets a copy."""
    folder = tmp_path_factory.mktemp("docs") / "world"
    make_world(folder)
    return folder
