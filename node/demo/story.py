"""Says to a person what the demo does, while it does it: numbered steps, and a line every few seconds of waiting."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

QUIET_S: Final = 5.0  # whoever sees nothing for longer believes that the demo hangs

Say = Callable[[str], None]


class Story:
    """Numbers the steps of a demo, and remembers when it last said something."""

    def __init__(self, say: Say) -> None:
        self._say_line, self._lock = say, threading.Lock()
        self._steps, self._said_at = 0, time.monotonic()

    @property
    def steps(self) -> int:
        """The number of the step that was begun last."""
        return self._steps

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was said for `QUIET_S`."""
        return time.monotonic() - self._said_at >= QUIET_S

    def step(self, text: str) -> None:
        """Begin the next step, with a sentence on what it does and why."""
        self._steps += 1
        self._say(f"{self._steps}. {text}")

    def note(self, text: str) -> None:
        """Say something within a step."""
        self._say(f"   {text}")

    def plain(self, text: str = "") -> None:
        """Say something outside the steps."""
        self._say(text)

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """While the block runs, say every `QUIET_S` what is being done, and for how long already."""
        done, begun = threading.Event(), time.monotonic()

        def remind() -> None:
            with suppress(OSError):  # who reads the output has gone; the next line of the demo itself says so
                while not done.wait(QUIET_S):
                    self.note(f"... {what}, {time.monotonic() - begun:.0f} s so far")

        thread = threading.Thread(target=remind, name="demo reminder", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _say(self, line: str) -> None:
        with self._lock:
            self._said_at = time.monotonic()
            self._say_line(line)
