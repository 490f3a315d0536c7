"""AlertStore remembers what a person has to know: since when, told on which channel, acknowledged by whom."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from storage.database import Database
from storage.errors import IllegalTransition, NotFound
from storage.tables import Alert

TOLD_AT_LATEST: Final = timedelta(days=2)  # that something is over is news for no longer


@dataclass(frozen=True)
class Cause:
    """Something that is wrong now. kind and subject name it; text has no patient data."""

    kind: str
    subject: str
    text: str
    series_id: int | None = None
    job_id: int | None = None


@dataclass(frozen=True)
class AlertView:
    """An alert as it is kept; open while `closed_at` is None. told_at: when it was last told on any channel.

    notified: by channel, the moments `opened`, `told` and `over` as UTC ISO 8601.
    """

    id: int
    kind: str
    subject: str
    text: str
    series_id: int | None
    job_id: int | None
    opened_at: datetime
    told_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str
    acknowledged_for: str
    closed_at: datetime | None
    notified: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class News:
    """What a channel has to tell: alerts that are new there, those nobody acknowledged, and those that are over."""

    new: tuple[AlertView, ...] = ()
    reminders: tuple[AlertView, ...] = ()
    over: tuple[AlertView, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.reminders or self.over)


class AlertStore:
    """The only writer of alerts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def settle(self, causes: Sequence[Cause], kinds: Collection[str], now: datetime) -> None:
        """Open an alert for each cause that has none, and close the open ones of `kinds` whose cause is gone.

        kinds: those that were looked at; what nobody could look at stays as it is. The text of an open alert follows
        its cause; that alone is no news.
        """
        try:
            self._settle(causes, kinds, now)
        except IntegrityError:
            self._settle(causes, kinds, now)  # another process opened the same alert meanwhile

    def _settle(self, causes: Sequence[Cause], kinds: Collection[str], now: datetime) -> None:
        wanted = {(cause.kind, cause.subject): cause for cause in causes}
        with self._database.read() as session:
            if not _differs(session, wanted, kinds):
                return  # nearly always: no need for the write lock
        with self._database.write() as session:
            for row in _open(session):
                cause = wanted.pop((row.kind, row.subject), None)
                if cause is not None:
                    row.text, row.job_id = cause.text, cause.job_id
                elif row.kind in kinds:
                    row.closed_at = now
            session.flush()
            session.add_all(_row(cause, now) for cause in wanted.values())

    def acknowledge(self, alert_id: int, by: str, reason: str, now: datetime) -> None:
        """Note that a person knows: no reminder follows. Raises NotFound, or IllegalTransition where it is over."""
        with self._database.write() as session:
            row = session.get(Alert, alert_id, with_for_update=True)
            if row is None:
                raise NotFound(f"there is no alert {alert_id}; `syncect alerts ls --all` lists them")
            if row.closed_at is not None:
                raise IllegalTransition(f"alert {alert_id} is over already")
            row.acknowledged_at, row.acknowledged_by, row.acknowledged_for = now, by[:80], reason

    def open(self) -> list[AlertView]:
        """The open alerts, oldest first."""
        with self._database.read() as session:
            return [_view(row) for row in _open(session)]

    def all(self, *, limit: int = 200) -> list[AlertView]:
        """The newest alerts, also those that are over; 0 lists all."""
        with self._database.read() as session:
            query = select(Alert).order_by(Alert.id.desc())
            return [_view(row) for row in session.scalars(query.limit(limit) if limit else query)]

    # -- telling -----------------------------------------------------------------------------------------------------

    def news(self, channel: str, now: datetime, *, remind_s: float, quiet: Collection[str] = ()) -> News:
        """What this channel has to tell now; nothing of the `quiet` kinds.

        An open alert that nobody acknowledged is told again every `remind_s`. One that was closed before it could be
        told is not told at all, and neither is the end of one that was never told here.
        """
        with self._database.read() as session:
            closed = select(Alert).where(Alert.closed_at >= now - TOLD_AT_LATEST).order_by(Alert.id)
            over = [_view(row) for row in session.scalars(closed)]
            standing = [_view(row) for row in _open(session)]
        told = {alert.id: _told(alert, channel) for alert in standing}
        standing = [alert for alert in standing if alert.kind not in quiet]
        before = now - timedelta(seconds=remind_s)
        return News(
            new=tuple(alert for alert in standing if told[alert.id] is None and alert.acknowledged_at is None),
            reminders=tuple(
                alert for alert in standing if alert.acknowledged_at is None and _by(told[alert.id], before)
            ),
            over=tuple(alert for alert in over if "over" not in alert.notified.get(channel, {"over": ""})),
        )

    def told(self, channel: str, news: News, now: datetime) -> None:
        """Note that a channel has told these."""
        moments: dict[int, tuple[str, ...]] = {alert.id: ("opened", "told") for alert in news.new}
        moments |= {alert.id: ("told",) for alert in news.reminders}
        moments |= {alert.id: ("over",) for alert in news.over}
        with self._database.write() as session:
            for row in session.scalars(select(Alert).where(Alert.id.in_(moments)).with_for_update()):
                known: dict[str, Any] = dict(row.notified)
                known[channel] = {**known.get(channel, {}), **dict.fromkeys(moments[row.id], now.isoformat())}
                row.notified, row.told_at = known, now


def _open(session: Session) -> Sequence[Alert]:
    return session.scalars(select(Alert).where(Alert.closed_at.is_(None)).order_by(Alert.id)).all()


def _differs(session: Session, wanted: dict[tuple[str, str], Cause], kinds: Collection[str]) -> bool:
    there = {(row.kind, row.subject): row for row in _open(session)}
    return (
        not wanted.keys() <= there.keys()
        or any(key not in wanted and row.kind in kinds for key, row in there.items())
        or any(cause.text != there[key].text for key, cause in wanted.items())
    )


def _row(cause: Cause, now: datetime) -> Alert:
    return Alert(
        kind=cause.kind,
        subject=cause.subject,
        text=cause.text,
        series_id=cause.series_id,
        job_id=cause.job_id,
        opened_at=now,
    )


def _told(alert: AlertView, channel: str) -> datetime | None:
    moment = alert.notified.get(channel, {}).get("told")
    return datetime.fromisoformat(moment) if moment else None


def _by(moment: datetime | None, limit: datetime) -> bool:
    return moment is not None and moment <= limit


def _view(row: Alert) -> AlertView:
    return AlertView(
        id=row.id,
        kind=row.kind,
        subject=row.subject,
        text=row.text,
        series_id=row.series_id,
        job_id=row.job_id,
        opened_at=row.opened_at,
        told_at=row.told_at,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
        acknowledged_for=row.acknowledged_for,
        closed_at=row.closed_at,
        notified=row.notified,
    )
