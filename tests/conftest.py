"""Shared fixtures: where the real CT series lie, which peers a test may ask for, and a store on every database."""

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

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


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid bundle whose network is small and visibly changes the image."""
    from models.testing import write_tiny_bundle  # loads torch, which few tests need

    path = tmp_path_factory.mktemp("bundle") / "tiny"
    write_tiny_bundle(path)
    return path


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


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL cluster of our own on a Unix socket; no port, no service, gone afterwards."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    initdb = require_program("postgresql", *(str(path / "initdb") for path in reversed(binaries)))
    pg_ctl = str(Path(initdb).with_name("pg_ctl"))
    folder = Path(tempfile.mkdtemp(prefix="syncect-pg-"))
    as_user: list[str] = []
    if getpass.getuser() == "root":  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    run = [*as_user, pg_ctl, "-D", str(folder / "data"), "-w"]
    subprocess.run([*as_user, initdb, "-D", str(folder / "data"), "-A", "trust", "-U", "test"], check=True, stdout=-3)
    subprocess.run([*run, "-o", options, "-l", str(folder / "log"), "start"], check=True, stdout=-3)
    try:
        yield f"postgresql+psycopg://test@/postgres?host={folder}"
    finally:
        subprocess.run([*run, "-m", "immediate", "stop"], check=True, stdout=-3)
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty store with the current schema."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'store.sqlite3'}")
    else:
        database = Database(request.getfixturevalue("postgres_url"))
        with database.engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    database.ensure_schema()
    yield database
    database.close()
