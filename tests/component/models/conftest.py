"""Where the numbers of the official SynDiff implementation lie."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.cohort import Cohort
from models.importer import read_network_file
from models.networks.ncsnpp import Ncsnpp
from models.networks.ncsnpp_keys import from_official
from tests.component.models.training_cohort import disc_cohort


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder of an official checkpoint with recorded noise and outputs; skipped where it does not exist."""
    data = os.environ.get("SYNCECT_TEST_DATA")
    folder = (Path(data) if data else Path(__file__).parents[4] / "shared" / "data").parent / "parity"
    if not (folder / "syndiff_tiny.npz").is_file():
        pytest.skip(f"no parity fixture at {folder} (set SYNCECT_TEST_DATA)")
    return folder


@pytest.fixture
def official_network(parity: Path) -> Ncsnpp:
    """The network of the official checkpoint, with its weights."""
    config, _ = read_network_file(parity / "syndiff_tiny.json")
    network = Ncsnpp(config)
    network.load_state_dict(from_official(torch.load(parity / "gen_diffusive_2_10.pth", weights_only=True), config))
    return network


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """What the tests of the training loop train on."""
    return disc_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread, on which the same steps have the same bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
