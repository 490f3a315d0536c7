"""Database gives transactions, to write or only to read; no other module knows its URL and its isolation level."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, func, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError
from sqlalchemy.orm import Session

from storage.database_errors import READ_ONLY_WORDS, TAKES_NO_WRITES, tell
from storage.errors import SchemaMismatch, StoreUnavailable, UnusableUrl
from storage.sqlite_file import FileIdentity, ReadOnlyFile, WrittenFile
from storage.tables import SCHEMA_REVISION, Base

PLAIN_SILENCE_S = 2.0  # of a PostgreSQL server
PLAIN_LOCK_WAIT_S = 1.0  # a C-STORE may wait twice; its sender must have the answer soon
_MORE_CONNECTIONS = 35  # with the 5 that are kept, one for each thread of the page
_REVISION = "SELECT version_num FROM alembic_version"
_FORMS = 'write "postgresql+psycopg://USER:PASSWORD@HOST/NAME", or "" for SQLite inside node.data_dir'
_AT_SIGN = "in a user or a password, write @ as %40 (and : as %3A, / as %2F, % as %25)"
_DRIVERS = {"sqlite": "sqlite3", "sqlite+pysqlite": "sqlite3", "postgresql+psycopg": "psycopg"}


class Database:
    """Transactions on one database, SQLite in WAL mode or PostgreSQL.

    A writing transaction takes SQLite's write lock at its start (BEGIN IMMEDIATE): a transaction that reads first and
    writes later would otherwise fail with SQLITE_BUSY when another process wrote in between.

    With `read_only` the database itself refuses to write, and nothing is made: no file, no folder, no table.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        """Connect to nothing yet; raises UnusableUrl. Whatever is done later may raise StoreUnavailable."""
        self.url = _usable(url)
        self._read_only = read_only
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._path = Path(self.url.database) if self.is_sqlite and self.url.database else None
        self._file = ReadOnlyFile(self._path) if read_only and self._path is not None else None
        self._written = WrittenFile(self._path) if not read_only and self._path is not None else None
        self.engine = self._make_engine(url)
        event.listen(self.engine, "handle_error", partial(tell, self.unavailable))
        self._writing = self.engine.execution_options(syncect_writes=True)
        self._plain: Connection | None = None
        self._plain_turn = threading.Lock()
        self._on_other_schema: Callable[[], None] | None = None
        self._other_schema: SchemaMismatch | None = None

    def _make_engine(self, url: str) -> Engine:
        if not self.is_sqlite:
            from storage import postgresql

            options = {"postgresql_readonly": True, "isolation_level": "REPEATABLE READ"} if self._read_only else {}
            engine = create_engine(
                url,
                isolation_level="READ COMMITTED",  # whatever the administrator prefers: writers wait for each other
                pool_pre_ping=True,
                max_overflow=_MORE_CONNECTIONS,
                execution_options=options,
                connect_args={"connect_timeout": postgresql.CONNECT_TIMEOUT_S},
                hide_parameters=True,
            )
            event.listen(engine, "do_connect", postgresql.connect)
            return engine
        if self._file is not None:
            engine = create_engine(url, creator=self._file.connect, hide_parameters=True)
        elif self._written is not None:
            engine = _watched_engine(url, self._written)
        else:
            engine = create_engine(url, hide_parameters=True)
        event.listen(engine, "begin", _begin)
        return engine

    @classmethod
    def empty(cls) -> "Database":
        """A store without a row, in memory: what a reader looks at where no store was made yet."""
        database = cls("sqlite://")
        Base.metadata.create_all(database.engine)
        return database

    @property
    def location(self) -> str:
        """Where the database is, as it may be shown: a file, or a URL without its password."""
        return str(self._path or _shown(self.url))

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One writing transaction: committed on leaving, rolled back on an exception.

        Raises StoreUnavailable also where it was committed into a file that no reader sees any more.
        """
        with Session(self._writing, expire_on_commit=False) as session:
            with session.begin():
                opened = _opened(session.connection())
                if self._on_other_schema is not None:
                    self._require_known(session.connection().exec_driver_sql(_REVISION).scalar())
                yield session
            self._require_same(opened)

    @contextmanager
    def write_plain(self) -> Iterator[Connection]:
        """One writing transaction without the ORM, for what is done thousands of times; else like `write`.

        On SQLite its callers take turns on one connection that stays open: SQLite itself would let them wait by
        sleeping for up to a tenth of a second at a time. Whoever is answered behind it must not wait for long: a
        database that another program has locked for longer than `PLAIN_LOCK_WAIT_S` counts as one that is gone.
        """
        if not self.is_sqlite:
            from storage.postgresql import silence_limit

            with silence_limit(PLAIN_SILENCE_S), self._writing.begin() as connection:
                lock_wait_ms = round(1000 * PLAIN_SILENCE_S / 2)  # a server that waits for a lock is silent meanwhile
                limits = f"SELECT set_config('lock_timeout', '{lock_wait_ms}', true)"
                if self._on_other_schema is None:
                    connection.exec_driver_sql(limits)
                else:
                    self._require_known(connection.exec_driver_sql(f"{limits}, ({_REVISION})").one()[1])
                yield connection
            return
        with self._turn_within(PLAIN_LOCK_WAIT_S) as left_s:
            try:
                if self._plain is None:
                    self._plain = self._writing.connect()
                self._plain.connection.cursor().execute(f"PRAGMA busy_timeout={round(1000 * left_s)}").close()
                opened = _opened(self._plain)
                self._require_same(opened)
                with self._plain.begin():
                    yield self._plain
                self._require_same(opened)
            except BaseException:
                self._drop_plain()  # what became of it is not known
                raise

    @contextmanager
    def _turn_within(self, limit_s: float) -> Iterator[float]:
        """Have the turn; yields the seconds that are left. Raises StoreUnavailable where those before wait as long."""
        began_s = time.monotonic()
        if not self._plain_turn.acquire(timeout=limit_s):
            raise self.unavailable(TimeoutError("database is locked"))
        try:
            yield max(0.0, limit_s - (time.monotonic() - began_s))
        finally:
            self._plain_turn.release()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent snapshot for reading; nothing is committed."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session
        self.check_read()

    def check_read(self) -> None:
        """Raise StoreUnavailable where a SQLite file changed while it was read as one that nobody writes."""
        if self._file is not None:
            self._file.check()

    def check_writable(self) -> None:
        """Raise StoreUnavailable where a writer's SQLite file is gone, another one or damaged, or a server only reads.

        A connection that only reads goes on with what it remembers of a file, and with what a standby has.
        """
        if self.is_sqlite and self._written is None:
            return
        with self.engine.connect() as connection:
            if self._written is not None:
                self._written.check(_opened(connection))
            elif connection.exec_driver_sql(TAKES_NO_WRITES).scalar():
                raise StoreUnavailable(f"the store {self.location} cannot be used: {READ_ONLY_WORDS}")

    def guard_schema(self, on_other: Callable[[], None]) -> None:
        """From now on write nothing into a PostgreSQL database whose schema another version changes meanwhile.

        Every writing transaction then looks at the revision first, and raises SchemaMismatch after a call of
        `on_other`. A migration takes the table of revisions for itself at its start: it waits for the transactions
        that have looked, and those that come later wait for it.
        """
        if not self.is_sqlite:  # whose file only processes of one host have, which an upgrade asks for
            self._on_other_schema = on_other

    def require_schema(self) -> None:
        """Raise SchemaMismatch where a writing transaction has found another schema."""
        if self._other_schema is not None:
            raise self._other_schema

    def _require_known(self, found: str | None) -> None:
        if found != SCHEMA_REVISION:
            self._other_schema = self._mismatch(found)
            if self._on_other_schema is not None:
                self._on_other_schema()
            raise self._other_schema

    def require_encoding(self) -> None:
        """Raise UnusableUrl where the database cannot hold the name of every patient. Raises StoreUnavailable."""
        if self.is_sqlite:
            return
        with self.engine.connect() as connection:
            encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            raise UnusableUrl(
                f"the database {self.location} has the encoding {encoding}, in which not every name can be kept: make "
                "it anew with `CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0`"
            )

    def require_sessions(self) -> None:
        """Raise UnusableUrl where a pooler in transaction mode is seen. Raises StoreUnavailable."""
        if self.is_sqlite:
            return
        from storage.postgresql import lends_sessions

        if lends_sessions(self.engine):
            raise UnusableUrl(
                f"node.database_url cannot be used: {self.location} leads to a pooler in transaction mode, where "
                "neither LISTEN nor prepared statements work: name a pool in session mode, or the server itself"
            )

    def await_writers(self, table: Table) -> None:
        """Wait until no transaction has rows of a table in it; raises StoreUnavailable after a second.

        A PostgreSQL server may still commit for a process that gave it up. In SQLite nothing is left of such.
        """
        if not self.is_sqlite:
            with self.write_plain() as connection:
                connection.exec_driver_sql(f"LOCK TABLE {table.name} IN SHARE MODE")

    def now(self) -> datetime:
        """The time of the database's own clock, by which all its hosts can go; PostgreSQL only.

        Raises StoreUnavailable.
        """
        with self.read() as session:
            moment: datetime = session.scalars(select(func.clock_timestamp())).one()
            return moment.astimezone(UTC)

    def close(self) -> None:
        """Give back all connections."""
        with self._plain_turn:
            self._drop_plain()
        self.engine.dispose()

    def wait_at_most(self, seconds: float) -> None:
        """From now on wait so long for a lock, or for a server that is silent, where a person waits for the answer."""
        if self._written is not None:
            self._written.lock_wait_s = seconds
        else:
            event.listen(self.engine, "connect", lambda connection, _record: setattr(connection, "silence_s", seconds))
        self.engine.dispose()

    def _drop_plain(self) -> None:
        connection, self._plain = self._plain, None
        if connection is not None:
            with suppress(StoreUnavailable):
                connection.invalidate()  # it waits for locks less long than those of the pool
            connection.close()

    def _require_same(self, opened: FileIdentity | None) -> None:
        if self._written is not None:
            self._written.check(opened)

    def expect(self, mark: str) -> None:
        """From now on take no SQLite file for this store that has another mark (`storage.mark`)."""
        if self._written is not None:
            self._written.mark = mark

    @staticmethod
    def masked_url(url: str) -> str:
        """The URL as it may be shown: without its password."""
        return _shown(_usable(url))

    def unavailable(self, cause: BaseException) -> StoreUnavailable:
        """Why the store cannot be used, in a sentence."""
        words = (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
        verb = "read" if self._read_only else "used"
        return StoreUnavailable(f"the store {self.location} cannot be {verb}: {' '.join(words.split())}")

    def make_file(self) -> None:
        """Make an empty SQLite file that only this user may read, unless there is one. Raises StoreUnavailable."""
        if self._written is not None:
            try:
                os.close(os.open(self._written.path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            except OSError as error:
                raise self.unavailable(error) from error

    def current_revision(self) -> str | None:
        """Revision of the schema in the database; None where there is none, and no file is made to look for it.

        Raises StoreUnavailable.
        """
        try:
            if self._path is not None and not self._path.exists():
                return None
            with self.engine.connect() as connection:
                if not inspect(connection).has_table("alembic_version"):
                    return None
                return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        except (OSError, DBAPIError) as error:
            raise self.unavailable(error) from error

    def has_schema(self) -> bool:
        """Whether the tables of this version are there; False in an empty database. Raises SchemaMismatch."""
        current = self.known_revision()
        if current not in (None, SCHEMA_REVISION):
            raise self._mismatch(current)
        return current is not None

    def known_revision(self) -> str | None:
        """Like `current_revision`; raises SchemaMismatch for one that only a newer version can have made."""
        current = self.current_revision()
        if current is not None and not _is_known(current):
            raise self._mismatch(current)
        return current

    def _mismatch(self, found: str | None) -> SchemaMismatch:
        if found is None or _is_known(found):
            return SchemaMismatch(
                f"the database has schema {found}, this version needs {SCHEMA_REVISION}: "
                "run `syncect db backup` and then `syncect db upgrade`"
            )
        return SchemaMismatch(
            f"the database {self.location} was made by a newer version of syncect (schema {found}, this version "
            f"knows {SCHEMA_REVISION}): use that version, or restore the backup from before its upgrade"
        )


def _is_known(revision: str) -> bool:
    return revision.isdecimal() and revision <= SCHEMA_REVISION


def _shown(url: URL) -> str:
    """The URL without its password, which may also stand among the options of the driver."""
    hidden = {key: "***" for key in url.query if "password" in key.lower()}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def _usable(url: str) -> URL:
    """The parts of a URL; raises UnusableUrl, whose sentence never holds the URL, for that can hold a password."""
    if not url.startswith("sqlite") and url.partition("?")[0].count("@") > 1:
        # What follows the first one would be shown, as the name of a host or of a database.
        raise UnusableUrl(f"node.database_url cannot be used: {_AT_SIGN}; {_FORMS}")
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise UnusableUrl(f"node.database_url cannot be used: it is no URL of a database; {_FORMS}") from error
    driver = _DRIVERS.get(parts.drivername)
    if driver is None:
        raise UnusableUrl(f"node.database_url cannot be used: it begins with {parts.drivername}; {_FORMS}")
    if find_spec(driver) is None:
        raise UnusableUrl("node.database_url cannot be used: PostgreSQL needs the extra package syncect[postgres]")
    return parts


def _watched_engine(url: str, file: WrittenFile) -> Engine:
    """An engine whose pool gives no connection to a file that is not at its place any more."""
    engine = create_engine(url, creator=file.connect, max_overflow=_MORE_CONNECTIONS, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def keep(_connection: Any, record: Any) -> None:
        record.info["opened"] = file.opened()

    @event.listens_for(engine, "checkout")
    def look(_connection: Any, record: Any, _proxy: Any) -> None:
        if not file.is_same(record.info["opened"]):
            raise InvalidatePoolError

    return engine


def _opened(connection: Connection) -> FileIdentity | None:
    opened = connection.connection.info.get("opened")
    assert opened is None or isinstance(opened, FileIdentity)
    return opened


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("syncect_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
