"""What the tests of deploy/ share: which commands and settings there are, and where the files lie."""

import re
from pathlib import Path
from typing import Any

import click
import typer
import yaml

from config.load import _NOT_SETTINGS
from config.settings import Settings
from node.cli.commands import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMING = {"backup", "restore"}  # until they are there


def read(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def documents(name: str) -> list[dict[str, Any]]:
    """The YAML documents of a file."""
    return list(yaml.safe_load_all(read(name)))


def unknown_command(words: list[str]) -> str:
    """What of `syncect WORDS...` does not exist: a command or an option; "" where all of it does."""
    command: click.Command = typer.main.get_command(app)
    options = _options(command)
    for word in words:
        if isinstance(command, click.Group) and not word.startswith("-"):
            if word in COMING and word not in command.commands:
                return ""
            if word not in command.commands:
                return word
            command = command.commands[word]
            options |= _options(command)
        elif word.startswith("--") and word.partition("=")[0] not in options:
            return word
    return words[-1] if isinstance(command, click.Group) and len(words) > 1 else ""


def _options(command: click.Command) -> set[str]:
    return {"--help"}.union(*(parameter.opts for parameter in command.params))


def unknown_variables(text: str) -> set[str]:
    """The SYNCECT_ variables in a text that are neither a setting nor one of the few others."""
    found = set(re.findall(r"\bSYNCECT_[A-Z][A-Z_]*[A-Z]\b", text)) - {f"SYNCECT_{name}" for name in _NOT_SETTINGS}
    return {name for name in found if not _is_setting(name.removeprefix("SYNCECT_").lower())}


def _is_setting(name: str) -> bool:
    section, separator, key = name.partition("__")
    if section not in Settings.model_fields or not separator:
        return False
    model = Settings.model_fields[section].annotation
    return key.partition("__")[0] in getattr(model, "model_fields", {})


def context_paths() -> list[Path]:
    """What .dockerignore lets into the build, relative to the root."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [Path(line.removeprefix("!/")) for line in lines if line.startswith("!")]
