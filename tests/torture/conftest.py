"""Drivers and beds of these tests, ended whatever happens."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.torture.calls import Paths
from tests.torture.shim import built_shim


@pytest.fixture
def paths_at(tmp_path: Path, tiny_bundle: Path) -> Iterator[Callable[..., Paths]]:
    """Makes drivers under a shim."""
    built_shim()
    made: list[Paths] = []

    def make(name: str = "paths", **options: Any) -> Paths:
        made.append(Paths(tmp_path / name, tiny_bundle, **options))
        return made[-1]

    yield make
    for paths in made:
        paths.close()
