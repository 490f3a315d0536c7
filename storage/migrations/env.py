"""Alembic environment: runs migrations on the engine that `storage.database` hands over; no ini file, no URL here."""

from alembic import context

import storage.neighbour_tables
import storage.people_tables
import storage.scale_tables  # noqa: F401 - so do these
from storage.tables import Base

engine = context.config.attributes["engine"]

# A migration writes from its first statement on; without the flag SQLite would start a reading transaction.
with engine.execution_options(syncect_writes=True).connect() as connection:
    # One transaction for all of them, on SQLite too: what a killed process began is nothing, and not an older schema.
    context.configure(
        connection=connection, target_metadata=Base.metadata, render_as_batch=True, transactional_ddl=True
    )
    with context.begin_transaction():
        context.run_migrations()
