"""Why a case waits for its turn, in words, and what of a pause people read."""

import socket
from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Final

from node.bootstrap.store import Node
from node.bootstrap.turns import rules_at
from node.operate.texts import local_time, one_line, zone_of
from storage.cases import Case
from storage.hosts import roles_on
from storage.pauses import Pause
from storage.states import DeliveryState, JobState, Priority, Stage

_DOING: Final = {Stage.RECEIVE: "receiving", Stage.TRANSLATE: "translating", Stage.SEND: "sending"}
_ROLES: Final = {Stage.TRANSLATE: "work", Stage.SEND: "deliver"}
_SENDING: Final = (JobState.PRODUCED.value, DeliveryState.SENDING.value)


def pause_words(pause: Pause, zone: tzinfo | None) -> str:
    """What is paused, where, by whom, since when and why."""
    verb = "drained" if pause.drains else "paused"
    said = f"{_DOING[pause.stage]} is {verb} {pause.where} by {one_line(pause.actor)}"
    why = f": {one_line(pause.reason)}" if pause.reason else ""
    return f"{said} since {local_time(pause.at, zone)}{why}"


def resume_command(pause: Pause) -> str:
    """The command that ends a pause."""
    return f"`syncect queue resume --stage {pause.stage}{f' --host {pause.host}' * bool(pause.host)}`"


def waits_of(node: Node, cases: Sequence[Case], now: datetime) -> dict[str, str]:
    """Why each of these cases waits, by its id; those that wait for nothing that is known here are left out."""
    queued = [case for case in cases if case.state == JobState.QUEUED and case.job_id is not None]
    sending = [case for case in cases if case.state in _SENDING and _is_pending(case)]
    if not queued and not sending:
        return {}
    zone = zone_of(node.settings)
    pauses = node.pauses.all()
    paused = {stage: _paused(node, pauses, stage, zone) for stage in _ROLES}
    before = node.waiting.before([case.job_id for case in queued if case.job_id is not None]) if queued else {}
    limit = node.settings.queue.most_running_per_sender
    full = node.waiting.full_senders(limit) if limit and queued else ()
    said = {}
    for case in queued:
        clauses = [words for words in (paused[Stage.TRANSLATE], _class(node, case, now)) if words]
        if case.calling_ae in full and case.priority != Priority.URGENT:
            clauses.append(f"{limit} of {one_line(case.calling_ae)} run, which is the limit of a sender")
        clauses += _behind(case, before)
        said[case.id] = ", ".join(clauses)
    for case in sending:
        said[case.id] = paused[Stage.SEND]
    return {case_id: words for case_id, words in said.items() if words}


def _is_pending(case: Case) -> bool:
    return any(view.state == DeliveryState.PENDING and not view.is_held for view in case.deliveries)


def how_to_resume(node: Node, case: Case) -> str:
    """The commands after which a case goes on that waits for a pause to end, as a sentence; "" for any other."""
    is_queued = case.state == JobState.QUEUED and case.job_id is not None
    if not is_queued and not (case.state in _SENDING and _is_pending(case)):
        return ""
    pauses = _in_force(node, node.pauses.all(), Stage.TRANSLATE if is_queued else Stage.SEND)
    commands = [resume_command(one) for one in pauses]
    return f"{' or '.join(commands)} lets it go on." if commands else ""


def _paused(node: Node, known: Sequence[Pause], stage: Stage, zone: tzinfo | None) -> str:
    return " and ".join(pause_words(pause, zone) for pause in _in_force(node, known, stage))


def _in_force(node: Node, known: Sequence[Pause], stage: Stage) -> list[Pause]:
    """What keeps a stage from going on: a pause of all hosts, or those of each host that does it; else nothing does."""
    pauses = [pause for pause in known if pause.stage is stage]
    if not pauses or not pauses[0].host:
        return pauses[:1]
    hosts = node.hosts.all()
    at_work = {host.name for host in hosts if _ROLES[stage] in roles_on([host])} if hosts else {socket.gethostname()}
    if not at_work <= {pause.host for pause in pauses}:
        return []
    return [pause for pause in pauses if pause.host in at_work or not at_work]


def _class(node: Node, case: Case, now: datetime) -> str:
    """What the priority of a case means for it now; "" for routine."""
    if case.priority == Priority.URGENT:
        return "urgent"
    if case.priority != Priority.OFF_PEAK:
        return ""
    if rules_at(node.settings, now).latest < Priority.OFF_PEAK:
        return f"it begins off peak, {node.settings.queue.off_peak}"
    return "off peak"


def _behind(case: Case, before: Mapping[int, int]) -> list[str]:
    count = before.get(case.job_id, 0) if case.job_id is not None else 0
    if not count:
        return []
    return [f"{count} job{'s come' if count > 1 else ' comes'} before it"]
