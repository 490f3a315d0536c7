"""The `syncect` command is put together here."""

from pathlib import Path
from typing import Annotated

import typer

from config.load import CONFIG_VARIABLE
from node.cli import (
    alerts,
    archive,
    backup,
    cohort,
    commission,
    conformance,
    db,
    demo,
    doctor,
    evaluate,
    hosts,
    jobs,
    models_cli,
    process,
    qa,
    queue,
    recall,
    replay,
    rules,
    service,
    setup,
    spool,
    status,
    support,
    train,
    users,
)
from node.cli.console import write

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A DICOM node that gives planning a synthetic contrast-enhanced CT beside the non-contrast one.",
    epilog="Exit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 refused for safety, 5 peer unreachable, 130 stopped. "
    "`status` and `doctor`: 0 ok, 1 degraded, 2 down.",
)


def _print_version(context: typer.Context, wanted: bool) -> None:
    if wanted:
        from node.cli.versions import version_lines

        write("".join(f"{line}\n" for line in version_lines(context.params.get("config"))))
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(  # read first, because the version names the model that is set
            "--config", "-c", help=f"Settings file; otherwise {CONFIG_VARIABLE}.", metavar="FILE", is_eager=True
        ),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", help="Print version, commit and models.", callback=_print_version)
    ] = False,
) -> None:
    """Keep the settings file for the command that follows."""
    context.obj = config


service.add_to(app)
status.add_to(app)
process.add_to(app)
archive.add_to(app)
demo.add_to(app)
replay.add_to(app)
recall.add_to(app)
setup.add_to(app)
db.add_to(app)
backup.add_to(app)
doctor.add_to(app)
support.add_to(app)
models_cli.add_to(app)
cohort.add_to(app)
train.add_to(app)
evaluate.add_to(app)
commission.add_to(app)
conformance.add_to(app)
spool.add_to(app)
users.add_to(app)
app.add_typer(jobs.app, name="jobs")
app.add_typer(alerts.app, name="alerts")
app.add_typer(hosts.app, name="hosts")
app.add_typer(qa.app, name="qa")
app.add_typer(queue.app, name="queue")
app.add_typer(rules.app, name="rules")

command = typer.main.get_command(app)
"""All commands, put together once: a process that runs several does not read all their signatures for each."""
