"""OutboxStore knows which derived series are due where, what is missing there, and what the peer answered."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Connection, Select, Table, bindparam, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from storage.column_types import Prepared
from storage.errors import IllegalTransition, LeaseLost, NotFound
from storage.neighbour_tables import RejectionNoteRow
from storage.pauses import host_of, is_paused
from storage.queueing import come_again
from storage.remakes import ProductStore
from storage.states import DeliveryState, JobState, Leftover, Stage, case_id
from storage.tables import Delivery, DeliveryInstance, Job, Product, Series
from storage.transitions import (
    LEFTOVER_PAUSE,
    NEVER,
    begin_note,
    free_delivery,
    hold_delivery,
    mark_leftover,
    move_delivery,
    remark_when_sent,
)
from storage.turns import next_delivery

_DELIVERY, _ANSWER = (cast(Table, kind.__table__) for kind in (Delivery, DeliveryInstance))
_EXTEND_LEASE = Prepared(
    update(_DELIVERY)
    .where(
        _DELIVERY.c.id == bindparam("id_"),
        _DELIVERY.c.state == DeliveryState.SENDING,
        _DELIVERY.c.courier == bindparam("owner"),
    )
    .values(lease_until=bindparam("until"))
)
_ANSWERED_AGAIN = Prepared(
    update(_ANSWER)
    .where(_ANSWER.c.delivery_id == bindparam("delivery"), _ANSWER.c.product_id == bindparam("product"))
    .values(dimse_status=bindparam("status"), sent_at=bindparam("now"), failure_reason=None)
)
_ANSWERED = Prepared(
    insert(_ANSWER).values(
        delivery_id=bindparam("delivery"),
        product_id=bindparam("product"),
        dimse_status=bindparam("status"),
        sent_at=bindparam("now"),
    )
)


@dataclass(frozen=True)
class OutgoingInstance:
    """One derived instance that the peer has not accepted yet.

    file_name: relative to the spool. sha256: of the file as it was produced, hex.
    """

    product_id: int
    sop_instance_uid: str
    file_name: str
    sha256: str


@dataclass(frozen=True)
class ClaimedDelivery:
    """A delivery that this courier owns until its lease ends; `missing` is what the peer has not accepted yet.

    case: how people call its job. product_dir: the folder of the series, relative to the spool. measurements, override:
    of its job, as the store has them. is_released: a person let it go after it was held.
    """

    id: int
    job_id: int
    derived_series_uid: str
    destination: str
    attempt: int
    total: int
    missing: tuple[OutgoingInstance, ...]
    case: str = ""
    product_dir: str = ""
    measurements: Mapping[str, Any] = field(default_factory=dict)
    override: str = ""
    is_released: bool = False


@dataclass(frozen=True)
class SentDelivery:
    """A series that a peer accepted: it shall confirm that it holds it, or is asked whether it still does."""

    id: int
    study_uid: str
    derived_series_uid: str
    sop_instance_uids: frozenset[str]
    sent_at: datetime


class OutboxStore(ProductStore):
    """The writer of deliveries once their rows exist, beside `CommitmentStore`, which writes what a peer reports."""

    def claim(
        self, courier: str, destination: str, lease_s: float, now: datetime, *, most_sending: int = 0
    ) -> ClaimedDelivery | None:
        """PENDING -> SENDING for the delivery to `destination` whose turn it is (`storage.turns`); None without one.

        A delivery waits while its source series is being received again: it may be about to be superseded; while it is
        held for a person; while sending is paused on the host of the courier; and while `most_sending` are SENDING to
        the destination, from any host (0 for no limit).
        """
        with self._database.write() as session:
            if is_paused(session, Stage.SEND, host_of(courier)):
                return None
            found = next_delivery(session, destination, now, most_sending)
            if found is None:
                return None
            delivery, job = found
            move_delivery(session, delivery, job.series_id, DeliveryState.SENDING, actor=courier, reason="", now=now)
            delivery.attempts += 1
            delivery.courier, delivery.lease_until = courier, now + timedelta(seconds=lease_s)
            return _claimed(session, delivery, job)

    def record_accepted(
        self, delivery_id: int, courier: str, product_id: int, dimse_status: int, *, lease_s: float, now: datetime
    ) -> None:
        """Record the answer for one instance and extend the lease. Raises LeaseLost when sending must stop.

        An answer that comes after the delivery was taken away is recorded all the same: the instance is at the peer.
        """
        lease = {"id_": delivery_id, "owner": courier, "until": now + timedelta(seconds=lease_s)}
        answer = {"delivery": delivery_id, "product": product_id, "status": dimse_status, "now": now}
        with self._database.write_plain() as connection:
            is_ours = _EXTEND_LEASE.execute(connection, lease).rowcount == 1
            if not _ANSWERED_AGAIN.execute(connection, answer).rowcount:
                _ANSWERED.execute(connection, answer)
            if not is_ours:
                _mark_late_answer(connection, delivery_id, courier, now)
        if not is_ours:
            raise LeaseLost(f"delivery {delivery_id} no longer belongs to {courier}")

    def keep(self, delivery_id: int, courier: str, *, lease_s: float, now: datetime) -> None:
        """Extend the lease without an answer, as for what is sent beside the series. Raises LeaseLost."""
        lease = {"id_": delivery_id, "owner": courier, "until": now + timedelta(seconds=lease_s)}
        with self._database.write_plain() as connection:
            if _EXTEND_LEASE.execute(connection, lease).rowcount != 1:
                raise LeaseLost(f"delivery {delivery_id} no longer belongs to {courier}")

    def finish_sent(self, delivery_id: int, courier: str, reason: str, now: datetime) -> None:
        """SENDING -> SENT; raises IllegalTransition unless the peer accepted every instance, or LeaseLost."""
        with self._database.write() as session:
            delivery, job = _owned(session, delivery_id, courier)
            if _claimed(session, delivery, job).missing:
                raise IllegalTransition(f"delivery {delivery_id} has instances that the peer never accepted")
            move_delivery(session, delivery, job.series_id, DeliveryState.SENT, actor=courier, reason=reason, now=now)
            delivery.next_attempt_at = now  # from now on: when to ask for confirmation

    def postpone(self, delivery_id: int, courier: str, reason: str, *, not_before: datetime, now: datetime) -> None:
        """SENDING -> PENDING after a transient refusal; what was accepted stays accepted. Raises LeaseLost."""
        with self._database.write() as session:
            delivery, job = _owned(session, delivery_id, courier)
            move_delivery(
                session, delivery, job.series_id, DeliveryState.PENDING, actor=courier, reason=reason, now=now
            )
            delivery.next_attempt_at = not_before

    def give_back(self, delivery_id: int, courier: str, reason: str, now: datetime) -> None:
        """SENDING -> PENDING, due at once, without a failure: the courier was told to stop. Raises LeaseLost."""
        with self._database.write() as session:
            delivery, job = _owned(session, delivery_id, courier)
            move_delivery(
                session, delivery, job.series_id, DeliveryState.PENDING, actor=courier, reason=reason, now=now
            )
            delivery.attempts, delivery.next_attempt_at = delivery.attempts - 1, now

    def hold(self, delivery_id: int, courier: str, reason: str, now: datetime) -> None:
        """SENDING -> PENDING, held for a person, without a failure. Raises LeaseLost."""
        with self._database.write() as session:
            delivery, job = _owned(session, delivery_id, courier)
            hold_delivery(session, delivery, job.series_id, actor=courier, reason=reason, now=now)
            delivery.attempts -= 1

    def release_held(self, job_id: int, actor: str, reason: str, now: datetime) -> list[str]:
        """A person lets the held deliveries of a job go, in this round of sending; returns their destinations.

        Raises NotFound, and IllegalTransition where none is held.
        """
        with self._database.write() as session:
            job = session.get(Job, job_id)
            if job is None:
                raise NotFound(f"there is no job {job_id}")
            held = session.scalars(_held_of(job_id).with_for_update(key_share=True)).all()
            if job.state is not JobState.PRODUCED or not held:
                raise IllegalTransition("no delivery of this job is held")
            for row in held:
                row.override = f"HELD: {row.held_for}. Released by {actor}: {reason}"
                free_delivery(session, row, job.series_id, actor=actor, reason=f"released: {reason}", now=now)
            return sorted(row.destination for row in held)

    def fail(self, delivery_id: int, courier: str, reason: str, now: datetime) -> None:
        """SENDING -> FAILED after a permanent refusal. Raises LeaseLost."""
        with self._database.write() as session:
            delivery, job = _owned(session, delivery_id, courier)
            move_delivery(session, delivery, job.series_id, DeliveryState.FAILED, actor=courier, reason=reason, now=now)

    def release_expired(self, now: datetime, *, dead_courier: str | None = None) -> list[int]:
        """SENDING -> PENDING where the lease ran out: the courier died; only missing instances will be sent.

        A restarted courier gives its own name as `dead_courier`: what its predecessor held is free at once.
        """
        with self._database.write() as session:
            expired = session.execute(
                select(Delivery, Job)
                .join(Job, Job.id == Delivery.job_id)
                .where(Delivery.state == DeliveryState.SENDING)
                .where(or_(Delivery.lease_until < now, Delivery.courier == dead_courier))
                .with_for_update(key_share=True, skip_locked=True, of=Delivery)
            ).all()
            for delivery, job in expired:
                reason = f"courier {delivery.courier} stopped answering"
                move_delivery(
                    session, delivery, job.series_id, DeliveryState.PENDING, actor="scheduler", reason=reason, now=now
                )
                delivery.next_attempt_at = now
            _settle_unknown(session, now, dead_courier)
            return [delivery.id for delivery, _ in expired]

    def let_go(self, delivery_id: int, courier: str) -> None:
        """The courier has nothing of a delivery in flight any more that was taken away from it."""
        with self._database.write() as session:
            row = session.scalar(select(Delivery).where(Delivery.id == delivery_id).with_for_update(key_share=True))
            if row is not None and row.state is DeliveryState.CANCELLED and row.courier == courier:
                row.courier = row.lease_until = None

    def fail_without_destination(self, destinations: Collection[str], now: datetime) -> list[int]:
        """PENDING -> FAILED for each delivery whose destination is none of these: nobody would ever send it."""
        with self._database.write() as session:
            rows = session.execute(
                select(Delivery, Job)
                .join(Job, Job.id == Delivery.job_id)
                .where(Delivery.state == DeliveryState.PENDING, Delivery.destination.not_in(destinations))
                .with_for_update(key_share=True, skip_locked=True, of=Delivery)
            ).all()
            for delivery, job in rows:
                reason = f"{delivery.destination} is no longer in the settings"
                move_delivery(
                    session, delivery, job.series_id, DeliveryState.FAILED, actor="courier", reason=reason, now=now
                )
            return [delivery.id for delivery, _ in rows]

    def retry(self, job_id: int, actor: str, reason: str, now: datetime) -> int:
        """FAILED -> PENDING, and no more waiting for what is PENDING; accepted instances stay accepted.

        Of what is held the destination is asked again: somebody may have corrected what it has.

        Returns the number of deliveries that are due now.
        """
        with self._database.write() as session:
            job = session.get(Job, job_id, with_for_update={"key_share": True})
            if job is None:
                raise NotFound(f"there is no job {job_id}")
            waiting = session.scalars(
                select(Delivery)
                .where(Delivery.job_id == job_id, Delivery.state.in_((DeliveryState.FAILED, DeliveryState.PENDING)))
                .with_for_update(key_share=True)
            ).all()
            for row in waiting:
                if row.state is DeliveryState.FAILED:
                    move_delivery(
                        session, row, job.series_id, DeliveryState.PENDING, actor=actor, reason=reason, now=now
                    )
                    row.attempts = 0
                if row.held_for:
                    free_delivery(session, row, job.series_id, actor=actor, reason=reason, now=now)
                row.next_attempt_at = now
            if waiting:
                come_again(session, job, now)
            return len(waiting)

    # -- confirmation ------------------------------------------------------------------------------------------

    def awaiting_confirmation(self, destination: str, now: datetime) -> SentDelivery | None:
        """The SENT delivery to `destination` that is due to be asked for, the one due longest; None without one."""
        with self._database.read() as session:
            found = session.execute(
                select(Delivery, Job, Series.study_uid)
                .join(Job, Job.id == Delivery.job_id)
                .join(Series, Series.id == Job.series_id)
                .where(Delivery.state == DeliveryState.SENT, Delivery.next_attempt_at <= now)
                .where(Delivery.destination == destination, Job.state == JobState.PRODUCED)
                .order_by(Delivery.next_attempt_at, Delivery.id)
                .limit(1)
            ).first()
            return _sent_delivery(session, *found) if found is not None else None

    def postpone_confirmation(
        self, delivery_id: int, actor: str, reason: str, *, not_before: datetime | None, now: datetime
    ) -> None:
        """Keep SENT with a reason and ask again at `not_before`, or never where it is None. Raises LeaseLost."""
        with self._database.write() as session:
            row = _sent(session, delivery_id)
            row.reason, row.next_attempt_at = reason, not_before or NEVER

    def confirm(self, delivery_id: int, actor: str, reason: str, now: datetime) -> None:
        """SENT -> CONFIRMED: the peer showed that it holds every instance. Raises LeaseLost.

        What was said when it was sent, such as what else the peer refused, stays in the reason.
        """
        with self._database.write() as session:
            row = _sent(session, delivery_id)
            job = session.get_one(Job, row.job_id)
            if remark := remark_when_sent(session, row):
                reason = f"{reason}; {remark}"
            for instance in session.scalars(select(DeliveryInstance).where(DeliveryInstance.delivery_id == row.id)):
                instance.confirmed_at = now
            move_delivery(session, row, job.series_id, DeliveryState.CONFIRMED, actor=actor, reason=reason, now=now)

    # -- leftovers ---------------------------------------------------------------------------------------------

    def awaiting_removal(self, destination: str, now: datetime) -> SentDelivery | None:
        """The withdrawn result at `destination` that is due to be asked for, the one due longest; None without one."""
        with self._database.read() as session:
            found = session.execute(
                select(Delivery, Job, Series.study_uid)
                .join(Job, Job.id == Delivery.job_id)
                .join(Series, Series.id == Job.series_id)
                .where(Delivery.leftover == Leftover.STANDS, Delivery.next_attempt_at <= now)
                .where(Delivery.destination == destination)
                .order_by(Delivery.next_attempt_at, Delivery.id)
                .limit(1)
            ).first()
            return _sent_delivery(session, *found) if found is not None else None

    def still_there(self, delivery_id: int, now: datetime) -> None:
        """Ask for a leftover again later."""
        with self._database.write() as session:
            session.execute(
                update(Delivery)
                .where(Delivery.id == delivery_id, Delivery.leftover == Leftover.STANDS)  # it may be sent anew by now
                .values(next_attempt_at=now + LEFTOVER_PAUSE)
            )

    def gone(self, delivery_id: int, actor: str, reason: str, *, asked_at: datetime, now: datetime) -> None:
        """A leftover that the destination was asked for at `asked_at` is not there any more.

        Raises LeaseLost where it does not stand any more, or where an instance of it was accepted since.
        """
        with self._database.write() as session:
            row = session.scalars(
                select(Delivery).where(Delivery.id == delivery_id).with_for_update(key_share=True)
            ).one()
            since = session.scalar(
                select(func.max(DeliveryInstance.sent_at)).where(DeliveryInstance.delivery_id == delivery_id)
            )
            if row.leftover != Leftover.STANDS or (since is not None and since >= asked_at):
                raise LeaseLost(f"the leftover of delivery {delivery_id} changed while the peer was asked")
            job = session.get_one(Job, row.job_id)
            mark_leftover(session, row, job.series_id, Leftover.GONE, actor=actor, reason=reason, now=now)


def _held_of(job_id: int) -> Select[Delivery]:
    return select(Delivery).where(
        Delivery.job_id == job_id, Delivery.state == DeliveryState.PENDING, Delivery.held_for != ""
    )


def _settle_unknown(session: Session, now: datetime, dead_courier: str | None) -> None:
    """A courier ended with a delivery in its hands that had been taken back: an instance may have reached the peer."""
    found = session.execute(
        select(Delivery, Job)
        .join(Job, Job.id == Delivery.job_id)
        .where(Delivery.state == DeliveryState.CANCELLED, Delivery.courier.is_not(None))
        .where(or_(Delivery.lease_until < now, Delivery.courier == dead_courier))
        .with_for_update(key_share=True, skip_locked=True, of=Delivery)
    )
    for delivery, job in found:
        reason = f"courier {delivery.courier} stopped answering while it was sending; an instance may have arrived"
        delivery.courier = delivery.lease_until = None
        mark_leftover(session, delivery, job.series_id, Leftover.STANDS, actor="scheduler", reason=reason, now=now)


def _mark_late_answer(connection: Connection, delivery_id: int, courier: str, now: datetime) -> None:
    """Where the job was withdrawn meanwhile, what the peer just accepted is a leftover."""
    with Session(connection) as session:
        delivery, job = session.execute(
            select(Delivery, Job).join(Job, Job.id == Delivery.job_id).where(Delivery.id == delivery_id)
        ).one()
        if job.state in (JobState.CANCELLED, JobState.SUPERSEDED):
            reason = "an instance was accepted after the delivery was taken back"
            mark_leftover(session, delivery, job.series_id, Leftover.STANDS, actor=courier, reason=reason, now=now)
            if session.scalar(select(exists().where(RejectionNoteRow.delivery_id == delivery.id))):
                begin_note(session, delivery, job, now)  # the one before does not name it
            session.flush()


def _sent_delivery(session: Session, delivery: Delivery, job: Job, study_uid: str) -> SentDelivery:
    uids = session.scalars(select(Product.sop_instance_uid).where(Product.job_id == job.id))
    assert job.derived_series_uid is not None
    return SentDelivery(delivery.id, study_uid, job.derived_series_uid, frozenset(uids), delivery.updated_at)


def _sent(session: Session, delivery_id: int) -> Delivery:
    row = session.scalar(select(Delivery).where(Delivery.id == delivery_id).with_for_update(key_share=True))
    if row is None or row.state is not DeliveryState.SENT:
        raise LeaseLost(f"delivery {delivery_id} is no longer waiting for confirmation")
    return row


def _owned(session: Session, delivery_id: int, courier: str) -> tuple[Delivery, Job]:
    delivery = session.scalar(select(Delivery).where(Delivery.id == delivery_id).with_for_update(key_share=True))
    if delivery is None or delivery.state is not DeliveryState.SENDING or delivery.courier != courier:
        state = "gone" if delivery is None else delivery.state
        raise LeaseLost(f"delivery {delivery_id} is {state} and no longer belongs to {courier}")
    return delivery, session.get_one(Job, delivery.job_id)


def _claimed(session: Session, delivery: Delivery, job: Job) -> ClaimedDelivery:
    accepted = select(DeliveryInstance.product_id).where(
        DeliveryInstance.delivery_id == delivery.id, DeliveryInstance.failure_reason.is_(None)
    )
    products = session.scalars(select(Product).where(Product.job_id == job.id).order_by(Product.file_name)).all()
    done = set(session.scalars(accepted))
    assert job.derived_series_uid is not None
    return ClaimedDelivery(
        id=delivery.id,
        job_id=job.id,
        derived_series_uid=job.derived_series_uid,
        destination=delivery.destination,
        attempt=delivery.attempts,
        total=len(products),
        missing=tuple(
            OutgoingInstance(row.id, row.sop_instance_uid, f"{job.product_dir}/{row.file_name}", row.sha256)
            for row in products
            if row.id not in done
        ),
        case=case_id(job.series_id, job.run),
        product_dir=job.product_dir or "",
        measurements=job.measurements,
        override=job.override,
        is_released=bool(delivery.override),
    )
