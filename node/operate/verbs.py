"""What a person may do about a case; the command line and the page do it by the same functions.

Each takes the node opened to write, the case, who decides and why, and the moment, and returns what the person must
know of the outcome, or "". `refused` says first why a verb would not be done. They raise Refused, IllegalTransition,
NotFound, Permanent, Retryable, SpoolFull and OSError, which `FAILURES` sorts.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from node.bootstrap.store import Node
from node.errors import Permanent, Refused, Retryable
from node.operate.cases import raw_state
from node.operate.refused_verbs import refusal, why_incomplete, why_nowhere
from node.operate.texts import NotUnderstood, one_line
from storage.errors import IllegalTransition, NotFound, SpoolFull
from storage.overview import Case
from storage.states import LIVE_JOB_STATES, DeliveryState, JobState, Priority, SeriesState

Act = Callable[[Node, Case, str, str, datetime], str]
FAILURES: Final[tuple[tuple[tuple[type[Exception], ...], str], ...]] = (
    ((NotFound,), "not found"),
    ((Refused, IllegalTransition), "refused"),
    ((Permanent, Retryable, SpoolFull, OSError), "failed"),
)
FAILED: Final = tuple(kind for kinds, _ in FAILURES for kind in kinds)
_WAITING: Final = (JobState.QUEUED, DeliveryState.SENDING)


def refused(node: Node, case: Case, verb: str) -> str:
    """Why a verb would be refused for a case, as a clause; "" where it would be done."""
    if verb == "priority":
        return "" if raw_state(case) in LIVE_JOB_STATES else f"it is {case.state}, and only a live job takes turns"
    if verb == "set_turn":
        why = "" if case.state in _WAITING else f"it is {case.state}, and nothing of it waits for its turn"
        return why or ("it is urgent already" if case.priority == Priority.URGENT else "")
    if verb == "purge":
        return node.retention.why_kept(case.series_id, case.job_id)
    why = refusal(verb, case, incomplete=lambda: why_incomplete(node, case))
    return why_nowhere(node, case) if verb == "release" and not why else why


def told(case_id: str, error: Exception) -> str:
    """What a person reads of a verb that failed; one of `FAILED`."""
    if isinstance(error, NotFound):
        return one_line(str(error))
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return one_line(f"{case_id}: {text}")


def retry(node: Node, case: Case, actor: str, reason: str, now: datetime) -> str:
    """Try a failed, held or cancelled job again, judge a skipped series anew, or send to where sending failed."""
    if case.state == SeriesState.SKIPPED:
        node.series.judge_again(case.series_id, actor, reason, now)
        return "the series is judged anew within seconds; it comes off peak if it is not of today"
    if case.recalled_at is not None:
        node.recalls.judge_again(_job(case), actor, reason, now)
        return "its series is judged anew within seconds, for the bundle that the settings name"
    produced = raw_state(case) is JobState.PRODUCED
    if produced and node.outbox.retry(_job(case), actor, reason, now):
        return f"its deliveries are due now{_off_peak(node, case)}"
    node.jobs.retry(_job(case), actor, reason, now)
    return _off_peak(node, case).removeprefix("; ")


def _off_peak(node: Node, case: Case) -> str:
    """What a person must know of a case that came off peak by what was done, as a clause."""
    if node.overview.case(case.id).priority != Priority.OFF_PEAK or case.priority == Priority.OFF_PEAK:
        return ""
    return f"; its series is not of today, so it comes off peak; `syncect jobs priority {case.id} --routine` hastens it"


def cancel(node: Node, case: Case, actor: str, reason: str, now: datetime) -> str:
    """Stop a job and its unfinished deliveries, or give up an incomplete series."""
    if case.state == SeriesState.INCOMPLETE:
        node.series.give_up(case.series_id, actor, reason, now)
        return f"`syncect jobs retry {case.id}` takes that back"
    node.jobs.cancel(_job(case), actor, reason, now)
    after = node.overview.case(case.id)
    if not after.leftovers:
        return ""
    return f"{after.reason}; when it is deleted there, `syncect jobs acknowledge {case.id}`"


def set_turn(
    node: Node,
    case: Case,
    actor: str,
    reason: str,
    now: datetime,
    *,
    priority: Priority | None,
    due_in: timedelta | None,
) -> str:
    """Let a job come earlier or later than others, or be wanted so long from now."""
    due_at = None if due_in is None else now + due_in
    return node.jobs.set_turn(_job(case), actor, reason, now, priority=priority, due_at=due_at) or "it was so already"


def reject(node: Node, case: Case, actor: str, reason: str, now: datetime) -> str:
    """Never send a HELD series."""
    node.jobs.reject(_job(case), actor, reason, now)
    return ""


def reopen(node: Node, case: Case, actor: str, reason: str, now: datetime) -> str:
    """Take back a cancel or a reject."""
    node.jobs.reopen(_job(case), actor, reason, now)
    return f"it is {node.overview.case(case.id).state} again"


def release(node: Node, case: Case, actor: str, reason: str, now: datetime) -> str:
    """Send a HELD series after a person has looked at it. Needs a reason.

    Actor and reason stand in every image; where not the result was held, but its delivery, they stand in the store.
    """
    from node.bootstrap.release import release_held

    if not reason:
        raise NotUnderstood("a release overrules a doubt, so say why; the reason stands in every image")
    if raw_state(case) is JobState.PRODUCED:
        return f"it goes to {', '.join(node.outbox.release_held(_job(case), actor, reason, now))}"
    release_held(node, case, actor, reason, now)
    names = node.destinations_for(case.destinations)
    return f"it goes to {', '.join(names)}" if names else "no destination is set, so it goes nowhere"


def resend(node: Node, case: Case, actor: str, reason: str, now: datetime, *, to: Sequence[str] = ()) -> str:
    """Send a produced series again, the same files under the same UIDs; without `to` to where its route leads."""
    names = list(to) or node.destinations_for(case.destinations)
    if not names:
        raise Refused("no destination is set, so it can go nowhere")
    if held := [view.destination for view in case.deliveries if view.is_held and view.destination in names]:
        raise Refused(f"the delivery to {', '.join(held)} is held; `syncect jobs release {case.id}` decides about it")
    node.jobs.resend(_job(case), names, actor, reason, now)
    return f"it goes to {', '.join(names)}{_off_peak(node, case)}"


def acknowledge(node: Node, case: Case, actor: str, reason: str, now: datetime, *, at: Sequence[str] = ()) -> str:
    """Say that what a withdrawn job left at a TPS was dealt with there; without `at` at every destination."""
    names = node.jobs.acknowledge(_job(case), actor, reason, now, destinations=at)
    return f"what stood at {', '.join(names)} is dealt with"


def complete(node: Node, case: Case, actor: str, reason: str, now: datetime) -> str:
    """Confirm that an INCOMPLETE series is all there."""
    node.series.complete_by_operator(case.series_id, actor, reason, now)
    return "it will be judged within seconds"


def drop(node: Node, case: Case, actor: str, reason: str, now: datetime, *, calling_ae: str) -> str:
    """Take out of a series what one AE title sent, and bar that AE title from it."""
    count = node.series.drop(case.series_id, calling_ae, actor, reason, now)
    owner = node.series.owner(case.series_id)
    left = node.series.spool_names(case.series_id)
    whose = f"the series belongs to {owner.calling_ae}" if left else "the series belongs to who sends it next"
    return f"{count} instance{'s' if count > 1 else ''} from {one_line(calling_ae)}, which adds no more; {whose}"


def allow_again(node: Node, case: Case, actor: str, reason: str, now: datetime, *, calling_ae: str) -> str:
    """Let an AE title that was dropped send for the series again."""
    node.series.allow_again(case.series_id, calling_ae, actor, reason, now)
    return f"{one_line(calling_ae)} may send for it again"


def purge(node: Node, case: Case, actor: str, reason: str, now: datetime) -> str:
    """Remove the files of a case from this node's disk."""
    from node.ops.retention import remove_files

    why = reason or "asked for by a person"
    removal = node.retention.purge_case(case.series_id, case.job_id, actor, why, now)
    return f"{remove_files(node.spool, [removal]) / 1e6:.1f} MB are free again"


def _job(case: Case) -> int:
    if case.job_id is None:
        raise Refused(f"{case.id} is {case.state} and has no job yet")
    return case.job_id
