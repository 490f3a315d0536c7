"""Whether the images of a series or of a study name another patient than a result that stands for them already."""

from collections.abc import Mapping
from itertools import zip_longest

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from storage.states import LIVE_JOB_STATES, DeliveryState, Leftover
from storage.tables import Delivery, DeliveryInstance, Job, Series

_AT_A_DESTINATION = (DeliveryState.SENDING, DeliveryState.SENT, DeliveryState.CONFIRMED)
_DEALT_WITH = (Leftover.GONE, Leftover.ACKNOWLEDGED)
_TYPED_AT_THE_CONSOLE = ("PatientSex",)
"""Series of one study come from different consoles; that these differ in it alone makes no second patient."""


def doubt_about_patient(session: Session, series: Series, patient: Mapping[str, str]) -> str:
    """Why a new job of `series` for `patient` would put a second patient into one study; "" where it would not.

    patient: identity by DICOM keyword, as in `Job.patient`. Identities are shown masked. Looks at results of the series
    that reached a destination, or may have, and at jobs of other series of its study that are live or were delivered,
    and at the PatientID of those that never had a job.
    """
    doubts = []
    for job in session.scalars(_delivered(select(Job).where(Job.series_id == series.id)).order_by(Job.run.desc())):
        if differing := _contradictions(job.patient, patient):
            doubts.append(
                f"the patient changed after a result was delivered: {_masked(job.patient)} -> {_masked(patient)} "
                f"({', '.join(differing)})"
            )
            break
    others = (
        select(Job)
        .join(Series, Series.id == Job.series_id)
        .where(Series.study_uid == series.study_uid, Series.id != series.id)
        .order_by(Job.id)
    )
    for job in session.scalars(_delivered(others, also_live=True)):
        differing = _contradictions(job.patient, patient)
        if set(differing) - set(_TYPED_AT_THE_CONSOLE):
            doubts.append(
                f"the study has series of two patients: {_masked(job.patient)} in series {job.series_id} and "
                f"{_masked(patient)} in this one ({', '.join(differing)})"
            )
            break
    else:
        doubts += _doubt_about_other_series(session, series, patient.get("PatientID", ""))
    return "; ".join(doubts)


def _doubt_about_other_series(session: Session, series: Series, patient_id: str) -> list[str]:
    """A series of the study that never had a job, a scout or an enhanced scan, names another PatientID."""
    query = (
        select(Series)
        .where(Series.study_uid == series.study_uid, Series.id != series.id)
        .where(Series.patient_id.not_in(("", patient_id)), Job.id.is_(None))
        .outerjoin(Job, Job.series_id == Series.id)
        .order_by(Series.id)
        .limit(1)
    )
    other = session.scalar(query)
    if other is None or not patient_id:
        return []
    return [
        f"the study has series of two patients: {_masked({'PatientID': other.patient_id})} in series {other.id} and "
        f"{_masked({'PatientID': patient_id})} in this one (PatientID)"
    ]


def _delivered(query: Select[Job], *, also_live: bool = False) -> Select[Job]:
    """Narrow a query of jobs to those of which something stands at a destination, or may."""
    accepted = select(DeliveryInstance.delivery_id)
    standing = (
        select(Delivery.job_id)
        .where(or_(Delivery.state.in_(_AT_A_DESTINATION), Delivery.id.in_(accepted), Delivery.leftover != ""))
        .where(Delivery.leftover.not_in(_DEALT_WITH))
    )
    found = Job.id.in_(standing)
    return query.where(or_(found, Job.state.in_(LIVE_JOB_STATES)) if also_live else found)


def _contradictions(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The keywords in which two identities cannot both be of one patient.

    What only one of them names contradicts nothing, except the PatientID: a planning system files by it. An identity
    without any value is that of a job of an older version, which did not record it.
    """
    if not any(one.values()) or not any(other.values()):
        return []
    return [key for key in sorted({*one, *other}) if _contradict(key, one.get(key, ""), other.get(key, ""))]


def _contradict(keyword: str, one: str, other: str) -> bool:
    if keyword == "PatientID":
        return one != other
    # A name comes in up to three groups (PS3.5 6.2.1): letters, ideograms, sounds; other values have one.
    groups = zip_longest(one.casefold().split("="), other.casefold().split("="), fillvalue="")
    return any(left and right and left != right for left, right in groups)


def _masked(patient: Mapping[str, str]) -> str:
    """Two characters of the ID at most and the first letter of the name: enough for who knows the patients."""
    number, name = patient.get("PatientID", ""), patient.get("PatientName", "").lstrip("=^ ")
    shown = f"...{number[-2:]}" if len(number) > 4 else ("..." if number else "no ID")
    return f"{shown} ({name[:1]}...)" if name else shown
