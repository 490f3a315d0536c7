"""Learns from a peer how many instances a series has, without making anybody wait for the peer.

One thread asks, one series after the other. A peer that does not answer is left alone for a while, so that it delays no
series by more than one time-out.
"""

import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from node.network.no_association import NoAssociation

log = logging.getLogger(__name__)

ASK_AGAIN_S = 5.0  # the sender may still be sending to the peer
LEFT_ALONE_S = 30.0  # a peer that did not answer
LONGEST_QUESTION_S = 30.0  # a series waits no longer for its answer
_MAX_SERIES = 1000


@dataclass
class _Question:
    """What was asked of one series; `count` is None until the first answer."""

    asked_s: float
    is_open: bool = True
    count: int | None = None


@dataclass(frozen=True)
class Expectation:
    """What is known of the length of a series: `count` is None where the peer does not tell; `is_open`: it may yet."""

    count: int | None
    is_open: bool


class ExpectedCounts:
    """The counts of one peer, by series.

    `count(study_uid, series_uid)` asks the peer: it returns 0 where the peer knows nothing of the series, and raises
    NoAssociation where it does not answer.
    """

    def __init__(
        self, peer_name: str, count: Callable[[str, str], int], clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.peer_name = peer_name
        self._ask_peer, self._clock_s = count, clock_s
        self._lock = threading.Lock()
        self._questions: OrderedDict[str, _Question] = OrderedDict()
        self._waiting: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._silent_until_s = float("-inf")
        self._thread: threading.Thread | None = None

    def of(self, study_uid: str, series_uid: str) -> Expectation:
        """What is known of a series at this moment; asks again where that is old. Returns at once."""
        now_s = self._clock_s()
        with self._lock:
            question = self._questions.get(series_uid)
            if question is not None and question.is_open:
                return Expectation(question.count, now_s - question.asked_s < LONGEST_QUESTION_S)
            if question is not None and now_s - question.asked_s < ASK_AGAIN_S:
                return Expectation(question.count, is_open=False)
            if now_s < self._silent_until_s:
                return Expectation(question.count if question else None, is_open=False)
            known = question.count if question else None
            self._questions[series_uid] = _Question(now_s, count=known)
            self._questions.move_to_end(series_uid)
            if len(self._questions) > _MAX_SERIES:
                self._questions.popitem(last=False)
            self._start()
        self._waiting.put((study_uid, series_uid))
        return Expectation(known, is_open=True)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="expected-counts", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            study_uid, series_uid = self._waiting.get()
            count = self._ask(study_uid, series_uid)
            with self._lock:
                question = self._questions.get(series_uid)
                if question is not None:
                    question.is_open, question.asked_s = False, self._clock_s()
                    question.count = question.count if count is None else count

    def _ask(self, study_uid: str, series_uid: str) -> int | None:
        """The peer's count; None where it gives none. Never raises."""
        with self._lock:
            if self._clock_s() < self._silent_until_s:
                return None
        try:
            count = self._ask_peer(study_uid, series_uid)
        except NoAssociation as failure:
            why = failure.reason
        except Exception as error:  # a peer's answer can be anything; the thread must live
            log.exception(
                "the answer of %s about a series cannot be read",
                self.peer_name,
                extra={"event": "query_answer_unreadable", "series_uid": series_uid},
            )
            why = f"unexpected {type(error).__name__}"
        else:
            if not count:
                log.info(
                    "%s does not count series %s; it is taken for complete when it is quiet",
                    self.peer_name,
                    series_uid,
                    extra={"event": "images_not_counted", "series_uid": series_uid},
                )
            return count or None
        log.warning(
            "%s does not say how many images a series has: %s; series go on without it",
            self.peer_name,
            why,
            extra={"event": "images_not_counted", "series_uid": series_uid},
        )
        with self._lock:
            self._silent_until_s = self._clock_s() + LEFT_ALONE_S
        return None
