"""`recall`: withdraw results that were delivered, for good, and say what a person has to delete by hand."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer

from node.bootstrap.store import Node, open_store
from node.cli.console import (
    ConfigOption,
    Exit,
    JsonOption,
    PhiOption,
    ReasonOption,
    operator,
    print_json,
    reading,
    say,
    settings_from,
    tidy_reason,
    usage,
)
from node.cli.tables import Cell, Column, print_list, print_text
from node.operate.recall import Asked, Item, concerned, items_of, still_in_use
from node.operate.texts import moment_before, now_utc, zone_of
from node.ops.processes import running_processes, working_roles
from storage.overview import Case
from storage.states import LIVE_JOB_STATES

_LOOK_S: Final = 0.5
_COLUMNS: Final = (
    Column("ID"),
    Column("PATIENT", at_most=16),
    Column("DESTINATION", at_most=24),
    Column("SERIES"),
    Column("IMAGES"),
    Column("WHAT"),
)


def recall(
    context: typer.Context,
    bundle: Annotated[str, typer.Option("--bundle", help="Results of this bundle, by name.", metavar="NAME")] = "",
    case: Annotated[list[str] | None, typer.Option("--case", help="Or only these jobs.", metavar="ID")] = None,
    since: Annotated[str, typer.Option("--since", help="Arrived since then: 2h, 3d, 2026-11-26.", metavar="TIME")] = "",
    before: Annotated[str, typer.Option("--before", help="Arrived before then: 2h, 2026-11-26.", metavar="TIME")] = "",
    reason: ReasonOption = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, or has, and do nothing.")] = False,
    wait: Annotated[float, typer.Option("--wait", min=0, max=86400, help="Seconds to wait for destinations.")] = 60.0,
    phi: PhiOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Withdraw results for good: stop what is under way, send rejection notes, list what a person has to delete.

    Exit code 1 while something stands at a destination. To run it again goes on where it was.
    """
    if bool(bundle) == bool(case):
        raise typer.BadParameter("name either --bundle or --case")
    if case and (since or before):
        raise typer.BadParameter("--since and --before belong to --bundle")
    reason = tidy_reason(reason) or "recalled"
    with reading(context, config) as node:
        now, zone = now_utc(), zone_of(node.settings)
        with usage():
            asked = Asked(
                bundle.strip(),
                tuple(dict.fromkeys(case or ())),
                moment_before(since, now, zone) if since else None,
                moment_before(before, now, zone) if before else None,
            )
        found = concerned(node, asked)
        fresh = [one for one in found if one.recalled_at is None]
        if not as_json:
            _describe(node, found, fresh)
        if not dry_run and fresh and not yes and not _is_wanted(len(fresh)):
            say("they are left as they are")
            return
    if not dry_run and found:
        with open_store(settings_from(context, config)) as node:
            _withdraw(node, found, reason)
            _wait(node, found, wait)
    with reading(context, config) as node:
        ids = {one.id for one in found}
        items = items_of(node, [one for one in concerned(node, asked) if one.id in ids], phi=phi)
    if as_json:
        print_json(_summary(found, items, dry_run=dry_run))
    else:
        _print(items, dry_run=dry_run)
    if any(item.stands for item in items):
        raise typer.Exit(Exit.ERROR)


def _describe(node: Node, found: Sequence[Case], fresh: Sequence[Case]) -> None:
    """How much it is, before a person says yes."""
    if not found:
        say("nothing to recall: no result of it stands, or is under way")
        return
    patients = len({case.patient_id for case in found})
    live = sum(case.job_state in LIVE_JOB_STATES and not any(view.sent for view in case.deliveries) for case in fresh)
    places = Counter(view.destination for case in found for view in case.deliveries if view.sent)
    there = ", ".join(f"{count} at {name}" for name, count in sorted(places.items())) or "none at a destination"
    of = f"{patients} patient{'' if patients == 1 else 's'}"
    counts = f"{len(found)} result{'' if len(found) == 1 else 's'} of {of}: {there}, {live} under way"
    done = len(found) - len(fresh)
    say(f"{counts}{f', {done} recalled already' if done else ''}")
    if keys := still_in_use(node, found):
        say(
            f"new series are still translated by it: name another bundle as {' and '.join(keys)} and restart the node, "
            "then recall once more what came meanwhile"
        )


def _is_wanted(count: int) -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        raise typer.BadParameter("`recall` asks on a terminal; where there is none, say --yes")
    return typer.confirm(f"recall {count} result{'' if count == 1 else 's'}? They never come back", err=True)


def _withdraw(node: Node, found: Sequence[Case], reason: str) -> None:
    """Each in a transaction of its own: a kill in between leaves the rest for the next run."""
    for case in found:
        if case.job_id is not None and (case.recalled_at is None or case.leftovers):
            node.recalls.recall(case.job_id, operator(), reason, node.now())


def _wait(node: Node, found: Sequence[Case], wait_s: float) -> None:
    """Until nothing goes on by itself any more, or time is over."""
    waiting = _going_on(node, found)
    if not waiting:
        return
    if node.database.is_sqlite and "deliver" not in working_roles(running_processes(node.run_dir)):
        say("no courier runs on this host: rejection notes go out when `syncect serve` (or `syncect deliver`) runs")
        return
    deadline_s = time.monotonic() + wait_s
    while time.monotonic() < deadline_s:
        time.sleep(max(_LOOK_S, len(waiting) * _LOOK_S / 50))  # a long list takes time to read
        waiting = _going_on(node, waiting)
        if not waiting:
            return
    say("destinations are still at it; the same command with --dry-run tells later how far they are")


def _going_on(node: Node, cases: Sequence[Case]) -> list[Case]:
    """Those of which something stands that may end by itself."""
    now = [node.overview.case(case.id) for case in cases]
    return [case for case in now if any(item.stands and not item.needs_person for item in items_of(node, [case]))]


def _summary(found: Sequence[Case], items: Sequence[Item], *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "results": len(found),
        "patients": len({case.patient_id for case in found}),
        "standing": sum(item.stands for item in items),
        "items": [asdict(item) for item in items],
    }


def _print(items: Sequence[Item], *, dry_run: bool) -> None:
    """What a person has to do; what is over is only counted."""
    shown = [item for item in items if dry_run or item.stands]
    if shown:
        print_list(_COLUMNS, [_row(item) for item in shown])
    counts = Counter(item.outcome for item in items if item not in shown)
    over = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    standing = sum(item.stands for item in items)
    if not dry_run and items:
        says = (
            f"{standing} to be dealt with; `syncect jobs acknowledge ID` when it is" if standing else "nothing stands"
        )
        print_text(f"{says}{f' ({over})' if over else ''}.")


def _row(item: Item) -> list[Cell]:
    number = item.derived_series_number
    name = str(number) if number is not None else item.derived_series_uid or ""
    cells = (item.id, item.patient_id, item.destination, name, str(item.images))
    return [*map(Cell, cells), Cell(item.reason, "yellow" if item.needs_person else "")]


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(recall)
