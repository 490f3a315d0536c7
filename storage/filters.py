"""The filters of a listing: what of them the database can answer, and whether a case is one of the wanted."""

from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Final

from sqlalchemy import ColumnElement, CompoundSelect, func, or_, select, union, union_all

from storage.cases import Case
from storage.states import RECALLED, DeliveryState, JobState, Leftover, SeriesState
from storage.tables import Delivery, Event, Job, Series

UNFINISHED: Final = frozenset({"RECEIVING", "INCOMPLETE", "QUEUED", "RUNNING", "HELD", "PRODUCED", "SENDING", "FAILED"})
"""A reader's states without a delivered result or an explained end; PRODUCED only where there is a destination."""
NEEDS_A_PERSON: Final = frozenset({"INCOMPLETE", "HELD", "FAILED"})
"""A reader's states that nobody but a person ends."""
_MOST: Final = frozenset({DeliveryState.SENT, DeliveryState.CONFIRMED})
"""Nearly every case of a store is in one of these; whoever asks for both finds his page by walking back."""


@dataclass(frozen=True)
class Filters:
    """What `Overview.cases` was asked for; an empty value filters nothing."""

    states: frozenset[str]
    series_uid: str
    study_uid: str
    patient: str
    calling_ae: str
    destination: str
    bundle: str
    since: datetime | None
    before: datetime | None
    overdue_since: datetime | None
    troubled_since: datetime | None = None
    lively_since: datetime | None = None

    def match(self, case: Case) -> bool:
        """Whether a case is wanted; what the database decided for its whole series is not asked again."""
        return (
            (not self.states or case.state in self.states)
            and (not self.patient or fnmatchcase(case.patient_id.lower(), _pattern(self.patient)))
            and (not self.destination or any(view.destination == self.destination for view in case.deliveries))
            and (case.bundle or "").startswith(self.bundle)
            and (self.since is None or case.created_at >= self.since)
            and (self.before is None or case.created_at < self.before)
            and (self.overdue_since is None or self._is_overdue(case, self.overdue_since))
            and (self.troubled_since is None or self._needs_a_person(case, self.troubled_since))
            and (self.lively_since is None or is_expected(case) or case.updated_at >= self.lively_since)
        )

    def conditions(self) -> list[ColumnElement[bool]]:
        """What every series with a wanted case fulfils, and few others."""
        jobs: Any = select(Job.series_id)
        equal = ((Series.series_uid, self.series_uid), (Series.study_uid, self.study_uid))
        found: list[ColumnElement[bool]] = [column == value for column, value in equal if value]
        if self.calling_ae:
            found.append(Series.calling_ae == self.calling_ae)
        if self.patient:
            found.append(_is_patient(self.patient))
        if self.destination:
            found.append(Series.id.in_(jobs.join(Delivery).where(Delivery.destination == self.destination)))
        if self.bundle:
            found.append(Series.id.in_(jobs.where(Job.bundle.startswith(self.bundle, autoescape=True))))
        if self.since is not None:
            found.append(or_(Series.created_at >= self.since, Series.id.in_(jobs.where(Job.created_at >= self.since))))
        if self.before is not None:
            found.append(Series.created_at < self.before)
        if self.overdue_since is not None:
            found.append(Series.last_arrival_at < self.overdue_since)
        return found

    def asks_for_much(self) -> bool:
        """Whether an index of the wanted states may name most series, so that a page is found by walking back."""
        return bool(self.states & _MOST)

    def _asks_for_most(self) -> bool:
        """Whether an index of the wanted states names nearly every series, so that to walk is faster."""
        narrower = (self.overdue_since, self.troubled_since, self.lively_since)
        return self.states >= _MOST and not any(narrower)

    def candidates(self) -> CompoundSelect[int] | None:
        """Ids of all series of which a case may be in a wanted state, some twice, and of few others; None for any.

        The indices on the raw states answer this; to make every case first took 16 s for 20 of 100,000 jobs.
        """
        if self.series_uid or self._asks_for_most():
            return None
        if self.troubled_since is not None:
            late = select(Series.id).where(
                Series.id.in_(union(*_with_states(set(UNFINISHED)))), Series.last_arrival_at < self.troubled_since
            )
            left = select(Job.series_id).join(Delivery).where(Delivery.leftover == Leftover.STANDS)
            return union_all(*_with_states(set(NEEDS_A_PERSON)), left, late)
        if self.lively_since is not None:
            changed = select(Event.series_id).where(Event.at >= self.lively_since)
            return union_all(*_with_states(set(UNFINISHED)), changed)
        if not (self.states or self.overdue_since):
            return None
        wanted = set(self.states or UNFINISHED)
        if self.overdue_since is not None:
            wanted &= UNFINISHED
        parts = _with_states(wanted)
        if JobState.PRODUCED in wanted and self.overdue_since is None:
            of_jobs = select(Job.series_id)
            parts.append(of_jobs.outerjoin(Delivery).where(Job.state == JobState.PRODUCED, Delivery.id.is_(None)))
        return union_all(*parts)

    @staticmethod
    def _is_overdue(case: Case, since: datetime) -> bool:
        return is_expected(case) and case.counts_from < since

    @classmethod
    def _needs_a_person(cls, case: Case, since: datetime) -> bool:
        return case.state in NEEDS_A_PERSON or bool(case.leftovers) or cls._is_overdue(case, since)


def _with_states(wanted: set[str]) -> list[Any]:
    """Queries for the ids of the series of which a case may be in one of these states, each by an index."""
    # A QUEUED series has a job, whose state it shows. COMPLETE reads as RECEIVING, and a PENDING delivery in two ways.
    series = wanted - {SeriesState.QUEUED} | ({SeriesState.COMPLETE} if SeriesState.RECEIVING in wanted else set())
    deliveries = wanted | ({DeliveryState.PENDING} if wanted & {JobState.PRODUCED, DeliveryState.SENDING} else set())
    of_jobs = select(Job.series_id)
    return [
        select(Series.id).where(Series.state.in_([state for state in SeriesState if state in series])),
        of_jobs.where(Job.state.in_([state for state in JobState if state in wanted - {JobState.PRODUCED}])),
        of_jobs.join(Delivery).where(Delivery.state.in_([state for state in DeliveryState if state in deliveries])),
        *([of_jobs.where(Job.recalled_at.is_not(None))] if RECALLED in wanted else []),
        *([of_jobs.join(Delivery).where(*is_held())] if JobState.HELD in wanted else []),
    ]


def is_held() -> tuple[ColumnElement[bool], ...]:
    """A delivery waits for a person, so that its case reads HELD where its job is PRODUCED."""
    return (Delivery.state == DeliveryState.PENDING, Delivery.held_for != "")


def is_expected(case: Case) -> bool:
    """Whether a case still lacks a delivered result or an explained end; without a destination none is expected."""
    return case.state in UNFINISHED and (case.state != JobState.PRODUCED or bool(case.deliveries))


def _pattern(patient: str) -> str:
    """A PatientID with wildcards as `fnmatch` wants it: brackets mean themselves."""
    return patient.lower().replace("[", "[[]")


def _is_patient(patient: str) -> ColumnElement[bool]:
    """On PostgreSQL by the index `ix_series_patient`, where the beginning is given."""
    known = func.lower(Series.patient_id)
    if patient.isascii() and not set(patient) & {"*", "?"}:
        return known == patient.lower()
    return known.like(_like(patient), escape="\\")


def _like(patient: str) -> str:
    """A PatientID with wildcards as LIKE wants it; SQLite knows no case beyond ASCII, so `match` looks at the rest."""
    known = {"*": "%", "?": "_", "%": "\\%", "_": "\\_", "\\": "\\\\"}
    return "".join(known.get(c, c.lower() if c.isascii() else "_") for c in patient)
