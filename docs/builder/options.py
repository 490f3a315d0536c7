"""The reference of commands, made of the program itself: what `--help` says, as one page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer

from node.cli.commands import app

OF_ALL = frozenset({"--help", "--config", "-c"})
"""Options that are said once, above the commands."""

_GROUPS = {
    "Processes": ("serve", "receive", "complete", "work", "deliver", "watch", "query", "web"),
    "Jobs": ("jobs",),
    "Look after the node": (
        "status",
        "doctor",
        "support-bundle",
        "alerts",
        "peers",
        "hosts",
        "spool",
        "db",
        "users",
        "audit",
    ),
    "Settings and bundles": ("config", "models"),
    "Series on disk": ("series", "process", "replay"),
    "Training": ("cohort", "train", "evaluate"),
}


@dataclass(frozen=True)
class Described:
    """One command: as it is typed, what it does, how it is called, and rows of what it takes and what that means.

    names: of its options, without those that every command has.
    """

    name: str
    text: str
    usage: str
    arguments: tuple[tuple[str, str], ...]
    options: tuple[tuple[str, str], ...]
    names: frozenset[str]


def described() -> dict[str, Described]:
    """Every command by its name, and a group of commands where it has options of its own."""
    root = typer.main.get_command(app)
    return {found.name: found for found in _walk(root, ("syncect",))}


def _walk(command: Any, path: tuple[str, ...]) -> Iterator[Described]:
    children = getattr(command, "commands", {})
    shown = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    names = frozenset(name for one in shown for name in (*one.opts, *one.secondary_opts)) - OF_ALL
    if names or not children:
        yield _described(command, path, names)
    for name, child in children.items():
        yield from _walk(child, (*path, name))


def _described(command: Any, path: tuple[str, ...], names: frozenset[str]) -> Described:
    # The program's own words, so wide that no line of them is broken.
    width = {"terminal_width": 400, "max_content_width": 400}
    context = command.make_context(" ".join(path), [], resilient_parsing=True, **width)
    text, *parts = re.split(r"^(Arguments|Options|Commands):\n", command.get_help(context), flags=re.MULTILINE)
    usage, _, words = text.partition("\n")
    tables = {title: tuple(_rows(body)) for title, body in zip(parts[::2], parts[1::2], strict=True)}
    paragraphs = "\n\n".join(" ".join(part.split()) for part in words.strip().split("\n\n"))
    options = tuple(row for row in tables["Options"] if not _said_once(row[0]))
    return Described(
        " ".join(path), paragraphs, usage.removeprefix("Usage: "), tables.get("Arguments", ()), options, names
    )


def _rows(body: str) -> Iterator[tuple[str, str]]:
    # A name that is too long for its column has its meaning on the next line.
    for row in re.finditer(r"^  (\S.*?)(?:(?:   *|\n {3,})(\S.*))?$", body, re.MULTILINE):
        yield row[1], row[2] or ""


def _said_once(left: str) -> bool:
    return not OF_ALL.isdisjoint(re.findall(r"--?[a-z-]+", left))


def options_page() -> str:
    """The page, grouped as an administrator looks for it; a command that no group names stands under "More"."""
    known = described()
    lines = [
        "# Every command and option",
        "",
        "This page is made from the program when the site is built. [Commands](commands.md) explains them.",
        "",
        "`--help` is an option of every command. `--config FILE` (`-c`) stands before or behind every command that",
        "reads the settings; without it `SYNCECT_CONFIG` names the file.",
        "",
        str(app.info.epilog),
        "",
    ]
    for title, names in _grouped(known).items():
        lines += [f"## {title}", ""]
        for name in names:
            lines += _section(known[name])
    return "\n".join(lines) + "\n"


def _grouped(known: dict[str, Described]) -> dict[str, list[str]]:
    placed = {
        title: [name for name in known if name.split()[1:2] and name.split()[1] in words]
        for title, words in _GROUPS.items()
    }
    rest = [name for name in known if not any(name in names for names in placed.values())]
    return {**placed, "More": rest}


def _section(command: Described) -> list[str]:
    lines = [f"### {command.name}", "", command.text, "", "```text", command.usage, "```", ""]
    rows = (*command.arguments, *command.options)
    if rows:
        lines += ["| | meaning |", "|---|---|", *(f"| `{_cell(left)}` | {_cell(words)} |" for left, words in rows), ""]
    return lines


def _cell(words: str) -> str:
    return words.replace("|", "\\|")
