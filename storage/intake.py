"""Intake is the one object through which a receiver makes instances durable; it knows no network.

The order is always the same: the file, its directory entry, its row, and only then the return. So a row never misses
its file; what a crash can leave behind is a file to which no row refers.

Arrivals of many associations are committed together (group commit, leader and followers). One sync of a directory and
one commit cost the same for one instance as for twenty-five. The first caller to arrive while nobody writes becomes the
leader and commits for all that wait; the others are followers, and when the leader has finished, the first of those
who came meanwhile is the next leader. A single association hands nothing over to another thread.

While the database cannot be used nothing new is written to the disk. What must not be forgotten meanwhile, such as the
end of an association, is kept in memory and recorded as soon as the database is back.

How long a sender pauses within a series is measured here as well, in memory, so that an arrival costs nothing for it.
"""

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from storage.entries import Entry
from storage.errors import StoreUnavailable
from storage.outage import Outage
from storage.owners import UNKNOWN_CREDENTIALS, Credentials
from storage.peers import LONGEST_PAUSE_S
from storage.series import Arrival, Identifiers, Pause, Receipt, Recorded, SeriesStore
from storage.sources import Restored
from storage.spool import Condition, Spool

T = TypeVar("T")
log = logging.getLogger(__name__)

SHORTEST_PAUSE_S = 1.0  # no series is taken for complete so soon
_REPORT_AGAIN = timedelta(days=1)
_MAX_SERIES = 1000
_MAX_OWED = 10_000  # entries; some megabytes
_CATCH_UP_S = 10.0  # so long a sender waits for its answer, and none gives up before
_RETRY_S = 1.0  # a sender that tries again shall find a database that is back


class _Waiting:
    """One caller; `answer` is set by the leader that committed for it, before it is woken."""

    def __init__(self, entry: Entry[object]) -> None:
        self.entry = entry
        self.answered = False
        self.answer: object = None
        self.woken = threading.Event()


class Intake:
    """The way into one spool and one store; `takes_foreign` as in `Receipt`."""

    def __init__(self, spool: Spool, series: SeriesStore, *, takes_foreign: bool = False) -> None:
        self._spool, self._series, self._takes_foreign = spool, series, takes_foreign
        self.pauses = Pauses()
        self._debts = _Debts()
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._has_leader = False
        self._writing_since_s: float | None = None

    def clear_up(self, receiver: str, now: datetime) -> tuple[int, int]:
        """End what a killed receiver of this name left: its open associations and its unfinished files; their counts.

        Only the one process that listens may call this.
        """
        return self._series.lose_associations(receiver, now), self._spool.sweep_incoming()

    def spare_bytes(self) -> int:
        """Free space above the reserve; negative below it."""
        return self._spool.spare_bytes()

    def keep(
        self,
        association_id: int,
        calling_ae: str,
        identifiers: Identifiers,
        parts: Sequence[bytes],
        now: datetime,
        *,
        shown: Credentials = UNKNOWN_CREDENTIALS,
    ) -> Recorded:
        """Make one instance durable, file and row; only after this returns may it be answered with 0x0000.

        With `Recorded.FOREIGN` or `Recorded.BARRED` nothing was kept: the peer may not send for the series.

        `parts` joined are the file. Raises SpoolFull, ObjectsUnavailable, or what went wrong; then no row exists, or it
        has its file.
        """
        self._debts.require_none()
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
            recorded = self.commit(Receipt(association_id, calling_ae, arrival, now, shown, self._takes_foreign))
        except StoreUnavailable:
            self._debts.add(name, lambda: self._discard_settled(name))
            raise
        except BaseException:
            self._discard(name)
            raise
        if recorded is Recorded.DUPLICATE:
            self._restore_or_discard(arrival, now)
        elif recorded in (Recorded.FOREIGN, Recorded.BARRED):
            self._discard(arrival.spool_name)
        elif recorded is Recorded.NEW:
            self._measure_pause(association_id, calling_ae, identifiers.series_uid, now)
        return recorded

    def _measure_pause(self, association_id: int, calling_ae: str, series_uid: str, now: datetime) -> None:
        """Keep how long the sender paused; never raises, because the instance is durable."""
        pause_s = self.pauses.arrived(series_uid, association_id, calling_ae, now)
        if pause_s is None:
            return
        try:
            self.commit(Pause(calling_ae, pause_s, now))
        except Exception:
            log.exception(
                "a pause of %s could not be recorded",
                calling_ae,
                extra={"event": "pause_not_recorded", "calling_ae": calling_ae},
            )

    def _restore_or_discard(self, arrival: Arrival, now: datetime) -> None:
        """Of a file that is known already only one is kept; a known one that is not intact gives way to this copy.

        The known file is read once more for that, which costs less than keeping the copy has cost already.
        """
        name = arrival.spool_name
        try:
            known = self._series.file_of(arrival.series_uid, arrival.sop_instance_uid, arrival.sha256)
            if known in (None, name):
                return
            condition = self._spool.condition(known, arrival.sha256, arrival.size_bytes)
            if condition is not Condition.INTACT:
                self._spool.restore(name, known)
                log.warning(
                    "a file that was %s in the spool came again: %s",
                    condition,
                    known,
                    extra={
                        "event": "file_restored",
                        "series_uid": arrival.series_uid,
                        "sop_instance_uid": arrival.sop_instance_uid,
                    },
                )
                self.commit(Restored(arrival.series_uid, arrival.sop_instance_uid, condition, now))
            else:
                self._spool.share_again(name, known)
        finally:
            self._discard(name)

    def _discard(self, name: str) -> None:
        """Remove a file that came to nothing, unless a row has it."""
        # A commit may have reached the database although its answer was lost; a row must never miss its file.
        if not self._series.is_referenced(name):
            self._spool.discard(name)

    def _discard_settled(self, name: str) -> None:
        """The same, where the commit may not have ended yet: a server that hung goes on with what it was sent."""
        self._series.await_commits()
        self._discard(name)

    def commit_later(self, entry: Entry[object], about: object) -> None:
        """Commit an entry once the database can be used again; a later one about the same thing takes its place.

        It is lost with the process.
        """
        self._debts.add(about, lambda: self.commit(entry))

    # -- group commit ------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many entries wait for the next commit."""
        return len(self._waiting)

    def is_late(self, limit_s: float) -> bool:
        """Whether the commit that is being written began more than `limit_s` seconds ago."""
        since_s = self._writing_since_s
        return since_s is not None and time.monotonic() - since_s > limit_s

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
        self._writing_since_s = time.monotonic()
        try:
            answers = self._write([waiting.entry for waiting in group])
        except BaseException as error:
            answers = [error] * len(group)
        finally:
            self._writing_since_s = None
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


class _Debts:
    """What could not be done for want of the database; a thread that lives as long as there is any does it in order.

    While it pays, new instances wait: what they would overtake says what was refused before them. Were they refused
    instead, each refusal would owe an entry more, and senders that try again at once could keep it paying for ever.
    """

    def __init__(self) -> None:
        self._outage = Outage("the receiver")
        self._turn = threading.Condition()
        self._owed: OrderedDict[object, Callable[[], object]] = OrderedDict()
        self._why: StoreUnavailable | None = None
        self._is_paying = self._is_back = False

    def add(self, about: object, debt: Callable[[], object]) -> None:
        with self._turn:
            self._owed[about] = debt
            if len(self._owed) > _MAX_OWED:
                self._owed.popitem(last=False)
            begins, self._is_paying = not self._is_paying, True
        if begins:
            threading.Thread(target=self._pay, name="owed-to-the-store", daemon=True).start()

    def require_none(self) -> None:
        """Wait while it pays; raises StoreUnavailable where the database cannot be used, or that takes too long."""
        if not self._is_paying or self._why is None:
            return
        with self._turn:
            self._turn.wait_for(lambda: not self._is_paying or not self._is_back, _CATCH_UP_S)
            if self._is_paying and self._why is not None:
                raise StoreUnavailable(str(self._why))

    def _pay(self) -> None:
        while True:
            with self._turn:
                if not self._owed:
                    self._is_paying, self._is_back, self._why = False, False, None
                    self._outage.over()
                    self._turn.notify_all()
                    return
                about, debt = next(iter(self._owed.items()))
            try:
                debt()
            except StoreUnavailable as error:
                with self._turn:
                    self._why, self._is_back = error, False
                    self._turn.notify_all()
                threading.Event().wait(min(self._outage.failed(error), _RETRY_S))
                continue
            except Exception:
                log.exception(
                    "something that the database could not take earlier could not be recorded",
                    extra={"event": "debt_not_recorded"},
                )
            with self._turn:
                self._is_back = True
                if self._owed.get(about) is debt:
                    del self._owed[about]


@dataclass(frozen=True)
class _Last:
    """The last instance of a series."""

    at: datetime
    association_id: int
    calling_ae: str


class Pauses:
    """The last arrival of the newest series, and the longest pause of each sender since the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: OrderedDict[str, _Last] = OrderedDict()
        self._longest: OrderedDict[str, tuple[float, datetime]] = OrderedDict()

    def arrived(self, series_uid: str, association_id: int, calling_ae: str, now: datetime) -> float | None:
        """Note a new instance; the pause before it in seconds, where it is worth keeping."""
        with self._lock:
            last = self._last.pop(series_uid, None)
            self._last[series_uid] = _Last(now, association_id, calling_ae)
            _shorten(self._last)
            if last is None or last.calling_ae != calling_ae:
                return None
            pause_s = (now - last.at).total_seconds()
            if not SHORTEST_PAUSE_S <= pause_s <= LONGEST_PAUSE_S or not self._is_news(calling_ae, pause_s, now):
                return None
            self._longest[calling_ae] = pause_s, now
            _shorten(self._longest)
            return pause_s

    def interrupted(self, series_uid: str) -> None:
        """An instance of the series was refused: what comes next comes after a failure, not after a pause."""
        with self._lock:
            self._last.pop(series_uid, None)

    def broke_off(self, association_id: int) -> None:
        """An association was not released: the sender's next try is no pause."""
        with self._lock:
            for series_uid in [uid for uid, last in self._last.items() if last.association_id == association_id]:
                del self._last[series_uid]

    def _is_news(self, calling_ae: str, pause_s: float, now: datetime) -> bool:
        longest_s, at = self._longest.get(calling_ae, (0.0, now))
        return pause_s > longest_s or now - at > _REPORT_AGAIN


def _shorten(known: OrderedDict[str, Any]) -> None:
    if len(known) > _MAX_SERIES:
        known.popitem(last=False)
