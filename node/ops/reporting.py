"""A process tells the store how it is, so that it is known on every host; on PostgreSQL only.

Its lock file (`node.ops.processes`) says more, but only on its own host, where nobody needs the store to see it.

Leases go by the name of a process, and a process that starts takes back what an earlier one of its name had in hand. On
hosts with one data folder the lock files keep two of one name apart. With a data folder for each host, hosts that have
the same name by mistake would take each other's jobs: so a process does not begin beside another one of its name.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Final

from node.ops.processes import AlreadyRunning, ProcessView, Sign, process_name
from storage.database import Database
from storage.errors import SchemaMismatch, StorageError, StoreUnavailable
from storage.hosts import REPORT_EVERY_S, HostStore, ReportedProcess
from storage.outage import Outage

LOOK_S: Final = 1.0
DEAD_AFTER: Final = timedelta(seconds=2.5 * REPORT_EVERY_S)
"""A process that missed two reports is not alive, or cannot reach the database."""


@contextmanager
def reported(database: Database, sign: Sign, version: str, stop: threading.Event) -> Iterator[None]:
    """Report the process of a lock file while the block runs, and that it left at its end.

    `stop` ends the process; it is set where another one has taken its name, as when this one was cut off from the
    database for long. Raises AlreadyRunning where one of its name lives, and StoreUnavailable.
    """
    if database.is_sqlite:
        yield
        return
    report = _Report(database, sign, version, stop)
    report.await_name()
    ends = threading.Event()
    thread = threading.Thread(target=report.run, args=(ends,), name="reports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
        report.leave()
    if report.taken:
        raise AlreadyRunning(report.taken)


class _Report:
    """What one process reports of itself; `taken`: why it must end, where another one has its name."""

    def __init__(self, database: Database, sign: Sign, version: str, stop: threading.Event) -> None:
        self._now: Callable[[], datetime] = database.now
        self._store, self._sign, self._version, self._stop = HostStore(database), sign, version, stop
        self._name = process_name(sign.view.role, sign.view.name)
        self.taken = ""

    def await_name(self) -> None:
        """Wait until it is certain that no other process of this name lives; no longer than `DEAD_AFTER`."""
        first = self._store.named(self._name)
        if first is None or _is(first, self._sign.before):
            return
        found: ReportedProcess | None = first
        while found is not None and self._now() - found.seen_at < DEAD_AFTER and not self._stop.is_set():
            if found.seen_at != first.seen_at:
                raise AlreadyRunning(_words(found))
            self._stop.wait(LOOK_S)
            found = self._store.named(self._name)

    def run(self, ends: threading.Event) -> None:
        """Report until `ends` is set, or the name is taken."""
        outage, has_reported, pause_s = Outage("the report of this process"), False, 0.0
        while not ends.wait(pause_s):
            try:
                if has_reported and self._is_taken():
                    self._stop.set()
                    return
                self._store.report(self._what())
                outage.over()
                has_reported, pause_s = True, REPORT_EVERY_S
            except StoreUnavailable as error:
                pause_s = outage.failed(error)
            except SchemaMismatch as error:  # the process has been told to end
                outage.failed(error)
                return

    def leave(self) -> None:
        """Nobody shall miss this process."""
        with suppress(StorageError):  # then its row grows old
            self._store.leave(self._name, self._sign.view.pid, self._sign.view.start)

    def _is_taken(self) -> bool:
        found = self._store.named(self._name)
        if found is not None and (found.pid, found.started_at) != (self._sign.view.pid, self._sign.view.start):
            self.taken = _words(found)
        return bool(self.taken)

    def _what(self) -> ReportedProcess:
        view, beats = self._sign.view, [asdict(beat) for beat in self._sign.view.beats]
        identity = (self._name, view.host[:64], view.role, view.pid, self._version[:64])
        return ReportedProcess(*identity, view.details, beats, view.start, self._now())


def _is(found: ReportedProcess, before: ProcessView | None) -> bool:
    """Whether what was reported is the process that had the lock file before."""
    return before is not None and (found.pid, found.started_at) == (before.pid, before.start)


def _words(found: ReportedProcess) -> str:
    return (
        f"another process named {found.name} reports itself, pid {found.pid}, begun "
        f"{found.started_at:%Y-%m-%d %H:%M:%S} UTC: two hosts have one name; give one of them another host name"
    )
