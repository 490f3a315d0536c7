"""`db` looks after the store: its schema, a copy of it, and a new one where it is lost."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.console import ConfigOption, JsonOption, print_json, say, settings_from, write
from node.cli.db_move import move
from node.errors import Refused
from storage import copies, schema
from storage.database import Database
from storage.errors import NotFound
from storage.hosts import free_running
from storage.tables import SCHEMA_REVISION

if TYPE_CHECKING:
    from node.bootstrap.rebuild import Rebuilt

db_app = typer.Typer(no_args_is_help=True, help="The store: its schema, a copy of it, a new one where it is lost.")


@db_app.command("upgrade")
def upgrade(context: typer.Context, config: ConfigOption = None) -> None:
    """Bring the schema to this version, after a copy of the store as it was was written into the data folder."""
    from node.bootstrap.store import make_data_dir, refuse_while_running

    settings = settings_from(context, config)
    database = Database(settings.node.url())
    before = database.known_revision()
    if before not in (None, SCHEMA_REVISION):
        refuse_while_running(settings)
        copy = make_data_dir(settings) / f"store-of-schema-{before}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.sqlite3"
        copies.backup(Database(settings.node.url(), read_only=True), copy)
        say(f"wrote {copy}: the way back to the version before is `syncect db load` of it into an empty database")
    begun_at = None if database.is_sqlite or before in (None, SCHEMA_REVISION) else database.now()
    schema.upgrade(database)
    if begun_at is not None and (freed := free_running(database, begun_at, database.now())):
        say(f"{len(freed)} jobs that workers of the earlier version had are queued again")
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
    """Write a consistent copy of the store, whatever its schema, into a SQLite file, also while the node runs."""
    if target.exists():
        raise Refused(f"{target} exists and is not overwritten")
    copies.backup(Database(settings_from(context, config).node.url(), read_only=True), target)
    say(f"wrote {target}")


@db_app.command("load")
def load(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A file that `db backup` or `db upgrade` wrote.")],
    config: ConfigOption = None,
) -> None:
    """Put a copy of a store into an empty database, SQLite or PostgreSQL, with the schema that it has."""
    from node.bootstrap.store import make_data_dir, refuse_while_running

    settings = settings_from(context, config)
    if not source.is_file():
        raise NotFound(f"there is no file {source}")
    refuse_while_running(settings)
    make_data_dir(settings)
    database = Database(settings.node.url())
    if not copies.is_vacant(database):
        raise Refused(f"the database {database.location} holds a store already; move it away, or name an empty one")
    revision = copies.load(source, database)
    say(f"{database.location} holds the rows of {source}, schema {revision}")
    if revision != SCHEMA_REVISION:
        say(
            f"this version needs schema {SCHEMA_REVISION}: start the version that wrote it, or run `syncect db upgrade`"
        )


@db_app.command("adopt")
def adopt(context: typer.Context, config: ConfigOption = None) -> None:
    """Say that this store and this spool belong together although their marks differ, or the spool has none."""
    from node.bootstrap.store import refuse_while_running
    from storage.mark import adopt_mark, knows_nothing_of

    settings = settings_from(context, config)
    refuse_while_running(settings)
    database, spool = Database(settings.node.url()), settings.node.data_dir / "spool"
    if why := knows_nothing_of(spool, database):
        raise Refused(why)
    schema.ensure_schema(database)
    adopt_mark(database, spool, datetime.now(UTC))
    say(f"the store {database.location} and the spool {spool} belong together now")


@db_app.command("rebuild")
def rebuild(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what was found; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
) -> None:
    """Make a new store of the files in the spool, where the database is lost; the old file is moved aside."""
    from node.bootstrap import rebuild as work

    settings = settings_from(context, config)
    if dry_run:
        told = work.look(settings)
        _say_found(told)
        if told.fetched:
            more = f"{told.fetched} files ({told.fetched_bytes / 1e9:.1f} GB) are only in {settings.spool.url}"
            say(f"{more}: without --dry-run they are fetched first")
        return
    question = "make a new store of the files in the spool? What only the old one knew is lost"
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("standard input is no terminal: say --yes")
        typer.confirm(question, abort=True, err=True)
    told = work.rebuild(settings, datetime.now(UTC))
    _say_found(told)
    if settings.spool.url:
        say(f"{told.fetched} of them were fetched from {settings.spool.url}")
        say("on every other host, remove the folder spool/ in its data folder before it starts: it is a cache, and old")
    if told.aside is not None:
        say(f"the old database is {told.aside} now")
    counts = ", ".join(f"{count} {state}" for state, count in sorted(told.series.items()))
    say(f"series: {counts or 'none'}. Every result is HELD: `syncect jobs ls --state HELD,INCOMPLETE` lists what waits")
    say("whose a series is, and which peers `jobs drop` barred from one, is forgotten: drop what they sent once more")
    say(
        "no file has the users of the page, what was paused, accepted bundles, constancy runs and the record of who "
        "did what: `syncect users add`, `queue pause`, `models accept` and `qa run` where they are needed"
    )


def _say_found(told: "Rebuilt") -> None:
    say(f"found {told.received} received files and {told.results} results, {len(told.unreadable)} that cannot be read")
    for name in told.unreadable[:10]:
        say(f"  not readable, left where it is: {name}")


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    db_app.command("move")(move)
    app.add_typer(db_app, name="db")
