"""The strip of lights: one word and one sentence for each thing that has to work, from the facts of `status`."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from node.beats import CANNOT_WORK
from node.bootstrap.store import Node
from node.operate.situation import facts, health_of, silence, waits
from node.operate.texts import age, due_text, now_utc, span, zone_of
from node.operate.turns import pause_words
from node.ops.health import REFUSING_FOR, Health
from node.ops.processes import ProcessView
from storage.errors import StorageError, StoreUnavailable
from storage.hosts import roles_on
from storage.peers import PeerView

KEPT_S: Final = 2.0
ANSWER_TELLS: Final = timedelta(hours=1)  # that a destination works; only a courier that runs asks it again
LONG_H: Final = 365 * 24.0  # nobody plans for longer
SHORT_H: Final = 24.0  # less disk than for a day: nobody may look before
_ROLES: Final = {
    "receive": "Receiver",
    "complete": "Completion",
    "work": "Worker",
    "deliver": "Courier",
    "watch": "Watch",
    "query": "Query service",
}


class Word(StrEnum):
    """OK: it works. UNKNOWN: nobody looked lately. LATE: it works badly, or will not for long. DOWN: it does not work.

    OPEN: a person has to know something.
    """

    OK = "OK"
    UNKNOWN = "UNKNOWN"
    OPEN = "OPEN"
    LATE = "LATE"
    DOWN = "DOWN"


@dataclass(frozen=True)
class Light:
    """One thing that has to work, how it is, and the sentence that says it; case_id: the case that it speaks of."""

    name: str
    word: Word
    text: str
    case_id: str = ""


@dataclass(frozen=True)
class Strip:
    """Every light, what `status` says in its first line, when that was so, and what a person paused, in words."""

    health: Health
    lights: tuple[Light, ...]
    at: datetime
    pauses: tuple[str, ...] = ()


class Lights:
    """The strip of one node, made anew after `KEPT_S`, however many browsers ask."""

    def __init__(self, node: Node) -> None:
        self._node, self._lock = node, threading.Lock()
        self._kept: Strip | str = ""
        self._made_s = float("-inf")

    def now(self) -> Strip:
        """How everything is; raises StoreUnavailable where the store does not answer.

        Many who look at once wait for a store that does not answer only once, and not one after the other.
        """
        with self._lock:
            if time.monotonic() - self._made_s > KEPT_S:
                try:
                    self._kept = strip_of(self._node)
                except StorageError as error:
                    self._kept = str(error)
                self._made_s = time.monotonic()
            if isinstance(self._kept, str):
                raise StoreUnavailable(self._kept)
            return self._kept


def strip_of(node: Node) -> Strip:
    """How everything is now."""
    found, now = facts(node), now_utc()
    made = [*_roles(found), *_hosts(found), *_destinations(node, found, now), _disk(found), _certificates(found, now)]
    pauses = tuple(pause_words(pause, zone_of(node.settings)) for pause in found["pauses"])
    return Strip(health_of(node, found), (*made, _waiting(node, now), _alerts(found)), now, pauses)


# -- processes ---------------------------------------------------------------------------------------------------------


def _roles(found: dict[str, Any]) -> Iterator[Light]:
    not_started = {one.role: one for one in found["not_started"]}
    for role, name in _ROLES.items():
        views = [view for view in found["processes"] if view.role == role]
        if role in found["missing"]:
            why = f"does not run {waits(not_started[role])}" if role in not_started else "does not run"
            yield Light(name, Word.DOWN, f"{why}. Start `syncect serve`." if role not in not_started else why)
        elif views:
            word, text = min((_process(view) for view in views), key=lambda told: list(Word).index(told[0]) * -1)
            yield _refusing(found, Light(name, word, text)) if role == "receive" else Light(name, word, text)
        elif on := [host.name for host in found["hosts"] if role in roles_on([host])]:  # or the settings leave it out
            yield _refusing(found, Light(name, Word.OK, f"runs on {', '.join(on)}"))


def _process(view: ProcessView) -> tuple[Word, str]:
    if words := silence(view):
        return Word.DOWN, words
    if view.cannot_work:
        return Word.DOWN, f"cannot work: {view.cannot_work}"
    if view.waits_for_database:
        return Word.LATE, "waits for the database; its log says why"
    return Word.OK, view.details or f"runs for {age(view.start)}"


def _refusing(found: dict[str, Any], light: Light) -> Light:
    newest = next(iter(found["refused_24_h"]), None)
    if newest is None or light.word is not Word.OK or now_utc() - newest.last_at > REFUSING_FOR:
        return light
    refused = f"refused images of {newest.calling_ae} {age(newest.last_at)} ago: {newest.reason}"
    return Light(light.name, Word.LATE, refused)


def _hosts(found: dict[str, Any]) -> Iterator[Light]:
    """One light for each host, where the node can run on several."""
    for host in found["hosts"]:
        if host.is_gone:
            yield Light(f"Host {host.name}", Word.DOWN, f"gone: not heard for {age(host.seen_at)}")
            continue
        fails = {one.name: "cannot work" for one in host.processes if one.details.startswith(CANNOT_WORK)}
        fails |= dict.fromkeys(host.silent, "silent")
        roles = ", ".join(one.role + (f" ({fails[one.name]})" if one.name in fails else "") for one in host.processes)
        versions = " and ".join(host.versions)
        yield Light(f"Host {host.name}", Word.LATE if fails else Word.OK, f"{roles}; version {versions}")


# -- destinations, disk, certificates ----------------------------------------------------------------------------------


def _destinations(node: Node, found: dict[str, Any], now: datetime) -> Iterator[Light]:
    peers = {peer.destination: peer for peer in found["peers"]}
    sent = node.overview.last_sent()
    for name in found["destinations"]:
        took = f"last send {age(sent[name])} ago" if name in sent else "nothing was sent there yet"
        yield _destination(name, peers.get(name), took, now)
    if not found["destinations"]:
        yield Light("Destinations", Word.LATE, "none is set: results go nowhere")


def _destination(name: str, peer: PeerView | None, took: str, now: datetime) -> Light:
    answered = f"answered {age(peer.answered_at)} ago" if peer and peer.answered_at else "never answered"
    if peer is not None and peer.failing_since is not None:
        away = f"cannot be reached for {age(peer.failing_since)}: {peer.reason}"
        return Light(f"To {name}", Word.DOWN, f"{away}; {answered}, {took}")
    if peer is None or peer.answered_at is None:
        return Light(f"To {name}", Word.UNKNOWN, f"nobody has asked it yet (`syncect peers echo {name}`); {took}")
    if now - peer.answered_at > ANSWER_TELLS:
        return Light(f"To {name}", Word.UNKNOWN, f"{answered}, not asked since (`syncect peers echo {name}`); {took}")
    return Light(f"To {name}", Word.OK, f"{answered}, {took}")


def _disk(found: dict[str, Any]) -> Light:
    hours, free = found["retention"]["hours_left"], f"{found['free_gb']} GB free"
    lasts = "and it does not fill up" if hours is None or hours > LONG_H else f"full in about {span(hours * 3600)}"
    left = f"{free}, {lasts}"
    if found["unwritable"]:
        return Light("Disk", Word.DOWN, found["unwritable"])
    if found["free_gb"] <= found["reserve_gb"]:
        return Light("Disk", Word.DOWN, f"{free}; below {found['reserve_gb']:g} GB every image is refused")
    if found["retention"]["below_target"]:
        return Light("Disk", Word.LATE, f"{left}; {found['retention']['words']}")
    return Light("Disk", Word.LATE if hours is not None and hours < SHORT_H else Word.OK, left)


def _certificates(found: dict[str, Any], now: datetime) -> Light:
    name, told = "Certificates", found["certificates"]
    if told["mistakes"]:
        return Light(name, Word.DOWN, told["mistakes"][0])
    if told["ends_at"] is None:
        return Light(name, Word.OK, "none is in use (no TLS is set)")
    word = Word.LATE if told["warnings"] else Word.OK
    return Light(name, word, f"{(told['ends_at'] - now).days} days left, {told['first_to_end']} first")


# -- what waits --------------------------------------------------------------------------------------------------------


def _waiting(node: Node, now: datetime) -> Light:
    case = node.overview.longest_waiting()
    if case is None:
        return Light("Oldest waiting", Word.OK, "no series waits for a process of the node")
    due_at = case.counts_from + timedelta(seconds=node.settings.alerts.due_s)
    text = f"job {case.id} ({case.state}) waits for {age(case.counts_from)}, due {due_text(due_at, now)}"
    return Light(
        "Oldest waiting", Word.LATE if due_at < now else Word.OK, text.replace("due overdue", "overdue"), case.id
    )


def _alerts(found: dict[str, Any]) -> Light:
    alerts = found["alerts"]
    if not alerts["open"]:
        return Light("Alerts", Word.OK, "none is open")
    text = f"{alerts['open']} open, {alerts['unacknowledged']} of them not acknowledged"
    urgent = f"{text}; {alerts['most_urgent']}" if alerts["most_urgent"] else text
    return Light("Alerts", Word.OPEN if alerts["unacknowledged"] else Word.OK, urgent)
