"""`jobs ls`: what arrived, one line each, with the one state that matters; or as CSV, JSON or ids for programs."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from node.bootstrap.store import Node
from node.cli.console import ConfigOption, JsonOption, PhiOption, print_json, reading, usage
from node.cli.tables import Cell, Column, plain, print_line, print_list
from node.operate.cases import case_json, progress_text
from node.operate.listing import Asked, cases_of, named_states
from node.operate.texts import age, due_text, facts_text, masked, masked_text, time_left, utc_iso
from node.operate.turns import waits_of
from storage.forecast import Expected
from storage.overview import Case

_NEEDS_A_PERSON: Final = "yellow"
_LATE: Final = "red"
_STYLES: Final = {
    "FAILED": "red",
    "HELD": _NEEDS_A_PERSON,
    "INCOMPLETE": _NEEDS_A_PERSON,
    "SENT": "green",
    "CONFIRMED": "green",
}
_COLUMNS: Final = (
    Column("ID"),
    Column("STATE"),
    Column("AGE", from_width=100),
    Column("DUE", from_width=110, at_most=14),
    Column("ETA", from_width=160, at_most=14),
    Column("PATIENT", at_most=16),
    Column("SLICES", from_width=120),
    Column("FROM", from_width=132, at_most=16),
    Column("ROUTE", from_width=180, at_most=16),
    Column("SERIES", at_most=36, at_least=8),
    Column("REASON"),
)
_CSV_COLUMNS: Final = (
    *("id", "state", "reason", "patient_id", "description", "calling_ae", "series_uid", "derived_series_uid"),
    *("study_uid", "received", "produced", "sent", "confirmed", "bundle", "attempts", "created_at", "updated_at"),
    *("series_number", "modality", "body_part", "acquired", "called_ae", "route", "destinations", "priority"),
)
_FORMULA: Final = ("=", "+", "-", "@")

State = Annotated[list[str] | None, typer.Option("--state", "-s", help="Only these states.", metavar="STATE")]
Patient = Annotated[str, typer.Option("--patient", help="Only this PatientID; * and ? stand for any.", metavar="ID")]
Study = Annotated[str, typer.Option("--study", help="Only this StudyInstanceUID.", metavar="UID")]
Series = Annotated[str, typer.Option("--series", help="Only this SeriesInstanceUID.", metavar="UID")]
From = Annotated[str, typer.Option("--from", help="Only what this AE title sent.", metavar="AE")]
To = Annotated[str, typer.Option("--to", help="Only what goes to this destination.", metavar="NAME")]
Bundle = Annotated[str, typer.Option("--bundle", help="Only what this bundle makes.", metavar="NAME")]
Since = Annotated[str, typer.Option("--since", help="Arrived since then: 2h, 3d, 2026-11-26.", metavar="TIME")]
Older = Annotated[str, typer.Option("--older", help="Arrived before then: 2h, 3d, 2026-11-26.", metavar="TIME")]
Stuck = Annotated[bool, typer.Option("--stuck", help="Only what is overdue: no delivered result, no explained end.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0 lists all.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV for a spreadsheet.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the ids only.")]


def list_jobs(
    context: typer.Context,
    state: State = None,
    patient: Patient = "",
    study: Study = "",
    series: Series = "",
    calling_ae: From = "",
    destination: To = "",
    bundle: Bundle = "",
    since: Since = "",
    older: Older = "",
    stuck: Stuck = False,
    limit: Limit = 200,
    phi: PhiOption = False,
    as_csv: Csv = False,
    quiet: Quiet = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List what arrived, newest first, with the one state that matters and its reason."""
    if as_csv + quiet + as_json > 1:
        raise typer.BadParameter("--json, --csv and --quiet exclude each other")
    asked = Asked(state or (), patient, study, series, calling_ae, destination, bundle, since, older, stuck, limit)
    with reading(context, config) as node:
        now, due_s = node.now(), node.settings.alerts.due_s
        with usage():
            cases = cases_of(node, asked, now)
        when = {} if as_csv or quiet else node.forecast.expected(cases, now, due_s)
        waits = {} if as_csv or quiet else waits_of(node, cases, now)
        refused = "" if as_csv or quiet or as_json else _refused(node, now)
    if as_json:
        prefix = node.settings.series.description_prefix
        facts = ((case.id, case_json(case, when[case.id], phi=phi, prefix=prefix)) for case in cases)
        print_json([{**shown, "waits": waits.get(case_id, "")} for case_id, shown in facts])
    elif as_csv:
        _print_csv(cases, phi=phi)
    elif quiet:
        sys.stdout.writelines(f"{case.id}\n" for case in cases)
    else:
        print_list(_COLUMNS, [_row(case, when[case.id], waits.get(case.id, ""), now, phi=phi) for case in cases])
        if refused:
            print_line(refused)


def states_of(given: Sequence[str]) -> list[str]:
    """The states that `--state` names; an unknown one is an error of usage."""
    with usage():
        return named_states(given)


def _row(case: Case, when: Expected, waits: str, now: datetime, *, phi: bool) -> list[Cell]:
    counts, described = case.slices, masked_text(case.description, show=phi)
    return [
        Cell(case.id),
        Cell(case.state, _NEEDS_A_PERSON if case.leftovers else _STYLES.get(case.state, "")),
        Cell(age(case.created_at)),
        Cell(due_text(when.due_at, now), _LATE if when.is_late else ""),
        Cell(time_left((when.eta_at - now).total_seconds()) if when.eta_at else ""),
        Cell(masked(case.patient_id, show=phi)),
        Cell(f"{counts.received}/{counts.produced}/{counts.sent}/{counts.confirmed}"),
        Cell(case.calling_ae),
        Cell(case.route),
        Cell(described if phi else facts_text(case.facts) or described),
        Cell("; ".join(part for part in (progress_text(case, now), waits, case.reason) if part)),
    ]


def _refused(node: Node, now: datetime) -> str:
    """One line about what was refused, which no row shows where the node did not learn the series; "" without any."""
    rows = node.overview.refused_since(now, hours=24)
    if not rows:
        return ""
    count = sum(row.count for row in rows)
    newest = rows[0]
    return (
        f"{count} instance{'s were' if count > 1 else ' was'} refused in 24 h, the newest {age(newest.last_at)} ago "
        f"from {newest.calling_ae}: {newest.reason}"
    )


def _print_csv(cases: Sequence[Case], *, phi: bool) -> None:
    """One line per case after the names of the columns; times UTC, ISO 8601."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for case in cases:
        values = {**case_json(case, Expected(), phi=phi, prefix=""), **asdict(case.slices), **case.facts}
        writer.writerow([_csv_text(values.get(name)) for name in _CSV_COLUMNS])


def _csv_text(value: Any) -> str:
    """A value on one line; a spreadsheet would take text of a peer that begins like a formula for one."""
    value = " ".join(value) if isinstance(value, tuple) else value
    text = utc_iso(value) if isinstance(value, datetime) else "" if value is None else plain(str(value))
    return f"'{text}" if text.startswith(_FORMULA) else text
