"""Measures how long the senders pause within a series; in memory, so that an arrival costs nothing for it."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from storage.senders import LONGEST_PAUSE_S

SHORTEST_PAUSE_S = 1.0  # no series is taken for complete so soon
_REPORT_AGAIN = timedelta(days=1)
_MAX_SERIES = 1000


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
