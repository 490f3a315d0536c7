"""Makes the arrivals of many associations durable together; it answers nobody and reads no file.

One sync of a directory and one commit cost the same for one instance as for twenty-five. Whoever comes while nobody
writes becomes the writer; whoever comes meanwhile waits, and the first of them writes for all that wait. So a single
association pays no hand-over to another thread, and a crowd shares its syncs.
"""

import threading
from collections.abc import Sequence

from storage.series import Receipt, Recorded, SeriesStore
from storage.spool import Spool


class _Waiting:
    """One caller of `record`; `answer` is set by whoever wrote for it."""

    def __init__(self, receipt: Receipt) -> None:
        self.receipt = receipt
        self.answer: Recorded | BaseException | None = None
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

    def record(self, receipt: Receipt) -> Recorded:
        """Settle the name of a placed file, then commit its row; on return a power cut loses neither.

        Raises what went wrong with this arrival, or with the whole disk or database; the others of the group go on.
        """
        mine = _Waiting(receipt)
        with self._lock:
            self._waiting.append(mine)
            writes, self._writing = not self._writing, True
        if not writes:
            mine.called.wait()
        if mine.answer is None:
            self._write_for_all()
        assert mine.answer is not None
        if isinstance(mine.answer, BaseException):
            raise mine.answer
        return mine.answer

    def _write_for_all(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting, []
        try:
            answers = self._write([waiting.receipt for waiting in group])
        except BaseException as error:
            answers = [error] * len(group)
        for waiting, answer in zip(group, answers, strict=True):
            waiting.answer = answer
            waiting.called.set()
        with self._lock:
            if self._waiting:
                self._waiting[0].called.set()  # without an answer: it is the next writer
            else:
                self._writing = False

    def _write(self, receipts: Sequence[Receipt]) -> Sequence[Recorded | BaseException]:
        # Names first: a row that survives a power cut must find its file.
        self._spool.settle(receipt.arrival.spool_name for receipt in receipts)
        if len(receipts) > 1:
            return self._series.record_group(receipts)
        (only,) = receipts
        return [self._series.record(only.association_id, only.calling_ae, only.arrival, only.now)]
