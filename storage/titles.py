"""By which AE titles of this node a series came.

The title by which its first instance came counts for a series, until nothing of that is left: its files were removed or
dropped, or a person cancelled what came of it.
"""

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from storage.states import JobState, SeriesState
from storage.tables import Association, AssociationSeries, Instance, Job, Series
from storage.transitions import note_series


def note_other_title(session: Session, series: Series, association: Association) -> bool:
    """An association brings a series under another title than the one that counts for it.

    True where the new one counts from now on for a series that was decided about.
    """
    before, title = series.called_ae, association.called_ae
    is_cancelled = _is_cancelled(session, series)
    if is_cancelled or series.purged_at is not None or not _has_instances(session, series):
        series.called_ae = title
        reason = f"it came under the AE title {title}, which counts now; before it came under {before}"
    else:
        reason = f"it came under the AE title {title} as well; {before}, under which it came first, counts"
    note_series(session, series, actor="receiver", reason=reason, now=association.opened_at)
    return is_cancelled


def titles_of(session: Session, series: Series) -> tuple[str, ...]:
    """The AE titles by which a series came, the one that counts first; none where nobody knows one."""
    linked = AssociationSeries.association_id == Association.id
    found = session.scalars(
        select(Association.called_ae)
        .join(AssociationSeries, linked)
        .where(AssociationSeries.series_id == series.id, Association.called_ae != "")
        .order_by(Association.id)
    )
    return tuple(dict.fromkeys(title for title in (series.called_ae, *found) if title))


def _is_cancelled(session: Session, series: Series) -> bool:
    job = session.get(Job, series.job_id) if series.job_id is not None else None
    return series.state is SeriesState.QUEUED and job is not None and job.state is JobState.CANCELLED


def _has_instances(session: Session, series: Series) -> bool:
    present = exists().where(Instance.series_id == series.id, Instance.is_current)
    return bool(session.scalar(select(present)))
