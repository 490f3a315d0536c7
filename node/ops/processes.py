"""One lock file per running process, so that a reader can tell a live process from one that was killed.

The lock is the kernel's (flock): it vanishes with the process, whatever killed it, and needs no clean-up.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from node.errors import Misconfigured


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
def process_lock(run_dir: Path, role: str, name: str, details: str = "") -> Iterator[None]:
    """Hold the role for as long as the block runs; raises AlreadyRunning."""
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / f"{role}-{name}.lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(f"another {role} process named {name!r} is running ({path} is locked)") from error
        view = ProcessView(role, name, os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"), details)
        file.truncate(0)
        file.write(json.dumps(asdict(view)))
        file.flush()
        yield


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
