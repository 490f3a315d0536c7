"""Whose a series is: the peer that stored its first instance. What another peer brings for it is judged here.

Any peer that may send could else replace a slice of another's scan, or keep that scan from completing. A series of
which nothing is stored belongs to nobody, so that a refused or discarded instance locks no owner out, and an archive
may send what retention removed.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, exists, func, select
from sqlalchemy.orm import Session

from storage.errors import IllegalTransition
from storage.tables import Association, AssociationSeries, Event, Instance, LostInstance, Series
from storage.titles import titles_of
from storage.transitions import note_series

MAX_EVENTS = 20  # of one series: a peer that sends all night must not fill the database


@dataclass(frozen=True)
class Credentials:
    """What the node knows of a sender beside its AE title.

    certificate: what its client certificate proves, as in `Series.certificate`; "" without TLS. is_bound: the settings
    bind the AE title to this certificate, so that the title alone names the peer, whatever certificate it has next.
    """

    host: str = ""
    certificate: str = ""
    is_bound: bool = False


UNKNOWN_CREDENTIALS = Credentials()


@dataclass(frozen=True)
class OwnerView:
    """The owner of a series, and how many of its present instances came from other AE titles."""

    calling_ae: str
    certificate: str
    others: dict[str, int]


def is_foreign(session: Session, series: Series, calling_ae: str, shown: Credentials) -> bool:
    """Whether this peer may not send for a series: it belongs to another one, or a person dropped what this one sent.

    Whose a series of a rebuilt store is, nobody knows.
    """
    if calling_ae in series.barred:
        return True
    if not series.calling_ae:
        return False
    same = series.calling_ae == calling_ae and not _is_impostor(series, shown)
    if same:
        return False
    # What the spool lost is waited for: it is its owner's still.
    lost = exists().where(
        LostInstance.series_uid == series.series_uid, LostInstance.sop_instance_uid == Instance.sop_instance_uid
    )
    kept = exists().where(Instance.series_id == series.id, Instance.is_current | lost)
    return bool(session.scalar(select(kept)))


def may_share(series: Series, calling_ae: str) -> bool:
    """Whether instances of a foreign peer can be told from the owner's later: they are, by the AE title alone."""
    return series.calling_ae != calling_ae and calling_ae not in series.barred


def named(series: Series, calling_ae: str, shown: Credentials) -> str:
    """How a foreign peer is called in an event."""
    who = f"{calling_ae} with another certificate" if calling_ae == series.calling_ae else calling_ae
    who += ", whose instances a person dropped," if calling_ae in series.barred else ""
    return f"{who} at {shown.host or 'an unknown address'}"


def own(session: Session, series: Series, calling_ae: str, shown: Credentials, now: datetime) -> None:
    """Write down who owns a series, when its owner stores an instance of it, or the first peer to do so."""
    if series.calling_ae != calling_ae:
        before = f"of {series.calling_ae} nothing is kept" if series.calling_ae else "its sender was not known"
        reason = f"the series belongs to {calling_ae} now; {before}"
        note_series(session, series, actor="receiver", reason=reason, now=now)
        # What others failed to send before is nothing that the series waits for.
        _forget(session, series, Association.calling_ae != calling_ae)
        series.calling_ae, series.certificate = calling_ae, shown.certificate
    series.certificate = shown.certificate or series.certificate


def note_foreign(session: Session, series: Series, what: str, now: datetime) -> None:
    """Write what a foreign peer did, a sentence with its name, as an event of the series; each thing once."""
    reason = f"{what}; the series belongs to {series.calling_ae or 'nobody'}"
    known = select(Event.reason).where(Event.series_id == series.id, Event.reason.contains("; the series belongs to"))
    told = session.scalars(known.limit(MAX_EVENTS)).all()
    if reason not in told and len(told) < MAX_EVENTS:
        note_series(session, series, actor="receiver", reason=reason, now=now)


def doubt_about_owners(session: Session, series: Series) -> str:
    """Why a person must look at a series to which other peers added instances; "" where none did."""
    others = _others(session, series)
    parts = [f"{count} instance{'s' if count > 1 else ''} of it came from {ae}" for ae, count in others.items()]
    if not parts:
        return ""
    steps = " or ".join(f"`syncect jobs drop {series.id} --from {ae}`" for ae in others)
    return f"the series belongs to {series.calling_ae}, but {' and '.join(parts)}: {steps} judges it without them"


def owner_of(session: Session, series: Series) -> OwnerView:
    """The owner of a series as a reader sees it."""
    return OwnerView(series.calling_ae, series.certificate, _others(session, series))


def drop_instances(session: Session, series: Series, calling_ae: str) -> int:
    """Take the instances of a peer out of a series and return their number; their files stay until retention.

    Where they were the owner's, the series passes to the sender of the oldest one that remains, or to nobody. The peer
    adds none any more, until `allow_again`. Raises IllegalTransition where none came from this peer.
    """
    rows = session.scalars(select(Instance).where(*_present(series.id)).order_by(Instance.id)).all()
    dropped = [row for row in rows if _sender(row, series) == calling_ae]
    if not dropped:
        senders = ", ".join(dict.fromkeys(_sender(row, series) for row in rows)) or "nobody"
        raise IllegalTransition(f"no instance of this series came from {calling_ae}; its instances came from {senders}")
    left = [row for row in rows if row not in dropped]
    if calling_ae == series.calling_ae:
        series.calling_ae, series.certificate = _sender(left[0], series) if left else "", ""
    series.barred = sorted({*series.barred, calling_ae})
    _forget(session, series, Association.calling_ae == calling_ae)
    series.called_ae = ""
    series.called_ae = next(iter(titles_of(session, series)), "")
    for row in dropped:
        row.is_current, row.calling_ae = False, calling_ae
    return len(dropped)


def allow_again(series: Series, calling_ae: str) -> None:
    """Let a peer send for a series again; raises IllegalTransition where nothing of it was dropped."""
    if calling_ae not in series.barred:
        raise IllegalTransition(f"nothing of {calling_ae} was dropped from this series")
    series.barred = [one for one in series.barred if one != calling_ae]


def _forget(session: Session, series: Series, of: ColumnElement[bool]) -> None:
    """Drop what associations left to a series: that it waits for them, and for what they failed to bring."""
    associations = select(Association.id).where(of)
    lost = LostInstance.series_uid == series.series_uid, LostInstance.association_id.in_(associations)
    session.execute(delete(LostInstance).where(*lost))
    linked = AssociationSeries.series_id == series.id, AssociationSeries.association_id.in_(associations)
    session.execute(delete(AssociationSeries).where(*linked))


def _present(series_id: int) -> tuple[ColumnElement[bool], ...]:
    return Instance.series_id == series_id, Instance.is_current == True  # noqa: E712 - a condition of SQL


def _is_impostor(series: Series, shown: Credentials) -> bool:
    """Whether the AE title of the owner comes with a certificate that is not its own."""
    return (
        not shown.is_bound
        and bool(shown.certificate and series.certificate)
        and (shown.certificate != series.certificate)
    )


def _sender(row: Instance, series: Series) -> str:
    return row.calling_ae or series.calling_ae  # "": it came before senders were kept for each instance


def _others(session: Session, series: Series) -> dict[str, int]:
    counts = (
        select(Instance.calling_ae, func.count())
        .where(*_present(series.id), Instance.calling_ae.not_in(("", series.calling_ae)))
        .group_by(Instance.calling_ae)
        .order_by(Instance.calling_ae)
    )
    return {ae: count for ae, count in session.execute(counts)}
