"""The group recorder makes the arrivals of many associations durable together, with one sync and one commit.

These cost the same for one instance as for twenty-five. A thread that arrives while no other one writes becomes the
writer; threads that arrive meanwhile wait, and the first of them writes for all that wait. So a single association pays
no hand-over to another thread, and many associations share their syncs.
"""

import threading
from collections.abc import Sequence

from storage.series import Closing, Entry, Opening, Receipt, Recorded, SeriesStore, Written, record_alone
from storage.spool import Spool


class _Waiting:
    """One caller; `answer` is set by the thread that wrote for it, before it is called."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.answered = False
        self.answer: Written | BaseException = None
        self.called = threading.Event()


class GroupRecorder:
    """Group commit in front of one spool and one store."""

    def __init__(self, spool: Spool, series: SeriesStore) -> None:
        self._spool, self._series = spool, series
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._writing = False

    @property
    def waiting(self) -> int:
        """How many arrivals wait for the next commit."""
        return len(self._waiting)

    def open_association(self, opening: Opening) -> int:
        """Record an accepted association and return its id; raises what went wrong."""
        answer = self._submit(opening)
        assert isinstance(answer, int)
        return answer

    def close_association(self, closing: Closing) -> None:
        """Record how an association ended; raises what went wrong."""
        self._submit(closing)

    def record(self, receipt: Receipt) -> Recorded:
        """Settle the name of a placed file, then commit its row; on return a power cut loses neither.

        Raises what went wrong with this arrival, or with the whole disk or database; the others of the group go on.
        """
        answer = self._submit(receipt)
        assert isinstance(answer, Recorded)
        return answer

    def _submit(self, entry: Entry) -> Written:
        mine = _Waiting(entry)
        with self._lock:
            self._waiting.append(mine)
            writes, self._writing = not self._writing, True
        if not writes:
            mine.called.wait()
        if not mine.answered:
            self._write_for_all()
        if isinstance(mine.answer, BaseException):
            raise mine.answer
        return mine.answer

    def _write_for_all(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting, []
        answers: Sequence[Written | BaseException]
        try:
            answers = self._write([waiting.entry for waiting in group])
        except BaseException as error:
            answers = [error] * len(group)
        for waiting, answer in zip(group, answers, strict=True):
            waiting.answer, waiting.answered = answer, True
            waiting.called.set()
        with self._lock:
            if self._waiting:
                self._waiting[0].called.set()  # without an answer: it is the next writer
            else:
                self._writing = False

    def _write(self, entries: Sequence[Entry]) -> Sequence[Written | BaseException]:
        # Names first: a row that survives a power cut must find its file.
        names = [entry.arrival.spool_name for entry in entries if isinstance(entry, Receipt)]
        if names:
            self._spool.settle(names)
        if len(entries) > 1:
            return self._series.record_group(entries)
        return [record_alone(self._series, entries[0])]
