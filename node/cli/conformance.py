"""`conformance`: the DICOM conformance statement of this node, made from its code and settings."""

from pathlib import Path
from typing import Annotated

import typer

from node.cli.console import ConfigOption, JsonOption, print_json, say, settings_from, write

Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="File to write or replace; standard output without it.", metavar="FILE"),
]


def conformance(
    context: typer.Context, as_json: JsonOption = False, target: Out = None, config: ConfigOption = None
) -> None:
    """The DICOM conformance statement of this node (PS3.2), in Markdown, from its code and settings."""
    from node.conformance.facts import facts_of  # it loads all that speaks and makes DICOM
    from node.conformance.statement import written

    facts = facts_of(settings_from(context, config))
    if as_json:
        print_json(facts)
        return
    text = written(facts)
    if target is None:
        write(text)
        return
    target.write_text(text, encoding="utf-8")
    say(f"wrote {target}")


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command("conformance")(conformance)
