"""What can happen to a kept file, its folder and the whole spool; each damage is a function of the file's path."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def deleted(path: Path) -> None:
    path.unlink()


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def overwritten(path: Path) -> None:
    """The last bytes, which are pixels; the size stays."""
    data = path.read_bytes()
    path.write_bytes(data[:-4] + bytes(byte ^ 0x55 for byte in data[-4:]))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").write_bytes(b"else")


def a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def a_link_to_another_file(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_link_to_a_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def grown(path: Path) -> None:
    """A tebibyte that takes no place on the disk, and hours to read."""
    os.truncate(path, 1 << 40)


def folder_deleted(path: Path) -> None:
    shutil.rmtree(path.parent)


def folder_a_file(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_bytes(b"no folder")


def folder_a_link_to_nothing(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.symlink_to("/nowhere/at/all")


def all_folders_deleted(path: Path) -> None:
    """`received` or `derived`."""
    shutil.rmtree(path.parent.parent)


def spool_deleted(path: Path) -> None:
    shutil.rmtree(path.parent.parent.parent)


OF_A_FILE: list[Callable[[Path], None]] = [
    *(deleted, truncated, zeroed, overwritten, a_folder),
    *(a_link_to_nothing, a_link_to_another_file, a_pipe),
]
OF_FOLDERS: list[Callable[[Path], None]] = [
    *(folder_deleted, folder_a_file, folder_a_link_to_nothing, all_folders_deleted, spool_deleted)
]
EVERY = OF_A_FILE + OF_FOLDERS
