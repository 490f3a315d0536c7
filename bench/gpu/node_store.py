"""What the store of a node knows of the course of each series, in seconds of the clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from node.dicom.uids import UidFactory
from storage.database import Database
from storage.states import DeliveryState, JobState, SeriesState
from storage.tables import Association, AssociationSeries, Event, Series

_STOPPED = (JobState.HELD, JobState.FAILED, SeriesState.SKIPPED, SeriesState.INCOMPLETE)


@dataclass
class Course:
    """When a series reached what, in seconds since 1970; None: it did not reach that. state, reason: the last."""

    opened_at: float
    closed_at: float | None
    queued_at: float | None = None
    running_at: float | None = None
    produced_at: float | None = None
    sending_at: float | None = None
    sent_at: float | None = None
    stopped: bool = False
    state: str = ""
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether it was sent, or nothing happens any more without a person."""
        return self.sent_at is not None or self.stopped

    def stages(self) -> dict[str, float]:
        """Seconds of each stage that has its end."""
        times = {
            "receive": (self.opened_at, self.closed_at),
            "completion: from the last image to the queue": (self.closed_at, self.queued_at),
            "queue": (self.queued_at, self.running_at),
            "job, from claim to record": (self.running_at, self.produced_at),
            "wait for the courier": (self.produced_at, self.sending_at),
            "send": (self.sending_at, self.sent_at),
            "from the first image to the last answer of the planner": (self.opened_at, self.sent_at),
        }
        return {stage: end - begin for stage, (begin, end) in times.items() if begin is not None and end is not None}


_FIELDS: dict[tuple[str, str], str] = {
    ("job", JobState.QUEUED): "queued_at",
    ("job", JobState.RUNNING): "running_at",
    ("job", JobState.PRODUCED): "produced_at",
    ("delivery", DeliveryState.SENDING): "sending_at",
    ("delivery", DeliveryState.SENT): "sent_at",
}


def courses(database: Database, seeds: Sequence[str]) -> list[Course]:
    """Of the series that `bench.gpu.peers` sends under these seeds, as far as the node knows them."""
    uids = [UidFactory().make("scan series", seed) for seed in seeds]
    with database.read() as session:
        known: dict[int, Course] = {}
        begun = (
            select(Series.id, Association.opened_at, Association.closed_at)
            .join(AssociationSeries, AssociationSeries.series_id == Series.id)
            .join(Association, Association.id == AssociationSeries.association_id)
            .where(Series.series_uid.in_(uids))
        )
        for series, opened_at, closed_at in session.execute(begun):
            known[series] = Course(opened_at.timestamp(), _seconds(closed_at))
        for event in session.scalars(select(Event).where(Event.series_id.in_(known)).order_by(Event.id)):
            course = known[event.series_id]
            course.state, course.reason = event.to_state, event.reason
            course.stopped = course.stopped or event.to_state in _STOPPED
            if field := _FIELDS.get((event.machine, event.to_state)):
                setattr(course, field, event.at.timestamp())
    return list(known.values())


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
