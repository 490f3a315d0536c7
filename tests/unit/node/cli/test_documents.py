"""docs/reference/commands.md names every command and option that there is, and none that there is not."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from node.cli.commands import app

TEXT = (Path(__file__).parents[4] / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
OF_ALL = {"--help", "--config", "-c"}  # said once, above the table


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, frozenset[str]]]:
    """Each command below a group as it is typed, and its options; the group itself where it has any."""
    shown = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    options = {name for one in shown for name in (*one.opts, *one.secondary_opts)}
    children = getattr(command, "commands", {})
    if options or not children:
        yield " ".join(path), frozenset(options - OF_ALL)
    for name, child in children.items():
        yield from commands(child, (*path, name))


KNOWN = dict(commands(typer.main.get_command(app), ("syncect",)))


def documented() -> dict[str, frozenset[str]]:
    """Each row of the reference: the command in its first cell, and the options in its second."""
    _, _, reference = TEXT.partition("\n## Every option\n")
    rows = re.findall(r"^\| `(syncect[^`]*)` \|(.*)\|$", reference, re.MULTILINE)
    return {command: frozenset(re.findall(r"`(-[^` ]+)", options)) for command, options in rows}


def test_the_walk_finds_commands_of_every_depth():
    assert {"syncect", "syncect serve", "syncect jobs ls", "syncect models import"} <= KNOWN.keys()
    assert "--version" in KNOWN["syncect"]


def test_the_reference_names_every_command_and_no_other():
    assert documented().keys() == KNOWN.keys()


@pytest.mark.parametrize("command", KNOWN)
def test_the_reference_names_every_option_and_no_other(command: str):
    assert documented().get(command) == KNOWN[command]
