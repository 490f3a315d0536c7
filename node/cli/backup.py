"""`backup` copies what a node must not lose into a folder, `restore` makes a node of it again; one command each."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from config.load import settings_file
from node.cli.console import ConfigOption, Exit, progress_bar, say, settings_from

if TYPE_CHECKING:
    from node.bootstrap.backup import Made
    from node.bootstrap.restore import Restored
    from storage.pauses import Pause

_MOST_NAMED = 10

Folder = Annotated[Path, typer.Argument(help="Folder of the backup, on another disk than the node's.", metavar="DIR")]
Verify = Annotated[bool, typer.Option("--verify", help="Read also every file that an earlier backup copied.")]
LeaveOut = Annotated[
    bool, typer.Option("--leave-out-damaged", help="Restore without the files that are damaged in the backup.")
]


def backup(context: typer.Context, folder: Folder, verify: Verify = False, config: ConfigOption = None) -> None:
    """Copy store, spool and settings into a folder, also while the node runs; only what is new is copied again."""
    from node.bootstrap.backup import back_up

    settings = settings_from(context, config)
    with progress_bar() as bar:
        task = bar.add_task("files", total=None)
        made = back_up(
            settings,
            settings_file(config or context.obj),
            folder,
            datetime.now(UTC),
            verify=verify,
            step=lambda: bar.advance(task),
        )
    _say_made(made, folder)
    if made.missing:
        raise typer.Exit(Exit.ERROR)


def restore(context: typer.Context, folder: Folder, leave_out: LeaveOut = False, config: ConfigOption = None) -> None:
    """Make a node of a backup again, where there is neither store nor spool; refused while the node runs."""
    from node.bootstrap.restore import restore as work

    settings = settings_from(context, config)
    with progress_bar() as bar:
        task = bar.add_task("files", total=None)
        done = work(
            settings,
            settings_file(config or context.obj),
            folder,
            datetime.now(UTC),
            leave_out_damaged=leave_out,
            step=lambda: bar.advance(task),
        )
    _say_restored(done, folder)
    if settings.spool.url:
        say(f"before the start, `syncect spool share` puts the files into {settings.spool.url} where it lacks them")


def _say_made(made: "Made", folder: Path) -> None:
    manifest = made.manifest
    say(
        f"{folder} holds the backup of {manifest.made_at}: the store (schema {manifest.schema}) and "
        f"{manifest.files} files, {manifest.size_bytes / 1e6:.1f} MB; {made.copied} of them were new "
        f"({made.copied_bytes / 1e6:.1f} MB)"
    )
    if made.kept:
        say(
            f"{len(made.kept)} files are only in the backup any more; `syncect spool verify` says which the spool lost:"
        )
        _name(made.kept)
    if manifest.environment:
        say(f"not in it: the values of the variables {', '.join(manifest.environment)}")
    for one in manifest.not_included:
        say(f"not in it: {one}")
    _say_strangers(made.strangers)
    if made.is_open_to_others:
        say(f"other users may read {folder}: its file system keeps no rights, so restrict them where it is mounted")
    if made.is_beside_the_node:
        say(f"{folder} is on the same file system as the node: one broken disk takes both, so copy it to another one")
    if made.why_not_noted:
        say(f"`syncect doctor` does not know of this backup, because node.data_dir: {made.why_not_noted}")
    if made.missing:
        say(f"THE BACKUP IS NOT WHOLE: {len(made.missing)} files that the store needs are in neither spool nor backup:")
        _name(f"{name} is {why}" for name, why in made.missing.items())
        say("`syncect spool verify` says to which jobs they belong")


def _say_restored(done: "Restored", folder: Path) -> None:
    manifest = done.manifest
    say(f"this node is as it was at {manifest.made_at}, of the backup in {folder}")
    for what, counts in (
        ("series", done.census.series),
        ("jobs", done.census.jobs),
        ("deliveries", done.census.deliveries),
    ):
        say(f"{what}: {_counted(counts)}")
    absent = len(manifest.missing) + len(done.damaged)
    if absent:
        say(f"{absent} files that the store needs were not in the backup; `syncect spool verify` says which:")
        _name((*manifest.missing, *done.damaged))
    _say_strangers(done.strangers)
    _say_what_goes_on(done)
    if done.settings_differ:
        say(
            "the settings in force are not those of the backup: compare with "
            f"{folder / manifest.snapshot}/settings.toml"
        )
    if manifest.environment:
        say(f"variables that were set when the backup was made: {', '.join(manifest.environment)}")
    say("before the start: put back what no backup holds:")
    _name(manifest.not_included)
    say(f"the scanners must send again what they sent after {manifest.made_at}")
    say(
        f"the TPS may hold results of the time after {manifest.made_at} that this node does not know; what was "
        "cancelled, rejected, released, recalled or dropped after it is in its old state: look for both "
        "before you start"
    )


def _say_what_goes_on(done: "Restored") -> None:
    works = done.census.goes_on()
    if not any(works.values()):
        say("nothing goes out by itself when the node starts")
    else:
        say(
            f"when the node starts it sends {works['deliveries']} deliveries that are open, translates {works['jobs']} "
            f"jobs that are queued, and judges {works['series']} series that came; `syncect jobs ls` lists them, and "
            "`syncect jobs cancel ID` keeps one from it, also before the start"
        )
    _say_what_is_paused(done.pauses)


def _say_what_is_paused(pauses: Sequence["Pause"]) -> None:
    from node.operate.turns import pause_words, resume_command

    for pause in pauses:
        say(f"as before, {pause_words(pause, None)}; it ends with {resume_command(pause)}")


def _say_strangers(names: list[str]) -> None:
    if names:
        say(f"{len(names)} files in the folder are no part of a backup, and were left alone:")
        _name(names)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"


def _name(names: Iterable[str]) -> None:
    every = list(names)
    for name in every[:_MOST_NAMED]:
        say(f"  {name}")
    if len(every) > _MOST_NAMED:
        say(f"  and {len(every) - _MOST_NAMED} more")


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("backup")(backup)
    app.command("restore")(restore)
