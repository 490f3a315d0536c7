"""How a case is shown: as JSON for programs, and in the words that lists, questions and outcomes share."""

from datetime import datetime
from typing import Any, Final

from node.bootstrap.store import Node
from node.operate.texts import facts_text, masked, masked_text, one_line, priority_words, time_left
from storage.forecast import Expected
from storage.overview import Case, DeliveryView
from storage.shadows import ShadowView
from storage.states import JobState, Leftover, NoteState

_LEFTOVERS: Final = {
    Leftover.RESENT: "it took files in an earlier round",
    Leftover.STANDS: "it still stands there",
    Leftover.GONE: "it is gone from there",
    Leftover.ACKNOWLEDGED: "a person has dealt with what stood there",
}
"""What became of what a destination has of a result that is sent again or was withdrawn."""
_NOTES: Final = {
    NoteState.PENDING: "a rejection note is on its way",
    NoteState.SENT: "it took the rejection note",
    NoteState.FAILED: "it took no rejection note",
}


def case_json(case: Case, when: Expected, *, phi: bool, prefix: str) -> dict[str, Any]:
    """A case as the JSON of `jobs ls` and `jobs show`; the keys are a contract.

    prefix: what the settings let descriptions of results begin with.
    """
    return {
        "id": case.id,
        "state": case.state,
        "reason": case.reason,
        "series_uid": case.series_uid,
        "derived_series_uid": case.derived_series_uid,
        "study_uid": case.study_uid,
        "calling_ae": case.calling_ae,
        "called_ae": case.called_ae,
        "description": masked_text(case.description, show=phi),
        "facts": case.facts,
        "patient_id": masked(case.patient_id, show=phi),
        "slices": case.slices,
        "bundle": case.bundle,
        "route": case.route,
        "destinations": case.destinations,
        "attempts": case.attempts,
        "created_at": case.created_at,
        "updated_at": case.updated_at,
        "deliveries": case.deliveries,
        "measurements": case.measurements,
        "version": case.version,
        "derived_series_number": case.series_number,
        "derived_description": derived_description(case, prefix, show=phi),
        "doubt": case.doubt,
        "override": case.override,
        "remarks": case.remarks,
        "progress": case.progress,
        "leftovers": case.leftovers,
        "moved_at": case.moved_at,
        "purged_at": case.purged_at,
        "received_purged_at": case.received_purged_at,
        "priority": priority_words(case.priority) or None,
        "due_at": when.due_at,
        "late": when.is_late,
        "eta_at": when.eta_at,
    }


def derived_description(case: Case, prefix: str, *, show: bool) -> str:
    """The node's own part stays; what follows it was typed at the scanner. Without our beginning all of it may be."""
    own = prefix.strip() + (f" v{case.version}" if case.version > 1 else "")
    text = case.series_description
    if show or text == own:
        return text
    return f"{own} …" if text.startswith(f"{own} ") else masked_text(text, show=False)


def how_routed(node: Node, case: Case) -> str:
    """Which bundle and route a job was queued with, and why, as the history says it; "" without routes."""
    begun = (event for event in node.overview.events(case) if event.machine == "job" and not event.from_state)
    reason = next((event.reason for event in begun), "")
    return reason if "; " in reason else ""


def raw_state(case: Case) -> JobState | None:
    """The state of the job itself, where the reader's state tells how far its deliveries are; None without a job."""
    return JobState(case.job_state) if case.job_state else None


def delivered(case: Case) -> str:
    """What each destination has got of a case: `30/30 to tps`, or "" where none has got anything."""
    return ", ".join(
        f"{view.sent}/{case.slices.produced} to {view.destination}" for view in case.deliveries if view.sent
    )


def progress_text(case: Case, now: datetime) -> str:
    """How far a running job is, and how long the stage will still take: `translate 120/300, about 40 s left`."""
    progress = case.progress
    if progress is None:
        return ""
    text = f"{progress.stage} {progress.done}/{progress.total}"
    end = progress.expected_end_at
    return f"{text}, {time_left((end - now).total_seconds())} left" if end is not None else text


def derived_name(case: Case) -> str:
    """How a planner finds the derived series at a TPS."""
    return f"series {case.series_number}" if case.series_number is not None else f"series {case.derived_series_uid}"


def leftover_text(view: DeliveryView) -> str:
    """What a destination has of a withdrawn result, and what it said of a rejection note; "" for nothing."""
    said = [_LEFTOVERS[Leftover(view.leftover)]] if view.leftover else []
    if view.note is not None:
        why = f": {view.note.reason}" if view.note.reason else ""
        said.append(f"{_NOTES[NoteState(view.note.state)]}{why}")
    return ", ".join(said)


def shadow_text(view: ShadowView) -> str:
    """What a second bundle made of the same source, in words."""
    if view.outcome != "MEASURED":
        return f"{view.outcome}: {view.reason}".rstrip(": ")
    mean_hu, max_hu = (view.measurements[key] for key in ("mean_abs_hu", "max_abs_hu"))
    apart = f"{mean_hu:.1f} HU from the result on average, {max_hu:.0f} HU at most"
    return f"MEASURED: {apart}; " + (f"it would be held: {view.reason}" if view.reason else "no gate doubts it")


def which_case(case: Case) -> str:
    """Which case it is, so that a mistyped id is noticed: `PATIENT …34, 30 slices, SENT to tps`."""
    count = case.slices.produced or case.slices.received
    parts = [f"PATIENT {masked(case.patient_id, show=False) or 'unknown'}"]
    parts += [f"series {words}"] if (words := facts_text(case.facts)) else []
    parts.append(f"{count} slice{'' if count == 1 else 's'}")
    got = delivered(case)
    places = " and ".join(view.destination for view in case.deliveries)
    everything = bool(got) and all(view.sent == case.slices.produced for view in case.deliveries)
    parts.append(f"{case.state} to {places}" if everything else f"{case.state}, {got}" if got else case.state)
    return one_line(", ".join(part for part in parts if part))
