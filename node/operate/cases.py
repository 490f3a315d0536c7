"""How a case is shown: as JSON for programs, and in the words that lists, questions and outcomes share."""

from datetime import datetime
from typing import Any

from node.operate.texts import masked, masked_text, time_left
from storage.forecast import Expected
from storage.overview import Case
from storage.states import JobState


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
        "description": masked_text(case.description, show=phi),
        "facts": case.facts,
        "patient_id": masked(case.patient_id, show=phi),
        "slices": case.slices,
        "bundle": case.bundle,
        "attempts": case.attempts,
        "created_at": case.created_at,
        "updated_at": case.updated_at,
        "deliveries": case.deliveries,
        "measurements": case.measurements,
        "version": case.version,
        "derived_series_number": case.series_number,
        "derived_description": _derived_description(case, prefix, show=phi),
        "doubt": case.doubt,
        "override": case.override,
        "remarks": case.remarks,
        "progress": case.progress,
        "leftovers": case.leftovers,
        "moved_at": case.moved_at,
        "purged_at": case.purged_at,
        "received_purged_at": case.received_purged_at,
        "due_at": when.due_at,
        "eta_at": when.eta_at,
    }


def _derived_description(case: Case, prefix: str, *, show: bool) -> str:
    """The node's own part stays; what follows it was typed at the scanner. Without our beginning all of it may be."""
    own = prefix.strip() + (f" v{case.version}" if case.version > 1 else "")
    text = case.series_description
    if show or text == own:
        return text
    return f"{own} …" if text.startswith(f"{own} ") else masked_text(text, show=False)


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
