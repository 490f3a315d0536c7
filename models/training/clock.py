"""How much of a run's time is used up, stops between its parts not counted."""

import time


class Clock:
    """Seconds of training since the run began, from the checkpoint's seconds on."""

    def __init__(self, minutes: float | None) -> None:
        """A run of so many minutes, or without an end in time."""
        self._budget_s = None if minutes is None else minutes * 60
        self._started_s = time.monotonic()

    def go_on(self, spent_s: float) -> None:
        """Count on from these seconds."""
        self._started_s = time.monotonic() - spent_s

    @property
    def spent_s(self) -> float:
        """Seconds of training so far."""
        return time.monotonic() - self._started_s

    @property
    def share(self) -> float:
        """How much of the budget is used up: 0 without one, 1 and more where nothing is left."""
        return 0.0 if self._budget_s is None else self.spent_s / self._budget_s

    @property
    def left_s(self) -> float | None:
        """Seconds of the budget that are left; None without one."""
        return None if self._budget_s is None else max(self._budget_s - self.spent_s, 0.0)
