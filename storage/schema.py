"""What is done to a database as a whole: its schema is made or changed, its file is looked through.

The way to the schema that `storage.tables` describes are Alembic's migrations, in the folder beside this file. Nothing
else imports Alembic, and it is loaded only where a schema is made or changed: no reader waits for it.
"""

import math
import sqlite3
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine

from storage.database import Database
from storage.sqlite_file import require_sound

if TYPE_CHECKING:
    from alembic.config import Config as AlembicConfig


ONE_AT_A_TIME: Final = 7305441
"""Of PostgreSQL's advisory locks, that of a migration: where two begin at once, the second finds the work done."""


def ensure_schema(database: Database) -> None:
    """Create the schema in an empty database; raise SchemaMismatch where an older or newer one is found."""
    if not database.has_schema():
        upgrade(database)


def upgrade(database: Database) -> None:
    """Bring the schema to the revision of this version, creating it where there is none. Raises SchemaMismatch.

    A SQLite file of an earlier version is written anew as well, for which it needs its own size in free space.
    """
    from alembic import command

    if database.known_revision() is None:
        database.require_encoding()
    database.make_file()
    with patience(database):
        command.upgrade(alembic_config(database.engine), "head")
    if database.is_sqlite:
        _let_it_shrink(database)


def _let_it_shrink(database: Database) -> None:
    """Let a SQLite file give back what it does not use in small steps, for which it is written anew once."""
    connection = database.engine.raw_connection()  # VACUUM must not stand in a transaction
    try:
        cursor = connection.cursor()
        if cursor.execute("PRAGMA auto_vacuum").fetchone() == (0,):
            cursor.execute("PRAGMA auto_vacuum=INCREMENTAL")
            # Where there is no room for a second copy the store is whole, and only does not shrink.
            with suppress(sqlite3.OperationalError):
                cursor.execute("VACUUM")
    finally:
        connection.close()


def make_schema(database: Database, revision: str) -> None:
    """Give a database without a row the schema of a revision, whatever tables it has. Raises StoreUnavailable."""
    from alembic import command

    found = database.current_revision()
    if found is None:
        database.require_encoding()
    database.make_file()
    with patience(database):
        if found not in (None, revision):
            command.downgrade(alembic_config(database.engine), "base")
        command.upgrade(alembic_config(database.engine), revision)


def patience(database: Database) -> AbstractContextManager[None]:
    """Every row may be rewritten: a server may take as long as it needs for that."""
    if database.is_sqlite:
        return nullcontext()
    from storage.postgresql import silence_limit

    return silence_limit(math.inf)


def alembic_config(engine: Engine) -> "AlembicConfig":
    """What Alembic's own commands need to reach a database."""
    from alembic.config import Config as AlembicConfig

    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = engine
    return config


def look_through(database: Database) -> None:
    """Raise StoreUnavailable where SQLite finds its file damaged; it reads the whole file."""
    if not database.is_sqlite:
        return
    try:
        with database.engine.connect() as connection:
            driver_connection = connection.connection.driver_connection
            assert isinstance(driver_connection, sqlite3.Connection)
            require_sound(driver_connection)
    except sqlite3.Error as error:
        raise database.unavailable(error) from error


def empty_log(database: Database) -> None:
    """Write what stands in SQLite's write-ahead log into its file, and empty the log unless somebody reads it."""
    connection = database.engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=0")  # who waits here for readers lets nobody write meanwhile
        for mode in ("PASSIVE", "TRUNCATE"):
            cursor.execute(f"PRAGMA wal_checkpoint({mode})")
            cursor.fetchall()
    except sqlite3.Error as error:
        raise database.unavailable(error) from error
    finally:
        connection.invalidate()
