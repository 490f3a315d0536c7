"""What a verb would be refused for, about a case, in the words of the machine that refuses it."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from node.bootstrap.store import Node
from node.errors import Permanent, Refused
from node.operate.cases import raw_state
from storage.cases import Case
from storage.states import CLOSED_BY_A_PERSON, LIVE_JOB_STATES, DeliveryState, JobState, SeriesState

_CHANGED: Final = "its series came again since, with other contents or unfinished; this job belongs to what it was"


def refusal(verb: str, case: Case, *, incomplete: Callable[[], str] = lambda: "") -> str:
    """Why a verb would be refused for a case, as a clause; "" where it would be done.

    incomplete: asked only for `complete`, why the series is not complete whoever vouches for it; "" where it is.
    """
    if verb == "complete":
        if case.state != SeriesState.INCOMPLETE:
            return f"it is {case.state}, and only an INCOMPLETE series can be completed"
        return incomplete()
    if verb == "acknowledge":
        return "" if case.leftovers else "nothing of it lies at a destination that would have to be dealt with"
    if verb == "drop":
        return ""  # the store knows whose instances there are
    state = raw_state(case)
    if (case.state, verb) in ((SeriesState.SKIPPED, "retry"), (SeriesState.INCOMPLETE, "cancel")):
        return ""
    if state is None:
        return f"it is {case.state} and has no job yet"
    return _JOB_VERBS[verb](case, state)


def _retry(case: Case, state: JobState) -> str:
    if case.recalled_at is not None:
        return _gone(case.received_purged_at) if case.is_present else _CHANGED
    if state in (JobState.FAILED, JobState.HELD):
        return ""
    if state is JobState.CANCELLED and case.product_dir is None:
        return _gone(case.received_purged_at) if case.is_present else _CHANGED
    if state is JobState.CANCELLED:
        return f"its series was produced already{f'; {take_back(case)}' if case.is_present else ''}"
    if any(view.state in (DeliveryState.FAILED, DeliveryState.PENDING) for view in case.deliveries):
        return ""
    return f"it is {case.state}, and only what FAILED, is HELD or waits can be tried again"


def _cancel(case: Case, state: JobState) -> str:
    return "" if state in LIVE_JOB_STATES else f"it is {case.state} already"


def _release(case: Case, state: JobState) -> str:
    if state is JobState.PRODUCED and any(view.is_held for view in case.deliveries):
        return _gone(case.purged_at)
    if state is not JobState.HELD:
        return f"it is {case.state}, and only a HELD result can be released"
    step = f"`syncect jobs why {case.id}` says what can be done"
    return "" if case.product_dir else f"nothing was produced that could be released; {step}"


def _reject(case: Case, state: JobState) -> str:
    if state is JobState.PRODUCED and any(view.is_held for view in case.deliveries):
        return f"not its result is held, but its delivery; `syncect jobs cancel {case.id}` gives it up"
    return "" if state is JobState.HELD else f"it is {case.state}, and only a HELD result can be rejected"


def why_not_reopened(case: Case, state: JobState) -> str:
    """Why a cancel or a reject cannot be taken back, as a clause; "" where it can."""
    if state not in CLOSED_BY_A_PERSON:
        return f"it is {case.state}, and only a cancel or a reject can be taken back"
    if not case.is_present:
        return _CHANGED
    if never := never_again(case):
        return never
    return _gone(case.purged_at if case.product_dir else case.received_purged_at)


def never_again(case: Case) -> str:
    """Why a withdrawn result cannot come back: images that were rejected never come again under their UIDs."""
    if case.recalled_at is not None:
        return "its result was recalled, and never comes back"
    rejected = [view.destination for view in case.deliveries if view.is_rejected]
    if not rejected:
        return ""
    return f"{' and '.join(rejected)} was sent a rejection note about its images, which never come back"


def _resend(case: Case, state: JobState) -> str:
    if state is not JobState.PRODUCED:
        return f"it is {case.state}, and only a produced series can be sent again"
    if case.deliveries and all(view.is_held for view in case.deliveries):
        return f"its delivery is held; `syncect jobs release {case.id} --reason ...` sends it"
    return _gone(case.purged_at)


def _gone(purged_at: datetime | None) -> str:
    if purged_at is None:
        return ""
    return f"its files were removed on {purged_at:%Y-%m-%d}; send the series again from where it came"


_JOB_VERBS: Final[dict[str, Callable[[Case, JobState], str]]] = {
    "retry": _retry,
    "cancel": _cancel,
    "release": _release,
    "reject": _reject,
    "reopen": why_not_reopened,
    "resend": _resend,
}


def take_back(case: Case) -> str:
    """How a person takes back a cancel or a reject, as a clause."""
    return f"`syncect jobs reopen {case.id}` takes that back"


def why_incomplete(node: Node, case: Case) -> str:
    """Why an INCOMPLETE series would not become a job even where a person vouches for it; "" where it would."""
    if case.state != SeriesState.INCOMPLETE:
        return ""
    if not case.slices.received:
        return "none of its instances was stored"
    from node.operate.judged import check_received

    try:
        checked = check_received(node, case.series_uid)
    except Permanent as error:
        return str(error)
    return "" if checked.verdict == "ACCEPT" else checked.reason


def why_nowhere(node: Node, case: Case) -> str:
    """Why nobody can say where the result of a case goes, so that it is not released; "" where it is known."""
    try:
        node.destinations_for(case.destinations)
    except Refused as error:
        return str(error)
    return ""
