"""Judges in one word how the node is, for a monitoring system and for whoever is called by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from config.settings import Settings

REFUSING_FOR = timedelta(minutes=15)  # an instance refused so recently: a sender has trouble now
ROLES = {
    "receive": "the receiver",
    "complete": "the completion",
    "work": "the worker",
    "deliver": "the courier",
    "watch": "the watch",
    "query": "the query service",
    "web": "the status page",
}

_WAITING = {
    "series:INCOMPLETE": "incomplete series",
    "job:HELD": "held",
    "job:FAILED": "failed",
    "delivery:FAILED": "failed deliveries",
}


class State(StrEnum):
    """The convention of Nagios plugins; `exit_code` is 0, 1 or 2."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"

    @property
    def exit_code(self) -> int:
        """Exit code of `status` in this state."""
        return list(State).index(self)


@dataclass(frozen=True)
class Facts:
    """What the judgement needs. Sizes in GB; `refused` holds time, caller and reason of what was refused, newest first;
    `unreachable` since when and why for each destination; `standing` results to be deleted at each destination;
    `waiting` since when and why roles do not run; `troubles` what else is wrong with processes and disk; `silent`
    which roles do not respond; `alerts` how many nobody has acknowledged, and the most urgent of them; `pauses` what a
    person paused, in words; `receiving_is_paused` whether this host refuses every instance for that."""

    missing: Sequence[str]
    counts: Mapping[str, int]
    free_gb: float
    reserve_gb: float
    now: datetime
    refused: Sequence[tuple[datetime, str, str]] = ()
    unreachable: Mapping[str, tuple[datetime, str]] = field(default_factory=dict)
    standing: Mapping[str, int] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    troubles: Sequence[str] = ()
    silent: Sequence[str] = ()
    alerts: tuple[int, str] = (0, "")
    pauses: Sequence[str] = ()
    receiving_is_paused: bool = False

    @property
    def is_full(self) -> bool:
        """Whether so little space is left that every C-STORE is refused."""
        return self.free_gb <= self.reserve_gb


@dataclass(frozen=True)
class Health:
    """The state, why it is no better, and how many things of each kind wait for a person.

    takes_images: whether a C-STORE can be accepted now; a node whose disk is full, or whose receiving a person paused,
    is degraded and takes none.
    """

    state: State
    reasons: tuple[str, ...]
    needs_person: Mapping[str, int] = field(default_factory=dict)
    takes_images: bool = True

    @property
    def headline(self) -> str:
        """The first line of a plugin's answer."""
        return f"{self.state.upper()}: {'; '.join(self.reasons) or 'all processes run, nothing waits for a person'}"


def roles_of(settings: Settings) -> list[str]:
    """The roles that `serve` runs."""
    left_out = {"web": not settings.web.enabled, "query": not settings.query.enabled}
    return [role for role in ROLES if not left_out.get(role)]


def judge(facts: Facts) -> Health:
    """DOWN without a receiver; DEGRADED where something is missing, refused, unreachable, or waits for a person."""
    waiting = needs_person(facts)
    reasons = [f"{ROLES[role]} does not run{_after(facts.waiting.get(role))}" for role in facts.missing]
    reasons += facts.pauses
    reasons += facts.troubles
    reasons += _refusing(facts)
    reasons += [
        f"{name} cannot be reached since {_local(since)}: {why}" for name, (since, why) in facts.unreachable.items()
    ]
    if waiting:
        reasons.append("waiting for a person: " + ", ".join(f"{count} {what}" for what, count in waiting.items()))
    count, most_urgent = facts.alerts
    if count:
        reasons.append(f"{count} alert{'s are' if count > 1 else ' is'} not acknowledged: {most_urgent}")
    is_down = "receive" in {*facts.missing, *facts.silent}
    state = State.DOWN if is_down else State.DEGRADED if reasons else State.OK
    return Health(
        state, tuple(reasons), waiting, takes_images=not (is_down or facts.is_full or facts.receiving_is_paused)
    )


def down(reasons: Sequence[str]) -> Health:
    """Where nothing is known, because the settings or the store cannot be read."""
    return Health(State.DOWN, tuple(reasons), takes_images=False)


def needs_person(facts: Facts) -> dict[str, int]:
    """How many things of each kind nobody but a person can move on; kinds without one are left out."""
    waiting = {what: facts.counts.get(key, 0) for key, what in _WAITING.items()}
    waiting |= {f"withdrawn results to delete at {name}": count for name, count in facts.standing.items()}
    return {what: count for what, count in waiting.items() if count}


def _refusing(facts: Facts) -> list[str]:
    """Why C-STOREs are refused now."""
    if facts.is_full:
        return [
            f"every C-STORE is refused: {facts.free_gb:.1f} GB are free, "
            f"and retention.min_free_gb is {facts.reserve_gb:g}"
        ]
    for at, caller, reason in facts.refused:
        if facts.now - at <= REFUSING_FOR:
            return [f"C-STOREs are refused, the last at {_local(at)} from {caller}: {reason}"]
    return []


def _after(words: str | None) -> str:
    return f" {words}" if words else ""


def _local(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M}"
