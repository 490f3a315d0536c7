"""The filters of `jobs ls` and of the page's address: as people write them, and the cases they mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from node.bootstrap.store import Node
from node.operate.next_steps import NEXT_STEP
from node.operate.texts import NotUnderstood, moment_before, one_line, zone_of
from storage.overview import Case

LIVELY: Final = timedelta(hours=8)  # a shift


@dataclass(frozen=True)
class Asked:
    """What a person asked for, as typed; an empty value filters nothing. limit: at most so many; 0 lists all.

    needs_person: only what waits for a person or is overdue. lively: only what is unfinished or changed within the last
    `LIVELY`. after: only what the listing has behind the case of this id.
    """

    state: Sequence[str] = ()
    patient: str = ""
    study: str = ""
    series: str = ""
    calling_ae: str = ""
    destination: str = ""
    bundle: str = ""
    since: str = ""
    older: str = ""
    stuck: bool = False
    limit: int = 200
    needs_person: bool = False
    lively: bool = False
    after: str = ""


def cases_of(node: Node, asked: Asked, now: datetime) -> list[Case]:
    """The cases to which every filter applies, newest first; raises NotUnderstood, and NotFound for `after`."""
    zone, due_before = zone_of(node.settings), now - timedelta(seconds=node.settings.alerts.due_s)
    return node.overview.cases(
        states=named_states(asked.state),
        patient=asked.patient,
        study_uid=asked.study,
        series_uid=asked.series,
        calling_ae=asked.calling_ae,
        destination=asked.destination,
        bundle=asked.bundle,
        since=moment_before(asked.since, now, zone) if asked.since else None,
        before=moment_before(asked.older, now, zone) if asked.older else None,
        overdue_since=due_before if asked.stuck else None,
        troubled_since=due_before if asked.needs_person else None,
        lively_since=now - LIVELY if asked.lively else None,
        after=asked.after,
        limit=asked.limit,
    )


def named_states(given: Sequence[str]) -> list[str]:
    """The states that these name, in whatever case, also with commas between; raises NotUnderstood."""
    wanted = [name.strip().upper() for entry in given for name in entry.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in NEXT_STEP]:
        raise NotUnderstood(f"{one_line(unknown[0])} is no state; states are {', '.join(NEXT_STEP)}")
    return wanted
