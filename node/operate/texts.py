"""Times and texts as people write and read them, and the error for what cannot be understood. Programs get UTC."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from config.settings import Settings
from storage.states import Priority

MAX_REASON: Final = 1000  # characters
_FACTS: Final = ("series_number", "modality", "body_part", "acquired")


class NotUnderstood(ValueError):
    """What a person asked for has no meaning here; the text says what is allowed."""


def one_line(text: str) -> str:
    """Text without line breaks and without any character that acts instead of being shown."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def masked(patient_id: str, *, show: bool) -> str:
    """A patient ID as it is shown unless it was asked for in full: its last two characters at most."""
    if show or not patient_id:
        return patient_id
    return "…" + patient_id[-2:] if len(patient_id) > 4 else "…"


def masked_text(text: str, *, show: bool) -> str:
    """Free text of a header, which may name a patient: nothing of it unless it was asked for, and that there is one."""
    return text if show or not text else "…"


def facts_text(facts: Mapping[str, int | str]) -> str:
    """What tells a series from others and is no free text: `3 CT CHEST 2026-11-26 13:40`."""
    return " ".join(str(facts[name]) for name in _FACTS if name in facts)


def tidy_reason(reason: str) -> str:
    """What a person typed, on one line and without control characters; raises NotUnderstood where it is too long."""
    tidy = " ".join(one_line(reason).split())
    if len(tidy) > MAX_REASON:
        raise NotUnderstood(f"the reason has {len(tidy)} characters; at most {MAX_REASON} are kept")
    return tidy


# -- times ---------------------------------------------------------------------------------------------------------

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN: Final = re.compile(r"(\d{1,6})([smhdw])")
_HOW: Final = "write 30m, 2h, 3d or 1w, a date such as 2026-11-26, or a date and time such as 2026-11-26T08:30"


def now_utc() -> datetime:
    """This moment, UTC."""
    return datetime.now(UTC)


def zone_of(settings: Settings) -> tzinfo | None:
    """The time zone in which people read times here: that of the settings, or None for the machine's."""
    return settings.node.zone()


def local_time(moment: datetime, zone: tzinfo | None) -> str:
    """An aware moment as it is shown to people: `2026-11-26 08:30:00 CET`."""
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"


def utc_iso(moment: datetime) -> str:
    """An aware moment as programs get it: `2026-11-26T07:30:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment_before(text: str, now: datetime, zone: tzinfo | None) -> datetime:
    """The moment that an option such as `--since` names, UTC: so long before `now`, or a local date or time.

    Raises NotUnderstood for anything else.
    """
    text = text.strip()
    try:
        if span := _SPAN.fullmatch(text):
            return now - timedelta(seconds=int(span[1]) * _UNITS_S[span[2]])
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone) if zone else moment.astimezone()
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise NotUnderstood(f"{text!r} is no time; {_HOW}") from error


def time_left(seconds: float) -> str:
    """A duration that is an estimate, in one unit: `about 40 s`, `about 12 min`, `about 3 h`."""
    return f"about {span(max(1, seconds))}"


def age(moment: datetime) -> str:
    """Time since `moment` in one unit: 12s, 5m, 3h, 2d."""
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def span(seconds: float) -> str:
    """A duration of at least 0 s in one unit: `40 s`, `12 min`, `3 h`, `4 d`."""
    if seconds < 100:
        return f"{round(seconds)} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h" if seconds < 48 * 3600 else f"{round(seconds / 86400)} d"


def priority_words(priority: int | None) -> str:
    """A priority as settings and options write it, such as `off_peak`; "" without one."""
    return "" if priority is None else Priority(priority).name.lower()


def due_text(due_at: datetime | None, now: datetime) -> str:
    """`in 4 min`, or `overdue 12 min`; "" where nothing is due."""
    if due_at is None:
        return ""
    left_s = (due_at - now).total_seconds()
    return f"in {span(left_s)}" if left_s >= 0 else f"overdue {span(-left_s)}"
