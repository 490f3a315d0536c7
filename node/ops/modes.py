"""What this node writes is for its own user alone, whatever the umask of whoever started it says."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_SHALLOW = ("run", "log", "spool", "spool/received", "spool/derived", "spool/incoming")


def close_to_others() -> None:
    """From now on this process makes no file that another user may read."""
    os.umask(_OTHERS)


def mend_modes(data_dir: Path) -> None:
    """Take the rights of other users from the data directory and what lies in it, and say so.

    Folders that only this user may enter protect what is in them, so that no day of the spool is walked through.
    """
    mended = [path for path in loose(data_dir) if _mend(path)]
    if mended:
        log.warning(
            "other users of this machine could read %s%s; now they cannot",
            mended[0],
            f" and {len(mended) - 1} more files and folders" if len(mended) > 1 else "",
            extra={"event": "modes_mended"},
        )


def loose(data_dir: Path) -> list[Path]:
    """What other users of the machine may read, write or enter; files that went meanwhile are left out."""
    found = []
    for path in _looked_at(data_dir):
        try:
            mode = path.lstat().st_mode
        except OSError:
            continue
        if not stat.S_ISLNK(mode) and mode & _OTHERS:
            found.append(path)
    return found


def _looked_at(data_dir: Path) -> Iterator[Path]:
    yield data_dir
    for folder in (data_dir, *(data_dir / name for name in _SHALLOW)):
        try:
            yield from folder.iterdir()
        except OSError:
            continue


def _mend(path: Path) -> bool:
    try:
        path.chmod(path.lstat().st_mode & ~_OTHERS & 0o7777)
    except OSError as error:
        log.error(
            "other users of this machine can read %s, and that cannot be changed: %s",
            path,
            error.strerror,
            extra={"event": "modes_not_mended"},
        )
        return False
    return True
