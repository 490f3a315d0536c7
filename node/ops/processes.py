"""One lock file per running process, so that a reader can tell a live process from one that was killed.

The lock is the kernel's (flock): it vanishes with the process, whatever killed it, and needs no clean-up.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from node.errors import Misconfigured

_TRIES, _BETWEEN_TRIES_S = 5, 0.02


class AlreadyRunning(Misconfigured):
    """Another process of the same role and name works on this data directory."""


@dataclass(frozen=True)
class ProcessView:
    """A process that is alive on this host; `details` says what it works with, such as the device."""

    role: str
    name: str
    pid: int
    started_at: str
    details: str


@contextmanager
def process_lock(run_dir: Path, role: str, name: str, details: str = "") -> Iterator[Callable[[str], None]]:
    """Hold the role for as long as the block runs; yields a function that replaces `details`.

    Raises AlreadyRunning.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / f"{role}-{name}.lock"
    # Not truncated on opening: the text may be that of a process which holds the lock.
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0) as file:
        if not _locked(file.fileno()):
            raise AlreadyRunning(f"another {role} process named {name!r} is running ({path} is locked)")
        view = ProcessView(role, name, os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"), details)

        def describe(details: str) -> None:
            # One write over the whole of the old text: a reader meets either, never a part.
            text = json.dumps(asdict(replace(view, details=details))).encode()
            os.pwrite(file.fileno(), text.ljust(os.fstat(file.fileno()).st_size), 0)

        describe(details)
        yield describe


def _locked(descriptor: int) -> bool:
    """Take the lock; False where another process has it for longer than a reader looks, which is microseconds."""
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_BETWEEN_TRIES_S)
    return False


def running_processes(run_dir: Path) -> list[ProcessView]:
    """The processes of this host that hold their lock right now."""
    views = []
    for path in sorted(run_dir.glob("*.lock")):
        with path.open("r", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if text := file.read():
                    views.append(ProcessView(**json.loads(text)))
    return views
