"""Writes a store into a file, and a file of that kind into an empty store, whatever kind of database either is.

The file is a SQLite database with every row, of any schema that this version knows. A copy is read in one transaction,
also while the node runs.
"""

import errno
import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import JSON, Connection, Integer, MetaData, Table, event, inspect, select, text
from sqlalchemy.exc import DBAPIError

from storage.column_types import only_numbers
from storage.database import Database
from storage.errors import NotFound, SchemaMismatch, StoreUnavailable
from storage.schema import make_schema, patience

_REVISION_TABLE: Final = "alembic_version"
ROWS_AT_ONCE: Final = 1000

Told = Callable[[str, int], None]
"""Is called with the name of a table and how many of its rows were copied or read until now."""


# -- out ---------------------------------------------------------------------------------------------------------------


def backup(database: Database, target: Path) -> None:
    """Write a consistent copy of a store to `target`, a SQLite file, also while the node is running.

    Raises FileExistsError and other OSErrors about `target`, NotFound, SchemaMismatch and StoreUnavailable. Nothing is
    left at `target` then.
    """
    if database.current_revision() is None:
        raise NotFound(f"there is no store at {database.location}")
    target.touch(
        mode=0o600, exist_ok=False
    )  # SQLite's own words for a folder that is missing or not ours name the store
    try:
        if database.is_sqlite:
            _vacuum_into(database, target)
        else:
            _write_rows(database, target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    database.check_read()


def _vacuum_into(database: Database, target: Path) -> None:
    connection = database.engine.raw_connection()  # VACUUM must not stand in a transaction
    try:
        connection.cursor().execute("VACUUM INTO ?", (str(target),))
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:  # nothing is written but the copy
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise database.unavailable(error) from error
    finally:
        connection.close()


def _write_rows(database: Database, target: Path) -> None:
    revision = database.known_revision()
    assert revision is not None
    copy = Database(f"sqlite:///{target}")
    try:
        make_schema(copy, revision)
        copy_rows(database, copy)
        connection = copy.engine.raw_connection()  # not in a transaction
        connection.cursor().execute("PRAGMA journal_mode=DELETE")  # one file holds all of it, and no log beside it
        connection.close()
    finally:
        copy.close()


# -- in ----------------------------------------------------------------------------------------------------------------


def is_vacant(database: Database) -> bool:
    """Whether the database has no table yet, or no row in any but Alembic's own. Raises StoreUnavailable."""
    if database.current_revision() is None and database.is_sqlite:
        return not _has_tables(database)
    with database.engine.connect() as connection:
        return all(connection.execute(select(table).limit(1)).first() is None for table in tables_of(connection))


def _has_tables(database: Database) -> bool:
    path = Path(database.location)
    if not path.exists() or path.stat().st_size == 0:
        return False
    with database.engine.connect() as connection:
        return bool(inspect(connection).get_table_names())


def load(source: Path, database: Database) -> str:
    """Put a copy that `backup` wrote into a vacant database, with the copy's own schema; returns its revision.

    All rows come in one transaction: what a killed process leaves is a vacant database. Raises SchemaMismatch where a
    newer version wrote the copy, and StoreUnavailable.
    """
    revision = revision_of(source)
    copy = Database(f"sqlite:///{source}", read_only=True)
    try:
        make_schema(database, revision)
        copy_rows(copy, database)
    finally:
        copy.close()
    return revision


def revision_of(source: Path) -> str:
    """The schema of a copy. Raises NotFound where it is none, SchemaMismatch where a newer version wrote it."""
    copy = Database(f"sqlite:///{source}", read_only=True)
    try:
        revision = copy.known_revision()
    finally:
        copy.close()
    if revision is None:
        raise NotFound(f"{source} is no copy of a store")
    return revision


def copy_rows(source: Database, target: Database) -> None:
    """Copy every row into the tables of `target`, which are those of the same schema and hold none."""
    with patience(source), patience(target), source.engine.connect() as reading:
        try:
            with target.write() as session:
                copy_tables(reading, session.connection())
        except DBAPIError as error:
            raise not_written(target, error) from error


def not_written(target: Database, error: DBAPIError) -> StoreUnavailable:
    """Why rows cannot be written, without the row that the driver quotes."""
    (words, *_) = str(error.orig).splitlines() or [type(error).__name__]  # what follows quotes the row
    return StoreUnavailable(f"the rows cannot be written into {target.location}: {words}")


def copy_tables(reading: Connection, writing: Connection, told: Told = lambda _table, _rows: None) -> None:
    """Copy every row in the caller's two transactions, in batches; the numbers of PostgreSQL go on after them."""
    there = {table.name: table for table in tables_of(reading)}
    for table in tables_of(writing):
        if table.name not in there:
            raise SchemaMismatch(f"the copy lacks the table {table.name}: it was not made by this program")
        rows = reading.execute(select(there[table.name]), execution_options={"yield_per": ROWS_AT_ONCE}).mappings()
        copied = 0
        for part in rows.partitions():
            writing.execute(table.insert(), [{name: portable(value) for name, value in row.items()} for row in part])
            copied += len(part)
            told(table.name, copied)
        if writing.dialect.name == "postgresql":
            _continue_numbers(writing, table)


def tables_of(connection: Connection) -> list[Table]:
    """Every table but Alembic's own as it stands in the database, each behind those to which it refers."""
    metadata = MetaData()
    event.listen(metadata, "column_reflect", _keep_nothing_as_nothing)
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != _REVISION_TABLE]


def _keep_nothing_as_nothing(_inspector: Any, _table: Any, column: Any) -> None:
    if isinstance(column["type"], JSON):  # else a column without a value would get one, the JSON text null
        column["type"] = JSON(none_as_null=True)


def instant(value: Any) -> Any:
    """An instant with its zone, which SQLite does not keep; any other value as it is."""
    if not isinstance(value, datetime):
        return value
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def portable(value: Any) -> Any:
    """A value as both databases take it: an earlier version kept NaN in SQLite, within values of JSON."""
    return only_numbers(instant(value))


def _continue_numbers(connection: Connection, table: Table) -> None:
    """PostgreSQL counts the rows that it numbered itself, and would give a number out a second time."""
    (key, *others) = table.primary_key.columns
    if others or not isinstance(key.type, Integer):
        return
    last = f"SELECT coalesce(max({key.name}), 0) + 1 FROM {table.name}"  # noqa: S608 - names of our own tables
    connection.execute(
        text(f"SELECT setval(pg_get_serial_sequence(:table, :column), ({last}), false)"),
        {"table": table.name, "column": key.name},
    )
