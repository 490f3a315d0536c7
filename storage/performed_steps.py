"""PerformedStepStore keeps what scanners report of their performed procedure steps (PS3.4 annex F)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from sqlalchemy import ColumnElement, Select, and_, delete, func, literal, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from config.syntax import DISCONTINUED, IN_PROGRESS
from storage.database import Database
from storage.neighbour_tables import PerformedSeriesRow, PerformedStepRow
from storage.states import SeriesState
from storage.tables import Instance, Series
from storage.transitions import note_series

KEPT: Final = timedelta(days=30)  # a step of which nothing was heard for so long goes
MAX_STEPS: Final = 1000  # of one calling AE title; beyond them its oldest go


@dataclass(frozen=True)
class StepReport:
    """What an N-CREATE or an N-SET says of a step.

    series: SOP Instance UIDs of the images that this node keeps, by Series Instance UID; None where it says nothing of
    series. state: "" where it says nothing of it. discontinued_for: as in `PerformedStepRow`.
    """

    state: str
    study_uid: str = ""
    series: Mapping[str, Sequence[str]] | None = None
    discontinued_for: str = ""


class Taken(Enum):
    """What became of a report."""

    TAKEN = "taken"
    DUPLICATE = "there is a step of this UID already"
    UNKNOWN = "there is no step of this UID"
    ENDED = "the step has ended"
    FOREIGN = "the step was created by another peer"


@dataclass(frozen=True)
class StepView:
    """A step as one series sees it. listed: the images that it lists of this series, None where it does not name it.

    names_series: whether it names any series at all.
    """

    sop_instance_uid: str
    calling_ae: str
    certificate: str
    state: str
    discontinued_for: str
    names_series: bool
    listed: frozenset[str] | None
    updated_at: datetime


@dataclass(frozen=True)
class Late:
    """A series that was judged before its step ended: how many images the step lists, and how many of them came."""

    series_uid: str
    listed: int
    arrived: int


class PerformedStepStore:
    """The only writer of performed steps."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, uid: str, calling_ae: str, certificate: str, told: StepReport, now: datetime) -> Taken:
        """Keep a new step; DUPLICATE where the UID is known. Old steps of the same AE title go."""
        try:
            with self._database.write() as session:
                if session.get(PerformedStepRow, uid) is not None:
                    return Taken.DUPLICATE
                _forget_old(session, calling_ae, now)
                row = PerformedStepRow(
                    sop_instance_uid=uid,
                    calling_ae=calling_ae,
                    certificate=certificate,
                    study_uid=told.study_uid,
                    state=told.state,
                    created_at=now,
                    updated_at=now,
                )
                session.add(row)
                session.flush()
                _list(session, uid, told.series)
        except IntegrityError:  # the same request on two associations at once
            return Taken.DUPLICATE
        return Taken.TAKEN

    def change(
        self,
        uid: str,
        calling_ae: str,
        certificate: str,
        told: StepReport,
        *,
        scanners: Collection[str],
        now: datetime,
    ) -> tuple[Taken, list[Late]]:
        """Write an N-SET down, and which series of these `scanners` were judged too early by what it says."""
        with self._database.write() as session:
            row = session.get(PerformedStepRow, uid, with_for_update=True)
            if row is None:
                return Taken.UNKNOWN, []
            if row.calling_ae != calling_ae or (row.certificate and certificate not in ("", row.certificate)):
                return Taken.FOREIGN, []
            if row.state != IN_PROGRESS:
                return Taken.ENDED, []
            row.state, row.updated_at = told.state or row.state, now
            row.discontinued_for = told.discontinued_for
            _list(session, uid, told.series)
            session.flush()
            return Taken.TAKEN, _note_late(session, row, scanners, now) if row.state != IN_PROGRESS else []

    def of_series(self, study_uid: str, series_uid: str) -> list[StepView]:
        """The steps of the study, and those that list the series, of whichever peer; the newest first."""
        with self._database.read() as session:
            rows = session.scalars(_about(study_uid, series_uid).order_by(PerformedStepRow.updated_at.desc())).all()
            return [_view(session, row, series_uid) for row in rows]

    def arrived(self, series_id: int) -> frozenset[str]:
        """The SOP Instance UIDs of the images that the node has of a series."""
        with self._database.read() as session:
            return frozenset(session.scalars(_arrived(series_id)))


def _about(study_uid: str, series_uid: str) -> Select[PerformedStepRow]:
    naming = select(PerformedSeriesRow.step_uid).where(PerformedSeriesRow.series_uid == series_uid)
    of_study = and_(PerformedStepRow.study_uid == study_uid, PerformedStepRow.study_uid != "")
    return select(PerformedStepRow).where(or_(of_study, PerformedStepRow.sop_instance_uid.in_(naming)))


def _view(session: Session, row: PerformedStepRow, series_uid: str) -> StepView:
    of_step = select(PerformedSeriesRow).where(PerformedSeriesRow.step_uid == row.sop_instance_uid)
    listed = session.scalar(of_step.where(PerformedSeriesRow.series_uid == series_uid))
    count = session.scalar(select(func.count()).select_from(of_step.subquery())) or 0
    return StepView(
        row.sop_instance_uid,
        row.calling_ae,
        row.certificate,
        row.state,
        row.discontinued_for,
        count > 0,
        None if listed is None else frozenset(listed.images),
        row.updated_at,
    )


def _arrived(series_id: int) -> Select[str]:
    return select(Instance.sop_instance_uid).where(Instance.series_id == series_id, Instance.is_current)


def _list(session: Session, step_uid: str, series: Mapping[str, Sequence[str]] | None) -> None:
    """Replace what a step lists, as N-SET replaces the value of an attribute; None leaves it."""
    if series is None:
        return
    session.execute(delete(PerformedSeriesRow).where(PerformedSeriesRow.step_uid == step_uid))
    session.add_all(
        PerformedSeriesRow(step_uid=step_uid, series_uid=series_uid, images=list(images))
        for series_uid, images in series.items()
    )


def _forget_old(session: Session, calling_ae: str, now: datetime) -> None:
    """Make room for one more step of this AE title, and remove what nobody asks for any more."""
    own = select(PerformedStepRow.sop_instance_uid).where(PerformedStepRow.calling_ae == calling_ae)
    beyond = own.order_by(PerformedStepRow.updated_at.desc()).offset(MAX_STEPS - 1)
    old = select(PerformedStepRow.sop_instance_uid).where(PerformedStepRow.updated_at < now - KEPT)
    uids = [*session.scalars(beyond), *session.scalars(old)]
    if uids:
        session.execute(delete(PerformedSeriesRow).where(PerformedSeriesRow.step_uid.in_(uids)))
        session.execute(delete(PerformedStepRow).where(PerformedStepRow.sop_instance_uid.in_(uids)))


def _same_peer(step: PerformedStepRow) -> list[ColumnElement[bool]]:
    """Any of them: the owner of a series and the peer of a step of the same AE title have no other certificates."""
    return [Series.certificate.in_(("", step.certificate)), literal(step.certificate == "")]


def _note_late(session: Session, step: PerformedStepRow, scanners: Collection[str], now: datetime) -> list[Late]:
    """Write an event for each series that was judged already and is not what its step says of it at its end."""
    rows = session.execute(
        select(Series, PerformedSeriesRow.images)
        .join(PerformedSeriesRow, PerformedSeriesRow.series_uid == Series.series_uid)
        .where(PerformedSeriesRow.step_uid == step.sop_instance_uid)
        .where(Series.state == SeriesState.QUEUED, Series.calling_ae.in_(scanners))
        .where(or_(Series.calling_ae != step.calling_ae, *_same_peer(step)))
    ).all()
    found = []
    for series, images in rows:
        arrived = len(set(images).intersection(session.scalars(_arrived(series.id))))
        said = f"lists {len(images)} images, of which {arrived} arrived"
        if step.state == DISCONTINUED:
            said = "was discontinued"
        elif arrived == len(images):
            continue
        reason = f"a performed step that ended after this series was judged {said}"
        note_series(session, series, actor="receiver", reason=reason, now=now)
        found.append(Late(series.series_uid, len(images), arrived))
    return found
