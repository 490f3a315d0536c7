"""A folder that is replaced as a whole: whenever the process dies, there is the old one or the new one."""

import ctypes
import os
import shutil
from collections.abc import Callable
from pathlib import Path

_HERE = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE, Linux 3.15


def replace_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` make a folder beside `folder`, see it safe on the disk, and let it take the place of `folder`.

    Where the file system cannot exchange two folders in one step, the old one is for a moment called <name>.previous;
    `recover_folder` finds it again after a crash at that moment. Raises OSError.
    """
    fresh, previous = _beside(folder, "fresh"), _beside(folder, "previous")
    shutil.rmtree(fresh, ignore_errors=True)
    fill(fresh)
    for file in (*fresh.iterdir(), fresh):
        _sync(file)
    if not folder.exists():
        fresh.rename(folder)
    elif _exchanged(fresh, folder):
        shutil.rmtree(fresh)
    else:
        folder.rename(previous)
        fresh.rename(folder)
        shutil.rmtree(previous)
    _sync(folder.parent)


def recover_folder(folder: Path) -> None:
    """Put things right after a crash: the former folder where there is no new one, and no leftovers."""
    fresh, previous = _beside(folder, "fresh"), _beside(folder, "previous")
    if previous.exists() and not folder.exists():
        previous.rename(folder)
    for left in (fresh, previous):
        shutil.rmtree(left, ignore_errors=True)


def _beside(folder: Path, word: str) -> Path:
    return folder.with_name(f"{folder.name}.{word}")


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the system let two folders change places; an old C library or a network file system may not."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return rename is not None and rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
