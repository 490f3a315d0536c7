"""Ends this process where it stands still: stopped, without a processor, or in a computation that makes no step.

Nobody asks the actors of Ray Data whether they live, and a series in one that stands still would keep a run for ever.
A small process of its own beside each actor waits for its beats. Where it ends the actor, Ray gives the series to
another one, as after any end.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from node.beats import FIRST_LIMIT_S_PER_SLICE, LONG_LIMIT_S

if TYPE_CHECKING:
    from node.translate.job import Progress

SILENT_S: Final = 120.0  # far longer than a busy host keeps a thread from its turn
_BEATS: Final = 8  # within that time
_GUARD: Final = """
import os, select, signal, sys
while select.select([0], [], [], float(sys.argv[2]))[0]:
    if not os.read(0, 1024):
        sys.exit()
os.kill(int(sys.argv[1]), signal.SIGKILL)
"""


class Guard:
    """Waits beside this process for its beats from now on, and ends with it.

    silent_s: the process is ended (SIGKILL) when none came for so long. They stop when a computation makes no step.
    """

    def __init__(self, pid: int, silent_s: float = SILENT_S) -> None:
        self._every_s, self._until_s = silent_s / _BEATS, float("inf")
        words = [sys.executable, "-I", "-S", "-c", _GUARD, str(pid), str(silent_s)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        threading.Thread(target=self._beat, name="beats", daemon=True).start()

    @contextmanager
    def steps(self, slices: int) -> "Iterator[Progress]":
        """What a computation of so many slices calls at each of its steps within the block."""
        limit_s = max(LONG_LIMIT_S, slices * FIRST_LIMIT_S_PER_SLICE)

        def step(_stage: str, _done: int, _total: int) -> None:
            self._until_s = time.monotonic() + limit_s

        step("", 0, 0)
        try:
            yield step
        finally:
            self._until_s = float("inf")

    def _beat(self) -> None:
        assert self._process.stdin is not None
        never = threading.Event()
        while not never.wait(self._every_s):
            if time.monotonic() < self._until_s:
                try:
                    self._process.stdin.write(b".")
                    self._process.stdin.flush()
                except OSError:  # somebody ended it: this process goes on without
                    return
