"""Asks a destination to commit to what it accepted (Storage Commitment Push Model, PS3.4 annex J, as SCU).

The report comes on the same association where the peer is quick, or later on one that the peer opens to the receiver.
"""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydicom.dataset import Dataset

from config.settings import DestinationSettings
from node.dicom.constants import CT_IMAGE_STORAGE
from node.network.commitment import PUSH_INSTANCE, PUSH_MODEL, REQUEST, commitment_context, request_of
from node.network.no_association import NoAssociation
from node.network.requestor import Timeouts, associate, take_report
from node.network.status import SUCCESS
from node.send.confirmation import FIRST_PAUSE_S, GIVE_UP_S, LONGEST_PAUSE_S, give_up
from storage.commitments import CommitmentStore
from storage.errors import LeaseLost
from storage.outbox import OutboxStore, SentDelivery

log = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 900.0  # for a report; an archive may take hours, so the next wait is as long as all before
KEEP_OPEN_S: Final = 3.0  # the association, for a report
_NOT_YET: Final = "not confirmed yet: "

Take = Callable[[str, str, int, Callable[[], Dataset]], int]
"""Counts a report: AE title of the peer, SOP Instance UID, Event Type ID, Event Information; returns the status."""


@dataclass(frozen=True)
class CommitmentAsker:
    """Asks for sent series; one that nobody reported on is asked for again under a new Transaction UID, for a day."""

    store: CommitmentStore
    outbox: OutboxStore
    take: Take
    calling_ae: str
    name: str
    clock: Callable[[], datetime]
    timeouts: Timeouts = Timeouts()  # noqa: RUF009 - immutable

    def run_once(self, destination: DestinationSettings) -> bool:
        """Ask for one sent series; False when none is due."""
        sent = self.outbox.awaiting_confirmation(destination.name, self.clock())
        if sent is None:
            return False
        try:
            waited_s = (self.clock() - sent.sent_at).total_seconds()
            if waited_s >= GIVE_UP_S:
                self._give_up(sent, destination)
            else:
                self._ask(sent, destination, waited_s)
        except LeaseLost as error:
            log.info(
                "%s is not asked to commit: %s",
                destination.name,
                error,
                extra={"event": "commitment_not_asked", "destination": destination.name},
            )
        return True

    def _ask(self, sent: SentDelivery, destination: DestinationSettings, waited_s: float) -> None:
        transaction_uid = f"2.25.{uuid.uuid4().int}"
        pause_s = min(max(waited_s, FIRST_WAIT_S), GIVE_UP_S - waited_s)
        again_at = self.clock() + timedelta(seconds=pause_s)
        self.store.ask(sent.id, transaction_uid, again_at=again_at, now=self.clock())
        asked = request_of(transaction_uid, CT_IMAGE_STORAGE, sent.sop_instance_uids)
        try:
            code = self._send(asked, sent, destination)
        except NoAssociation as failure:
            self._not_taken(sent, transaction_uid, failure.reason, waited_s, refused=False)
            return
        if code is not None:
            reason = f"the peer answered the request for storage commitment with status {code:04X}"
            self._not_taken(sent, transaction_uid, reason, waited_s, refused=True)

    def _send(self, asked: Dataset, sent: SentDelivery, destination: DestinationSettings) -> int | None:
        """None where the peer took the request, else its status; raises NoAssociation."""
        context = commitment_context()
        with associate(destination, self.calling_ae, [context], self.timeouts, takes_reports=True) as association:
            answer, _ = association.send_n_action(asked, REQUEST, PUSH_MODEL, PUSH_INSTANCE)
            code = int(answer.Status)
            if code != SUCCESS:
                return code
            log.info(
                "%s was asked to commit to the %d instances of delivery %d",
                destination.name,
                len(sent.sop_instance_uids),
                sent.id,
                extra={"event": "commitment_asked", "delivery": sent.id, "destination": destination.name},
            )
            take_report(
                association,
                lambda uid, event_type, read: self.take(destination.ae_title, uid, event_type, read),
                KEEP_OPEN_S,
            )
        return None

    def _not_taken(
        self, sent: SentDelivery, transaction_uid: str, reason: str, waited_s: float, *, refused: bool
    ) -> None:
        now = self.clock()
        pause_s = min(max(waited_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        text, again_at = f"{_NOT_YET}{reason}", now + timedelta(seconds=pause_s)
        self.store.not_taken(transaction_uid, text, refused=refused, again_at=again_at, now=now)
        log.warning("delivery %d is %s", sent.id, text, extra={"event": "commitment_not_taken", "delivery": sent.id})

    def _give_up(self, sent: SentDelivery, destination: DestinationSettings) -> None:
        reason = self.store.last_reason(sent.id) or f"{destination.name} did not report on storage commitment"
        give_up(self.outbox, sent, self.name, reason.removeprefix(_NOT_YET), self.clock())
