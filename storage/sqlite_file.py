"""How a SQLite file is opened by those who write it and by those who only read it, and how both notice another file.

Nothing here opens the file except through SQLite: whoever closes a file of his own on it gives up SQLite's locks.
"""

import sqlite3
import threading
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from storage.errors import StoreUnavailable

SQLITE_BUSY_TIMEOUT_MS = 30_000
_SMALL_BYTES = 8 * 1024**2  # a SQLite file that is checked as a whole in about 20 ms


class FileIdentity(NamedTuple):
    """Which files a connection has open: device and inode of the database and of its write-ahead log (0 for none)."""

    device: int
    inode: int
    wal_inode: int


class WrittenFile:
    """Opens a SQLite file for writers. It makes no file: one that is gone must not come back as an empty store.

    SQLite goes on writing into a file that was deleted or replaced, and no reader ever sees what it writes. `check`
    costs two calls of the system; it is meant to stand before and after every commit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mark: str | None = None  # of the store that this path must lead to, once that is known
        self.lock_wait_s = SQLITE_BUSY_TIMEOUT_MS / 1000
        self._turn = threading.Lock()
        self._content: tuple[int, int] | None = None
        self._opened: FileIdentity | None = None

    def connect(self) -> sqlite3.Connection:
        """A connection to the file that the path leads to now; raises sqlite3.Error."""
        before = self.identity()
        if before is None:
            raise sqlite3.OperationalError("the file is gone")
        if self._is_beside_a_foreign_log(before):
            raise sqlite3.OperationalError(
                "the file was replaced while it was in use; stop the node. If this is the same database as before, "
                "start the node again; if it is a backup, first remove the files that end with -wal and -shm"
            )
        connection = self._connection("rw")
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            connection.execute("PRAGMA synchronous=FULL").close()  # a committed row survives a power cut
            connection.execute("PRAGMA foreign_keys=ON").close()
            self._require_mark(connection)  # from here on the write-ahead log is open as well
            after = self.identity()
            if after is None or after.inode != before.inode:
                raise sqlite3.OperationalError("the file was replaced a moment ago")
        except BaseException:
            connection.close()
            raise
        return connection

    def identity(self) -> FileIdentity | None:
        """What the path leads to now; None for nothing."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return FileIdentity(status.st_dev, status.st_ino, _inode(Path(f"{self.path}-wal")))

    def opened(self) -> FileIdentity | None:
        """What a connection has open that was made a moment ago; `check` wants it."""
        self._opened = self.identity()
        return self._opened

    def is_same(self, opened: FileIdentity | None) -> bool:
        """Whether the path still leads to the files that a connection has open."""
        return opened is not None and self.identity() == opened

    def check(self, opened: FileIdentity | None) -> None:
        """Raise StoreUnavailable where readers would not see what was written through a connection."""
        if not self.is_same(opened):
            raise StoreUnavailable(f"the store {self.path} cannot be used: the file was removed or replaced")
        try:
            self._look_into()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the store {self.path} cannot be used: {error}") from error

    def _look_into(self) -> None:
        """Where somebody changed the file, and be it SQLite at a checkpoint, see whether it still is a database."""
        status = self.path.stat()
        content = status.st_size, status.st_mtime_ns
        with self._turn:
            known = self._content
        if known == content:
            return
        connection = self._connection("ro")
        try:
            self._require_mark(connection)
            if status.st_size <= _SMALL_BYTES or (known is not None and status.st_size < known[0]):
                require_sound(connection)
        finally:
            connection.close()
        with self._turn:
            self._content = content

    def _require_mark(self, connection: sqlite3.Connection) -> None:
        if self.mark is None:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return
        row = connection.execute("SELECT uid FROM store_mark").fetchone()
        if row is None or row[0] != self.mark:
            raise sqlite3.OperationalError("it is another store than the one that this spool belongs to")

    def _is_beside_a_foreign_log(self, found: FileIdentity) -> bool:
        known = self._opened
        return known is not None and found.inode != known.inode and 0 != found.wal_inode == known.wal_inode

    def _connection(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{quote(str(self.path))}?mode={mode}",
            uri=True,
            timeout=self.lock_wait_s,
            isolation_level=None,  # the driver's own transaction control would delay BEGIN until the first write
            check_same_thread=False,
        )


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


def require_sound(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError where SQLite finds the database damaged; it reads the whole file."""
    (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        raise sqlite3.DatabaseError(f"it is damaged ({' '.join(str(answer).split())})")


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0
