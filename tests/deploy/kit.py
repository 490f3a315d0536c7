"""What the tests of deploy/ share: which commands and settings there are, and where the files lie."""

import re
from pathlib import Path
from typing import Any

import typer
import yaml

from config.load import _NOT_SETTINGS
from config.settings import Settings
from node.cli.commands import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
# `serve` with one role, so that no test waits for the others: python -c RECEIVER_ALONE SETTINGS
RECEIVER_ALONE = """
import sys
from pathlib import Path
from config.load import load_settings
from node.cli.service import supervise
from node.ops.supervised import stop_event

command = [sys.executable, "-m", "node.cli", "--config", sys.argv[1], "receive", "--supervised"]
supervise(load_settings(Path(sys.argv[1])), {"receive": command}, stop_event(supervised=False))
"""


def read(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def documents(name: str) -> list[dict[str, Any]]:
    """The YAML documents of a file."""
    return list(yaml.safe_load_all(read(name)))


def unknown_command(words: list[str]) -> str:
    """What of `syncect WORDS...` does not exist: a command or an option; "" where all of it does."""
    command: Any = typer.main.get_command(app)
    options = _options(command)
    for word in words:
        group = getattr(command, "commands", None)
        if word.startswith("-"):
            if word.startswith("--") and word.partition("=")[0] not in options:
                return word
        elif group is not None and not _is_value(words, word):
            if word not in group:
                return word
            command = group[word]
            options |= _options(command)
    return words[-1] if words and getattr(command, "commands", None) and "--version" not in words else ""


def _is_value(words: list[str], word: str) -> bool:
    """Whether it is the value of `--config`, the one option before a command that has one."""
    return words.index(word) > 0 and words[words.index(word) - 1] == "--config"


def _options(command: Any) -> set[str]:
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
