"""One lock file per running process, so that a reader can tell a live process from one that was killed.

The lock is the kernel's (flock): it vanishes with the process, whatever killed it, and needs no clean-up. The text of
the file says what the process works at (`node.beats`), and, for `serve`, which roles wait for their next start and why.
"""

import fcntl
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node.beats import CANNOT_WORK, WAITS_FOR_DATABASE, Beat, overdue
from node.errors import Misconfigured
from node.ops.clock import this_boot
from storage.hosts import Host, roles_on

log = logging.getLogger(__name__)

STARTER = "SYNCECT_STARTER"  # of the environment: the supervisor's name for itself
_TRIES, _BETWEEN_TRIES_S = 5, 0.02


class AlreadyRunning(Misconfigured):
    """Another process of the same role and name works on this data directory."""


@dataclass(frozen=True)
class Waiting:
    """A role that does not run: since when, why, and when it is tried again. Times are UTC, ISO 8601."""

    role: str
    since: str
    next_try_at: str
    reason: str


@dataclass(frozen=True)
class ProcessView:
    """A process that is alive on this host; `details` says what it works with, such as the device.

    beats: what it works at, one for each line of its work. waiting: the roles that `serve` could not start. numbers:
    what it has counted since it began (`node.beats.Numbers`), as of its last beat.
    """

    role: str
    name: str
    pid: int
    started_at: str
    details: str
    host: str = ""
    beats: tuple[Beat, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)

    @property
    def start(self) -> datetime:
        """When it began, UTC."""
        return datetime.fromisoformat(self.started_at)

    @property
    def cannot_work(self) -> str:
        """Why the process cannot do its work although it lives; "" where it can."""
        return self.details.removeprefix(CANNOT_WORK) if self.details.startswith(CANNOT_WORK) else ""

    @property
    def waits_for_database(self) -> bool:
        """Whether a line of its work waits until the database answers again."""
        return any(beat.stage == WAITS_FOR_DATABASE for beat in self.beats)

    def silent(self, now_s: float | None = None) -> Beat | None:
        """The line of work that says nothing for longer than it said it would; None where the process responds."""
        if self.host != socket.gethostname():
            return None  # its clock is not ours
        return overdue(self.beats, time.monotonic() if now_s is None else now_s)


@dataclass
class Sign:
    """The text of a lock file, changed by the process that holds it; what cannot be written is not said.

    Where somebody removed the file, or its folder, it is made and locked again: else nobody would see that the process
    lives, and a second one would begin beside it.
    """

    _path: Path
    _descriptor: int
    _view: ProcessView
    before: ProcessView | None = None  # who had the lock last; it lives no more
    numbers: Callable[[], Mapping[str, float]] = dict  # of the process; asked for at each beat

    @property
    def view(self) -> ProcessView:
        """What the lock file says now."""
        return self._view

    def __call__(self, details: str) -> None:
        """Replace `details`."""
        with suppress(OSError):
            self.show(replace(self._view, details=details))

    def beats(self, beats: Sequence[Beat]) -> None:
        """Replace what the process works at, and its numbers. Raises OSError."""
        self.show(replace(self._view, beats=tuple(beats), numbers=self.numbers()))

    def waiting(self, roles: Sequence[Waiting]) -> None:
        """Replace which roles wait, and why."""
        with suppress(OSError):
            self.show(replace(self._view, waiting=tuple(roles)))

    def show(self, view: ProcessView) -> None:
        """Replace all of it. Raises OSError."""
        # One write over the whole of the old text: a reader meets either, never a part.
        self._view = view
        if not self._is_there():
            self._come_back()
        text = json.dumps(asdict(view)).encode()
        os.pwrite(self._descriptor, text.ljust(os.fstat(self._descriptor).st_size), 0)

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _come_back(self) -> None:
        self._path.parent.mkdir(exist_ok=True)  # never those above: the disk may not be mounted any more
        descriptor = _open(self._path)
        try:
            if _locked(descriptor):
                os.dup2(descriptor, self._descriptor, inheritable=False)
                log.warning(
                    "somebody removed %s, which says that this process runs; it is there again",
                    self._path,
                    extra={"event": "lock_file_removed"},
                )
        finally:
            os.close(descriptor)


@contextmanager
def process_lock(run_dir: Path, role: str, name: str, details: str = "") -> Iterator[Sign]:
    """Hold the role for as long as the block runs; yields what changes the text that readers see.

    Raises AlreadyRunning, and OSError where the lock file cannot be written.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / f"{role}-{name}.lock"
    with os.fdopen(_open(path), "r+b", buffering=0) as file:
        if not _locked(file.fileno()):
            raise AlreadyRunning(f"another {role} process named {name!r} is running ({path} is locked)")
        started_at = datetime.now(UTC).isoformat(timespec="microseconds")  # tells processes of one pid apart
        view = ProcessView(role, name, os.getpid(), started_at, details, socket.gethostname())
        sign = Sign(path, file.fileno(), view, _view(file.read().decode(errors="replace")))
        sign.show(view)
        yield sign


def process_name(role: str, name: str = "1") -> str:
    """Name under which a process holds leases: the same after a restart, different on every host."""
    return f"{role}-{name}@{socket.gethostname()}"[:80]


def starter() -> str:
    """What started this process and goes on where it ends alone: its supervisor, or else this boot of the machine."""
    return os.environ.get(STARTER) or this_boot()


def _open(path: Path) -> int:
    """Not truncated: the text may be that of a process which holds the lock."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _locked(descriptor: int) -> bool:
    """Take the lock; False where another process has it for longer than a reader looks, which is microseconds."""
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_BETWEEN_TRIES_S)
    return False


def running_processes(run_dir: Path) -> list[ProcessView]:
    """The processes of this host that hold their lock right now; none where nobody may look."""
    views = []
    for path in sorted(run_dir.glob("*.lock")):
        with suppress(OSError), path.open("r", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if view := _view(file.read()):
                    views.append(view)
    return views


def working_roles(views: Sequence[ProcessView]) -> frozenset[str]:
    """The roles that have a process, without those that failed and have not begun their work since.

    A process holds its lock before it can know whether it can work: a receiver whose port is taken, for instance.
    """
    failed = {one.role for view in views for one in view.waiting}
    return frozenset(view.role for view in views) - failed


def roles_elsewhere(views: Sequence[ProcessView], hosts: Iterable[Host]) -> frozenset[str]:
    """The roles that other hosts run, which therefore need not run here; none where `serve` runs every role here.

    views: the processes of this host.
    """
    if any(view.role == "serve" for view in views):
        return frozenset()
    return roles_on(host for host in hosts if host.name != socket.gethostname())


def kill_silent(run_dir: Path, role: str, name: str) -> None:
    """Kill the process of this host that holds a role and has not said for too long that it works at anything.

    Its lock is what keeps the next one from its start.
    """
    for view in running_processes(run_dir):
        if (view.role, view.name) != (role, name) or view.pid == os.getpid() or (late := view.silent()) is None:
            continue
        silent_s = late.silent_s(time.monotonic())
        log.error(
            "killing %s, pid %d, which an earlier start left: silent for %.0f s",
            role,
            view.pid,
            silent_s,
            extra={"event": "silent_process_killed", "child": role},
        )
        with suppress(ProcessLookupError, PermissionError):
            os.kill(view.pid, signal.SIGKILL)


def _view(text: str) -> ProcessView | None:
    """What a lock file says; None for a text that a full disk cut short, or that another version wrote."""
    try:
        found: dict[str, Any] = json.loads(text)
        beats = tuple(Beat(**beat) for beat in found.pop("beats", ()))
        waiting = tuple(Waiting(**role) for role in found.pop("waiting", ()))
        return ProcessView(**found, beats=beats, waiting=waiting)
    except (ValueError, TypeError):
        return None
