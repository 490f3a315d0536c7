"""The Modality Performed Procedure Step SCP (PS3.4 annex F): N-CREATE and N-SET of scanners, kept for completion.

Success is answered after the row is committed. What a step says of series is judged where series are
(`node/receive/performed_steps.py`); here nothing is decided about one.
"""

import logging
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from pydicom.dataset import Dataset
from pynetdicom import evt

from node.network import status
from node.network.dimse_guard import answer_of
from node.network.procedure_step import (
    MAY_NOT_BE_UPDATED,
    MPPS,
    StepData,
    UnreadableStep,
    read_changes,
    read_created,
    reading,
    step_context,
)
from node.network.services import Message, Service
from node.receive.admission import Session, session_of
from node.receive.performed_steps import StepPeers
from storage.errors import SchemaMismatch, StoreUnavailable
from storage.performed_steps import Late, PerformedStepStore, StepReport, Taken

log = logging.getLogger(__name__)

_REFUSED: Final = {
    Taken.DUPLICATE: status.DUPLICATE_INSTANCE,
    Taken.UNKNOWN: status.NO_SUCH_INSTANCE,
    Taken.ENDED: status.PROCESSING_FAILURE,
    Taken.FOREIGN: status.NOT_AUTHORIZED,
}


class StepService:
    """Takes the steps of whoever may send; `peers` says for whose series they count."""

    def __init__(
        self,
        store: PerformedStepStore,
        peers: StepPeers,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._peers, self._clock = store, peers, clock

    def service(self) -> Service:
        """Its context, messages and handlers."""
        taken = frozenset({Message.N_CREATE_RQ, Message.N_SET_RQ})
        return Service([step_context()], {MPPS: taken}, [(evt.EVT_N_CREATE, self._create), (evt.EVT_N_SET, self._set)])

    def _create(self, event: Any) -> tuple[Dataset, Dataset | None]:
        """Begin a step; where the request names no SOP Instance UID, one is made (PS3.7 10.1.5.1.4)."""
        uid, named = str(event.request.AffectedSOPInstanceUID or ""), None
        if not uid:
            uid, named = f"2.25.{uuid.uuid4().int}", Dataset()
            named.AffectedSOPInstanceUID = uid

        def keep(session: Session) -> Taken:
            with reading():
                told = read_created(event.attribute_list)
            return self._store.create(uid, session.calling_ae, _certificate(session), _report(told), self._clock())

        return self._answer(event, uid, keep), named

    def _set(self, event: Any) -> tuple[Dataset, None]:
        uid = str(event.request.RequestedSOPInstanceUID or "")

        def keep(session: Session) -> Taken:
            with reading():
                told = read_changes(event.modification_list)
            scanners = self._peers.scanners_of(session.calling_ae)
            now = self._clock()
            taken, late = self._store.change(
                uid, session.calling_ae, _certificate(session), _report(told), scanners=scanners, now=now
            )
            for one in late:
                _tell(one, session)
            return taken

        return self._answer(event, uid, keep), None

    def _answer(self, event: Any, uid: str, keep: Callable[[Session], Taken]) -> Dataset:
        """The status of a request; never raises."""
        session = session_of(event)
        try:
            taken = keep(session)
        except UnreadableStep as error:
            return _refusal(session, error.code, str(error))
        except (StoreUnavailable, SchemaMismatch):
            return _refusal(session, status.PROCESSING_FAILURE, "the database cannot be used; try again")
        except Exception:  # the boundary: a fault of ours costs one request
            log.exception("a performed step could not be taken", extra={"event": "performed_step_crashed"})
            return _refusal(session, status.PROCESSING_FAILURE, "it could not be taken; try again")
        if taken is not Taken.TAKEN:
            return _refusal(session, _REFUSED[taken], taken.value, ended=taken is Taken.ENDED)
        log.info(
            "%s reported performed step %s",
            session.calling_ae,
            uid,
            extra={"event": "performed_step_reported", "calling_ae": session.calling_ae},
        )
        return answer_of(status.SUCCESS)


def _certificate(session: Session) -> str:
    """What tells this peer from another of its AE title; "" where the settings bind the title to a certificate."""
    return "" if session.shown.is_bound else session.shown.certificate


def _report(told: StepData) -> StepReport:
    return StepReport(told.state, told.study_uid, told.series, told.discontinued_for)


def _refusal(session: Session, code: int, why: str, *, ended: bool = False) -> Dataset:
    log.warning(
        "a performed step of %s was answered with status %04X: %s",
        session.calling_ae,
        code,
        why,
        extra={"event": "performed_step_refused", "calling_ae": session.calling_ae},
    )
    answer = answer_of(code, why)
    if ended:
        answer.ErrorID = MAY_NOT_BE_UPDATED
    return answer


def _tell(late: Late, session: Session) -> None:
    log.warning(
        "series %s was judged before its performed step ended, which lists %d images; %d of them arrived",
        late.series_uid,
        late.listed,
        late.arrived,
        extra={"event": "performed_step_late", "series_uid": late.series_uid, "calling_ae": session.calling_ae},
    )
