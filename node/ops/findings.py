"""What a check of the settings found: mistakes, with which the node would not work, and warnings."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One sentence for the operator. With a mistake the node does not start, or cannot do what the settings say."""

    text: str
    is_mistake: bool = True


def warning(text: str) -> Finding:
    """A finding with which the node works."""
    return Finding(text, is_mistake=False)


def why_unreadable(path: Path) -> str | None:
    """Why this user cannot read a file, in the words of the system; None where the file can be read."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return error.strerror or str(error)
    return None


def nearest_folder(path: Path) -> Path:
    """The path itself, or what of it exists already."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path
