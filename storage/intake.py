"""Intake is the one object through which a receiver makes instances durable; it knows no network.

The order is always the same: the file, its directory entry, its row, and only then the return. So a row never misses
its file; what a crash can leave behind is a file to which no row refers.

Arrivals of many associations are committed together (group commit, leader and followers). One sync of a directory and
one commit cost the same for one instance as for twenty-five. The first caller to arrive while nobody writes becomes the
leader and commits for all that wait; the others are followers, and when the leader has finished, the first of those
who came meanwhile is the next leader. A single association hands nothing over to another thread.
"""

import hashlib
import threading
from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar, cast

from storage.series import Arrival, Entry, Identifiers, Receipt, Recorded, SeriesStore
from storage.spool import Spool

T = TypeVar("T")


class _Waiting:
    """One caller; `answer` is set by the leader that committed for it, before it is woken."""

    def __init__(self, entry: Entry[object]) -> None:
        self.entry = entry
        self.answered = False
        self.answer: object = None
        self.woken = threading.Event()


class Intake:
    """The way into one spool and one store."""

    def __init__(self, spool: Spool, series: SeriesStore) -> None:
        self._spool, self._series = spool, series
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._has_leader = False

    def clear_up(self, receiver: str, now: datetime) -> tuple[int, int]:
        """End what a killed receiver of this name left: its open associations and its unfinished files; their counts.

        Only the one process that listens may call this.
        """
        return self._series.lose_associations(receiver, now), self._spool.sweep_incoming()

    def spare_bytes(self) -> int:
        """Free space above the reserve; negative below it."""
        return self._spool.spare_bytes()

    def keep(
        self, association_id: int, calling_ae: str, identifiers: Identifiers, parts: Sequence[bytes], now: datetime
    ) -> Recorded:
        """Make one instance durable, file and row; only after this returns may it be answered with 0x0000.

        `parts` joined are the file. Raises SpoolFull, or what went wrong; then no row exists, or it has its file.
        """
        name = self._spool.keep(parts, now)
        try:
            digest = hashlib.sha256()
            for part in parts:
                digest.update(part)
            arrival = Arrival(
                **vars(identifiers),
                sha256=digest.hexdigest(),
                spool_name=name,
                size_bytes=sum(len(part) for part in parts),
            )
            recorded = self.commit(Receipt(association_id, calling_ae, arrival, now))
        except BaseException:
            self._discard(name)
            raise
        if recorded is Recorded.DUPLICATE:
            self._discard(name)
        return recorded

    def _discard(self, name: str) -> None:
        """Remove a file that came to nothing, unless a row has it."""
        # A commit may have reached the database although its answer was lost; a row must never miss its file.
        if not self._series.is_referenced(name):
            self._spool.discard(name)

    # -- group commit ------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many entries wait for the next commit."""
        return len(self._waiting)

    def commit(self, entry: Entry[T]) -> T:
        """Commit one entry, together with those that wait; on return a power cut loses neither its row nor its file.

        Raises what went wrong with this entry, or with the whole disk or database; the others of the group go on.
        """
        mine = _Waiting(entry)
        with self._lock:
            self._waiting.append(mine)
            leads, self._has_leader = not self._has_leader, True
        if not leads:
            mine.woken.wait()
        if not mine.answered:
            self._lead()
        if isinstance(mine.answer, BaseException):
            raise mine.answer
        return cast(T, mine.answer)

    def _lead(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting, []
        answers: Sequence[object]
        try:
            answers = self._write([waiting.entry for waiting in group])
        except BaseException as error:
            answers = [error] * len(group)
        for waiting, answer in zip(group, answers, strict=True):
            waiting.answer, waiting.answered = answer, True
            waiting.woken.set()
        with self._lock:
            if self._waiting:
                self._waiting[0].woken.set()  # without an answer: it is the next leader
            else:
                self._has_leader = False

    def _write(self, entries: Sequence[Entry[object]]) -> Sequence[object]:
        # Names first: a row that survives a power cut must find its file.
        names = [entry.arrival.spool_name for entry in entries if isinstance(entry, Receipt)]
        if names:
            self._spool.settle(names)
        return self._series.record_group(entries)
