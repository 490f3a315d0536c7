"""`doctor`: one line for each check of the node, with what to do about it."""

from collections import Counter
from typing import TYPE_CHECKING

import typer

from node.cli.console import ConfigOption, JsonOption, print_json, write
from node.operate.texts import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from node.operate.doctor.report import Line


def doctor(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Look at everything, change nothing: OK, WARN, FAIL or SKIP for each; exit code 0 ok, 1 degraded, 2 down."""
    from node.operate.doctor.run import examine  # it loads what speaks DICOM

    state, lines = examine(config or context.obj)
    if as_json:
        print_json({"state": state, "checks": lines})
    else:
        _print(state, lines)
    raise typer.Exit(state.exit_code)


def _print(state: str, lines: "Sequence[Line]") -> None:
    counts = Counter(line.state for line in lines)
    write(f"{state.upper()}: {', '.join(f'{count} {mark}' for mark, count in sorted(counts.items()))}\n")
    for line in lines:
        write(f"{line.state:<4}  {line.check}: {one_line(line.found)}\n")
        if line.remedy:
            write(f"      -> {one_line(line.remedy)}\n")


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(doctor)
