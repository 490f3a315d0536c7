"""Looks at the files of a delivery before the first of them is sent: would its destination refuse or mangle them.

A planning system that does not like a series tells a planner days later, or nobody. Here a broken rule of the
destination's profile ends the delivery before anything is at the peer.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Final

from config.settings import AnyDestination
from node.dicom.profiles.checks import Values
from node.dicom.profiles.load import Breach, broken_rules, load_profile
from node.dicom.profiles.read import read_values
from node.errors import UnreadableInstance
from node.network.no_association import Outcome
from node.send.scu import SendReport
from storage.outbox import ClaimedDelivery
from storage.spool import Spool

log = logging.getLogger(__name__)

_MOST_NAMED: Final = 3


class Preflight:
    """Looks at the files of each delivery once, as long as its process runs: a peer may be away for days."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._passed: set[int] = set()  # ids of deliveries

    def why_not(self, delivery: ClaimedDelivery, destination: AnyDestination) -> SendReport | None:
        """Which rules of the destination's profile a delivery breaks; None where it keeps all, or some of it was sent.

        Files that are gone or damaged are not looked at: the sending finds them, and says what becomes of the result.
        """
        if len(delivery.missing) < delivery.total or delivery.id in self._passed:
            return None
        profile = load_profile(destination.profile)
        headers = list(_headers(self._spool, delivery, profile.keywords))
        breaches = broken_rules(profile, headers)
        if breaches:
            return SendReport(Outcome.PERMANENT, f"nothing was sent: {_named(breaches)}", ())
        if len(headers) == delivery.total:
            self._passed.add(delivery.id)
        return None

    def forget(self, delivery_id: int) -> None:
        """A delivery came to its end."""
        self._passed.discard(delivery_id)


def _named(breaches: Sequence[Breach]) -> str:
    said = [breach.words() for breach in breaches[:_MOST_NAMED]]
    if len(breaches) > _MOST_NAMED:
        said.append(f"and {len(breaches) - _MOST_NAMED} more")
    return "; ".join(said)


def _headers(spool: Spool, delivery: ClaimedDelivery, keywords: Sequence[str]) -> Iterator[Values]:
    for instance in delivery.missing:
        try:
            yield read_values(spool.path(instance.file_name), keywords)
        except UnreadableInstance as error:
            log.info(
                "delivery %d: the file of instance %s is not looked at: %s",
                delivery.id,
                instance.sop_instance_uid,
                error,
                extra={"event": "preflight_without_file"},
            )
