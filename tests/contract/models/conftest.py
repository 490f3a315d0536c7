"""Where the numbers of the official SynDiff implementation lie."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder of an official checkpoint with recorded noise and outputs; skipped where it does not exist."""
    data = os.environ.get("SYNCECT_TEST_DATA")
    folder = (Path(data) if data else Path(__file__).parents[4] / "shared" / "data").parent / "parity"
    if not (folder / "syndiff_tiny.npz").is_file():
        pytest.skip(f"no parity fixture at {folder} (set SYNCECT_TEST_DATA)")
    return folder
