"""What the store says that a person has to know: series that do not get on, silent peers, refused instances.

Texts name jobs by our own numbers and peers by their AE titles; nothing of a patient stands in them. They hold moments
and no durations, so that they change only when something happened.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Final

from node.ops.health import REFUSING_FOR
from storage.alerts import Cause
from storage.hosts import Host
from storage.overview import Case, Overview
from storage.pauses import PauseStore
from storage.peers import PeerStore
from storage.watching import WatchStore

PEER_DOWN_AFTER: Final = timedelta(minutes=5)
HUNG_AFTER: Final = timedelta(minutes=10)  # a slice takes seconds, and loading a model less than this
UNCONFIRMED_FOR: Final = timedelta(days=7)  # from the sending; who has looked until then knows
MOST_CALLERS: Final = 20  # a caller may invent AE titles without end
_REASON_LENGTH: Final = 300

_WAITS_FOR_A_PERSON: Final = {"INCOMPLETE": "incomplete", "HELD": "held", "FAILED": "failed"}
OF_SERIES: Final = frozenset({"overdue", "hung", *_WAITS_FOR_A_PERSON.values()})


def series(overview: Overview, due_s: float, zone: tzinfo | None, now: datetime) -> Iterator[Cause]:
    """One cause for each case that waits for a person, or has no result in time, or stands still; kinds OF_SERIES."""
    due = timedelta(seconds=due_s)
    cases = {case.id: case for case in overview.cases(states=list(_WAITS_FOR_A_PERSON), limit=0)}
    cases |= {case.id: case for case in overview.cases(overdue_since=now - due, limit=0)}
    for case in cases.values():
        late = case.counts_from + due < now
        due_at = f", and was due at {_local(case.counts_from + due, zone)}" if late else ""
        kind = _WAITS_FOR_A_PERSON.get(case.state, "overdue")
        yield _about(case, kind, f"{case.id} is {case.state}{due_at}{_why(case)}")
    for case in overview.cases(states=["RUNNING"], limit=0):
        if case.moved_at < now - HUNG_AFTER:
            yield _about(case, "hung", f"{case.id} is RUNNING without a step since {_local(case.moved_at, zone)}")


def _about(case: Case, kind: str, text: str) -> Cause:
    came = f"{case.slices.received} slices from {_printable(case.calling_ae)}"
    return Cause(kind, case.id, f"{text} ({came}); next: `syncect jobs why {case.id}`", case.series_id, case.job_id)


def _why(case: Case) -> str:
    return f": {_printable(case.reason)[:_REASON_LENGTH]}" if case.reason else ""


def silent_words(host: Host) -> dict[str, str]:
    """What is said of a host that is gone, by its name, or else of each of its processes that is silent, by theirs."""
    if not host.is_gone:
        return {
            one.name: f"the process {_printable(one.name)} did not report itself since "
            f"{one.seen_at:%Y-%m-%d %H:%M:%S} UTC"
            for one in host.processes
            if one.name in host.silent
        }
    return {host.name: _gone_words(host)}


def _gone_words(host: Host) -> str:
    return (
        f"the host {_printable(host.name)} is gone: none of its {len(host.processes)} processes reported itself since "
        f"{host.seen_at:%Y-%m-%d %H:%M:%S} UTC"
    )


def hosts(found: Callable[[], Sequence[Host]], _now: datetime) -> Iterator[Cause]:
    """One cause for each host, or process of one, that is not heard any more; kind `host`."""
    for host in found():
        next_step = f"start it again, or `syncect hosts forget {_printable(host.name)}`"
        for subject, words in silent_words(host).items():
            yield Cause("host", subject, f"{words}; next: {next_step}")


def deaths(watching: WatchStore, _now: datetime) -> Iterator[Cause]:
    """Unfinished cases that took processes or the device with them; kind `deaths`."""
    for harm in watching.harms():
        said = []
        if harm.deaths:
            said.append(f"a process ended {_times(harm.deaths)}")
        if harm.device_faults:
            said.append(f"the device failed {_times(harm.device_faults)} (out of memory, lost or hung)")
        if said:
            text = f"{' and '.join(said)} while {harm.case_id} was in hand; next: `syncect jobs why {harm.case_id}`"
            yield Cause("deaths", harm.case_id, text, harm.series_id, harm.job_id)


def peers(store: PeerStore, destinations: Collection[str], zone: tzinfo | None, now: datetime) -> Iterator[Cause]:
    """Destinations that have not answered for five minutes, and results that a person has to delete there."""
    for peer in store.all():
        if peer.destination not in destinations or peer.failing_since is None:
            continue
        if now - peer.failing_since >= PEER_DOWN_AFTER:
            since = f"{peer.destination} cannot be reached since {_local(peer.failing_since, zone)}"
            why = f": {_printable(peer.reason)[:_REASON_LENGTH]}" if peer.reason else ""
            yield Cause("peer", peer.destination, f"{since}{why}; next: `syncect peers echo {peer.destination}`")
    for name, count in store.standing().items():
        text = (
            f"{count} recalled, superseded or cancelled results are to be deleted at {name}; "
            f"next: `syncect jobs ls --to {name}`"
        )
        yield Cause("leftover", name, text)


def paused(pauses: PauseStore, after_s: float, zone: tzinfo | None, now: datetime) -> Iterator[Cause]:
    """Stages that a person paused so long ago that it may be forgotten; kind `paused`."""
    for pause in pauses.all():
        if now - pause.at >= timedelta(seconds=after_s):
            words = f"{pause.stage} is paused {pause.where} since {_local(pause.at, zone)} by {_printable(pause.actor)}"
            host = f" --host {pause.host}" if pause.host else ""
            text = f"{words}; next: `syncect queue resume --stage {pause.stage}{host}`"
            yield Cause("paused", f"{pause.stage} {pause.host}".strip(), text)


def unconfirmed(watching: WatchStore, now: datetime) -> Iterator[Cause]:
    """Destinations that accepted results of the last days and did not confirm them; kind `unconfirmed`."""
    for name, count in watching.unconfirmed(now - UNCONFIRMED_FOR).items():
        text = (
            f"{count} sent results were not confirmed by {name}, which is asked no more; "
            f"next: `syncect jobs ls --state SENT --to {name}`"
        )
        yield Cause("unconfirmed", name, text)


def refused(overview: Overview, zone: tzinfo | None, now: datetime) -> list[Cause]:
    """Callers of whom instances were refused in the last quarter of an hour, with the newest reason of each."""
    newest: dict[str, str] = {}
    for row in overview.refused_since(now, hours=REFUSING_FOR.total_seconds() / 3600):
        caller = _printable(row.calling_ae) or "(no AE title)"
        words = f"status {row.status}, {_printable(row.reason)}"
        newest.setdefault(
            caller, f"instances of {caller} are refused, the last at {_local(row.last_at, zone)}: {words}"
        )
    callers = list(newest)[:MOST_CALLERS]
    return [Cause("refused", caller, f"{newest[caller]}; next: `syncect status`") for caller in callers]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _local(moment: datetime, zone: tzinfo | None) -> str:
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def _printable(text: str) -> str:
    """Text from a peer on one line."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
