"""Database gives transactions, to write or only to read; no other module knows its URL and its isolation level."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    CursorResult,
    Dialect,
    Engine,
    ExceptionContext,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
)
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    InvalidatePoolError,
    OperationalError,
)
from sqlalchemy.orm import Session
from sqlalchemy.sql.expression import ClauseElement

from storage.errors import NotFound, SchemaMismatch, StoreUnavailable, UnusableUrl
from storage.sqlite_file import Identity, ReadOnlyFile, WrittenFile, require_sound
from storage.tables import SCHEMA_REVISION, Base

CONNECT_TIMEOUT_S = 2  # the least that libpq knows; a receiver has to answer its sender
PLAIN_LOCK_WAIT_MS = 1000
_FORMS = 'write "postgresql+psycopg://USER:PASSWORD@HOST/NAME", or "" for SQLite inside node.data_dir'
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
        event.listen(self.engine, "handle_error", self._tell)
        self._writing = self.engine.execution_options(syncect_writes=True)
        self._plain: Connection | None = None
        self._plain_turn = threading.Lock()

    def _make_engine(self, url: str) -> Engine:
        if not self.is_sqlite:
            options = {"postgresql_readonly": True, "isolation_level": "REPEATABLE READ"} if self._read_only else {}
            wait = {"connect_timeout": CONNECT_TIMEOUT_S}
            return create_engine(
                url, pool_pre_ping=True, execution_options=options, connect_args=wait, hide_parameters=True
            )
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
        return str(self._path or self.url.render_as_string(hide_password=True))

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One writing transaction: committed on leaving, rolled back on an exception.

        Raises StoreUnavailable also where it was committed into a file that no reader sees any more.
        """
        with Session(self._writing, expire_on_commit=False) as session:
            with session.begin():
                opened = _opened(session.connection())
                yield session
            self._require_same(opened)

    @contextmanager
    def write_plain(self) -> Iterator[Connection]:
        """One writing transaction without the ORM, for what is done thousands of times; else like `write`.

        On SQLite its callers take turns on one connection that stays open: SQLite itself would let them wait by
        sleeping for up to a tenth of a second at a time. Whoever is answered behind it must not wait for long: a
        database that another program has locked for longer than `PLAIN_LOCK_WAIT_MS` counts as one that is gone.
        """
        if not self.is_sqlite:
            with self._writing.begin() as connection:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {PLAIN_LOCK_WAIT_MS}")
                yield connection
            return
        with self._plain_turn:
            try:
                if self._plain is None:
                    self._plain = self._writing.connect()
                    self._plain.connection.cursor().execute(f"PRAGMA busy_timeout={PLAIN_LOCK_WAIT_MS}")
                opened = _opened(self._plain)
                self._require_same(opened)
                with self._plain.begin():
                    yield self._plain
                self._require_same(opened)
            except BaseException:
                self._drop_plain()  # what became of it is not known
                raise

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent snapshot for reading; nothing is committed."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session
        if self._file is not None:
            self._file.check()

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

    def _drop_plain(self) -> None:
        connection, self._plain = self._plain, None
        if connection is not None:
            with suppress(StoreUnavailable):
                connection.invalidate()  # it waits for locks less long than those of the pool
            connection.close()

    def _require_same(self, opened: Identity | None) -> None:
        if self._written is not None:
            self._written.check(opened)

    def expect(self, mark: str) -> None:
        """From now on take no SQLite file for this store that has another mark (`storage.mark`)."""
        if self._written is not None:
            self._written.mark = mark

    def require_sound(self) -> None:
        """Raise StoreUnavailable where SQLite finds its file damaged; it reads the whole file."""
        if not self.is_sqlite:
            return
        try:
            with self.engine.connect() as connection:
                driver_connection = connection.connection.driver_connection
                assert isinstance(driver_connection, sqlite3.Connection)
                require_sound(driver_connection)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    @staticmethod
    def masked_url(url: str) -> str:
        """The URL as it may be shown: without its password."""
        return _usable(url).render_as_string(hide_password=True)

    def _tell(self, context: ExceptionContext) -> None:
        """A database that is gone, locked, full, damaged or not ours is told in a sentence, whatever was done."""
        if context.is_pre_ping:
            return  # the pool connects anew
        # A broken constraint or a wrong statement is a more special kind of the last one, and stays what it is.
        if type(context.sqlalchemy_exception) in (OperationalError, InterfaceError, DatabaseError):
            raise self._unavailable(context.original_exception) from context.original_exception
        _forget_values(context)

    def _unavailable(self, cause: BaseException) -> StoreUnavailable:
        words = (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
        verb = "read" if self._read_only else "used"
        return StoreUnavailable(f"the store {self.location} cannot be {verb}: {' '.join(words.split())}")

    # -- schema ------------------------------------------------------------------------------------------------

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
            raise self._unavailable(error) from error

    def has_schema(self) -> bool:
        """Whether the tables of this version are there; False in an empty database. Raises SchemaMismatch."""
        current = self._known_revision()
        if current not in (None, SCHEMA_REVISION):
            raise SchemaMismatch(
                f"the database has schema {current}, this version needs {SCHEMA_REVISION}: "
                "run `syncect db backup` and then `syncect db upgrade`"
            )
        return current is not None

    def _known_revision(self) -> str | None:
        """Like `current_revision`; raises SchemaMismatch for one that only a newer version can have made."""
        current = self.current_revision()
        if current is not None and not (current.isdecimal() and current <= SCHEMA_REVISION):
            raise SchemaMismatch(
                f"the database {self.location} was made by a newer version of syncect (schema {current}, this version "
                f"knows {SCHEMA_REVISION}): use that version, or restore the backup from before its upgrade"
            )
        return current

    def ensure_schema(self) -> None:
        """Create the schema in an empty database; raise SchemaMismatch where an older or newer one is found."""
        if not self.has_schema():
            self.upgrade()

    def upgrade(self) -> None:
        """Bring the schema to the revision of this version, creating it where there is none. Raises SchemaMismatch."""
        self._known_revision()
        from storage.schema import upgrade

        if self._written is not None:
            try:
                self._written.make()
            except OSError as error:
                raise self._unavailable(error) from error
        upgrade(self.engine)

    def backup(self, target: Path) -> None:
        """Write a consistent copy of a SQLite database to `target`, also while the node is running.

        Raises FileExistsError and other OSErrors about `target`, NotFound, SchemaMismatch and StoreUnavailable.
        """
        if not self.is_sqlite:
            raise SchemaMismatch("db backup copies SQLite databases; use pg_dump for PostgreSQL")
        if self.current_revision() is None:
            raise NotFound(f"there is no store at {self.location}")
        target.touch(exist_ok=False)  # SQLite's own words for a folder that is missing or not ours name the store
        connection = self.engine.raw_connection()  # VACUUM must not stand in a transaction
        try:
            connection.cursor().execute("VACUUM INTO ?", (str(target),))
        except sqlite3.Error as error:
            target.unlink()
            raise self._unavailable(error) from error
        finally:
            connection.close()
        if self._file is not None:
            self._file.check()


def _usable(url: str) -> URL:
    """The parts of a URL; raises UnusableUrl, whose sentence never holds the URL, for that can hold a password."""
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


def _forget_values(context: ExceptionContext) -> None:
    """PostgreSQL says with a broken constraint which row breaks it; that row can be a patient's."""
    original, told = context.original_exception, context.sqlalchemy_exception
    diagnosis = getattr(original, "diag", None)
    if diagnosis is None or told is None:
        return
    constraint = f", constraint {diagnosis.constraint_name}" if diagnosis.constraint_name else ""
    words = f"{type(original).__name__} (SQLSTATE {diagnosis.sqlstate}{constraint})"
    original.args = told.args = (words,)


def _watched_engine(url: str, file: WrittenFile) -> Engine:
    """An engine whose pool gives no connection to a file that is not at its place any more."""
    engine = create_engine(url, creator=file.connect, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def keep(_connection: Any, record: Any) -> None:
        record.info["opened"] = file.opened()

    @event.listens_for(engine, "checkout")
    def look(_connection: Any, record: Any, _proxy: Any) -> None:
        if not file.is_same(record.info["opened"]):
            raise InvalidatePoolError

    return engine


def _opened(connection: Connection) -> Identity | None:
    opened = connection.connection.info.get("opened")
    assert opened is None or isinstance(opened, Identity)
    return opened


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("syncect_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class Prepared:
    """A statement that is rendered once and then executed thousands of times, with named parameters.

    What it returns comes as the driver's own values. SQLAlchemy finds a statement in its cache and sets up a result
    anew for every execution, which takes three times as long as SQLite takes to execute it.
    """

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._rendered: dict[str, _Rendered] = {}

    def execute(self, connection: Connection, values: Mapping[str, object]) -> CursorResult[tuple[Any, ...]]:
        """Execute in the connection's transaction; every parameter without a value of its own needs one."""
        rendered = self._rendered.get(connection.dialect.name)
        if rendered is None:
            rendered = self._rendered[connection.dialect.name] = _Rendered(self._statement, connection.dialect)
        return connection.exec_driver_sql(rendered.text, rendered.parameters(values))


class _Rendered:
    """A statement as one kind of database wants it."""

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self.text = str(compiled)
        self._fixed: dict[str, object] = compiled.params
        self._convert: dict[str, Callable[[Any], object]] = {}
        for parameter, name in compiled.bind_names.items():
            convert = parameter.type.dialect_impl(dialect).bind_processor(dialect)
            if convert is not None:
                self._convert[name] = convert
        self._order: tuple[str, ...] | None = tuple(compiled.positiontup) if compiled.positional else None

    def parameters(self, values: Mapping[str, object]) -> Any:
        """Converted values, by position or by name."""
        named = {**self._fixed, **values}
        for name, convert in self._convert.items():
            named[name] = convert(named[name])
        return named if self._order is None else tuple(named[name] for name in self._order)
