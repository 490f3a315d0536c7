"""Puts alerts into words: one message for all that is new, not yet acknowledged, or over."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from node.ops.alerts import urgency
from storage.alerts import AlertView, News

MOST_LINES: Final = 50  # of each group; a night with a dead TPS may have hundreds
_SUBJECT_LENGTH: Final = 150


@dataclass(frozen=True)
class Message:
    """What a channel sends: a subject of one line, a text for people and a body for programs."""

    subject: str
    text: str
    body: dict[str, Any]


def compose(node: str, news: News, now: datetime, zone: tzinfo | None) -> Message:
    """One message about all of the news; `node` names the sender, such as `SYNCECT@host`."""
    groups = {
        "new": sorted(news.new, key=urgency),
        "reminders": sorted(news.reminders, key=urgency),
        "over": sorted(news.over, key=urgency),
    }
    heads = {
        "new": "New:",
        "reminders": "Still open, and acknowledged by nobody:",
        "over": "Over:",
    }
    parts = [_part(heads[name], alerts, zone) for name, alerts in groups.items() if alerts]
    parts.append(
        "`syncect alerts ls` lists what is open; `syncect alerts ack ID --reason ...` ends the reminders of one."
    )
    text = "\n\n".join(parts) + "\n"
    subject = _subject(node, groups)
    body: dict[str, Any] = {"node": node, "at": _iso(now), "subject": subject, "text": text}
    body |= {name: [_json(alert) for alert in alerts] for name, alerts in groups.items()}
    return Message(subject, text, body)


def plain_message(node: str, subject: str, text: str, now: datetime) -> Message:
    """A message about no alert: a test, or a store that cannot keep any."""
    subject = f"[syncect {node}] {subject}"
    body = {"node": node, "at": _iso(now), "subject": subject, "text": text, "new": [], "reminders": [], "over": []}
    return Message(subject, text, body)


def _subject(node: str, groups: dict[str, list[AlertView]]) -> str:
    words = {"new": "new", "reminders": "still open", "over": "over"}
    counts = [f"{len(alerts)} {words[name]}" for name, alerts in groups.items() if alerts]
    kinds = Counter(alert.kind for name in ("new", "reminders", "over") for alert in groups[name])
    return f"[syncect {node}] {', '.join(counts)}: {', '.join(kinds)}"[:_SUBJECT_LENGTH]


def _part(head: str, alerts: Sequence[AlertView], zone: tzinfo | None) -> str:
    lines = [
        f"  {alert.id}  {alert.opened_at.astimezone(zone):%Y-%m-%d %H:%M}  {alert.kind}: {alert.text}"
        for alert in alerts[:MOST_LINES]
    ]
    if len(alerts) > MOST_LINES:
        lines.append(f"  and {len(alerts) - MOST_LINES} more")
    return "\n".join([head, *lines])


def _json(alert: AlertView) -> dict[str, Any]:
    return {
        "id": alert.id,
        "kind": alert.kind,
        "subject": alert.subject,
        "text": alert.text,
        "opened_at": _iso(alert.opened_at),
        "closed_at": _iso(alert.closed_at) if alert.closed_at else None,
    }


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
