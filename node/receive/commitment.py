"""Storage commitment at the receiver: reports of destinations are counted, requests of others are never granted.

A scanner may delete its images after a commitment, and the node is no archive: so a request is not taken, or is
answered with a report in which every instance has failed (`scp.commitment`).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any, Final

from pydicom.dataset import Dataset
from pynetdicom import build_role, evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.events import EventType
from pynetdicom.presentation import PresentationContext

from config.settings import AskedPeer, DestinationSettings, ScpSettings
from node.network import status
from node.network.commitment import (
    ALL_COMMITTED,
    PUSH_INSTANCE,
    PUSH_MODEL,
    REQUEST,
    SOME_FAILED,
    Reference,
    UnreadableReferences,
    all_failed,
    commitment_context,
    read_report,
    read_request,
    reading,
)
from node.network.contexts import VERIFICATION
from node.network.no_association import NoAssociation
from node.network.requestor import associate
from node.network.services import Message, Service
from storage.commitments import CommitmentReport, CommitmentStore, Counted, Reported
from storage.errors import SchemaMismatch, StoreUnavailable

log = logging.getLogger(__name__)

PAUSE: Final = timedelta(minutes=1)  # then failed instances are sent again, what was not mentioned is asked for again
REPORT_PAUSE_S: Final = 0.5  # the peer shall have the answer to its request before the report
RETRY_PAUSES_S: Final = (5.0, 30.0)  # between the tries to report on an association of its own
_AS_SCP: Final = build_role(PUSH_MODEL, scp_role=True)
MAX_PENDING: Final = 8  # reports that are not sent yet; one may name 20,000 instances


class CommitmentReports:
    """Counts what destinations with `confirm = "commitment"` report, whichever association brings it."""

    def __init__(
        self,
        store: CommitmentStore,
        destinations: Iterable[DestinationSettings],
        *,
        actor: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store, self._actor, self._clock = store, actor, clock
        self.destinations = tuple(one for one in destinations if one.confirm == "commitment")

    def take(self, calling_ae: str, instance_uid: str, event_type: int, read: Callable[[], Dataset]) -> int:
        """The status with which a report of this peer is answered (PS3.7 section 10.1.1); never raises."""
        if instance_uid != PUSH_INSTANCE:
            return self._refused(status.NO_SUCH_INSTANCE, calling_ae, "it is about another SOP Instance")
        if event_type not in (ALL_COMMITTED, SOME_FAILED):
            return self._refused(status.NO_SUCH_EVENT, calling_ae, "it is of no event type of storage commitment")
        try:
            with reading():
                report = read_report(read())
        except UnreadableReferences as error:
            return self._refused(status.INVALID_ARGUMENT, calling_ae, str(error))
        names = [one.name for one in self.destinations if one.ae_title == calling_ae]
        found = CommitmentReport(report.transaction_uid, report.committed, report.failed)
        try:
            counted = self._store.report(found, names, actor=self._actor, pause=PAUSE, now=self._clock())
        except (StoreUnavailable, SchemaMismatch) as error:
            return self._refused(status.PROCESSING_FAILURE, calling_ae, f"the database cannot be used: {error}")
        return self._told(counted, report.transaction_uid, calling_ae)

    def _told(self, counted: Reported, transaction_uid: str, calling_ae: str) -> int:
        if counted.counted is Counted.UNKNOWN:
            why = f"transaction {transaction_uid} is no open request to this peer"
            return self._refused(status.PROCESSING_FAILURE, calling_ae, why)
        level = logging.WARNING if counted.counted in (Counted.FAILED, Counted.PARTIAL) else logging.INFO
        if counted.counted is Counted.FAILED and not counted.is_resent:
            level = logging.ERROR
        log.log(
            level,
            "%s reported storage commitment for delivery %s: %s",
            calling_ae,
            counted.delivery_id,
            counted.reason or counted.counted.value,
            extra={"event": "commitment_reported", "calling_ae": calling_ae, "delivery": counted.delivery_id},
        )
        return status.SUCCESS

    def _refused(self, code: int, calling_ae: str, why: str) -> int:
        log.warning(
            "a storage commitment report of %s was answered with status %04X: %s",
            calling_ae,
            code,
            why,
            extra={"event": "commitment_report_refused", "calling_ae": calling_ae},
        )
        return code


class CommitmentService:
    """What the receiver offers of storage commitment; `service` is None where it offers nothing."""

    def __init__(self, settings: ScpSettings, reports: CommitmentReports) -> None:
        self._settings, self._fails_all, self._reports = settings, settings.commitment == "fail_all", reports
        self._lock, self._pending = threading.Lock(), 0

    def service(self) -> Service | None:
        """Its context, messages and handlers."""
        taken = set()
        if self._reports.destinations:
            taken |= {Message.N_EVENT_REPORT_RQ}
        if self._fails_all:
            taken |= {Message.N_ACTION_RQ, Message.N_EVENT_REPORT_RSP}
        if not taken:
            return None
        handlers: list[tuple[EventType, Callable[..., Any]]] = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_N_ACTION, self._asked),
            (evt.EVT_N_EVENT_REPORT, self._reported),
        ]
        return Service([commitment_context()], {PUSH_MODEL: frozenset(taken)}, handlers)

    def _requested(self, event: Any) -> None:
        """Leave out what this peer may not do, before contexts are negotiated."""
        association = event.assoc
        roles = association.requestor.role_selection.get(PUSH_MODEL)
        reports, asks = roles is not None and roles.scp_role, roles is None or roles.scu_role
        only_reports = association.dul.session.only_reports
        may_report = reports and bool(self._reports.destinations)
        may_ask = asks and self._fails_all and not only_reports
        others = [one for one in association.acceptor.supported_contexts if one.abstract_syntax != PUSH_MODEL]
        if only_reports:
            others = [one for one in others if one.abstract_syntax == VERIFICATION]
        own = [_context(roles is not None, may_ask, may_report)] if may_ask or may_report else []
        association.acceptor.supported_contexts = [*others, *own]

    def _reported(self, event: Any) -> tuple[int, None]:
        request, session = event.request, event.assoc.dul.session
        instance_uid = str(request.AffectedSOPInstanceUID or "")
        code = self._reports.take(
            session.calling_ae, instance_uid, request.EventTypeID, lambda: event.event_information
        )
        return code, None

    def _asked(self, event: Any) -> tuple[int, None]:
        """Take a request for commitment, and report soon that every instance has failed."""
        request, calling_ae = event.request, event.assoc.dul.session.calling_ae
        if request.RequestedSOPInstanceUID != PUSH_INSTANCE:
            return status.NO_SUCH_INSTANCE, None
        if request.ActionTypeID != REQUEST:
            return status.NO_SUCH_ACTION, None
        try:
            with reading():
                transaction_uid, references = read_request(event.action_information)
        except UnreadableReferences as error:
            log.warning(
                "a request for storage commitment of %s cannot be read: %s",
                calling_ae,
                error,
                extra={"event": "commitment_request_unreadable", "calling_ae": calling_ae},
            )
            return status.INVALID_ARGUMENT, None
        with self._lock:
            if self._pending >= MAX_PENDING:
                return status.RESOURCE_LIMITATION, None
            self._pending += 1
        late = threading.Timer(REPORT_PAUSE_S, self._fail, (event.assoc, event.context, transaction_uid, references))
        late.daemon = True
        late.start()
        return status.SUCCESS, None

    def _fail(self, association: Any, context: Any, transaction_uid: str, references: list[Reference]) -> None:
        """Report on the association that brought the request, or on one of our own where the peer has left it."""
        session = association.dul.session
        told = all_failed(transaction_uid, references, status.PROCESSING_FAILURE)
        try:
            if association.is_established:
                _report_here(association, context, told)
            elif not self._report_there(session, told):
                return
            log.info(
                "%s asked to commit to %d instances and was told that all failed",
                session.calling_ae,
                len(references),
                extra={"event": "commitment_refused", "calling_ae": session.calling_ae},
            )
        except Exception:
            log.exception("a report of storage commitment was not sent", extra={"event": "commitment_report_failed"})
        finally:
            with self._lock:
                self._pending -= 1

    def _report_there(self, session: Any, told: Dataset) -> bool:
        """Report on an association of our own, in the role of the SCP; False where the peer cannot be told."""
        why = "its entry in scp.allowed_peers has no port"
        for pause_s in (*RETRY_PAUSES_S, 0.0) if session.report_port else ():
            peer = AskedPeer(
                ae_title=session.calling_ae, host=session.peer_host, port=session.report_port, tls=self._settings.tls
            )
            try:
                with associate(peer, self._settings.ae_title, [commitment_context()], roles=[_AS_SCP]) as association:
                    answer, _ = association.send_n_event_report(told, SOME_FAILED, PUSH_MODEL, PUSH_INSTANCE)
                if answer.Status == status.SUCCESS:
                    return True
                why = f"it answered the report with status {answer.Status:04X}"
            except NoAssociation as failure:
                why = failure.reason
            time.sleep(pause_s)
        log.warning(
            "%s ended its association before it was told that nothing is committed to, and cannot be told: %s",
            session.calling_ae,
            why,
            extra={"event": "commitment_report_not_sent", "calling_ae": session.calling_ae},
        )
        return False


def _report_here(association: Any, context: Any, told: Dataset) -> None:
    """Send the report on the association of the request; nobody waits for its answer."""
    report = N_EVENT_REPORT()
    report.MessageID = 1
    report.AffectedSOPClassUID, report.AffectedSOPInstanceUID = PUSH_MODEL, PUSH_INSTANCE
    report.EventTypeID = SOME_FAILED
    syntax = context.transfer_syntax
    report.EventInformation = BytesIO(encode(told, syntax.is_implicit_VR, syntax.is_little_endian) or b"")
    association.dimse.send_msg(report, context.context_id)


def _context(has_roles: bool, may_ask: bool, may_report: bool) -> PresentationContext:
    """The context of one association; a peer that reports proposes to be the SCP (PS3.7 D.3.3.4)."""
    context = commitment_context()
    if has_roles:
        context.scu_role, context.scp_role = may_ask, may_report
    return context
