"""Shared fixtures: where the real CT series lie, and which peers a test may ask for."""

import os
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the public CT series; tests that need it are skipped where it does not exist."""
    root = Path(os.environ.get("SYNCECT_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not (root / "ct").is_dir():
        pytest.skip(f"no real CT data at {root} (set SYNCECT_TEST_DATA)")
    return root


def require_program(name: str, *candidates: str) -> str:
    """Path of a peer program; missing it skips the test here and fails it where SYNCECT_REQUIRE_PEERS is set (CI)."""
    for candidate in candidates or (name,):
        if path := shutil.which(candidate):
            return path
    message = f"{name} is not installed"
    if os.environ.get("SYNCECT_REQUIRE_PEERS"):
        pytest.fail(message)
    pytest.skip(message)
