"""`jobs show`, `why` and `events`: everything about one job, and what to do about it."""

from datetime import datetime, tzinfo
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.console import ConfigOption, JsonOption, PhiOption, print_json, print_table, reading
from node.cli.tables import print_text
from node.network.status import failure_words
from node.operate.cases import case_json, delivered, how_routed, leftover_text, progress_text, shadow_text
from node.operate.next_steps import step_of
from node.operate.texts import due_text, facts_text, local_time, now_utc, priority_words, zone_of
from node.operate.turns import waits_of
from node.receive.performed_steps import StepPeers
from storage.commitments import CommitmentView, FailedInstance
from storage.overview import Case, DeliveryView, EventView, RefusedView
from storage.owners import OwnerView
from storage.performed_steps import StepView

_MOST_FAILED = 10  # instances that are named one by one

Id = Annotated[str, typer.Argument(help="Job id, as listed by `jobs ls`.", metavar="ID")]


def show(
    context: typer.Context, job_id: Id, phi: PhiOption = False, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Everything known about one job."""
    with reading(context, config) as node:
        case = node.overview.case(job_id)
        folder = node.spool.path(case.product_dir) if case.product_dir else None
        refused = node.overview.refused_of_series(case.series_uid)
        owner = node.series.owner(case.series_id)
        asked = node.commitments.views(case.job_id) if case.job_id is not None else []
        failed = node.commitments.failed(case.job_id) if case.job_id is not None else []
        told = node.steps.of_series(case.study_uid, case.series_uid)
        steps = StepPeers(node.settings.scp.allowed_peers).counting(told, owner.calling_ae, owner.certificate)
        shadows = node.shadows.views(case.job_id) if case.job_id is not None else []
        history = node.overview.events(case)
        step = step_of(node, case)
        zone = zone_of(node.settings)
        when = node.forecast.expected([case], node.now(), node.settings.alerts.due_s)[case.id]
        waits = waits_of(node, [case], node.now()).get(case.id, "")
        facts = case_json(case, when, phi=phi, prefix=node.settings.series.description_prefix)
    if as_json:
        print_json(
            {
                **facts,
                "waits": waits,
                "product_dir": folder,
                "owner": owner,
                "performed_steps": [_step_json(one) for one in steps],
                "shadows": shadows,
                "commitments": asked,
                "not_committed": failed,
                "refused": refused,
                "events": history,
            }
        )
        return
    rows = [
        *_facts(case, facts, zone),
        *([("late", "it is wanted already")] if when.is_late else []),
        *([("waits", waits)] if waits else []),
        ("owner", _owner(owner)),
        *(("also from", f"{ae}: {count} of the instances") for ae, count in owner.others.items()),
        *(("performed step", _step(one, zone)) for one in steps),
        *((f"to {view.destination}", _delivery(case, view, zone)) for view in case.deliveries),
        *((f"commitment of {view.destination}", _commitment(view, zone)) for view in asked),
        *_not_committed(failed),
        *(("refused", _refused(one, zone)) for one in refused),
        *((f"shadow {view.bundle}", shadow_text(view)) for view in shadows),
        *_files(case, folder, zone),
        *_events(history, zone),
        ("next step", step),
    ]
    print_table(["", ""], rows)


def why(context: typer.Context, job_id: Id, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """In plain words: why a job is where it is, and what to do next."""
    with reading(context, config) as node:
        case = node.overview.case(job_id)
        step, chosen = step_of(node, case), how_routed(node, case)
        now = node.now()
        when = node.forecast.expected([case], now, node.settings.alerts.due_s)[case.id]
        waits = waits_of(node, [case], now).get(case.id, "")
    if as_json:
        facts = {"id": case.id, "state": case.state, "reason": case.reason}
        turn = {"priority": priority_words(case.priority) or None, "due_at": when.due_at, "late": when.is_late}
        print_json({**facts, **turn, "waits": waits, "route": case.route, "routed": chosen, "next_step": step})
        return
    progress = progress_text(case, now)
    print_text(
        " ".join(part for part in (f"{case.id} is {case.state}.", progress and f"{progress}.", case.reason) if part)
    )
    if waits:
        print_text(f"It waits for its turn: {waits}.")
    if when.due_at is not None:
        print_text(f"Its result is wanted {due_text(when.due_at, now)}.")
    if chosen:
        print_text(f"It was queued with {chosen}.")
    print_text(step)


def events(context: typer.Context, job_id: Id, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """The history of one job: each transition, when, by whom and why."""
    with reading(context, config) as node:
        history = node.overview.events(node.overview.case(job_id))
        zone = zone_of(node.settings)
    if as_json:
        print_json(history)
        return
    print_table(
        ["AT", "WHAT", "FROM", "TO", "BY", "REASON"],
        [
            (local_time(row.at, zone), row.machine, row.from_state, row.to_state, row.actor, row.reason)
            for row in history
        ],
    )


def _facts(case: Case, facts: dict[str, Any], zone: tzinfo | None) -> list[tuple[str, str]]:
    """What stands in the JSON, in words; a value that says nothing has no row."""
    own_rows = {"deliveries", "remarks", "progress", "leftovers", "measurements", "slices", "moved_at"}
    own_rows |= {"purged_at", "received_purged_at", "facts", "late"}
    values = {key: value for key, value in facts.items() if key not in own_rows}
    shown = [
        (key.replace("_", " "), _text(value, zone)) for key, value in values.items() if value not in ("", None, ())
    ]
    counts = case.slices
    return [
        *shown,
        (
            "slices",
            f"{counts.received} received, {counts.produced} produced, {counts.sent} sent, {counts.confirmed} confirmed",
        ),
        *([("series", words)] if (words := facts_text(case.facts)) else []),
        *([("delivered", got)] if (got := delivered(case)) else []),
        *([("progress", progress)] if (progress := progress_text(case, now_utc())) else []),
        *([("measured", _measured(case.measurements))] if case.measurements else []),
        *(("remark", remark) for remark in case.remarks),
    ]


def _files(case: Case, folder: Path | None, zone: tzinfo | None) -> list[tuple[str, str]]:
    """Where the result lies, and what of the case has left the disk."""
    rows = []
    if case.purged_at is not None:
        rows.append(("files", f"removed on {local_time(case.purged_at, zone)}"))
    elif folder is not None:
        rows.append(("files", str(folder)))
    if case.received_purged_at is not None and case.job_id is not None:
        rows.append(("received files", f"removed on {local_time(case.received_purged_at, zone)}"))
    return rows


def _text(value: Any, zone: tzinfo | None) -> str:
    if isinstance(value, datetime):
        return local_time(value, zone)
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _measured(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {number:.4g}" for key, number in values.items() if isinstance(number, (int, float)))


def _delivery(case: Case, view: DeliveryView, zone: tzinfo | None) -> str:
    parts = [
        view.state,
        f"{view.sent}/{case.slices.produced} accepted",
        f"{view.confirmed} confirmed",
        f"attempt {view.attempts}",
    ]
    if view.last_accepted_at is not None:
        parts.append(f"the last one accepted {local_time(view.last_accepted_at, zone)}")
    if said := leftover_text(view):
        parts.append(said)
    if view.is_held:
        parts.append("held for a person")
    if view.override:
        parts.append(view.override)
    text = ", ".join(parts)
    return f"{text}: {view.reason}" if view.reason else text


def _commitment(view: CommitmentView, zone: tzinfo | None) -> str:
    """What a destination was asked last, and what it reported (PS3.4 annex J)."""
    when = local_time(view.asked_at if view.answered_at is None else view.answered_at, zone)
    text = {
        "ASKED": f"asked {when}, no report yet",
        "ANSWERED": f"reported {when}",
        "REFUSED": f"refused the request {when}",
    }.get(view.outcome, f"{view.outcome} {when}")
    return f"{text}: {view.reason}" if view.reason else text


def _not_committed(failed: list[FailedInstance]) -> list[tuple[str, str]]:
    rows = [
        (f"not committed by {one.destination}", f"{one.sop_instance_uid}: {failure_words(one.failure_reason)}")
        for one in failed[:_MOST_FAILED]
    ]
    if len(failed) > _MOST_FAILED:
        rows.append(("not committed", f"and {len(failed) - _MOST_FAILED} more; --json has all"))
    return rows


def _owner(owner: OwnerView) -> str:
    subject = f", by a certificate whose subject has the SHA-256 {owner.certificate}" if owner.certificate else ""
    return f"{owner.calling_ae or 'nobody known'}{subject}"


def _step_json(step: StepView) -> dict[str, Any]:
    """A performed step; `images`: how many it lists of the series, null where it does not list it."""
    return {
        "sop_instance_uid": step.sop_instance_uid,
        "calling_ae": step.calling_ae,
        "state": step.state,
        "images": None if step.listed is None else len(step.listed),
        "updated_at": step.updated_at,
    }


def _step(step: StepView, zone: tzinfo | None) -> str:
    listed = "this series is not listed" if step.listed is None else f"{len(step.listed)} images listed"
    return f"{step.state}, {listed}; told by {step.calling_ae} {local_time(step.updated_at, zone)}"


def _refused(one: RefusedView, zone: tzinfo | None) -> str:
    return (
        f"{one.count} instance{'s' if one.count > 1 else ''} from {one.calling_ae}, the newest "
        f"{local_time(one.last_at, zone)}: status {one.status}, {one.reason}"
    )


def _events(history: list[EventView], zone: tzinfo | None) -> list[tuple[str, str]]:
    rows = []
    for event in history:
        text = f"{local_time(event.at, zone)}  {event.machine} {event.from_state or '(new)'} -> {event.to_state}"
        by = f" by {event.actor}" if event.actor else ""
        rows.append(("event", f"{text}{by}" + (f": {event.reason}" if event.reason else "")))
    return rows
