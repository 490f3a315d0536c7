"""`db` looks after the store: its schema, a copy of it, and a new one where it is lost."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from node.cli.console import ConfigOption, JsonOption, print_json, say, settings_from, write
from node.errors import Refused
from storage.database import Database
from storage.tables import SCHEMA_REVISION

db_app = typer.Typer(no_args_is_help=True, help="The store: its schema, a copy of it, a new one where it is lost.")


@db_app.command("upgrade")
def upgrade(context: typer.Context, config: ConfigOption = None) -> None:
    """Bring the schema to this version; make a backup first."""
    database = Database(settings_from(context, config).node.url())
    database.upgrade()
    say(f"the schema is at revision {database.current_revision()}")


@db_app.command("current")
def current(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Print the revision of the schema and the one this version needs."""
    found = Database(settings_from(context, config).node.url(), read_only=True).current_revision()
    if as_json:
        print_json({"current": found, "needed": SCHEMA_REVISION})
    else:
        write(f"current {found or 'none'}, needed {SCHEMA_REVISION}\n")


@db_app.command("backup")
def backup(
    context: typer.Context,
    target: Annotated[Path, typer.Argument(help="File to write; must not exist.")],
    config: ConfigOption = None,
) -> None:
    """Write a consistent copy of a SQLite store, whatever its schema, also while the node runs."""
    if target.exists():
        raise Refused(f"{target} exists and is not overwritten")
    Database(settings_from(context, config).node.url(), read_only=True).backup(target)
    say(f"wrote {target}")


@db_app.command("adopt")
def adopt(context: typer.Context, config: ConfigOption = None) -> None:
    """Say that this store and this spool belong together although their marks differ, or the spool has none."""
    from node.bootstrap.store import refuse_while_running
    from storage.mark import adopt_mark

    settings = settings_from(context, config)
    refuse_while_running(settings)
    database = Database(settings.node.url())
    database.ensure_schema()
    adopt_mark(database, settings.node.data_dir / "spool", datetime.now(UTC))
    say(f"the store {database.location} and the spool {settings.node.data_dir / 'spool'} belong together now")


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.add_typer(db_app, name="db")
