"""The generated reference names every command and option that there is, each with a sentence; so do the documents."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from docs.builder.options import OF_ALL, described, options_page
from node.cli.commands import app
from tests.docs.pages import documents, prose


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
PAGE = options_page()


def documented() -> dict[str, frozenset[str]]:
    """Each section of the page: the command in its heading, and the options in the first cells of its table."""
    sections = re.split(r"^#{2,3} ", PAGE, flags=re.MULTILINE)
    found = {text.split("\n")[0]: text for text in sections if text.startswith("syncect")}
    return {
        name: frozenset(
            option
            for cell in re.findall(r"^\| `(-.*?)` \|", text, re.MULTILINE)
            for option in re.findall(r"--?[\w-]+", cell)
        )
        for name, text in found.items()
    }


def test_the_walk_finds_commands_of_every_depth():
    assert {"syncect", "syncect serve", "syncect jobs ls", "syncect models import"} <= KNOWN.keys()
    assert "--version" in KNOWN["syncect"]


def test_the_reference_names_every_command_and_no_other():
    assert documented().keys() == KNOWN.keys()


@pytest.mark.parametrize("command", KNOWN)
def test_the_reference_names_every_option_and_no_other(command: str):
    assert documented().get(command) == KNOWN[command]


@pytest.mark.parametrize("command", described().values(), ids=lambda command: command.name)
def test_every_command_argument_and_option_has_a_sentence(command):
    assert command.text
    rows = (*command.arguments, *command.options)
    assert not [left for left, words in rows if not re.sub(r"\[(default|required)[^\]]*\]", "", words).strip()]


def in_text(page: str) -> list[str]:
    """Commands that stand in a page as code, outside its blocks, with their arguments."""
    spans = re.findall(
        r"`((?:\.venv/bin/)?syncect [^`]+|(?:jobs|db|spool|models|users|series) [a-z]+[^`]*)`", prose(page)
    )
    return [" ".join(span.replace(".venv/bin/", "").removeprefix("syncect ").split()) for span in spans]


@pytest.mark.parametrize("page", documents())
def test_a_command_in_the_text_exists_with_its_options(page: str):
    wrong = [text for text in in_text(page) if not exists(text)]
    assert not wrong


def exists(text: str) -> bool:
    """Whether `text` begins with a command or a group, and names only options of that command."""
    words = re.sub(r"--config \S+|-c \S+", "", text).split()
    options = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    names = [word for word in words if not word.startswith("-")]
    for end in range(len(names), 0, -1):
        name = " ".join(["syncect", *names[:end]])
        if name in KNOWN:
            return options <= KNOWN[name] | OF_ALL
        if any(known.startswith(f"{name} ") for known in KNOWN):
            return end == len(names) or not re.fullmatch(r"[a-z-]+", names[end])
    return not names and options <= KNOWN["syncect"] | OF_ALL


def test_what_does_not_exist_is_found():
    assert exists("jobs ls --stuck")
    assert exists("jobs")
    assert not exists("jobs list")
    assert not exists("jobs ls --stucked")
    assert not exists("frobnicate")
