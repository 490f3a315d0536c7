"""Shared fixtures: where the real CT series lie, which peers a test may ask for, and a store on every database."""

import gc
import getpass
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, NullPool, create_engine, text

from storage.database import Database
from storage.schema import ensure_schema
from storage.tables import Base

if TYPE_CHECKING:
    from tests.object_stores import MotoServer

# The networks of the tests are tiny: threads would only wait for each other. Read when torch is first loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A test that looks at the page starts it; in all others it would only cost time, and its default port is one for all.
os.environ.setdefault("SYNCECT_WEB__ENABLED", "false")
# The bundle of most tests has random weights; nobody measures it, so no node would start with it.
os.environ.setdefault("SYNCECT_MODEL__ALLOW_UNPROVEN", '["tiny"]')

_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 4 << 30


def _is_fit(folder: Path) -> bool:
    """Whether the tests can have their files there: in many containers it is small, or nothing may be executed."""
    if not os.access(folder, os.W_OK):
        return False
    system = os.statvfs(folder)
    return not system.f_flag & os.ST_NOEXEC and system.f_bavail * system.f_frsize >= _ENOUGH_BYTES


# The stores of the tests commit many thousand times, and on a disk each commit waits for it. Read by pytest.
if _is_fit(_MEMORY):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

# A run of two thousand tests keeps a million objects alive, and Python's collector walked over all of them again and
# again: a quarter of the time of the tests. What the imports made is never garbage, and what a test leaves can wait.
# A look at everything takes five seconds when three million are there: there is one after some twenty million new ones.
gc.set_threshold(20_000, 10, 100)


def pytest_collection_finish() -> None:
    """Take what the imports and the collection made out of the collector's sight."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logfinish() -> None:
    """Let go of the databases of a test.

    A mapper of SQLAlchemy keeps the statements that it compiled for each engine, and with them the engine and all that
    the engine has compiled: after two thousand tests four million objects, through which the collector would go.
    """
    for mapper in Base.registry.mappers:
        mapper.__dict__.pop("_compiled_cache", None)


def pytest_unconfigure() -> None:
    """The process ends: let the interpreter not look once more, object by object, for what it could free."""
    gc.freeze()


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


class PostgresCluster:
    """A PostgreSQL cluster of our own on a Unix socket; no port, no service, gone when its context ends."""

    def __init__(self, *, syncs: bool = False) -> None:
        self._syncs = syncs
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        initdb = require_program("postgresql", *(str(path / "initdb") for path in reversed(binaries)))
        self._pg_ctl = str(Path(initdb).with_name("pg_ctl"))
        self._folder = Path(tempfile.mkdtemp(prefix="syncect-pg-"))
        self._as_user: list[str] = []
        if getpass.getuser() == "root":  # PostgreSQL refuses to run as root
            shutil.chown(self._folder, "postgres")
            self._as_user = ["runuser", "-u", "postgres", "--"]
        self._run(initdb, "-D", str(self._folder / "data"), "-A", "trust", "-U", "test")

    def __enter__(self) -> "PostgresCluster":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def url(self, database: str = "postgres", user: str = "test") -> str:
        """SQLAlchemy's URL of a database in this cluster; user: a role, with `:` and its password where it has one."""
        return f"postgresql+psycopg://{user}@/{database}?host={self._folder}"

    def ask_for_passwords(self, role: str) -> None:
        """From now on this role logs in with its password."""
        rules = self._folder / "data" / "pg_hba.conf"
        rules.write_text(f"local all {role} scram-sha-256\nlocal all all trust\n")
        self._control("reload")

    def become_standby(self) -> None:
        """Restart the server as a standby, which only reads; `promote` makes it take writes again."""
        self.stop("fast")
        self._run("touch", str(self._folder / "data" / "standby.signal"))
        self.start()

    def promote(self) -> None:
        """End the life as a standby."""
        self._control("promote")

    def kill(self) -> None:
        """SIGKILL to the server, and wait until its other processes have seen that and ended."""
        pid = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(pid, signal.SIGKILL)
        while any(Path("/proc", child).exists() for child in children):
            threading.Event().wait(0.05)

    def start(self) -> None:
        """Start the server, which syncs nothing unless asked to: no test takes the power from it."""
        options = f"-k {self._folder} -c listen_addresses='' -c fsync={'on' if self._syncs else 'off'}"
        self._control("-o", options, "-l", str(self._folder / "log"), "start")

    def stop(self, mode: str = "immediate") -> None:
        """End the server at once, as a crash would, or with "fast" as an administrator does."""
        self._control("-m", mode, "stop")

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Meanwhile no process of the server runs; the system still accepts connections and bytes for it."""
        stopped: set[int] = set()
        try:
            while new := set(self._processes()) - stopped:  # one that was about to begin is a child next time
                for process in sorted(new):
                    os.kill(process, signal.SIGSTOP)
                stopped |= new
            yield
        finally:
            for process in sorted(stopped, reverse=True):
                os.kill(process, signal.SIGCONT)

    def _processes(self) -> list[int]:
        server = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        return [server, *map(int, children)]

    def _control(self, *arguments: str) -> None:
        self._run(self._pg_ctl, "-D", str(self._folder / "data"), "-w", *arguments)

    def _run(self, *command: str) -> None:
        subprocess.run([*self._as_user, *command], check=True, stdout=-3)


@pytest.fixture(scope="session")
def _migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "syncect.sqlite3"
    database = Database(f"sqlite:///{path}")
    ensure_schema(database)
    database.close()
    return path


@pytest.fixture
def sqlite_file(_migrated_sqlite: Path, tmp_path: Path) -> Path:
    """A SQLite store of this test's own, its schema already there; migrating anew would cost more than most tests."""
    return Path(shutil.copy(_migrated_sqlite, tmp_path / "store.sqlite3"))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL cluster of these tests."""
    with PostgresCluster() as cluster:
        yield cluster.url()


@pytest.fixture(scope="session")
def _postgres_server(postgres_url: str) -> Iterator[Engine]:
    """Makes databases of the cluster."""
    # No connection is kept: a test may end every connection of the server.
    server = create_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    yield server
    server.dispose()


@pytest.fixture(scope="session")
def _postgres_store(_postgres_server: Engine, postgres_url: str) -> "PostgresStore":
    return PostgresStore(_postgres_server, postgres_url)


class PostgresStore:
    """One database with the current schema, emptied for each test: to copy one costs fifteen times as much.

    The first connection to a new database alone makes the server read all of its catalogue.
    """

    def __init__(self, server: Engine, postgres_url: str) -> None:
        self._server, self.url = server, _named(postgres_url, "store")
        self._store = create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        self._schema = ""

    def empty(self) -> None:
        """End all its sessions and take out all rows; a test that changed the schema has its successor migrate anew."""
        if self._schema:
            with self._store.connect() as connection:
                connection.exec_driver_sql(_EMPTY)
                if connection.exec_driver_sql(_SCHEMA).scalar_one() == self._schema:
                    return
        with self._server.connect() as connection:
            connection.execute(text("DROP DATABASE IF EXISTS store WITH (FORCE)"))
            connection.execute(text("CREATE DATABASE store"))
        database = Database(self.url)
        ensure_schema(database)
        database.close()
        with self._store.connect() as connection:
            self._schema = connection.exec_driver_sql(_SCHEMA).scalar_one()
            rows = [connection.scalar(text(f"SELECT count(*) FROM {table}")) for table in connection.scalars(_TABLES)]
        assert not any(rows), "rows that a revision makes would be missing after the first test"


_OURS = "relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
_TABLES = text(f"SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND {_OURS}")
_END_OTHERS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
# Truncated, not deleted: with dead rows in its tables PostgreSQL would find the next test's rows in another order.
_EMPTY = f"""
DO $$ DECLARE used text; BEGIN
    PERFORM count(*) FROM ({_END_OTHERS}) ended;
    SELECT string_agg(oid::regclass::text, ', ') INTO used FROM pg_class
        WHERE relkind = 'r' AND {_OURS} AND pg_relation_size(oid) > 0;
    IF used IS NOT NULL THEN EXECUTE 'TRUNCATE ' || used || ' CASCADE'; END IF;
    PERFORM setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S' AND {_OURS};
END $$
"""
# What a test may have changed: revision, tables, columns, constraints, triggers, options of the database.
_SCHEMA = f"""
SELECT concat_ws(' ',
    (SELECT string_agg(version_num, ' ') FROM alembic_version),
    (SELECT md5(string_agg(concat(attrelid, attname, atttypid, attnotnull), ' ' ORDER BY attrelid, attnum))
        FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid WHERE {_OURS}),
    (SELECT sum(oid::bigint) FROM pg_constraint WHERE connamespace = 'public'::regnamespace),
    (SELECT sum(oid::bigint) FROM pg_trigger WHERE NOT tgisinternal),
    (SELECT md5(string_agg(setconfig::text, ' ')) FROM pg_db_role_setting))
"""


@pytest.fixture(scope="session")
def _vacant_postgres(_postgres_server: Engine, postgres_url: str) -> Engine:
    """A database whose tables are dropped for each test; a new one would cost more."""
    with _postgres_server.connect() as connection:
        connection.execute(text("CREATE DATABASE vacant"))
    return create_engine(_named(postgres_url, "vacant"), isolation_level="AUTOCOMMIT", poolclass=NullPool)


def _named(postgres_url: str, database: str) -> str:
    return postgres_url.replace("/postgres?", f"/{database}?")


@pytest.fixture
def vacant_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Gives the URL of a database of a kind, "sqlite" or "postgresql", in which there is nothing yet."""

    def of(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / 'vacant.sqlite3'}"
        with request.getfixturevalue("_vacant_postgres").connect() as connection:
            connection.exec_driver_sql(f"{_END_OTHERS}; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        return _named(request.getfixturevalue("postgres_url"), "vacant")

    return of


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty store with the current schema, not migrated anew: that would cost more than most tests."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{request.getfixturevalue('sqlite_file')}")
    else:
        store = request.getfixturevalue("_postgres_store")
        store.empty()
        database = Database(store.url)
    yield database
    database.close()


@pytest.fixture(scope="session")
def _moto() -> "Iterator[MotoServer]":
    from tests.object_stores import MotoServer

    server = MotoServer()
    yield server
    server.end()


@pytest.fixture
def s3(_moto: "MotoServer") -> "MotoServer":
    """An S3 server with one empty bucket."""
    _moto.forget_all()
    return _moto
