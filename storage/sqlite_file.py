"""How a SQLite file is opened by those who only read it.

Nothing here opens the file except through SQLite: whoever closes a file of his own on it gives up SQLite's locks.
"""

import sqlite3
from pathlib import Path
from urllib.parse import quote

from storage.errors import StoreUnavailable

SQLITE_BUSY_TIMEOUT_MS = 30_000


class ReadOnlyFile:
    """Opens a SQLite file for readers, which change nothing beside it and need not be allowed to.

    SQLite itself, asked to open a database in WAL mode for reading, makes its -wal and -shm files and leaves them
    there; in a folder that it may not write it opens nothing. Where no process has the database open, and none was
    killed while it had, there is nothing in these files, and the database is opened as one that cannot change. That
    this was true is checked after every read. Where the files are in use, SQLite makes none and locks as usual.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None

    def connect(self) -> sqlite3.Connection:
        """A connection that refuses to write."""
        in_use = self._in_use()
        self._stamp = None if in_use else self._stamp_now()
        uri = f"file:{quote(str(self._path))}?mode=ro{'' if in_use else '&immutable=1'}"
        return sqlite3.connect(
            uri, uri=True, timeout=SQLITE_BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
        )

    def check(self) -> None:
        """Raise StoreUnavailable where the file changed although nobody seemed to have it open."""
        if self._stamp is not None and self._stamp != self._stamp_now():
            raise StoreUnavailable(f"the store {self._path} changed while it was read; run the command again")

    def _in_use(self) -> bool:
        wal, shm, journal = (_size(Path(f"{self._path}{suffix}")) for suffix in ("-wal", "-shm", "-journal"))
        return bool(wal) or (wal is not None and shm is not None) or journal is not None

    def _stamp_now(self) -> tuple[int, ...]:
        status = self._path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
