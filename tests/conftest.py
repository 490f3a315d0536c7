"""Shared fixtures: where the real CT series lie, and which peers a test may ask for."""

import os
import shutil
from pathlib import Path

import pytest

from storage.database import Database

# The networks of the tests are tiny: threads would only wait for each other. Read when torch is first loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")


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


@pytest.fixture(scope="session")
def _migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "syncect.sqlite3"
    database = Database(f"sqlite:///{path}")
    database.ensure_schema()
    database.close()
    return path


@pytest.fixture
def sqlite_file(_migrated_sqlite: Path, tmp_path: Path) -> Path:
    """A SQLite store of this test's own, its schema already there; migrating anew would cost more than most tests."""
    return Path(shutil.copy(_migrated_sqlite, tmp_path / "store.sqlite3"))
