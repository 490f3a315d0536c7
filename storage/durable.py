"""What a power cut must not take away: the entries of a directory, and small files that are written once."""

import os
from contextlib import suppress
from pathlib import Path


def fsync_directory(path: Path) -> None:
    """Force the entries of one directory to the disk; without it a rename may vanish in a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, text: str, *, replace: bool = False) -> None:
    """Write a file whole and for its owner alone; without `replace` one that is there already stays. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)  # a power cut would else leave a name without its content
    if replace:
        draft.replace(path)
    else:
        with suppress(FileExistsError):  # another process was first; its file counts
            os.link(draft, path)
        draft.unlink()
    fsync_directory(path.parent)
