"""The engine and its transactions; the only place that knows the database URL and the isolation level."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, CursorResult, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.orm import Session
from sqlalchemy.sql.expression import ClauseElement

from storage.errors import SchemaMismatch

SQLITE_BUSY_TIMEOUT_MS = 30_000


class Database:
    """Transactions on one database, SQLite in WAL mode or PostgreSQL.

    A writing transaction takes SQLite's write lock at its start (BEGIN IMMEDIATE): a transaction that reads first and
    writes later would otherwise fail with SQLITE_BUSY when another process wrote in between.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(url) if self.is_sqlite else create_engine(url, pool_pre_ping=True)
        self._writing = self.engine.execution_options(syncect_writes=True)
        self._plain: Connection | None = None
        self._plain_turn = threading.Lock()

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One writing transaction: committed on leaving, rolled back on an exception."""
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def write_plain(self) -> Iterator[Connection]:
        """One writing transaction without the ORM, for what is done thousands of times; else like `write`.

        On SQLite its callers take turns on one connection that stays open: SQLite itself would let them wait by
        sleeping for up to a tenth of a second at a time.
        """
        if not self.is_sqlite:
            with self._writing.begin() as connection:
                yield connection
            return
        with self._plain_turn:
            if self._plain is None:
                self._plain = self._writing.connect()
            try:
                with self._plain.begin():
                    yield self._plain
            except BaseException:
                self._drop_plain()  # what became of it is not known
                raise

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent snapshot for reading; nothing is committed."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    def close(self) -> None:
        """Give back all connections."""
        with self._plain_turn:
            self._drop_plain()
        self.engine.dispose()

    def _drop_plain(self) -> None:
        connection, self._plain = self._plain, None
        if connection is not None:
            connection.close()

    @staticmethod
    def masked_url(url: str) -> str:
        """The URL as it may be shown: without its password."""
        return make_url(url).render_as_string(hide_password=True)

    # -- schema ------------------------------------------------------------------------------------------------

    def current_revision(self) -> str | None:
        """Revision of the schema in the database; None where there is none."""
        with self.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def head_revision(self) -> str:
        """Revision that this version of the program works with."""
        head = ScriptDirectory.from_config(self._alembic()).get_current_head()
        assert head is not None
        return head

    def upgrade(self) -> None:
        """Bring the schema to the head revision, creating it where there is none."""
        command.upgrade(self._alembic(), "head")

    def ensure_schema(self) -> None:
        """Create the schema in an empty database; raise SchemaMismatch where an older or newer one is found."""
        current, head = self.current_revision(), self.head_revision()
        if current is None:
            self.upgrade()
        elif current != head:
            raise SchemaMismatch(
                f"the database has schema {current}, this version needs {head}: "
                "run `syncect db backup` and then `syncect db upgrade`"
            )

    def backup(self, target: Path) -> None:
        """Write a consistent copy of a SQLite database to `target`, also while the node is running."""
        if not self.is_sqlite:
            raise SchemaMismatch("db backup copies SQLite databases; use pg_dump for PostgreSQL")
        connection = self.engine.raw_connection()  # VACUUM must not stand in a transaction
        try:
            connection.cursor().execute("VACUUM INTO ?", (str(target),))
        finally:
            connection.close()

    def _alembic(self) -> AlembicConfig:
        config = AlembicConfig()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["engine"] = self.engine
        return config


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_MS / 1000})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # The driver's own transaction control would delay BEGIN until the first write.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # a committed row survives a power cut, not only a crash
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_TIMEOUT_MS}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        writes = connection.get_execution_options().get("syncect_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


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
