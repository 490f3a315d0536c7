"""RecallStore withdraws results for good: what is on its way stops, and what was delivered is to be rejected there."""

from datetime import datetime

from sqlalchemy import select, update

from storage.database import Database
from storage.errors import IllegalTransition, NotFound
from storage.neighbour_tables import RejectionNoteRow
from storage.states import LIVE_JOB_STATES, NOT_JUDGED, JobState, NoteCode, NoteState, SeriesState
from storage.tables import Delivery, Job, Series
from storage.transitions import move_job, move_series, note_job, withdraw_deliveries


class RecallStore:
    """The writer of recalls; each is one transaction, and to repeat one does no harm."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def recall(self, job_id: int, actor: str, reason: str, now: datetime) -> None:
        """Withdraw the result of a job: a live job becomes CANCELLED, one that ended keeps its state, no more is sent.

        A note about it that waits, or was refused, is due at once and says that it is rejected for the safety of
        patients. Raises NotFound.
        """
        with self._database.write() as session:
            job = session.scalar(select(Job).where(Job.id == job_id).with_for_update(key_share=True))
            if job is None:
                raise NotFound(f"there is no job {job_id}")
            if job.recalled_at is None:
                said = f"recalled: {reason}"
                ended = job.state in (JobState.CANCELLED, JobState.SUPERSEDED)
                if job.state in LIVE_JOB_STATES:
                    move_job(session, job, JobState.CANCELLED, actor=actor, reason=said, now=now)
                else:
                    note_job(session, job, actor=actor, reason=said, now=now)
                if not ended:  # a rejected one may have been sent before it was made again and held
                    withdraw_deliveries(session, job, said, actor, now)
                job.recalled_at, job.reason = now, reason
            of_job = select(Delivery.id).where(Delivery.job_id == job.id)
            session.execute(
                update(RejectionNoteRow)
                .where(RejectionNoteRow.delivery_id.in_(of_job), RejectionNoteRow.state != NoteState.SENT)
                .values(
                    code=NoteCode.PATIENT_SAFETY.value,
                    state=NoteState.PENDING.value,
                    attempts=0,
                    next_attempt_at=now,
                    updated_at=now,
                )
            )

    def bundles(self) -> list[str]:
        """The labels of the bundles of all jobs, in their order."""
        with self._database.read() as session:
            labels = session.scalars(select(Job.bundle).where(Job.bundle != NOT_JUDGED).distinct().order_by(Job.bundle))
            return list(labels)

    def judge_again(self, job_id: int, actor: str, reason: str, now: datetime) -> None:
        """Let the series of a recalled job be judged again, so that another bundle can translate it.

        Raises NotFound, and IllegalTransition where the job was not recalled, or its series has other contents or no
        files by now.
        """
        with self._database.write() as session:
            job = session.get(Job, job_id)
            if job is None:
                raise NotFound(f"there is no job {job_id}")
            series = session.scalars(
                select(Series).where(Series.id == job.series_id).with_for_update(key_share=True)
            ).one()
            if job.recalled_at is None:
                raise IllegalTransition("it was not recalled")
            if series.state is not SeriesState.QUEUED or series.job_id not in (None, job.id):
                raise IllegalTransition("its series came again since; this job belongs to what it was")
            if series.purged_at is not None:
                raise IllegalTransition(
                    f"its received files were removed on {series.purged_at:%Y-%m-%d}; send the series again"
                )
            move_series(session, series, SeriesState.RECEIVING, actor=actor, reason=reason, now=now)
            series.arrivals += 1
