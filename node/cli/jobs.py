"""`syncect jobs` shows what became of every series, and why, and does what a person decides about it."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from node.bootstrap.store import Node, open_store
from node.cli.console import (
    ConfigOption,
    JsonOption,
    PhiOption,
    ReasonOption,
    age,
    masked,
    operator,
    out,
    print_json,
    print_table,
    reading,
    say,
    settings_from,
)
from node.errors import Refused
from storage.overview import Case

app = typer.Typer(no_args_is_help=True, help="What became of every series, and why.")

Ids = Annotated[list[str], typer.Argument(help="Job ids, as listed by `jobs ls`.", metavar="ID...")]
Id = Annotated[str, typer.Argument(help="Job id, as listed by `jobs ls`.", metavar="ID")]

NEXT_STEP = {
    "RECEIVING": "Nothing to do: slices are arriving, or the sender may still come back.",
    "INCOMPLETE": "Send the series again from the scanner; or, if it is all there, `syncect jobs complete ID`.",
    "SKIPPED": "Nothing to do if the reason is right. A corrected series may simply be sent again.",
    "QUEUED": "Nothing to do: a worker takes it next. If it stays, look at `syncect status` for a running worker.",
    "RUNNING": "Nothing to do: the model is at work.",
    "HELD": "Look at the series and decide: `syncect jobs release ID` sends it, `reject ID` never does; "
    "`retry ID` computes it again after the cause is gone.",
    "PRODUCED": "Nothing to do if a destination is configured: it is sent next.",
    "SENDING": "Nothing to do: the courier tries again by itself; `syncect peers echo` tells whether the peer answers.",
    "SENT": "Nothing to do: every destination accepted every instance.",
    "CONFIRMED": "Nothing to do: the destination showed that it holds every instance.",
    "FAILED": "Remove the cause named in the reason, then `syncect jobs retry ID`.",
    "CANCELLED": "A person stopped it; `syncect jobs retry ID` takes that back unless the series was produced already.",
    "REJECTED": "A person rejected it; it is never sent.",
    "SUPERSEDED": "The source series changed; its newer job stands in the list under the same series.",
}


def case_json(case: Case, *, phi: bool) -> dict[str, Any]:
    """A case as the JSON of `jobs ls` and `jobs show`; the keys are a contract."""
    return {
        "id": case.id,
        "state": case.state,
        "reason": case.reason,
        "series_uid": case.series_uid,
        "derived_series_uid": case.derived_series_uid,
        "study_uid": case.study_uid,
        "calling_ae": case.calling_ae,
        "description": case.description,
        "patient_id": masked(case.patient_id, show=phi),
        "slices": case.slices,
        "bundle": case.bundle,
        "attempts": case.attempts,
        "created_at": case.created_at,
        "updated_at": case.updated_at,
        "deliveries": case.deliveries,
        "measurements": case.measurements,
        "remarks": case.remarks,
    }


@app.command("ls")
def list_jobs(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option("--state", "-s", help="Only these states.")] = None,
    series: Annotated[str, typer.Option("--series", help="Only this SeriesInstanceUID.", metavar="UID")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0 lists all.")] = 200,
    phi: PhiOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List what arrived, newest first, with the one state that matters and its reason."""
    wanted = [name.upper() for entry in state or [] for name in entry.split(",")]
    if unknown := [name for name in wanted if name not in NEXT_STEP]:
        raise typer.BadParameter(f"{unknown[0]} is no state; states are {', '.join(NEXT_STEP)}")
    with reading(context, config) as node:
        cases = node.overview.cases(states=wanted, series_uid=series, limit=limit)
    if as_json:
        print_json([case_json(case, phi=phi) for case in cases])
        return
    print_table(
        ["ID", "STATE", "AGE", "IN/OUT/SENT/CONF", "PATIENT", "FROM", "TRY", "SERIES", "REASON"],
        [_row(case, phi=phi) for case in cases],
    )


@app.command("show")
def show(
    context: typer.Context, job_id: Id, phi: PhiOption = False, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Everything known about one job."""
    with reading(context, config) as node:
        case = node.overview.case(job_id)
        folder = node.spool.path(case.product_dir) if case.product_dir else None
        refused = node.refusals.of_series(case.series_uid)
    if as_json:
        print_json({**case_json(case, phi=phi), "product_dir": folder, "refused": refused})
        return
    rows = [(key, _text(value)) for key, value in case_json(case, phi=phi).items() if key != "deliveries"]
    rows += [(f"to {view.destination}", _delivery(view)) for view in case.deliveries]
    rows += [
        ("refused", f"{one.count} instances from {one.calling_ae}: status {one.status}, {one.reason}")
        for one in refused
    ]
    if folder:
        rows.append(("files", str(folder)))
    print_table(["", ""], [*rows, ("next step", NEXT_STEP[case.state])])


@app.command("why")
def why(context: typer.Context, job_id: Id, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """In plain words: why a job is where it is, and what to do next."""
    with reading(context, config) as node:
        case = node.overview.case(job_id)
    step = NEXT_STEP[case.state].replace(" ID", f" {case.id}")
    if as_json:
        print_json({"id": case.id, "state": case.state, "reason": case.reason, "next_step": step})
    else:
        out().print(f"{case.id} is {case.state}. {case.reason}".rstrip(), markup=False)
        out().print(step, markup=False)


@app.command("events")
def events(context: typer.Context, job_id: Id, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """The history of one job: each transition, when, by whom and why (UTC)."""
    with reading(context, config) as node:
        history = node.overview.events(node.overview.case(job_id))
    if as_json:
        print_json(history)
        return
    print_table(
        ["AT (UTC)", "WHAT", "FROM", "TO", "BY", "REASON"],
        [
            (f"{row.at:%Y-%m-%d %H:%M:%S}", row.machine, row.from_state, row.to_state, row.actor, row.reason)
            for row in history
        ],
    )


@app.command("retry")
def retry(context: typer.Context, ids: Ids, reason: ReasonOption = "", config: ConfigOption = None) -> None:
    """Try a failed, held or cancelled job again; a produced series is sent again to where it failed, never re-made."""

    def act(node: Node, case: Case, now: datetime) -> str:
        if case.job_id is None:
            raise Refused(f"{case.id} is {case.state} and has no job yet; {NEXT_STEP[case.state]}")
        if case.deliveries and node.outbox.retry(case.job_id, operator(), reason, now):
            return "its deliveries are due now"
        node.jobs.retry(case.job_id, operator(), reason, now)
        return "queued again"

    _each(context, config, ids, act)


@app.command("cancel")
def cancel(context: typer.Context, ids: Ids, reason: ReasonOption = "", config: ConfigOption = None) -> None:
    """Stop a job, and every delivery of it that is not finished. What a TPS has already got stays there."""
    _each(context, config, ids, _on_job(lambda node, job, now: node.jobs.cancel(job, operator(), reason, now)))


@app.command("release")
def release(context: typer.Context, ids: Ids, reason: ReasonOption = "", config: ConfigOption = None) -> None:
    """Send a HELD series after a person has looked at it. It then reaches planning."""
    _each(
        context,
        config,
        ids,
        _on_job(lambda node, job, now: node.jobs.release(job, node.destination_names, operator(), reason, now)),
    )


@app.command("reject")
def reject(context: typer.Context, ids: Ids, reason: ReasonOption = "", config: ConfigOption = None) -> None:
    """Never send a HELD series."""
    _each(context, config, ids, _on_job(lambda node, job, now: node.jobs.reject(job, operator(), reason, now)))


@app.command("resend")
def resend(
    context: typer.Context,
    ids: Ids,
    to: Annotated[list[str] | None, typer.Option("--to", help="Only these destinations.", metavar="NAME")] = None,
    reason: ReasonOption = "",
    config: ConfigOption = None,
) -> None:
    """Send a produced series again, the same files under the same UIDs."""

    def act(node: Node, job: int, now: datetime) -> None:
        names = to or node.destination_names
        if unknown := set(names) - set(node.destination_names):
            raise typer.BadParameter(f"no destination is named {unknown.pop()}")
        node.jobs.resend(job, names, operator(), reason, now)

    _each(context, config, ids, _on_job(act))


@app.command("complete")
def complete(context: typer.Context, ids: Ids, reason: ReasonOption = "", config: ConfigOption = None) -> None:
    """Confirm that an INCOMPLETE series is all there; a gap between its slices is refused all the same."""

    def act(node: Node, case: Case, now: datetime) -> str:
        node.series.complete_by_operator(case.series_id, operator(), reason, now)
        return "will be judged within seconds"

    _each(context, config, ids, act)


def _on_job(action: Callable[[Node, int, datetime], None]) -> Callable[[Node, Case, datetime], str]:
    def act(node: Node, case: Case, now: datetime) -> str:
        if case.job_id is None:
            raise Refused(f"{case.id} is {case.state} and has no job yet; {NEXT_STEP[case.state]}")
        action(node, case.job_id, now)
        return "done"

    return act


def _each(
    context: typer.Context, config: Path | None, ids: list[str], act: Callable[[Node, Case, datetime], str]
) -> None:
    with open_store(settings_from(context, config)) as node:
        for job_id in ids:
            outcome = act(node, node.overview.case(job_id), datetime.now(UTC))
            say(f"{job_id}: {outcome}")


def _row(case: Case, *, phi: bool) -> tuple[str, ...]:
    counts = case.slices
    return (
        case.id,
        case.state,
        age(case.created_at),
        f"{counts.received}/{counts.produced}/{counts.sent}/{counts.confirmed}",
        masked(case.patient_id, show=phi),
        case.calling_ae,
        str(case.attempts),
        case.description or case.series_uid,
        case.reason,
    )


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, dict):
        return ", ".join(f"{key} {number:.4g}" for key, number in value.items() if isinstance(number, (int, float)))
    if isinstance(value, tuple):
        return "; ".join(value)
    if hasattr(value, "received"):
        return f"{value.received} received, {value.produced} produced, {value.sent} sent, {value.confirmed} confirmed"
    return "" if value is None else str(value)


def _delivery(view: Any) -> str:
    text = f"{view.state}, {view.sent} accepted, attempt {view.attempts}"
    return f"{text}: {view.reason}" if view.reason else text
