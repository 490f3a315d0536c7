"""JobStore hands jobs to workers by lease and records what became of them; each step is one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.errors import IllegalTransition, LeaseLost, NotFound
from storage.states import DeliveryState, JobState, SeriesState
from storage.tables import Delivery, DeliveryInstance, Instance, Job, Product, Series
from storage.transitions import begin_delivery, cancel_open_deliveries, move_delivery, move_job


@dataclass(frozen=True)
class ClaimedJob:
    """A job that this worker owns until its lease ends."""

    id: int
    series_id: int
    series_uid: str
    bundle: str
    job_key: str
    repeat: int
    version: int
    doubt: str
    attempt: int
    spool_names: tuple[str, ...]


@dataclass(frozen=True)
class ProducedInstance:
    """One derived instance as written into the published folder."""

    sop_instance_uid: str
    source_sop_instance_uid: str
    file_name: str
    sha256: str


@dataclass(frozen=True)
class ProducedSeries:
    """The outcome of a job: a published folder and what is in it."""

    series_uid: str
    product_dir: str
    instances: tuple[ProducedInstance, ...]
    measurements: dict[str, Any]
    remarks: tuple[str, ...] = ()


class JobStore:
    """The only writer of jobs and products."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- worker ------------------------------------------------------------------------------------------------

    def claim(self, worker: str, lease_s: float, now: datetime) -> ClaimedJob | None:
        """QUEUED -> RUNNING for the oldest due job whose series is not being received again; None if there is none."""
        with self._database.write() as session:
            found = session.execute(
                select(Job, Series.series_uid)
                .join(Series, Series.id == Job.series_id)
                .where(Job.state == JobState.QUEUED, Job.next_attempt_at <= now)
                .where(Series.state == SeriesState.QUEUED)
                .order_by(Job.next_attempt_at, Job.id)
                .limit(1)
                .with_for_update(skip_locked=True, of=Job)
            ).first()
            if found is None:
                return None
            job, series_uid = found
            move_job(session, job, JobState.RUNNING, actor=worker, reason="", now=now)
            job.attempts += 1
            job.worker, job.lease_until = worker, now + timedelta(seconds=lease_s)
            names = session.scalars(
                select(Instance.spool_name).where(Instance.series_id == job.series_id, Instance.is_current)
            )
            return ClaimedJob(
                id=job.id,
                series_id=job.series_id,
                series_uid=series_uid,
                bundle=job.bundle,
                job_key=job.job_key,
                repeat=job.repeat,
                version=job.version,
                doubt=job.doubt,
                attempt=job.attempts,
                spool_names=tuple(names),
            )

    def heartbeat(self, job_id: int, worker: str, lease_s: float, now: datetime) -> None:
        """Extend the lease; raises LeaseLost when the job was cancelled, superseded or given to another worker."""
        with self._database.write() as session:
            _owned(session, job_id, worker).lease_until = now + timedelta(seconds=lease_s)

    def finish(
        self,
        job_id: int,
        worker: str,
        product: ProducedSeries,
        *,
        destinations: Sequence[str],
        held_reason: str | None,
        now: datetime,
    ) -> None:
        """RUNNING -> PRODUCED with one outbox row per destination, or RUNNING -> HELD with none. Raises LeaseLost."""
        with self._database.write() as session:
            job = _owned(session, job_id, worker)
            # An earlier attempt may have ended HELD and been retried; its rows give way to the new files.
            session.execute(delete(Product).where(Product.job_id == job.id))
            job.derived_series_uid, job.product_dir = product.series_uid, product.product_dir
            job.measurements, job.remarks = product.measurements, list(product.remarks)
            for made in product.instances:
                session.add(
                    Product(
                        job_id=job.id,
                        sop_instance_uid=made.sop_instance_uid,
                        source_sop_instance_uid=made.source_sop_instance_uid,
                        file_name=made.file_name,
                        sha256=made.sha256,
                    )
                )
            if held_reason is not None:
                move_job(session, job, JobState.HELD, actor=worker, reason=held_reason, now=now)
            else:
                move_job(session, job, JobState.PRODUCED, actor=worker, reason="", now=now)
                _fill_outbox(session, job, destinations, worker, now)

    def hold(self, job_id: int, worker: str, reason: str, now: datetime) -> None:
        """RUNNING -> HELD without a product: the machine cannot do the work as it was told to. Raises LeaseLost."""
        with self._database.write() as session:
            move_job(session, _owned(session, job_id, worker), JobState.HELD, actor=worker, reason=reason, now=now)

    def fail(self, job_id: int, worker: str, reason: str, now: datetime) -> None:
        """RUNNING -> FAILED for an error that will not pass by itself. Raises LeaseLost."""
        with self._database.write() as session:
            move_job(session, _owned(session, job_id, worker), JobState.FAILED, actor=worker, reason=reason, now=now)

    def requeue(self, job_id: int, worker: str, reason: str, *, not_before: datetime, now: datetime) -> None:
        """RUNNING -> QUEUED for an error that may pass, or when the worker is told to stop. Raises LeaseLost."""
        with self._database.write() as session:
            job = _owned(session, job_id, worker)
            move_job(session, job, JobState.QUEUED, actor=worker, reason=reason, now=now)
            job.next_attempt_at = not_before

    def release_expired(self, max_attempts: int, now: datetime, *, dead_worker: str | None = None) -> list[int]:
        """RUNNING -> QUEUED where the lease ran out; -> FAILED for a job during which `max_attempts` workers ended.

        A restarted worker gives its own name as `dead_worker`: what its predecessor held is free at once.
        """
        with self._database.write() as session:
            expired = session.scalars(
                select(Job)
                .where(Job.state == JobState.RUNNING)
                .where(or_(Job.lease_until < now, Job.worker == dead_worker))
                .with_for_update(skip_locked=True)
            ).all()
            for job in expired:
                if job.attempts >= max_attempts:
                    reason = f"the worker died during all {job.attempts} attempts"
                    move_job(session, job, JobState.FAILED, actor="scheduler", reason=reason, now=now)
                else:
                    reason = f"worker {job.worker} stopped answering"
                    move_job(session, job, JobState.QUEUED, actor="scheduler", reason=reason, now=now)
                    job.next_attempt_at = now
            return [job.id for job in expired]

    # -- operator ----------------------------------------------------------------------------------------------

    def retry(self, job_id: int, actor: str, reason: str, now: datetime) -> None:
        """FAILED, HELD or CANCELLED -> QUEUED, its attempts counted anew; a produced series is never made again."""
        with self._database.write() as session:
            job = _get(session, job_id)
            if job.state is JobState.CANCELLED and job.product_dir is not None:
                raise IllegalTransition("the series of this job was produced already; it can only be resent")
            move_job(session, job, JobState.QUEUED, actor=actor, reason=reason, now=now)
            job.attempts, job.next_attempt_at = 0, now

    def cancel(self, job_id: int, actor: str, reason: str, now: datetime) -> None:
        """Any live state -> CANCELLED, with every delivery that has not reached SENT."""
        with self._database.write() as session:
            job = _get(session, job_id)
            move_job(session, job, JobState.CANCELLED, actor=actor, reason=reason, now=now)
            cancel_open_deliveries(session, job, reason, actor, now)

    def release(self, job_id: int, destinations: Sequence[str], actor: str, reason: str, now: datetime) -> None:
        """HELD -> PRODUCED by a person who looked at it; refused where nothing was produced."""
        with self._database.write() as session:
            job = _get(session, job_id)
            if job.state is JobState.HELD and job.product_dir is None:
                raise IllegalTransition("nothing was produced yet that could be released; retry the job instead")
            move_job(session, job, JobState.PRODUCED, actor=actor, reason=reason, now=now)
            _fill_outbox(session, job, destinations, actor, now)

    def reject(self, job_id: int, actor: str, reason: str, now: datetime) -> None:
        """HELD -> REJECTED by a person; the series is never sent."""
        with self._database.write() as session:
            move_job(session, _get(session, job_id), JobState.REJECTED, actor=actor, reason=reason, now=now)

    def resend(self, job_id: int, destinations: Sequence[str], actor: str, reason: str, now: datetime) -> None:
        """Send the stored files again, same bytes and UIDs, to these destinations; open deliveries just go on."""
        with self._database.write() as session:
            job = _get(session, job_id)
            if job.state is not JobState.PRODUCED:
                raise IllegalTransition(f"only a PRODUCED job can be resent; this one is {job.state}")
            existing = {row.destination: row for row in session.scalars(_deliveries(job))}
            for row in (existing[name] for name in destinations if name in existing):
                if row.state in (DeliveryState.PENDING, DeliveryState.SENDING):
                    continue
                session.execute(delete(DeliveryInstance).where(DeliveryInstance.delivery_id == row.id))
                move_delivery(session, row, job.series_id, DeliveryState.PENDING, actor=actor, reason=reason, now=now)
                row.attempts, row.next_attempt_at = 0, now
            _fill_outbox(session, job, [name for name in destinations if name not in existing], actor, now)


def _get(session: Session, job_id: int) -> Job:
    job = session.scalar(select(Job).where(Job.id == job_id).with_for_update())
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def _owned(session: Session, job_id: int, worker: str) -> Job:
    job = _get(session, job_id)
    if job.state is not JobState.RUNNING or job.worker != worker:
        raise LeaseLost(f"job {job_id} is {job.state} and no longer belongs to {worker}")
    return job


def _deliveries(job: Job) -> Any:
    return select(Delivery).where(Delivery.job_id == job.id)


def _fill_outbox(session: Session, job: Job, destinations: Sequence[str], actor: str, now: datetime) -> None:
    for destination in destinations:
        row = Delivery(job_id=job.id, destination=destination)
        begin_delivery(session, row, job.series_id, actor=actor, reason=f"to {destination}", now=now)
