"""Asks a destination which instances it holds (IMAGE-level C-FIND, PS3.4 C.4.1).

So SENT becomes CONFIRMED, and so the node learns that a person has deleted a withdrawn result there.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context

from config.settings import DestinationSettings
from node.network.no_association import NoAssociation, Outcome
from node.network.requestor import associate
from node.network.status import SUCCESS
from storage.errors import LeaseLost
from storage.outbox import OutboxStore, SentDelivery

log = logging.getLogger(__name__)

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 900.0
GIVE_UP_S = 86_400.0
_PENDING = (0xFF00, 0xFF01)  # PS3.4 table C.4-1


@dataclass(frozen=True)
class Confirmer:
    """Asks for sent series; the pause between two questions doubles, and after a day the asking ends."""

    store: OutboxStore
    calling_ae: str
    name: str
    clock: Callable[[], datetime]

    def run_once(self, destination: DestinationSettings) -> bool:
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
            log.info("the answer of %s came too late: %s", destination.name, error)
        return sent is not None or withdrawn is not None

    def _ask(self, sent: SentDelivery, destination: DestinationSettings) -> None:
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
        self.store.confirm(sent.id, self.name, "the peer lists every instance", self.clock())
        log.info("delivery %d confirmed: %d instances are there", sent.id, len(sent.sop_instance_uids))

    def _ask_whether_gone(self, withdrawn: SentDelivery, destination: DestinationSettings) -> None:
        asked_at = self.clock()
        try:
            held = find_instances(destination, self.calling_ae, withdrawn.study_uid, withdrawn.derived_series_uid)
        except NoAssociation as failure:
            log.info("%s did not say whether it still has a withdrawn series: %s", destination.name, failure.reason)
            self.store.still_there(withdrawn.id, self.clock())
            return
        if held & withdrawn.sop_instance_uids:
            self.store.still_there(withdrawn.id, self.clock())
            return
        self.store.gone(
            withdrawn.id, self.name, "the peer lists no instance of it", asked_at=asked_at, now=self.clock()
        )
        log.info("series %s is gone from %s", withdrawn.derived_series_uid, destination.name)

    def _ask_later(self, sent: SentDelivery, reason: str) -> None:
        now = self.clock()
        waited_s = (now - sent.sent_at).total_seconds()
        if waited_s >= GIVE_UP_S:
            text = f"not confirmed within {GIVE_UP_S / 3600:.0f} h: {reason}"
            self.store.postpone_confirmation(sent.id, self.name, text, not_before=None, now=now)
            log.error("delivery %d %s", sent.id, text)
            return
        # To wait once more as long as until now doubles the pause without a counter.
        pause_s = min(max(waited_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        not_before = now + timedelta(seconds=pause_s)
        self.store.postpone_confirmation(
            sent.id, self.name, f"not confirmed yet: {reason}", not_before=not_before, now=now
        )


def find_instances(
    destination: DestinationSettings, calling_ae: str, study_uid: str, series_uid: str
) -> frozenset[str]:
    """SOP Instance UIDs that the destination lists for a series. Raises NoAssociation where it does not answer."""
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID, query.SeriesInstanceUID, query.SOPInstanceUID = study_uid, series_uid, ""
    held: set[str] = set()
    context = build_context(STUDY_ROOT_FIND, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    with associate(destination, calling_ae, [context]) as association:
        for answer, identifier in association.send_c_find(query, STUDY_ROOT_FIND):
            if answer.Status in _PENDING:
                held.update(_listed(identifier, series_uid))
            elif answer.Status != SUCCESS:
                raise NoAssociation(Outcome.TRANSIENT, f"the peer refused the query with status {answer.Status:04X}")
    return frozenset(held)


def _listed(identifier: Dataset | None, series_uid: str) -> Iterable[str]:
    """The SOP Instance UID of one answer; none where it names another series or cannot be read."""
    try:
        # A peer may ignore a key; only what belongs to our series counts.
        if identifier is not None and identifier.get("SeriesInstanceUID", series_uid) == series_uid:
            return [str(identifier.get("SOPInstanceUID", ""))]
    except Exception:  # pydicom raises whatever it stumbles over
        log.warning("an answer to a query cannot be read")
    return []
