"""Follows a series through the node until it ends, and says in sentences what happens to it."""

import time
from typing import Final

from node.bootstrap.store import Node
from node.demo.failed import DemoFailed
from node.demo.node_process import RunningNode
from node.demo.story import Story
from node.operate import verbs
from node.operate.texts import now_utc, time_left
from storage.cases import Case, ProgressView

STANDSTILL_S: Final = 300.0
SENT: Final = ("SENT", "CONFIRMED")
KEPT: Final = ("SKIPPED", "INCOMPLETE", "HELD", "REJECTED", "CANCELLED")
"""Ends without a delivery that are no fault: the node or a person decided so."""
_POLL_S: Final = 0.3
_PROGRESS_S: Final = 2.0

_MEANING: Final = {
    "RECEIVING": "the node waits until the series is whole: no association open, 1 s of quiet, no gap between slices",
    "QUEUED": "the series is whole and accepted; a worker takes it as soon as its model is loaded",
    "RUNNING": "the model makes the synthetic series slice by slice; pixels outside of its HU window stay as they are",
    "PRODUCED": "the synthetic series is written, and two other readers have proven that its grid is the source's",
    "SENDING": "the courier sends the synthetic series to the TPS",
    "SENT": "the TPS took every slice",
    "CONFIRMED": "the TPS showed that it holds every slice",
    "HELD": "the synthetic series is not sent: the node doubts it, and a person must look at it first",
    "SKIPPED": "nothing is made of the series: only a native axial CT is translated",
    "INCOMPLETE": "the series is not whole, so nothing is made of it",
    "FAILED": "the series could not be translated or delivered",
}


def follow(node: Node, process: RunningNode, series_uid: str, story: Story, *, passed: str = "") -> Case:
    """Wait until the series ended, delivered or not. passed: a state that is known already and is no end.

    Raises DemoFailed where it FAILED, where nothing happens for `STANDSTILL_S`, and where the node ended.
    """
    teller = _Teller(story, passed)
    moved_at, last = time.monotonic(), ""
    while True:
        case = next(iter(node.overview.cases(series_uid=series_uid, limit=1)), None)
        if case is not None:
            teller.tell(case)
            if case.state in (*SENT, *KEPT) and case.state != passed:
                return case
            if case.state == "FAILED":
                raise DemoFailed(f"the node could not finish the series: {case.reason}; see {process.folder.log}")
        process.require_alive()
        seen = "" if case is None else f"{case.state} {case.progress} {case.slices}"
        moved_at, last = (moved_at, last) if seen == last else (time.monotonic(), seen)
        if time.monotonic() - moved_at > STANDSTILL_S:
            raise DemoFailed(f"nothing happened for {STANDSTILL_S:.0f} s; see {process.folder.log}")
        time.sleep(_POLL_S)


def release(node: Node, case: Case, reason: str, story: Story) -> None:
    """Release a HELD result as a person would. Raises Refused and others of `verbs.FAILED`."""
    story.note(f'releasing it, as you asked; the reason stands in every image: "{reason}"')
    with story.during("writing the reason into every image"):
        verbs.release(node, case, "operator demo", reason, now_utc())


class _Teller:
    """Says each state once, and how far a long one is."""

    def __init__(self, story: Story, passed: str) -> None:
        self._story, self._state, self._stage, self._told_at = story, passed, "", 0.0
        self._begun = time.monotonic()

    def tell(self, case: Case) -> None:
        """Say what is new, or that it still goes on."""
        if case.state != self._state:
            self._state, self._begun = case.state, time.monotonic()
            words = f"{case.state}: {_MEANING.get(case.state, 'a person decided so')}."
            self._story.note(words)
            if case.state in KEPT:
                self._story.note(f"the reason: {case.reason}")
        elif case.state == "RUNNING" and case.progress is not None:
            self._progress(case.progress)
        elif self._story.is_quiet:
            self._story.note(f"... {case.state}, {time.monotonic() - self._begun:.0f} s so far")

    def _progress(self, progress: ProgressView) -> None:
        now = time.monotonic()
        if progress.stage == self._stage and now - self._told_at < _PROGRESS_S:
            return
        self._stage, self._told_at = progress.stage, now
        end = progress.expected_end_at
        left = f", {time_left((end - now_utc()).total_seconds())} left" if end is not None else ""
        self._story.note(f"... {progress.stage} {progress.done}/{progress.total}{left}")
