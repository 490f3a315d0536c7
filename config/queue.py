"""The settings of turns: when a result is wanted, in which hours re-runs begin, and how much one sender may take."""

import re
from dataclasses import dataclass
from datetime import datetime, time, tzinfo
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from config.fields import Section

TARGET_S: Final = 300.0
"""A result is wanted so many seconds after its series was complete, where nothing else is set."""

PriorityName = Literal["urgent", "routine", "off_peak"]
"""Whose turn comes first; a name of `storage.states.Priority` in lower case."""

_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", re.ASCII)


@dataclass(frozen=True)
class Hours:
    """A part of each day by the clock on the wall, over midnight where it begins later than it ends."""

    begin: time
    end: time

    def has(self, moment: datetime, zone: tzinfo | None) -> bool:
        """Whether a moment lies in it; `zone` None is the machine's. The end does not belong to it.

        The clock on the wall decides, so that a night in which it is put forward or back is shorter or longer.
        """
        at = moment.astimezone(zone).time()
        if self.begin < self.end:
            return self.begin <= at < self.end
        return at >= self.begin or at < self.end


def hours_of(text: str) -> Hours | None:
    """`20:00-06:00` as hours, None for ""; raises ValueError."""
    if not text:
        return None
    if not _HOURS.fullmatch(text) or text[:5] == text[6:]:
        raise ValueError('it should be two different times such as "20:00-06:00", or "" for no such hours')
    begin, end = text.split("-")
    return Hours(time.fromisoformat(begin), time.fromisoformat(end))


def _hours(value: str) -> str:
    hours_of(value)
    return value


class QueueSettings(Section):
    """Whose turn comes first.

    target_s: a result is wanted so long after its series was complete, seconds. off_peak: the hours in the node's time
    zone in which jobs of priority off_peak begin; "" for whenever nothing else waits. most_running_per_sender: while so
    many jobs of one calling AE title run, its others wait for those of other senders; 0 for no limit.
    most_sending_per_destination: so many series at most are sent to one destination at a time, by all hosts together; 0
    for one from each courier. pause_alert_s: a stage that is paused for longer is an alert, seconds.
    """

    target_s: Annotated[float, Field(ge=10, le=7 * 86400)] = TARGET_S
    off_peak: Annotated[str, AfterValidator(_hours)] = ""
    most_running_per_sender: Annotated[int, Field(ge=0, le=1000)] = 0
    most_sending_per_destination: Annotated[int, Field(ge=0, le=1000)] = 0
    pause_alert_s: Annotated[float, Field(ge=60, le=7 * 86400)] = 1800.0
