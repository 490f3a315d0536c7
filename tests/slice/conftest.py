"""Peers and nodes of the whole-path tests, stopped and cleared whatever happens."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from tests.quick import FORKS_ROLES
from tests.slice import harness
from tests.slice.harness import FEW, Orthanc, RunningNode, StoreScp


@pytest.fixture(scope="session")
def few_slices(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with FEW neighbouring slices of a real series: most faults and ways are the same for few and for many.

    The whole series goes through a node in the first test of `test_whole_path`.
    """
    folder = tmp_path_factory.mktemp("few")
    files = (real_data / "ct" / "siemens_chest_ncct").iterdir()
    ordered = sorted(files, key=lambda path: float(dcmread(path, stop_before_pixels=True).ImagePositionPatient[2]))
    for path in ordered[8 : 8 + FEW]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def tps(tmp_path: Path) -> Iterator[StoreScp]:
    """DCMTK storescp, running."""
    scp = StoreScp(tmp_path / "tps").start()
    yield scp
    scp.kill()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """Orthanc, running."""
    archive = Orthanc(tmp_path / "orthanc")
    yield archive
    archive.stop()


@pytest.fixture
def node_at(tmp_path: Path, tiny_bundle: Path) -> Iterator[Callable[..., RunningNode]]:
    """Makes nodes that deliver to the given peers; none outlives its test."""
    nodes: list[RunningNode] = []

    def make(
        *destinations: Any, bundle: Path | str = tiny_bundle, is_real: bool = False, **settings: str
    ) -> RunningNode:
        node = RunningNode(tmp_path / f"node{len(nodes)}", bundle, destinations, is_real=is_real, **settings)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.close()
        node.forget()


@pytest.fixture
def limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives the processes of the nodes a Python text to run at their start: the limits of a test, not of a night."""
    folder = tmp_path / "limits"
    folder.mkdir()

    def set_to(text: str) -> None:
        (folder / "sitecustomize.py").write_text(text + FORKS_ROLES)
        # Before what the tests themselves were given: without it a copy of the tree would start another copy's node.
        path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        more = {"PYTHONPATH": path, harness.AT_START: "yes"}
        monkeypatch.setattr(harness, "_ENVIRONMENT", {**harness._ENVIRONMENT, **more})

    return set_to
