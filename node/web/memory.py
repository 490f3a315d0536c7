"""Remembers the newest answers to what takes long to find out, and does not change."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Memory(Generic[Answer]):
    """The newest `most` answers; any thread may ask."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, Answer] = OrderedDict()

    def get(
        self, key: Hashable, find: Callable[[], Answer], *, lasts: Callable[[Answer], bool] = lambda _answer: True
    ) -> Answer:
        """The answer for a key; `find` runs without the lock. lasts: whether an answer is worth keeping."""
        with self._lock:
            if key in self._known:
                return self._known[key]
        answer = find()
        if not lasts(answer):
            return answer
        with self._lock:
            self._known[key] = answer
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return answer
