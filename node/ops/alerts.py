"""The watch looks at the node at a fixed pace and lets the store keep an alert for each cause that it finds.

It is a process of its own, so that it goes on when every other process of the node is dead. What tells people is
`node.ops.alert_channels`, in threads of its own: a mail server that hangs keeps no rule from being looked at.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, get_args

from config.alerting import AlertKind
from storage.alerts import AlertStore, AlertView, Cause
from storage.errors import StorageError

log = logging.getLogger(__name__)

KINDS: Final[tuple[str, ...]] = get_args(AlertKind)
"""Every kind of alert, the most urgent first."""


@dataclass(frozen=True)
class Look:
    """One look at the node: what it finds are causes of these kinds, and of no others."""

    kinds: frozenset[str]
    find: Callable[[datetime], Iterable[Cause]]


class Watch:
    """`tick()` takes every look once. One that fails leaves the alerts of its kinds as they are."""

    def __init__(
        self,
        looks: Sequence[Look],
        alerts: AlertStore,
        *,
        on_store: Callable[[str], None] = lambda _trouble: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """on_store: gets after each tick why the store could not keep alerts, or ""."""
        self._looks, self._alerts, self._on_store, self._clock = looks, alerts, on_store, clock

    def tick(self) -> None:
        """Open and close alerts; raises StorageError where the store cannot keep them."""
        try:
            self._take_looks()
        except StorageError as error:
            self._on_store(str(error))
            raise
        self._on_store("")

    def _take_looks(self) -> None:
        now = self._clock()
        causes: list[Cause] = []
        kinds: set[str] = set()
        blind: set[str] = set()
        trouble: StorageError | None = None
        for one in self._looks:
            try:
                causes += one.find(now)
            except StorageError as error:  # all that ask the store fail alike, every few seconds
                blind, trouble = blind | one.kinds, error
            except Exception:  # the process boundary of a look: the others must still be taken
                log.exception(
                    "the watch could not look for %s", ", ".join(sorted(one.kinds)), extra={"event": "watch_failed"}
                )
            else:
                kinds |= one.kinds
        self._alerts.settle(causes, kinds, now)
        if trouble is not None:
            log.error(
                "the watch could not look for %s: %s",
                ", ".join(sorted(blind)),
                trouble,
                extra={"event": "watch_failed"},
            )


def urgency(alert: AlertView) -> tuple[int, datetime]:
    """Sorts alerts: the most urgent kind first, of one kind the oldest."""
    return (KINDS.index(alert.kind) if alert.kind in KINDS else len(KINDS), alert.opened_at)
