"""CommitmentStore keeps what destinations were asked to commit to, and what they reported (PS3.4 annex J)."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from storage.database import Database
from storage.errors import LeaseLost
from storage.neighbour_tables import CommitmentRow
from storage.states import DeliveryState, JobState
from storage.tables import Delivery, DeliveryInstance, Job, Product
from storage.transitions import NEVER, move_delivery, remark_when_sent

ASKED: Final = "ASKED"  # the peer may still report
ANSWERED: Final = "ANSWERED"  # it has reported; a second report changes nothing
REFUSED: Final = "REFUSED"  # it answered the request with a failure
EXPIRED: Final = "EXPIRED"  # a newer request has taken the place of this one

MAX_RESENDS: Final = 3  # so often failed instances of a delivery are sent again
_HOPELESS: Final = frozenset({0x0119, 0x0122})  # the SOP class is what the peer does not take (PS3.3 C.14.1.1)


@dataclass(frozen=True)
class CommitmentReport:
    """What an N-EVENT-REPORT says: the SOP Instance UIDs committed to, and the failed ones with Failure Reason."""

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, int] = field(default_factory=dict)


class Counted(Enum):
    """What became of a report."""

    UNKNOWN = "no open request of ours"
    AGAIN = "reported before"
    CONFIRMED = "every instance is committed to"
    FAILED = "instances failed"
    PARTIAL = "instances are not mentioned"
    TOO_LATE = "the delivery waits for no report any more"


@dataclass(frozen=True)
class Reported:
    """What a report changed; delivery_id and reason are empty where it changed nothing."""

    counted: Counted
    delivery_id: int | None = None
    reason: str = ""
    is_resent: bool = False


@dataclass(frozen=True)
class CommitmentView:
    """One request for commitment as people see it; outcome: ASKED, ANSWERED, REFUSED or EXPIRED."""

    destination: str
    transaction_uid: str
    outcome: str
    reason: str
    asked_at: datetime
    answered_at: datetime | None


@dataclass(frozen=True)
class FailedInstance:
    """An instance that a destination did not commit to, with its Failure Reason (0008,1197)."""

    destination: str
    sop_instance_uid: str
    failure_reason: int


class CommitmentStore:
    """The only writer of requests for commitment, and of what a report makes of a delivery."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(self, delivery_id: int, transaction_uid: str, *, again_at: datetime, now: datetime) -> None:
        """Note a request before it is sent; older ones count no more. Raises LeaseLost unless the delivery is SENT."""
        with self._database.write() as session:
            row = _sent(session, delivery_id)
            older = update(CommitmentRow).where(CommitmentRow.delivery_id == delivery_id)
            session.execute(older.where(CommitmentRow.outcome == ASKED).values(outcome=EXPIRED))
            session.add(
                CommitmentRow(transaction_uid=transaction_uid, delivery_id=delivery_id, outcome=ASKED, asked_at=now)
            )
            row.reason, row.next_attempt_at = remark_when_sent(session, row), again_at  # no older trouble stays

    def not_taken(
        self, transaction_uid: str, reason: str, *, refused: bool, again_at: datetime | None, now: datetime
    ) -> None:
        """The request was refused, or nobody knows whether it arrived: then a report about it still counts.

        The delivery is asked for again at `again_at`, or never where that is None; nothing changes where the report was
        quicker.
        """
        with self._database.write() as session:
            _lock_delivery(session, transaction_uid)
            row = session.scalars(
                select(CommitmentRow)
                .where(CommitmentRow.transaction_uid == transaction_uid)
                .with_for_update(key_share=True)
            ).one()
            if row.outcome != ASKED:
                return
            row.reason = reason
            if refused:
                row.outcome, row.answered_at = REFUSED, now
            delivery = session.get_one(Delivery, row.delivery_id)
            if delivery.state is DeliveryState.SENT:
                delivery.reason, delivery.next_attempt_at = reason, again_at or NEVER

    def report(
        self, report: CommitmentReport, destinations: Collection[str], *, actor: str, pause: timedelta, now: datetime
    ) -> Reported:
        """Count a report of the peer that these destinations are.

        Failed instances are missing from now on, and the courier sends them again after `pause`, `MAX_RESENDS` times at
        most. What the report does not mention stays unconfirmed, and is asked for again after as long as was waited,
        but not before `pause`.
        """
        with self._database.write() as session:
            _lock_delivery(session, report.transaction_uid)
            found = session.execute(
                select(CommitmentRow, Delivery, Job)
                .join(Delivery, Delivery.id == CommitmentRow.delivery_id)
                .join(Job, Job.id == Delivery.job_id)
                .where(CommitmentRow.transaction_uid == report.transaction_uid)
                .with_for_update(key_share=True, of=CommitmentRow)
            ).first()
            if found is None:
                return Reported(Counted.UNKNOWN)
            row, delivery, job = found
            if delivery.destination not in destinations or row.outcome not in (ASKED, ANSWERED):
                return Reported(Counted.UNKNOWN)
            if row.outcome == ANSWERED:
                return Reported(Counted.AGAIN, delivery.id)
            row.outcome, row.answered_at = ANSWERED, now
            if delivery.state is not DeliveryState.SENT or job.state is not JobState.PRODUCED:
                row.reason = Counted.TOO_LATE.value
                return Reported(Counted.TOO_LATE, delivery.id)
            counted, reason = _count(session, delivery, report, now)
            row.reason = reason
            if counted is Counted.CONFIRMED:
                if remark := remark_when_sent(session, delivery):
                    reason = f"{reason}; {remark}"
                to = DeliveryState.CONFIRMED
                move_delivery(session, delivery, job.series_id, to, actor=actor, reason=reason, now=now)
                return Reported(counted, delivery.id, reason)
            session.flush()
            is_resent = counted is Counted.FAILED and _may_be_resent(session, delivery, report)
            if is_resent:
                words = f"{reason}; they are sent again"
                to = DeliveryState.PENDING
                move_delivery(session, delivery, job.series_id, to, actor=actor, reason=words, now=now)
            else:
                delivery.reason = reason
            if counted is Counted.PARTIAL:
                pause = max(pause, now - delivery.updated_at)
            delivery.next_attempt_at = NEVER if counted is Counted.FAILED and not is_resent else now + pause
            return Reported(counted, delivery.id, reason, is_resent)

    def last_reason(self, delivery_id: int) -> str:
        """What the peer said about the newest request, or why it was not asked; "" where it said nothing."""
        query = select(CommitmentRow.reason).where(CommitmentRow.delivery_id == delivery_id)
        with self._database.read() as session:
            return session.scalar(query.order_by(CommitmentRow.id.desc()).limit(1)) or ""

    def views(self, job_id: int) -> list[CommitmentView]:
        """The requests about the result of one job, the newest of each delivery, by destination."""
        newest = (
            select(func.max(CommitmentRow.id))
            .join(Delivery, Delivery.id == CommitmentRow.delivery_id)
            .where(Delivery.job_id == job_id)
            .group_by(CommitmentRow.delivery_id)
        )
        query = (
            select(CommitmentRow, Delivery.destination)
            .join(Delivery, Delivery.id == CommitmentRow.delivery_id)
            .where(CommitmentRow.id.in_(newest))
            .order_by(Delivery.destination)
        )
        with self._database.read() as session:
            return [
                CommitmentView(name, row.transaction_uid, row.outcome, row.reason, row.asked_at, row.answered_at)
                for row, name in session.execute(query)
            ]

    def failed(self, job_id: int) -> list[FailedInstance]:
        """The instances of the result of one job to which a destination did not commit when it last reported."""
        query = (
            select(Delivery.destination, Product.sop_instance_uid, DeliveryInstance.failure_reason)
            .join(Delivery, Delivery.id == DeliveryInstance.delivery_id)
            .join(Product, Product.id == DeliveryInstance.product_id)
            .where(Delivery.job_id == job_id, DeliveryInstance.failure_reason.is_not(None))
            .order_by(Delivery.destination, Product.file_name)
        )
        with self._database.read() as session:
            return [FailedInstance(name, uid, int(reason or 0)) for name, uid, reason in session.execute(query)]


def _count(session: Session, delivery: Delivery, report: CommitmentReport, now: datetime) -> tuple[Counted, str]:
    """Write down what is said of each instance; what it comes to, in a sentence."""
    rows = session.execute(
        select(DeliveryInstance, Product.sop_instance_uid)
        .join(Product, Product.id == DeliveryInstance.product_id)
        .where(DeliveryInstance.delivery_id == delivery.id)
    ).all()
    reasons: Counter[int] = Counter()
    for row, uid in rows:
        if uid in report.failed:
            row.failure_reason, row.confirmed_at = report.failed[uid], None
            reasons[report.failed[uid]] += 1
        elif uid in report.committed:
            row.failure_reason, row.confirmed_at = None, now
    if reasons:
        why = ", ".join(f"{count} with failure reason {code:04X}" for code, count in sorted(reasons.items()))
        return Counted.FAILED, f"the peer did not commit to {reasons.total()} of {len(rows)} instances ({why})"
    open_ = sum(row.confirmed_at is None for row, _ in rows)
    if open_:
        done = len(rows) - open_
        return Counted.PARTIAL, f"the peer committed to {done} of {len(rows)} instances and did not mention the others"
    return Counted.CONFIRMED, "the peer committed to every instance"


def _may_be_resent(session: Session, delivery: Delivery, report: CommitmentReport) -> bool:
    """Whether sending the failed instances again may help, and was not done too often."""
    if _HOPELESS.intersection(report.failed.values()):
        return False
    reported = select(func.count()).select_from(CommitmentRow).where(CommitmentRow.delivery_id == delivery.id)
    return (session.scalar(reported.where(CommitmentRow.outcome == ANSWERED)) or 0) <= MAX_RESENDS


def _lock_delivery(session: Session, transaction_uid: str) -> None:
    """Before a request is: who asks, resends or cancels has the delivery first as well."""
    of_request = select(Delivery.id).join(CommitmentRow, CommitmentRow.delivery_id == Delivery.id)
    of_request = of_request.where(CommitmentRow.transaction_uid == transaction_uid)
    session.execute(of_request.with_for_update(key_share=True, of=Delivery))


def _sent(session: Session, delivery_id: int) -> Delivery:
    row = session.scalar(select(Delivery).where(Delivery.id == delivery_id).with_for_update(key_share=True))
    if row is None or row.state is not DeliveryState.SENT:
        raise LeaseLost(f"delivery {delivery_id} is no longer waiting for confirmation")
    return row
