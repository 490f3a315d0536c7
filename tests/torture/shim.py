"""Builds `shim.c`, gives it to processes, tells it when to act, and reads what it wrote down."""

import ctypes
import enum
import functools
import hashlib
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import require_program

_SOURCE = Path(__file__).with_name("shim.c")
_HEAD = struct.Struct("<IIQQIHH")
EXIT, TORN = -1, -2  # actions beside an errno: end the process before the call, or after half of the write


class Kind(enum.IntEnum):
    """What a call does; the numbers are those of `enum kind` in the shim, MARK is written by tests only."""

    OPEN = 1
    CREATE = 2
    WRITE = 3
    SYNC = 4
    SYNC_DIRECTORY = 5
    RENAME = 6
    LINK = 7
    UNLINK = 8
    MKDIR = 9
    RMDIR = 10
    TRUNCATE = 11
    MARK = 100


EVERY_KIND = tuple(kind for kind in Kind if kind is not Kind.MARK)
NEEDS_SPACE = (Kind.CREATE, Kind.WRITE, Kind.MKDIR, Kind.TRUNCATE)
NEEDS_INODE = (Kind.CREATE, Kind.MKDIR)


@dataclass(frozen=True)
class Record:
    """One call that changed something, in the order in which they happened; `offset` is a length for TRUNCATE."""

    kind: Kind
    inode: int
    offset: int
    pid: int
    path: str
    target: str
    data: bytes


class _Control(ctypes.LittleEndianStructure):
    _fields_ = (
        ("count", ctypes.c_int64),
        ("at", ctypes.c_int64),
        ("action", ctypes.c_int32),
        ("sticky", ctypes.c_int32),
        ("only_pid", ctypes.c_int32),
        ("mask", ctypes.c_int32),
        ("fired", ctypes.c_int64),
        ("clock_s", ctypes.c_int64),
    )


@functools.cache
def built_shim() -> Path:
    """The shim as a library; without a compiler the test is skipped, or fails where SYNCECT_REQUIRE_PEERS is set."""
    compiler = require_program("a C compiler", "gcc", "cc")
    name = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"syncect-shim-{os.getuid()}-{name}.so"
    if not target.exists():
        draft = target.with_suffix(f".{os.getpid()}")
        subprocess.run(
            [compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", str(draft), str(_SOURCE), "-ldl", "-lpthread"],
            check=True,
        )
        draft.rename(target)
    return target


class Shim:
    """One shim over everything below `root`; its own files lie in `folder`, which must not lie below the root."""

    def __init__(self, folder: Path, root: Path, *, records: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        root.mkdir(parents=True, exist_ok=True)
        self.root = root.resolve()
        self._log = folder / "records" if records else None
        if self._log is not None:
            self._log.touch()
        path = folder / "control"
        path.write_bytes(bytes(ctypes.sizeof(_Control)))
        with path.open("r+b") as file:
            self._control = _Control.from_buffer(mmap.mmap(file.fileno(), 0))
        self.environment = {
            "LD_PRELOAD": str(built_shim()),
            "SHIM_ROOT": str(self.root),
            "SHIM_CONTROL": str(path),
            **({"SHIM_LOG": str(self._log)} if self._log is not None else {}),
        }
        self.disarm()

    def arm(
        self, at: int, action: int, *, sticky: bool = False, only_pid: int = 0, kinds: tuple[Kind, ...] = EVERY_KIND
    ) -> None:
        """Act at the `at`-th call from now on, counted from 1 over calls of these kinds (0 for every process)."""
        control = self._control
        control.at = 0
        control.action, control.sticky, control.only_pid = action, int(sticky), only_pid
        control.mask = sum(1 << kind for kind in kinds)
        control.count = control.fired = 0
        control.at = at

    def set_clock(self, offset_s: int) -> None:
        """Let the system clock of the processes be so far ahead of the true one; a negative number is behind it."""
        self._control.clock_s = offset_s

    def disarm(self) -> None:
        """Only count from now on."""
        self.arm(0, EXIT)

    @property
    def count(self) -> int:
        """Calls since it was armed or disarmed."""
        return int(self._control.count)

    @property
    def fired(self) -> int:
        """How often it acted since it was armed."""
        return int(self._control.fired)

    def mark(self, text: str) -> None:
        """Write a remark between the records."""
        assert self._log is not None
        write_mark(self._log, text)

    def records(self) -> list[Record]:
        """What was written down so far."""
        assert self._log is not None
        return list(_read(self._log.read_bytes()))


def write_mark(log: Path, text: str) -> None:
    """Append a remark to the records of a shim; a single write, so that nothing comes between its parts."""
    data = text.encode()
    head = _HEAD.pack(_HEAD.size + len(data), Kind.MARK, 0, 0, os.getpid(), 0, 0)
    with log.open("ab", buffering=0) as file:
        file.write(head + data)


def _read(log: bytes) -> Iterator[Record]:
    at = 0
    while at < len(log):
        size, kind, inode, offset, pid, path_bytes, target_bytes = _HEAD.unpack_from(log, at)
        path, target = at + _HEAD.size, at + _HEAD.size + path_bytes
        data = target + target_bytes
        yield Record(
            Kind(kind),
            inode,
            offset,
            pid,
            os.fsdecode(log[path:target]),
            os.fsdecode(log[target:data]),
            log[data : at + size],
        )
        at += size


def copy_tree(source: Path, target: Path) -> Path:
    """Copy a folder that no process changes at the moment."""
    shutil.copytree(source, target)
    return target
