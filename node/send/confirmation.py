"""Asks a destination which instances it holds (IMAGE-level C-FIND, PS3.4 C.4.1; or QIDO-RS, PS3.18 10.6).

So SENT becomes CONFIRMED, and so the node learns that a person has deleted a withdrawn result there.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from config.settings import AnyDestination
from node.dicom.companions.kinds import companion_series_uid
from node.dicom.uids import UidFactory
from node.network.no_association import NoAssociation
from node.send.peer import find_instances
from storage.errors import LeaseLost
from storage.outbox import OutboxStore, SentDelivery

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 900.0
GIVE_UP_S = 86_400.0


@dataclass(frozen=True)
class Confirmer:
    """Asks for sent series; the pause between two questions doubles, and after a day the asking ends."""

    store: OutboxStore
    calling_ae: str
    name: str
    clock: Callable[[], datetime]
    uids: UidFactory = UidFactory()  # noqa: RUF009 - immutable

    def run_once(self, destination: AnyDestination) -> bool:
        """Ask for one sent or withdrawn series; False when none is due."""
        now = self.clock()
        sent = self.store.awaiting_confirmation(destination.name, now)
        withdrawn = self.store.awaiting_removal(destination.name, now) if sent is None else None
        try:
            if sent is not None:
                self._ask(sent, destination)
            elif withdrawn is not None:
                self._ask_whether_gone(withdrawn, destination)
        except LeaseLost as error:
            log.info(
                "the answer of %s came too late: %s",
                destination.name,
                error,
                extra={"event": "confirmation_too_late", "destination": destination.name},
            )
        return sent is not None or withdrawn is not None

    def _ask(self, sent: SentDelivery, destination: AnyDestination) -> None:
        try:
            held = find_instances(destination, self.calling_ae, sent.study_uid, sent.derived_series_uid)
        except NoAssociation as failure:
            self._ask_later(sent, failure.reason)
            return
        missing = sent.sop_instance_uids - held
        if missing:
            total = len(sent.sop_instance_uids)
            self._ask_later(sent, f"the peer lists {total - len(missing)} of {total} instances")
            return
        self.store.confirm(sent.id, self.name, _listed(len(held - sent.sop_instance_uids - {""})), self.clock())
        log.info(
            "delivery %d confirmed: %d instances are there",
            sent.id,
            len(sent.sop_instance_uids),
            extra={
                "event": "delivery_confirmed",
                "delivery": sent.id,
                "derived_series_uid": sent.derived_series_uid,
                "destination": destination.name,
            },
        )

    def _ask_whether_gone(self, withdrawn: SentDelivery, destination: AnyDestination) -> None:
        asked_at = self.clock()
        try:
            stands = self._stands(withdrawn, destination)
        except NoAssociation as failure:
            log.info(
                "%s did not say whether it still has a withdrawn series: %s",
                destination.name,
                failure.reason,
                extra={
                    "event": "withdrawn_series_unknown",
                    "delivery": withdrawn.id,
                    "derived_series_uid": withdrawn.derived_series_uid,
                    "destination": destination.name,
                },
            )
            self.store.still_there(withdrawn.id, self.clock())
            return
        if stands:
            self.store.still_there(withdrawn.id, self.clock())
            return
        self.store.gone(
            withdrawn.id, self.name, "the peer lists no instance of it", asked_at=asked_at, now=self.clock()
        )
        log.info(
            "series %s is gone from %s",
            withdrawn.derived_series_uid,
            destination.name,
            extra={
                "event": "withdrawn_series_gone",
                "delivery": withdrawn.id,
                "derived_series_uid": withdrawn.derived_series_uid,
                "destination": destination.name,
            },
        )

    def _stands(self, withdrawn: SentDelivery, destination: AnyDestination) -> bool:
        """Whether an image or a companion of a withdrawn series is there; raises NoAssociation."""
        derived_uid = withdrawn.derived_series_uid
        held = find_instances(destination, self.calling_ae, withdrawn.study_uid, derived_uid)
        return bool(held & withdrawn.sop_instance_uids) or any(
            find_instances(
                destination, self.calling_ae, withdrawn.study_uid, companion_series_uid(self.uids, derived_uid, kind)
            )
            for kind in destination.companions
        )

    def _ask_later(self, sent: SentDelivery, reason: str) -> None:
        now = self.clock()
        waited_s = (now - sent.sent_at).total_seconds()
        if waited_s >= GIVE_UP_S:
            give_up(self.store, sent, self.name, reason, now)
            return
        # To wait once more as long as until now doubles the pause without a counter.
        pause_s = min(max(waited_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        not_before = now + timedelta(seconds=pause_s)
        self.store.postpone_confirmation(
            sent.id, self.name, f"not confirmed yet: {reason}", not_before=not_before, now=now
        )


def give_up(store: OutboxStore, sent: SentDelivery, name: str, reason: str, now: datetime) -> None:
    """Ask no more for a series that nobody confirmed within `GIVE_UP_S`; `name` is the courier's."""
    text = f"not confirmed within {GIVE_UP_S / 3600:.0f} h: {reason}"
    store.postpone_confirmation(sent.id, name, text, not_before=None, now=now)
    log.error(
        "delivery %d %s",
        sent.id,
        text,
        extra={
            "event": "delivery_not_confirmed",
            "delivery": sent.id,
            "derived_series_uid": sent.derived_series_uid,
        },
    )


def _listed(more: int) -> str:
    """What a peer shows that lists every instance, and `more` under the same series that were not sent."""
    remark = f", and under the same series {more} that {'was' if more == 1 else 'were'} not sent" if more else ""
    return f"the peer lists every instance{remark}"
