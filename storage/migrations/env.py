"""Alembic environment: runs migrations on the engine that `storage.database` hands over; no ini file, no URL here."""

from alembic import context
from sqlalchemy import Connection, inspect

import storage.neighbour_tables
import storage.people_tables
import storage.scale_tables  # noqa: F401 - so do these
from storage.schema import ONE_AT_A_TIME
from storage.tables import Base


def take_turn(connection: Connection) -> None:
    """On PostgreSQL, wait for another migration and for those who write, and let no other begin before the end."""
    if connection.dialect.name != "postgresql":
        return  # the transaction has taken the lock of all writers
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ONE_AT_A_TIME})")
    if inspect(connection).has_table("alembic_version"):
        connection.exec_driver_sql("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")


engine = context.config.attributes["engine"]

# A migration writes from its first statement on; without the flag SQLite would start a reading transaction.
with engine.execution_options(syncect_writes=True).connect() as connection:
    # One transaction for all of them, on SQLite too: what a killed process began is nothing, and not an older schema.
    context.configure(
        connection=connection, target_metadata=Base.metadata, render_as_batch=True, transactional_ddl=True
    )
    with context.begin_transaction():
        take_turn(connection)
        context.run_migrations()
