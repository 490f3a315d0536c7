"""Answers C-MOVE and C-GET: each instance by a C-STORE sub-operation, with the counts after each (PS3.4 C.4.2, C.4.3).

A file goes out byte for byte as it was produced. One with other bytes, or of a series that was withdrawn meanwhile,
counts as failed.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final

from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext

from config.settings import DestinationSettings
from node.dicom.constants import CT_IMAGE_STORAGE
from node.network import status
from node.network.answers import Answers
from node.network.no_association import NoAssociation, Outcome
from node.network.requestor import Timeouts, associate
from node.network.status import CANNOT_COUNT, CANNOT_SEND, SOME_FAILED, UNKNOWN_DESTINATION, Verdict
from node.query.find import CANCELLED, PENDING, SUCCESS, Ended, looker
from node.query.index import Index
from node.query.keys import BadQuery, asked_to_retrieve
from node.send.scu import contexts_for, store_one
from storage.errors import ObjectsUnavailable, StoreUnavailable
from storage.offered import OfferedInstance, OfferedStore
from storage.spool import Spool

log = logging.getLogger(__name__)

MAX_INSTANCES: Final = 20_000  # of one request
MAX_RETRIEVE_S: Final = 3600.0
_MOST_UIDS: Final = 1000  # of the list of failed ones: a value of VR UI has at most 65,534 bytes in explicit VR
_MAX_ID: Final = 65_535

Instances = Sequence[tuple[int, OfferedInstance]]


@dataclass
class Tally:
    """How the sub-operations of one request went so far."""

    remaining: int
    completed: int = 0
    warned: int = 0
    failed: list[str] = field(default_factory=list)

    def count(self, uid: str, verdict: Verdict | None) -> None:
        """Count one that ended; None for one that failed before it got an answer."""
        self.remaining -= 1
        if verdict is Verdict.STORED:
            self.completed += 1
        elif verdict is Verdict.STORED_WITH_WARNING:
            self.warned += 1
        else:
            self.failed.append(uid)

    @property
    def final(self) -> int:
        """The status of the whole request."""
        if not self.failed and not self.warned:
            return SUCCESS
        return SOME_FAILED if self.completed or self.warned else CANNOT_SEND


class Responses:
    """Sends the responses to one C-MOVE or C-GET request, and knows whether anybody still wants them.

    progressed: called with each, so that an association that is served keeps its place.
    """

    def __init__(
        self,
        association: Association,
        context: PresentationContext,
        request: C_MOVE | C_GET,
        calling_ae: str,
        progressed: Callable[[], None],
    ) -> None:
        self._association, self._context, self._request = association, context, request
        self.calling_ae, self._progressed = calling_ae, progressed

    @property
    def message_id(self) -> int:
        """Message ID of the request."""
        return int(self._request.MessageID or 0)

    def identifier(self) -> Dataset:
        """The identifier of the request; raises whatever pydicom does."""
        syntax = self._context.transfer_syntax[0]
        sent: Any = self._request.Identifier
        return decode(sent, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)

    def is_wanted(self) -> bool:
        """Whether the association lasts."""
        acse: Any = self._association.acse
        alive = self._association.is_established and self._association.dul.is_alive()
        return bool(alive and not acse.is_aborted() and not acse.is_release_requested())

    def is_cancelled(self) -> bool:
        """Whether a C-CANCEL for the request came."""
        return self.message_id in self._association.dimse.cancel_req

    def send(self, code: int, tally: Tally | None = None, comment: str = "") -> None:
        """Send one response; after the end of the association it goes nowhere."""
        self._progressed()
        response: Any = type(self._request)()
        response.MessageIDBeingRespondedTo = self.message_id
        response.AffectedSOPClassUID = self._request.AffectedSOPClassUID
        response.Status = code
        if comment:
            response.ErrorComment = comment[:64]
        if tally is not None:
            response.NumberOfCompletedSuboperations = tally.completed
            response.NumberOfFailedSuboperations = len(tally.failed)
            response.NumberOfWarningSuboperations = tally.warned
            if code in (PENDING, CANCELLED):
                response.NumberOfRemainingSuboperations = tally.remaining
            if tally.failed and code != PENDING:
                response.Identifier = self._failed(tally)
        if self.is_wanted():
            self._association.dimse.send_msg(response, self._context.context_id or 0)

    def _failed(self, tally: Tally) -> BytesIO:
        failed, syntax = Dataset(), self._context.transfer_syntax[0]
        failed.FailedSOPInstanceUIDList = tally.failed[:_MOST_UIDS]
        return BytesIO(encode(failed, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated) or b"")


@dataclass(frozen=True)
class Retriever:
    """Answers the two requests. ae_title: the node's own, under which it calls the destinations of a C-MOVE."""

    index: Index
    offered: OfferedStore
    spool: Spool
    destinations: Sequence[DestinationSettings]
    ae_title: str
    timeouts: Timeouts = Timeouts()  # noqa: RUF009 - immutable

    def move(self, responses: Responses, destination_title: str, *, patient_root: bool) -> None:
        """Send what is asked for to a destination that gets results; every other AE title is unknown (0xA801)."""
        destination = next(
            (one for one in self.destinations if one.ae_title == destination_title and one.receives == "results"), None
        )
        if destination is None:
            responses.send(UNKNOWN_DESTINATION, comment="not a [[destination]] of this node that gets results")
            return
        found = self._found(responses, patient_root=patient_root)
        if found is None:
            return
        if not found:
            responses.send(SUCCESS, Tally(0))
            return
        tally = Tally(len(found))
        try:
            with associate(destination, self.ae_title, contexts_for(), self.timeouts) as association:
                originator = responses.calling_ae, responses.message_id
                self._send(responses, association, found, tally, originator)
        except NoAssociation as failure:
            log.warning(
                "a C-MOVE to %s sends nothing more: %s",
                destination.name,
                failure.reason,
                extra={"event": "move_failed", "destination": destination.name},
            )
        self._end(responses, found, tally)

    def get(self, responses: Responses, association: Association, *, patient_root: bool) -> None:
        """Send what is asked for over the association on which it was asked; all fails where that takes no images."""
        found = self._found(responses, patient_root=patient_root)
        if found is not None:
            tally = Tally(len(found))
            if _takes_images(association):
                self._send(responses, association, found, tally, None)
            self._end(responses, found, tally)

    def _found(self, responses: Responses, *, patient_root: bool) -> Instances | None:
        """What is asked for; None where that was answered with a failure."""
        code, comment = status.CANNOT_UNDERSTAND, "the request cannot be processed"
        try:
            asked = asked_to_retrieve(responses.identifier(), patient_root=patient_root)
            found = self.index.instances(asked, looker(responses.is_cancelled))
            if len(found) <= MAX_INSTANCES:
                return found
            code, comment = CANNOT_COUNT, f"more than {MAX_INSTANCES} instances; ask for less"
        except Ended as end:
            code, comment = end.code, end.comment
        except BadQuery as error:
            code, comment = status.DATASET_DOES_NOT_MATCH, str(error)
        except StoreUnavailable:
            code, comment = CANNOT_COUNT, "the database cannot be used; try again"
        except Exception as error:  # pydicom raises whatever it stumbles over in what a peer sent
            log.warning("a retrieval failed: %s", type(error).__name__, extra={"event": "query_failed"})
        responses.send(code, comment=comment)
        return None

    def _send(
        self,
        responses: Responses,
        association: Association,
        found: Instances,
        tally: Tally,
        originator: tuple[str, int] | None,
    ) -> None:
        """Send one after the other, until the peer cancels or leaves, its time is up, or `association` has ended.

        Raises NoAssociation where the association to a destination ends.
        """
        deadline_s = time.monotonic() + MAX_RETRIEVE_S
        for number, (job_id, instance) in enumerate(found):
            if responses.is_cancelled() or not responses.is_wanted() or time.monotonic() > deadline_s:
                return
            message_id = (responses.message_id + number) % _MAX_ID + 1
            tally.count(instance.sop_instance_uid, self._store(association, job_id, instance, message_id, originator))
            if not _is_open(association):
                return
            responses.send(PENDING, tally)

    def _store(
        self,
        association: Association,
        job_id: int,
        instance: OfferedInstance,
        message_id: int,
        originator: tuple[str, int] | None,
    ) -> Verdict | None:
        uid = instance.sop_instance_uid
        try:
            if not self.offered.may_be_sent(job_id):
                raise NoAssociation(Outcome.PERMANENT, "its series may not be sent any more")
            self.spool.fetch([(instance.file_name, instance.sha256, None)])
            path = self.spool.path(instance.file_name)
            _, reading = store_one(
                association, uid, path, instance.sha256, message_id=message_id, originator=originator
            )
        except (NoAssociation, ObjectsUnavailable, StoreUnavailable) as failure:
            log.warning(
                "a retrieval failed for an instance: %s",
                failure,
                extra={"event": "retrieve_instance_failed", "sop_instance_uid": uid},
            )
            return None
        return reading.verdict

    def _end(self, responses: Responses, found: Instances, tally: Tally) -> None:
        """Send the final response; what was not sent has failed, unless the peer cancelled it."""
        if responses.is_cancelled() and tally.remaining:
            responses.send(CANCELLED, tally)
            return
        for _, instance in found[len(found) - tally.remaining :]:
            tally.count(instance.sop_instance_uid, None)
        responses.send(tally.final, tally)
        log.info(
            "a retrieval of %s ended: %d sent, %d with a warning, %d failed",
            responses.calling_ae,
            tally.completed,
            tally.warned,
            len(tally.failed),
            extra={"event": "retrieve_ended", "calling_ae": responses.calling_ae},
        )


def _is_open(association: Association) -> bool:
    """Whether an association can take one more instance."""
    messages: Any = association.dimse
    has_ended = isinstance(messages, Answers) and messages.ended
    return bool(association.is_established and association.dul.is_alive() and not has_ended)


def _takes_images(association: Association) -> bool:
    """Whether the peer is a Storage SCP of CT Images on an association that it opened."""
    return any(one.abstract_syntax == CT_IMAGE_STORAGE and one.as_scu for one in association.accepted_contexts)
