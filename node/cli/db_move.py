"""`db move` brings the store to another database and proves that every row came."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from node.cli.console import ConfigOption, Exit, JsonOption, print_json, print_table, progress_bar, say, settings_from
from storage.copies import Told

if TYPE_CHECKING:
    from node.bootstrap.moving import Moved

_LINE_EVERY_S: Final = 10.0  # where no terminal shows a bar


def move(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="URL of an empty database, as node.database_url has it.", metavar="URL")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Move the store into an empty database, SQLite or PostgreSQL, and compare a digest of every table."""
    from node.bootstrap.moving import move_store

    settings = settings_from(context, config)
    with _progress() as told:
        moved = move_store(settings, url, datetime.now(UTC), told)
    if as_json:
        print_json(_plain(moved))
    else:
        columns = ("TABLE", "ROWS", "SHA-256", "EQUAL")
        print_table(
            columns,
            [
                (one.table, str(one.source.rows), one.source.sha256, "yes" if one.is_equal else "NO")
                for one in moved.tables
            ],
        )
    if not moved.is_equal:
        _say_unequal(moved)
        raise typer.Exit(Exit.ERROR)
    say(f'every table is equal. Write into the settings, section [node]:  database_url = "{moved.setting}"')
    if "***" in moved.setting:
        say("*** stands for the password; better leave it out and keep it in the file that PGPASSFILE names")
    say(
        f"No node begins on {moved.source} any more. Until a node has worked on the new database, "
        "`syncect db adopt` with the old settings takes the move back"
    )


def _say_unequal(moved: "Moved") -> None:
    names = ", ".join(one.table for one in moved.tables if not one.is_equal)
    say(
        f"syncect: the copy in {moved.target} is NOT the same as the store: {names}. Do not use it: drop that "
        f"database. The store {moved.source} is as it was, and still the one that the node uses"
    )


def _plain(moved: "Moved") -> dict[str, object]:
    return {
        "source": moved.source,
        "target": moved.target,
        "equal": moved.is_equal,
        "database_url": moved.setting if moved.is_equal else None,
        "tables": [
            {
                "table": one.table,
                "rows": one.source.rows,
                "sha256": one.source.sha256,
                "target_rows": one.target.rows,
                "target_sha256": one.target.sha256,
                "equal": one.is_equal,
            }
            for one in moved.tables
        ],
    }


@contextmanager
def _progress() -> Iterator[Told]:
    """A bar on a terminal, and a line every ten seconds for anything else."""
    with progress_bar() as bar:
        task, said_s = bar.add_task("", total=None), time.monotonic()

        def told(table: str, rows: int) -> None:
            nonlocal said_s
            bar.update(task, description=table, completed=rows)
            if bar.disable and time.monotonic() - said_s > _LINE_EVERY_S:
                said_s = time.monotonic()
                say(f"{table}: {rows} rows")

        yield told
