"""The filters of `jobs ls` and of the page's address: as people write them, and the cases they mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from node.bootstrap.store import Node
from node.operate.next_steps import NEXT_STEP
from node.operate.texts import NotUnderstood, moment_before, one_line, zone_of
from storage.overview import Case


@dataclass(frozen=True)
class Asked:
    """What a person asked for, as typed; an empty value filters nothing. limit: at most so many; 0 lists all."""

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


def cases_of(node: Node, asked: Asked, now: datetime) -> list[Case]:
    """The cases to which every filter applies, newest first; raises NotUnderstood."""
    zone = zone_of(node.settings)
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
        overdue_since=now - timedelta(seconds=node.settings.alerts.due_s) if asked.stuck else None,
        limit=asked.limit,
    )


def named_states(given: Sequence[str]) -> list[str]:
    """The states that these name, in whatever case, also with commas between; raises NotUnderstood."""
    wanted = [name.strip().upper() for entry in given for name in entry.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in NEXT_STEP]:
        raise NotUnderstood(f"{one_line(unknown[0])} is no state; states are {', '.join(NEXT_STEP)}")
    return wanted
