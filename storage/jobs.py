"""JobStore hands jobs to workers by lease and records what became of them; each step is one transaction."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from config.routes import TITLE_MARK
from storage.deaths import count_death
from storage.errors import IllegalTransition, LeaseLost, NotFound
from storage.pauses import host_of, is_paused
from storage.queueing import come_again
from storage.remakes import OTHER_BYTES, claimed_at, has_same_bytes, release_of, succeed, was_given_away
from storage.sources import SourceStore, current_sources
from storage.states import (
    CLOSED_BY_A_PERSON,
    LIVE_JOB_STATES,
    MAX_DEATHS,
    NOT_JUDGED,
    DeliveryState,
    JobState,
    Leftover,
    Priority,
    SeriesState,
    Stage,
    case_id,
)
from storage.tables import Delivery, Job, Product, Series
from storage.transitions import (
    begin_delivery,
    destinations_of,
    judge_again,
    last_event,
    mark_leftover,
    move_job,
    note_turn,
    reopen_deliveries,
    require_not_rejected,
    require_one_free,
    send_anew,
    withdraw_deliveries,
)
from storage.turns import NO_RULES, Rules, change_turn, next_job
from storage.work import ClaimedJob, ProducedInstance, ProducedSeries, Progress, RewrittenFiles

__all__ = ["ClaimedJob", "JobStore", "ProducedInstance", "ProducedSeries", "Progress", "RewrittenFiles"]


class JobStore(SourceStore):
    """The only writer of jobs and products."""

    # -- worker ------------------------------------------------------------------------------------------------

    def claim(self, worker: str, lease_s: float, now: datetime, rules: Rules = NO_RULES) -> ClaimedJob | None:
        """QUEUED -> RUNNING for the job whose turn it is (`storage.turns`); None where none may begin.

        Its series is not being received again, and translating is not paused on the host of the worker.
        """
        with self._database.write() as session:
            if is_paused(session, Stage.TRANSLATE, host_of(worker)):
                return None
            found = next_job(session, now, rules)
            if found is None:
                return None
            job, series_uid, study_uid = found
            sources = tuple(current_sources(session, job.series_id))
            if session.scalar(select(Series.state).where(Series.id == job.series_id)) is not SeriesState.QUEUED:
                return None  # it came again since it was found, and the sources may be others than the job's
            move_job(session, job, JobState.RUNNING, actor=worker, reason="", now=now)
            job.attempts += 1
            job.worker, job.starter, job.lease_until = worker, self._starter, now + timedelta(seconds=lease_s)
            return ClaimedJob(
                id=job.id,
                series_id=job.series_id,
                series_uid=series_uid,
                study_uid=study_uid,
                patient=job.patient,
                bundle=job.bundle,
                job_key=job.job_key,
                repeat=job.repeat,
                version=job.version,
                doubt=job.doubt,
                attempt=job.attempts,
                device_faults=job.device_faults,
                deaths=job.deaths,
                sources=sources,
                produced_at=claimed_at(session, job) or now,
                release=release_of(session, job),
                case=case_id(job.series_id, job.run),
                slices=job.source_count,
            )

    def heartbeat(
        self, job_id: int, worker: str, lease_s: float, now: datetime, *, progress: Progress | None = None
    ) -> None:
        """Extend the lease and write down how far the job is.

        Raises LeaseLost when the job was cancelled, superseded or given to another worker.
        """
        with self._database.write() as session:
            job = _owned(session, job_id, worker)
            job.lease_until = now + timedelta(seconds=lease_s)
            if progress is None:
                return
            reached = {"stage": progress.stage, "done": progress.done, "total": progress.total}
            if any(job.progress.get(key) != value for key, value in reached.items()):
                # The last advance: a reader judges from it when the stage ends, and whether the job is stuck.
                job.updated_at = now
                job.progress = {**reached, "started_at": progress.started_at.isoformat(), "at": now.isoformat()}

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
        """RUNNING -> PRODUCED with one outbox row per destination, or RUNNING -> HELD with none. Raises LeaseLost.

        destinations: of a job that its route does not send elsewhere.

        A result that was in the outbox already, and was made again, goes on to be sent where its bytes are the same.
        Where they are not, the job is SUPERSEDED by a new one, and LeaseLost is raised: nobody refers to the files.
        """
        successor = None
        with self._database.write() as session:
            job = _owned(session, job_id, worker, with_series=True)
            if not was_given_away(session, job):
                _keep_product(session, job, product)
                to = JobState.PRODUCED if held_reason is None else JobState.HELD
                move_job(session, job, to, actor=worker, reason=held_reason or "", now=now)
                if held_reason is None:
                    _fill_outbox(session, job, job.destinations or destinations, worker, now)
            elif has_same_bytes(session, job, {made.sop_instance_uid: made.sha256 for made in product.instances}):
                job.product_dir = product.product_dir
                move_job(session, job, JobState.PRODUCED, actor=worker, reason="", now=now)
            else:
                successor = succeed(session, job, worker, now)
        if successor is not None:
            raise LeaseLost(f"{OTHER_BYTES}; job {case_id(successor.series_id, successor.run)} takes its place")

    def hold(self, job_id: int, worker: str, reason: str, now: datetime) -> None:
        """RUNNING -> HELD without a product: worker or series must be put right by a person first. Raises LeaseLost."""
        with self._database.write() as session:
            move_job(session, _owned(session, job_id, worker), JobState.HELD, actor=worker, reason=reason, now=now)

    def fail(self, job_id: int, worker: str, reason: str, now: datetime) -> None:
        """RUNNING -> FAILED for an error that will not pass by itself. Raises LeaseLost."""
        with self._database.write() as session:
            move_job(session, _owned(session, job_id, worker), JobState.FAILED, actor=worker, reason=reason, now=now)

    def requeue(self, job_id: int, worker: str, reason: str, *, not_before: datetime, now: datetime) -> None:
        """RUNNING -> QUEUED for an error that may pass. Raises LeaseLost."""
        with self._database.write() as session:
            job = _owned(session, job_id, worker)
            move_job(session, job, JobState.QUEUED, actor=worker, reason=reason, now=now)
            job.next_attempt_at = not_before

    def give_back(
        self,
        job_id: int,
        worker: str,
        reason: str,
        *,
        now: datetime,
        is_device_fault: bool = False,
        not_before: datetime | None = None,
    ) -> None:
        """RUNNING -> QUEUED without a failure: the worker was told to stop, or what it works with failed.

        It is due at once, or not before a moment. A fault of the device is counted as such, and no attempt of the job.
        Raises LeaseLost.
        """
        with self._database.write() as session:
            job = _owned(session, job_id, worker)
            move_job(session, job, JobState.QUEUED, actor=worker, reason=reason, now=now)
            job.attempts, job.next_attempt_at = job.attempts - 1, not_before or now
            job.device_faults += is_device_fault

    def ask(self) -> None:
        """Raise StoreUnavailable where the database cannot be used now."""
        with self._database.read() as session:
            session.execute(select(1))

    def release_expired(self, now: datetime, *, dead_worker: str | None = None, why: str = "") -> list[int]:
        """RUNNING -> QUEUED where the lease ran out; -> FAILED for a job during which too many workers ended.

        A restarted worker gives its own name as `dead_worker`: what its predecessor held is free at once. A worker that
        is told to stop gives its job back and counts as no death. why: how the last one ended, where it is known.
        """
        with self._database.write() as session:
            expired = session.scalars(
                select(Job)
                .where(Job.state == JobState.RUNNING)
                .where(or_(Job.lease_until < now, Job.worker == dead_worker))
                .with_for_update(key_share=True, skip_locked=True)
            ).all()
            for job in expired:
                ended = "worker processes ended or stopped answering while they translated it"
                if deadly := count_death(job, self._starter, ended):
                    reason = f"{deadly}; it is not tried again by itself{f'; the last: {why}' if why else ''}"
                    move_job(session, job, JobState.FAILED, actor="scheduler", reason=reason, now=now)
                else:
                    reason = why or f"worker {job.worker} stopped answering"
                    move_job(session, job, JobState.QUEUED, actor="scheduler", reason=reason, now=now)
                    job.next_attempt_at = now
            return [job.id for job in expired]

    def refers_to(self, job_id: int, product_dir: str) -> bool:
        """Whether this folder of the spool may be wanted: it holds the job's result, or the job is not settled.

        A job that the store does not know may be that of another store, so its folders may be wanted as well.
        """
        with self._database.read() as session:
            job = session.get(Job, job_id)
            if job is None or job.state in (JobState.QUEUED, JobState.RUNNING):
                return True
            return job.product_dir == product_dir and job.purged_at is None

    # -- operator ----------------------------------------------------------------------------------------------

    def retry(self, job_id: int, actor: str, reason: str, now: datetime) -> None:
        """FAILED, HELD or CANCELLED -> QUEUED, its attempts counted anew; a produced series is never made again.

        A series that could not be judged is judged once more: its job becomes SUPERSEDED by what comes of that.
        """
        with self._database.write() as session:
            job = _get(session, job_id, with_series=True)
            if job.state not in (JobState.FAILED, JobState.HELD, JobState.CANCELLED):
                raise IllegalTransition(f"only what FAILED, is HELD or CANCELLED is tried again; this is {job.state}")
            if job.bundle == NOT_JUDGED:
                judge_again(session, job, _require_present(session, job), actor=actor, reason=reason, now=now)
                return
            if job.state is JobState.CANCELLED:
                series = _require_present(session, job)
                if job.product_dir is not None:
                    raise IllegalTransition(
                        "the series of this job was produced already; `jobs reopen` takes that back"
                    )
                _require_files(series.purged_at, "its received files")
            _queue_again(session, job, actor, reason, now)

    def set_turn(
        self,
        job_id: int,
        actor: str,
        reason: str,
        now: datetime,
        *,
        priority: Priority | None = None,
        due_at: datetime | None = None,
    ) -> str:
        """Change when a live job takes its turn, and its deliveries theirs; None leaves as it is. Returns what changed.

        Raises IllegalTransition for a job that has ended.
        """
        with self._database.write() as session:
            job = _get(session, job_id)
            if job.state not in LIVE_JOB_STATES:
                raise IllegalTransition(f"only a job that has not ended takes turns; this one is {job.state}")
            said = change_turn(job, priority, due_at)
            if said:
                note_turn(session, job, actor=actor, reason=f"{said}: {reason}" if reason else said, now=now)
            return said

    def cancel(self, job_id: int, actor: str, reason: str, now: datetime) -> None:
        """Any live state -> CANCELLED, with every delivery that has not reached SENT.

        What a destination has accepted until then stays there: that delivery is marked as a leftover.
        """
        with self._database.write() as session:
            job = _get(session, job_id)
            move_job(session, job, JobState.CANCELLED, actor=actor, reason=reason, now=now)
            withdraw_deliveries(session, job, reason, actor, now)

    def reopen(self, job_id: int, actor: str, reason: str, now: datetime) -> None:
        """Take back a cancel or a reject: the job is again what it was before, or QUEUED where it has no result.

        CANCELLED -> PRODUCED sends what is still missing at each destination, and everything where a leftover is gone
        or acknowledged; -> HELD and REJECTED -> HELD bring back the reason for which it was held. Raises
        IllegalTransition for any other state, and where the series has a newer job or other contents by now.
        """
        with self._database.write() as session:
            job = _get(session, job_id, with_series=True)
            if job.state not in CLOSED_BY_A_PERSON:
                raise IllegalTransition(f"only a CANCELLED or REJECTED job can be reopened; this one is {job.state}")
            series = _require_present(session, job)
            if job.bundle == NOT_JUDGED:
                judge_again(session, job, series, actor=actor, reason=reason, now=now)
                return
            _require_files(job.purged_at, "the files of its result")
            before = _state_before(session, job)
            if before is JobState.QUEUED:
                _require_files(series.purged_at, "its received files")
                _queue_again(session, job, actor, reason, now)
            else:
                move_job(session, job, before, actor=actor, reason=reason, now=now)
            if before is JobState.HELD:
                held = last_event(session, job, JobState.HELD, from_state=JobState.RUNNING)
                job.reason = held.reason if held is not None else reason
            elif before is JobState.PRODUCED or was_given_away(session, job):  # the latter was being made again
                reopen_deliveries(session, job, actor, reason, now)
            series.reason = ""

    def acknowledge(
        self, job_id: int, actor: str, reason: str, now: datetime, *, destinations: Sequence[str] = ()
    ) -> list[str]:
        """A person has dealt with what a withdrawn result left at these destinations, by default at all of them.

        Returns the destinations. Raises IllegalTransition where nothing of the job stands at one of them, or at any.
        """
        with self._database.write() as session:
            job = _get(session, job_id)
            standing = {row.destination: row for row in session.scalars(_deliveries(job)) if _stands(row)}
            if missing := [name for name in destinations if name not in standing]:
                raise IllegalTransition(f"no leftover of this job stands at {', '.join(missing)}")
            if not standing:
                raise IllegalTransition("no leftover of this job stands at any destination")
            names = list(destinations) or sorted(standing)
            for name in names:
                mark_leftover(
                    session, standing[name], job.series_id, Leftover.ACKNOWLEDGED, actor=actor, reason=reason, now=now
                )
            return names

    def release(
        self,
        job_id: int,
        destinations: Sequence[str],
        actor: str,
        reason: str,
        now: datetime,
        *,
        override: str = "",
        rewritten: RewrittenFiles | None = None,
    ) -> None:
        """HELD -> PRODUCED by a person who looked at it; refused where nothing was produced.

        override: who released it against which doubt, and why, as it stands in the `rewritten` files; these take the
        place of the produced ones in the same transaction. Raises IllegalTransition, and ValueError where `rewritten`
        does not hold exactly the instances of the job.
        """
        with self._database.write() as session:
            job = _get(session, job_id)
            if job.state is not JobState.HELD:
                raise IllegalTransition(f"only a HELD job can be released; this one is {job.state}")
            if job.product_dir is None:
                raise IllegalTransition("nothing was produced that could be released")
            move_job(session, job, JobState.PRODUCED, actor=actor, reason=reason, now=now)
            job.override = override
            if rewritten is not None:
                _swap_files(session, job, rewritten)
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
            _require_files(job.purged_at, "the files of its result")
            existing = {
                row.destination: row for row in session.scalars(_deliveries(job).with_for_update(key_share=True))
            }
            require_one_free(existing.values())
            come_again(session, job, now)
            for row in (existing[name] for name in destinations if name in existing):
                if row.state in (DeliveryState.PENDING, DeliveryState.SENDING):
                    continue
                send_anew(session, row, job, actor=actor, reason=reason, now=now)
            _fill_outbox(session, job, [name for name in destinations if name not in existing], actor, now)


def _get(session: Session, job_id: int, *, with_series: bool = False) -> Job:
    """The row, locked; raises NotFound. with_series: who changes the series too locks it first, as a receiver does."""
    if with_series:
        of_job = select(Series.id).join(Job, Job.series_id == Series.id).where(Job.id == job_id)
        session.execute(of_job.with_for_update(key_share=True, of=Series))
    job = session.scalar(select(Job).where(Job.id == job_id).with_for_update(key_share=True))
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def _owned(session: Session, job_id: int, worker: str, *, with_series: bool = False) -> Job:
    job = _get(session, job_id, with_series=with_series)
    if job.state is not JobState.RUNNING or job.worker != worker:
        raise LeaseLost(f"job {job_id} is {job.state} and no longer belongs to {worker}")
    return job


def _keep_product(session: Session, job: Job, product: ProducedSeries) -> None:
    # An earlier attempt may have ended HELD and been retried; its rows give way to the new files.
    session.execute(delete(Product).where(Product.job_id == job.id))
    job.derived_series_uid, job.product_dir = product.series_uid, product.product_dir
    job.measurements, job.remarks = product.measurements, list(product.remarks)
    job.series_number, job.series_description = product.series_number, product.series_description
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


def _queue_again(session: Session, job: Job, actor: str, reason: str, now: datetime) -> None:
    move_job(session, job, JobState.QUEUED, actor=actor, reason=reason, now=now)
    job.attempts, job.device_faults, job.next_attempt_at = 0, 0, now
    job.deaths = min(job.deaths, MAX_DEATHS - 1)  # one more try, which a person wanted
    come_again(session, job, now)


def _require_present(session: Session, job: Job) -> Series:
    """The series of a closed job, where the job still belongs to its contents; raises IllegalTransition."""
    require_not_rejected(session, job)
    series = session.get_one(Series, job.series_id)
    newest = session.scalars(select(Job).where(Job.series_id == job.series_id).order_by(Job.run.desc())).first()
    present = series.job_id or (newest.id if newest is not None else job.id)
    if series.state is not SeriesState.QUEUED:
        raise IllegalTransition(f"its series came again since and is {series.state}; this job belongs to what it was")
    if present != job.id:
        other = session.get_one(Job, present)
        raise IllegalTransition(
            f"its series has other contents by now: those of job {case_id(other.series_id, other.run)}, "
            f"which is {other.state}"
        )
    return series


def _require_files(purged_at: datetime | None, which: str) -> None:
    if purged_at is not None:
        raise IllegalTransition(
            f"{which} were removed on {purged_at:%Y-%m-%d}; send the series again from where it came, "
            "and it is translated anew"
        )


def _state_before(session: Session, job: Job) -> JobState:
    """To which state a closed job goes back: HELD or PRODUCED with the files it had, else QUEUED."""
    if job.state is JobState.REJECTED:
        return JobState.HELD
    closed = last_event(session, job, JobState.CANCELLED)
    if closed is None or job.product_dir is None or closed.from_state not in (JobState.HELD, JobState.PRODUCED):
        return JobState.QUEUED
    return JobState(closed.from_state)


def _swap_files(session: Session, job: Job, rewritten: RewrittenFiles) -> None:
    products = session.scalars(select(Product).where(Product.job_id == job.id)).all()
    if {row.sop_instance_uid for row in products} != set(rewritten.sha256):
        raise ValueError("the rewritten files are not exactly the instances of the job")
    job.product_dir = rewritten.product_dir
    for row in products:
        row.sha256 = rewritten.sha256[row.sop_instance_uid]


def _stands(row: Delivery) -> bool:
    return row.leftover == Leftover.STANDS


def _deliveries(job: Job) -> Any:
    return select(Delivery).where(Delivery.job_id == job.id)


def _fill_outbox(session: Session, job: Job, destinations: Sequence[str], actor: str, now: datetime) -> None:
    if unknown := [name.removeprefix(TITLE_MARK) for name in destinations if name.startswith(TITLE_MARK)]:
        raise IllegalTransition(f"no destination has the AE title {unknown[0]}, to which it shall return")
    for destination in destinations_of(session, job, destinations):
        row = Delivery(job_id=job.id, destination=destination)
        begin_delivery(session, row, job.series_id, actor=actor, reason=f"to {destination}", now=now)
