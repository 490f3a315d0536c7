"""The bundles that a worker has loaded: that of `model.bundle` from its start, others when a job needs them.

None is ever taken for another: a job is translated by the bundle that it was queued for, or HELD with the reason.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from node.beats import CANNOT_WORK
from node.errors import Permanent
from node.translate.job import AnyExecutor

log = logging.getLogger(__name__)

MOST_LOADED: Final = 2  # each takes memory of the device; the one used longest ago goes first


class ExecutorUnavailable(Permanent):
    """The bundle or the device of the settings cannot be used; jobs are HELD, and nothing else is used instead."""


class Executors:
    """What is loaded, at most MOST_LOADED.

    `open_executor(bundle, faults)` loads a bundle by its label, "" for that of `model.bundle`, and the device, again at
    every job after it failed (ExecutorUnavailable); `faults` counts how often the device failed during the job, or the
    process ended. `forbids(executor)` says why a loaded bundle may not be used now, or "". `announce` gets in words
    whether the bundle of `model.bundle` can be used.
    """

    def __init__(
        self,
        open_executor: Callable[[str, int], AnyExecutor],
        forbids: Callable[[AnyExecutor], str],
        announce: Callable[[str], None],
    ) -> None:
        self._open_executor, self._forbids, self._announce = open_executor, forbids, announce
        self._loaded: OrderedDict[str, tuple[AnyExecutor, int]] = OrderedDict()  # with its faults, the last used last
        self._first = self._forbidden = ""

    def first(self, faults: int) -> AnyExecutor:
        """That of `model.bundle`; raises ExecutorUnavailable, which is announced."""
        executor = self._known(self._first, faults)
        if executor is None:
            try:
                executor = self._open("", faults)
            except ExecutorUnavailable as error:
                log.error("this worker cannot work: %s", error, extra={"event": "worker_cannot_work"})
                self._announce(f"{CANNOT_WORK}{error}")
                raise
            self._first, self._forbidden = executor.bundle, ""
            self._announce(executor.description)
        why = self._forbids(executor)  # a person may withdraw it at any time, and accept it again
        if why and why != self._forbidden:
            log.error("this worker may not work: %s", why, extra={"event": "bundle_not_accepted"})
        if why != self._forbidden:
            self._announce(f"{CANNOT_WORK}{why}" if why else executor.description)
        self._forbidden = why
        if why:
            raise ExecutorUnavailable(why)
        return executor

    def of(self, bundle: str, faults: int) -> AnyExecutor:
        """The one of a bundle, by its label; raises ExecutorUnavailable."""
        if not self._first:
            with suppress(ExecutorUnavailable):  # it is announced; jobs of other bundles go on
                self.first(faults)
        if bundle == self._first:
            return self.first(faults)
        executor = self._known(bundle, faults) or self._open(bundle, faults)
        if why := self._forbids(executor):
            log.error("bundle %s may not be used: %s", bundle, why, extra={"event": "bundle_not_accepted"})
            raise ExecutorUnavailable(why)
        return executor

    def _known(self, bundle: str, faults: int) -> AnyExecutor | None:
        executor, opened_for = self._loaded.get(bundle, (None, 0))
        if executor is None or opened_for != faults:
            return None
        self._loaded.move_to_end(bundle)
        return executor

    def _open(self, bundle: str, faults: int) -> AnyExecutor:
        """Load a bundle in the place of its own earlier one, and of those for which no memory is left."""
        self._loaded.pop(bundle or self._first, None)
        while self._loaded and (faults or len(self._loaded) >= MOST_LOADED):  # after a fault it has the device alone
            self._loaded.popitem(last=False)
        executor = self._open_executor(bundle, faults)
        if bundle and executor.bundle != bundle:
            raise ExecutorUnavailable(
                f"the job was queued for bundle {bundle}, but this worker has {executor.bundle}; "
                "cancel the job, or start a worker with that bundle and retry"
            )
        self._loaded[executor.bundle] = executor, faults
        log.info("translating with %s, %s", executor.bundle, executor.description, extra={"event": "worker_ready"})
        return executor
