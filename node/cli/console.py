"""The commands share their options and output here: tables for people, JSON for programs, sentences, exit codes."""

import getpass
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from config.load import CONFIG_VARIABLE, load_settings
from config.settings import Settings
from node.bootstrap.store import Node, read_store
from node.cli.tables import plain
from node.operate import texts
from node.operate.texts import NotUnderstood, one_line

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help=f"Settings file; otherwise the one named by {CONFIG_VARIABLE}.", metavar="FILE"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
PhiOption = Annotated[bool, typer.Option("--phi", help="Show patient IDs and typed texts in full.")]
ReasonOption = Annotated[str, typer.Option("--reason", "-m", help="Why; kept with the job's history.")]


INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5


def settings_from(context: typer.Context, config: Path | None) -> Settings:
    """Settings of this call: `--config` after or before the command, else the environment, else the defaults."""
    return load_settings(config or context.obj)


@contextmanager
def reading(context: typer.Context, config: Path | None) -> Iterator[Node]:
    """The stores of this call, to read; says where it looked if nothing is there."""
    settings = settings_from(context, config)
    with read_store(settings) as node:
        if node.is_new:
            say(
                f"there is no store at {node.location} yet. If the node works "
                f"elsewhere, look at --config, {CONFIG_VARIABLE} and node.data_dir."
            )
        yield node


def out() -> Console:
    """Standard output; tables keep their columns readable where no terminal gives a width."""
    return Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160")), soft_wrap=False)


def say(text: str) -> None:
    """A line for a person on standard error, so that standard output stays data."""
    lines = [one_line(line) for line in text.splitlines()]
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text("\n".join(lines)))


def write(text: str, stream: TextIO | None = None) -> None:
    """Write text as it is to standard output, or to another stream."""
    (stream or sys.stdout).write(text)


def system_answer(error: OSError) -> str:
    """What the operating system refused, and for which file."""
    files = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    words = error.strerror or str(error)
    return f"{files}: {words}" if files else f"the system answered: {words}"


def print_json(value: Any) -> None:
    """Print a value, dataclasses and datetimes included, as JSON; escaped where the output is not in UTF-8."""
    escaped = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    write(json.dumps(value, default=_plain, indent=2, ensure_ascii=escaped) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """Print rows of text; the last column wraps, the others do not."""
    table = Table(
        title=title, title_justify="left", box=None, header_style="bold", pad_edge=False, show_header=any(columns)
    )
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number < len(columns) - 1, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    out().print(table, markup=False)


def progress_bar() -> Progress:
    """A progress bar on standard error, where that is a terminal, for whatever takes longer than a second."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def tidy_reason(reason: str) -> str:
    """What a person typed, on one line; a text that is too long is an error of usage."""
    with usage():
        return texts.tidy_reason(reason)


@contextmanager
def usage() -> Iterator[None]:
    """What cannot be understood is an error of usage."""
    try:
        yield
    except NotUnderstood as error:
        raise typer.BadParameter(str(error)) from error


def operator() -> str:
    """Who acts, for the history of a job; the number of a user who has no name on this machine."""
    try:
        return f"operator {getpass.getuser()}"
    except (KeyError, OSError):
        return f"operator {os.getuid()}"


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
