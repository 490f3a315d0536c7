"""The world of the documents is made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.shell import PROGRAM, QUICK
from tests.docs.world import make_world
from tests.quick import quick_program


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of which each page gets a copy, and beside it the program that the pages call."""
    folder = tmp_path_factory.mktemp("docs") / "world"
    with quick_program(folder.with_name(PROGRAM), quick=QUICK):
        make_world(folder)
        yield folder
