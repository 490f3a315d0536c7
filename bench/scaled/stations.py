"""The two kinds of station of the model, on SimPy's clock (seconds): some servers with a queue, and a shared one."""

import heapq
import itertools
import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import simpy

Steps = Generator[simpy.Event, Any, None]

_DONE_S = 1e-9


class Station:
    """So many servers before which the most urgent waits least: by rank, then by the order of arrival."""

    def __init__(self, env: simpy.Environment, servers: int) -> None:
        self._env, self.servers = env, servers
        self._resource = simpy.PriorityResource(env, servers)
        self.busy_s = 0.0

    def serve(self, seconds: float, rank: Any = 0) -> Steps:
        """Wait for a server and hold it for so long."""
        yield from self.hold(_timeout(self._env, seconds), rank)

    def hold(self, work: Steps, rank: Any = 0) -> Steps:
        """Wait for a server and hold it while `work` goes on at other stations."""
        with self._resource.request(priority=rank) as turn:
            yield turn
            begun = self._env.now
            yield from work
            self.busy_s += self._env.now - begun

    @property
    def is_free(self) -> bool:
        """Whether a server has nothing to do."""
        return self._resource.count < self.servers


@dataclass
class _Task:
    left: float
    most: float
    event: simpy.Event
    rate: float = 0.0


class Shared:
    """`capacity` units that all present tasks share evenly, none taking more than its own most: cores, a wire.

    rivals: how many tasks of others have a share all the while.
    """

    def __init__(self, env: simpy.Environment, capacity: float, rivals: float = 0.0) -> None:
        self._env, self.capacity, self._rivals = env, capacity, rivals
        self._tasks: dict[int, _Task] = {}
        self._numbers, self._version, self._since = itertools.count(), 0, 0.0
        self.busy_s = 0.0

    def serve(self, work: float, most: float = 1.0) -> Steps:
        """Stay until `work` unit seconds are done, at most `most` units at once."""
        if work > 0:
            self._advance()
            task = _Task(work, most, self._env.event())
            self._tasks[next(self._numbers)] = task
            self._plan()
            yield task.event

    def _advance(self) -> None:
        passed = self._env.now - self._since
        self._since = self._env.now
        for task in self._tasks.values():
            task.left -= passed * task.rate
            self.busy_s += passed * task.rate / self.capacity

    def _plan(self) -> None:
        """Fill the shares from the smallest wish on, and wake up when the first task will be done."""
        free, left = self.capacity, len(self._tasks) + self._rivals
        for task in sorted(self._tasks.values(), key=lambda task: task.most):
            task.rate = min(task.most, free / left)
            free, left = free - task.rate, left - 1
        self._version += 1
        if self._tasks:
            next_s = min(task.left / task.rate for task in self._tasks.values())
            wake = self._env.timeout(max(0.0, next_s), self._version)
            assert wake.callbacks is not None
            wake.callbacks.append(self._wake)

    def _wake(self, event: simpy.Event) -> None:
        if event.value != self._version:
            return
        self._advance()
        for number in [
            number for number, task in self._tasks.items() if task.left <= _DONE_S * max(1.0, self._env.now)
        ]:
            self._tasks.pop(number).event.succeed()
        self._plan()


def _timeout(env: simpy.Environment, seconds: float) -> Steps:
    yield env.timeout(seconds)


def percentile(values: list[float], share: float) -> float:
    """The value that `share` (0 to 1) of all do not exceed; not a number where there is none."""
    if not values:
        return math.nan
    place = max(0, math.ceil(share * len(values)) - 1)
    return heapq.nsmallest(place + 1, values)[-1]
