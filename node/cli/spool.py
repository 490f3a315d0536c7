"""`spool` compares the received and the derived files with the store, and mends what differs."""

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated

import typer

from config.load import ConfigError
from node.bootstrap.shared import SharedPlace
from node.bootstrap.store import open_store, refuse_while_running
from node.cli.console import (
    ConfigOption,
    Exit,
    JsonOption,
    operator,
    print_json,
    print_table,
    progress_bar,
    reading,
    say,
    settings_from,
)
from node.ops.spool_check import Repair, SpoolCheck, SpoolFinding

app = typer.Typer(no_args_is_help=True, help="The received and the derived files.")

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Mend it; without it, exit code 2.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what was found, and mend nothing.")]


@app.command("verify")
def verify(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Read every file and compare it with its row, also while the node runs; exit code 1 where something differs."""
    with reading(context, config) as node:
        count, found = _found(SpoolCheck(node.spool, node.database))
    _tell(count, found, as_json=as_json)
    if found:
        raise typer.Exit(Exit.ERROR)


@app.command("repair")
def repair(
    context: typer.Context,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Mend what `verify` finds: mark lost images, make lost results again, set aside files that belong to nobody."""
    if yes == dry_run:
        raise typer.BadParameter("say either --yes or --dry-run")
    if dry_run:
        with reading(context, config) as node:
            _tell(*_found(SpoolCheck(node.spool, node.database)), as_json=as_json)
        return
    with open_store(settings_from(context, config)) as node:
        check = SpoolCheck(node.spool, node.database)
        _, found = _found(check)
        repairs = list(check.repair(found, operator(), datetime.now(UTC)))
    if as_json:
        print_json(repairs)
        return
    _print_repairs(repairs)


@app.command("share")
def share(context: typer.Context, config: ConfigOption = None) -> None:
    """Put the files of this host into the object store of `spool.url`, before the node first starts with it."""
    settings = settings_from(context, config)
    if not settings.spool.url:
        raise ConfigError("spool.url names no object store into which files could be put")
    refuse_while_running(settings)
    with open_store(settings, shares=True) as node:
        files, results = SpoolCheck(node.spool, node.database).share_all(datetime.now(UTC))
    SharedPlace(settings).note()
    say(f"{files} received files and {results} results put into {settings.spool.url}; the node may start")


def _found(check: SpoolCheck) -> tuple[int, list[SpoolFinding]]:
    """How many files were read, and what differs."""
    count = check.count()
    with progress_bar() as bar:
        task = bar.add_task("reading", total=count)
        found = list(check.verify(datetime.now(UTC), lambda: bar.advance(task)))
    return count, found


def _tell(count: int, found: list[SpoolFinding], *, as_json: bool) -> None:
    if as_json:
        print_json({"files": count, "findings": found})
        return
    if found:
        print_table(
            ["KIND", "JOB", "CONDITION", "FILE", "SOP INSTANCE UID"],
            [(one.kind, one.job, one.condition, one.name, one.sop_instance_uid) for one in found],
        )
    kinds = Counter(f"{one.kind} {one.condition}" for one in found)
    differs = ", ".join(f"{number} {kind}" for kind, number in kinds.items()) or "nothing differs"
    say(f"{count} files read; {differs}" + ("; `syncect spool repair --yes` mends what can be mended" if found else ""))


def _print_repairs(repairs: list[Repair]) -> None:
    if repairs:
        print_table(
            ["KIND", "JOB", "CONDITION", "FILE", "DONE"],
            [(one.finding.kind, one.finding.job, one.finding.condition, one.finding.name, one.done) for one in repairs],
        )
    say(f"{len(repairs)} findings" if repairs else "nothing differs")


def add_to(root: typer.Typer) -> None:
    """Register the commands of this module."""
    root.add_typer(app, name="spool")
