"""The way to the schema that `storage.tables` describes: Alembic's migrations, in the folder beside this file.

Nothing else imports Alembic, and this module is loaded only where a schema is made or changed: no reader waits for it.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import Engine


def upgrade(engine: Engine) -> None:
    """Bring the schema of a database to `SCHEMA_REVISION`, creating it where there is none."""
    command.upgrade(alembic_config(engine), "head")


def alembic_config(engine: Engine) -> AlembicConfig:
    """What Alembic's own commands need to reach a database."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = engine
    return config
