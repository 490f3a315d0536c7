"""What a person does about a case, from what is the case right now; nothing is advised that would be refused."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Final

from node.bootstrap.store import Node
from node.operate.cases import derived_name, raw_state
from node.operate.refused_verbs import never_again, take_back, why_incomplete, why_not_reopened, why_nowhere
from node.operate.texts import local_time, zone_of
from node.operate.turns import how_to_resume
from node.ops.processes import running_processes, working_roles
from storage.hosts import roles_on
from storage.overview import Case, DeliveryView
from storage.states import (
    RECALLED,
    WORKER_CANNOT,
    DeliveryState,
    JobState,
    Leftover,
    NoteState,
    SeriesState,
)
from storage.transitions import NEVER


@dataclass(frozen=True)
class Facts:
    """What a next step depends on, beside the case itself.

    roles: the kinds of process that are alive, on any host. one_host: no other host can run processes of this node.
    cannot_work: why the worker cannot translate, in its own words, or "". unreachable: since when a destination does
    not answer, and what it answered last, in words. lost_files: the folder of the case's result where files of it are
    missing, or "". rejecting: destinations that get rejection notes. zone: in which people read times; None is the
    machine's. goes_to: where the result of the case goes when it is released; nowhere: why that cannot be said, or "".
    """

    roles: frozenset[str] = frozenset()
    one_host: bool = True
    cannot_work: str = ""
    destinations: tuple[str, ...] = ()
    unreachable: Mapping[str, str] = field(default_factory=dict)
    lost_files: str = ""
    rejecting: frozenset[str] = frozenset()
    zone: tzinfo | None = None
    goes_to: tuple[str, ...] = ()
    nowhere: str = ""


def facts_of(node: Node, case: Case) -> Facts:
    """The facts of this moment for one case."""
    alive = running_processes(node.run_dir)
    troubled = [view.cannot_work for view in alive if view.role == "work" and view.cannot_work]
    nowhere = why_nowhere(node, case)
    return Facts(
        roles=working_roles(alive) | roles_on(node.hosts.all()),
        one_host=node.database.is_sqlite,
        cannot_work=troubled[0].rstrip(".") if troubled else "",
        destinations=tuple(node.destination_names),
        unreachable=_unreachable(node),
        lost_files=_lost_files(node, case),
        rejecting=frozenset(one.name for one in node.settings.destination if one.rejection_notes),
        zone=zone_of(node.settings),
        goes_to=() if nowhere else tuple(node.destinations_for(case.destinations)),
        nowhere=nowhere,
    )


def step_of(node: Node, case: Case) -> str:
    """What a person does about a case now (`next_step`)."""
    return after_pause(node, case, next_step(case, facts_of(node, case), incomplete=lambda: why_incomplete(node, case)))


def after_pause(node: Node, case: Case, step: str) -> str:
    """The step, and before it how the pause is ended for which a case waits."""
    if not (resumed := how_to_resume(node, case)):
        return step
    idle = "Nothing to do: "
    return f"{resumed} {f'Then {step.removeprefix(idle)}' if step.startswith(idle) else step}"


def _lost_files(node: Node, case: Case) -> str:
    """The folder of a result of which files are gone; "" also where this host or user cannot see all of the spool."""
    if (
        case.product_dir is None
        or node.settings.spool.url
        or case.purged_at is not None
        or not os.access(node.spool.root / "derived", os.R_OK | os.X_OK)
    ):
        return ""
    folder = node.spool.path(case.product_dir)
    gone = any(not os.path.lexists(folder / made.file_name) for made in node.overview.products(case))
    return str(folder) if gone else ""


def _unreachable(node: Node) -> dict[str, str]:
    zone = zone_of(node.settings)
    return {
        peer.destination: f"since {local_time(peer.failing_since, zone)}" + (f" ({peer.reason})" if peer.reason else "")
        for peer in node.peers.all()
        if peer.failing_since is not None
    }


def next_step(case: Case, facts: Facts, *, incomplete: Callable[[], str] = lambda: "") -> str:
    """What a person does about a case now, in one or two sentences; commands are complete with their id."""
    if case.leftovers:
        return _leftover(case, facts)
    if case.purged_at is not None:
        again = "sent again from where it came, the series is translated anew"
        return f"Nothing to do. Its files were removed on {case.purged_at:%Y-%m-%d}; {again}."
    if case.state == SeriesState.INCOMPLETE:
        return _incomplete(case, incomplete())
    return NEXT_STEP[case.state](case, facts)


def _leftover(case: Case, facts: Facts) -> str:
    standing = [view for view in case.deliveries if view.leftover == Leftover.STANDS]
    states = {view.destination: view.note.state if view.note else "" for view in standing}
    told = [name for name, state in states.items() if state == NoteState.SENT]
    goes = [name for name, state in states.items() if name in facts.rejecting and state in ("", NoteState.PENDING)]
    by_hand = [name for name in states if name not in told and name not in goes]
    dealt, name = f"`syncect jobs acknowledge {case.id}`", derived_name(case)
    steps = []
    if by_hand:
        steps.append(f"Delete {name} at {' and '.join(by_hand)}, then {dealt}")
    if told:
        where = " and ".join(told)
        steps.append(f"{where} took the rejection note: look whether {name} is gone there, and if it is, {dealt}")
    if goes:
        waiting = f"Nothing to do yet: a rejection note about {name} goes to {' and '.join(goes)} by itself"
        steps.append(_with_process("deliver", facts, waiting, "nothing is sent").removesuffix("."))
    state = raw_state(case)
    if state is not None and not why_not_reopened(case, state):
        steps[-1] += f"; or {take_back(case)}"
    return ". ".join(steps) + "."


def _incomplete(case: Case, why_not: str) -> str:
    again = "Send the series again from the scanner"
    end = f"If nobody can, `syncect jobs cancel {case.id}` gives it up."
    if why_not:
        refused = f"`jobs complete` would be refused, because {why_not.rstrip('.')}"
        return f"{again}: what is missing must come. {refused}. {end}"
    return f"{again}; or, if it is all there, `syncect jobs complete {case.id}`. {end}"


def _receiving(_case: Case, facts: Facts) -> str:
    waiting = "Nothing to do: slices are arriving, or the sender may still come back"
    return _with_process("complete", facts, waiting, "no series is judged")


def _queued(case: Case, facts: Facts) -> str:
    if not case.is_present:
        return (
            "It waits until its series is whole: images came again, or are to be sent again; "
            f"`syncect jobs ls --series {case.series_uid}` says which."
        )
    if facts.cannot_work:
        return f"The worker cannot translate: {facts.cannot_work}. Mend that, or the job will be HELD."
    again = f"it is tried again by itself; the last attempt ended with: {case.reason}" if case.attempts else ""
    return _with_process("work", facts, f"Nothing to do: {again or 'a worker takes it next'}", "no job is translated")


def _running(_case: Case, facts: Facts) -> str:
    return _with_process(
        "work", facts, "Nothing to do: the model is at work", "the job waits until one takes it up again"
    )


def _held(case: Case, facts: Facts) -> str:
    again = f"`syncect jobs retry {case.id}`"
    if held := [view.destination for view in case.deliveries if view.is_held]:
        return (
            f"{' and '.join(held)} has another patient under this PatientID, or cannot tell: compare both. Corrected "
            f"there, {again} asks again; `syncect jobs release {case.id} --reason ...` sends it all the same, "
            f"`syncect jobs cancel {case.id}` gives it up."
        )
    if case.product_dir is None:
        return f"Nothing was produced, so nothing can be released. {_held_without_product(case, facts, again)}."
    if facts.lost_files:
        return (
            f"Files of the result are missing in {facts.lost_files}, so it cannot be released: {again} makes it anew."
        )
    if facts.nowhere:
        return (
            f"It cannot be released, because {facts.nowhere}. Add a [[destination]] with this AE title and restart the "
            f"node, then `syncect jobs release {case.id} --reason ...`; `syncect jobs reject {case.id}` never sends it."
        )
    goes = f"sends it to {', '.join(facts.goes_to)}" if facts.goes_to else "frees it (no destination is set)"
    return (
        f"Look at the series and decide: `syncect jobs release {case.id} --reason ...` {goes}, "
        f"`syncect jobs reject {case.id}` never does; {again} computes it again once the cause is gone."
    )


def _held_without_product(case: Case, facts: Facts, again: str) -> str:
    if not case.reason.startswith(WORKER_CANNOT):
        return (
            "The series itself is the cause, and a second try would end the same: correct it where it comes from and "
            f"send it again, or give it up with `syncect jobs cancel {case.id}`"
        )
    mend = f": {facts.cannot_work}" if facts.cannot_work else ""
    return f"Mend the cause{mend}; then {again}"


def _produced(case: Case, facts: Facts) -> str:
    if not case.deliveries:
        if not facts.destinations:
            return "No destination is set: add a [[destination]] to the settings, restart the node, then " + (
                f"`syncect jobs resend {case.id}`."
            )
        return f"It was produced when no destination was set: `syncect jobs resend {case.id}` sends it."
    return _sending(case, facts)


def _sending(case: Case, facts: Facts) -> str:
    waiting = [view for view in case.deliveries if view.state in (DeliveryState.PENDING, DeliveryState.SENDING)]
    if gone := _removed(waiting, facts):
        return f"{gone}: put it back into the settings, or give it up with `syncect jobs cancel {case.id}`."
    silent = [view for view in waiting if view.destination in facts.unreachable or (view.attempts and view.reason)]
    step = "Nothing to do: the courier sends it, and tries again by itself"
    if silent:
        words = "; ".join(_trouble(view, facts) for view in silent)
        test = f"`syncect peers echo {silent[0].destination}` tells whether it answers"
        step = f"{words}. The courier tries again by itself; {test}"
    return _with_process("deliver", facts, step, "nothing is sent")


def _trouble(view: DeliveryView, facts: Facts) -> str:
    """What keeps a delivery from getting on, and since when."""
    if view.destination in facts.unreachable:
        return f"{view.destination} cannot be reached {facts.unreachable[view.destination]}"
    since = view.last_accepted_at or view.created_at
    return f"{view.destination} has taken nothing since {local_time(since, facts.zone)} ({view.reason.rstrip('.')})"


def _sent(case: Case, _facts: Facts) -> str:
    given_up = [
        view.destination
        for view in case.deliveries
        if view.state == DeliveryState.SENT and view.next_attempt_at >= NEVER
    ]
    if given_up:
        names = ", ".join(given_up)
        return (
            f"{names} accepted every image, did not confirm them, and is asked no more: look for the series there. "
            f"`syncect jobs resend {case.id}` sends it again under the same UIDs where images are missing."
        )
    return "Nothing to do: every destination accepted every image."


def _confirmed(_case: Case, _facts: Facts) -> str:
    return "Nothing to do: the destination showed that it holds every image."


def _failed(case: Case, facts: Facts) -> str:
    failed = [view for view in case.deliveries if view.state == DeliveryState.FAILED]
    if raw_state(case) is JobState.FAILED or not failed:
        mend = "Remove the cause named in the reason"
        return f"{mend}, then `syncect jobs retry {case.id}`; or give it up with `syncect jobs cancel {case.id}`."
    if gone := _removed(failed, facts):
        return (
            f"{gone}. Put it back into the settings and `syncect jobs retry {case.id}`, or give it up with "
            f"`syncect jobs cancel {case.id}`."
        )
    if facts.lost_files:
        return (
            f"Files of the result are missing in {facts.lost_files}: `syncect jobs retry {case.id}` makes it again and "
            f"sends it, or give it up with `syncect jobs cancel {case.id}`."
        )
    names = ", ".join(view.destination for view in failed)
    return f"Remove the cause at {names} that the reason names, then `syncect jobs retry {case.id}`."


def _recalled(case: Case, _facts: Facts) -> str:
    if not case.is_present:
        return f"Nothing to do: its result was recalled, and its series came again since; {_newer(case)}."
    if case.received_purged_at is not None:
        return "Nothing to do: its result was recalled. Sent again from where it came, the series is translated anew."
    return (
        "Nothing to do: its result was recalled and stands nowhere. Once `model.bundle` names another bundle, "
        f"`syncect jobs retry {case.id}` translates the series by it."
    )


def _closed(case: Case, _facts: Facts) -> str:
    by = "stopped" if case.state == JobState.CANCELLED else "rejected"
    if not case.is_present:
        return f"Nothing to do: a person {by} it, and its series came again since; {_newer(case)}."
    why_not = why_not_reopened(case, JobState(case.state))
    if never_again(case):
        again = f"For a new result, `syncect jobs purge {case.id}` and send the series again"
        return f"A person {by} it; {why_not}. {again}."
    return f"A person {by} it; {why_not or take_back(case)}."


def _skipped(case: Case, _facts: Facts) -> str:
    again = f"`syncect jobs retry {case.id}` judges what came by the rules of today"
    return f"Nothing to do if the reason is right. A corrected series may simply be sent again; {again}."


def _superseded(case: Case, _facts: Facts) -> str:
    return f"Nothing to do: the source series changed; {_newer(case)}."


def _newer(case: Case) -> str:
    return f"`syncect jobs ls --series {case.series_uid}` lists its newer job"


def _removed(views: list[DeliveryView], facts: Facts) -> str:
    gone = [view.destination for view in views if view.destination not in facts.destinations]
    return f"{gone[0]} is no longer a destination of the settings" if gone else ""


def _with_process(role: str, facts: Facts, step: str, otherwise: str) -> str:
    """The step, and first what has to run for it."""
    if role in facts.roles:
        return f"{step}."
    where = "its {} process does not run on this host" if facts.one_host else "on no host a {} process runs"
    return f"Start `syncect serve` (or `syncect {role}`): {where.format(role)}, and {otherwise}."


NEXT_STEP: Final[dict[str, Callable[[Case, Facts], str]]] = {
    "RECEIVING": _receiving,
    "INCOMPLETE": lambda case, _facts: _incomplete(case, ""),
    "SKIPPED": _skipped,
    "QUEUED": _queued,
    "RUNNING": _running,
    "HELD": _held,
    "PRODUCED": _produced,
    "SENDING": _sending,
    "SENT": _sent,
    "CONFIRMED": _confirmed,
    "FAILED": _failed,
    "CANCELLED": _closed,
    "REJECTED": _closed,
    "SUPERSEDED": _superseded,
    RECALLED: _recalled,
}
