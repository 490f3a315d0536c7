"""`doctor`: settings, processes and peers in one report, for a first look and for a report of a problem."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from config.load import ConfigError
from node.cli import setup, status
from node.cli.console import ConfigOption, JsonOption, print_json, settings_from, write
from node.ops.health import State

if TYPE_CHECKING:
    from node.send.scu import EchoResult


def doctor(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """`config validate`, `status` and `peers echo` in one report; exit code 0 ok, 1 degraded, 2 down."""
    mistakes, warnings = setup.findings(context, config)
    health, facts = status.look(context, config)
    answers = _answers(context, config)
    state = health.state
    if state is State.OK and (mistakes or not all(answer.ok for answer in answers.values())):
        state = State.DEGRADED
    if as_json:
        told = {"reasons": health.reasons, "needs_person": health.needs_person, **facts}
        print_json(
            {"state": state, "mistakes": mistakes, "warnings": warnings, "status": told, "destinations": answers}
        )
    else:
        write(f"settings: {len(mistakes)} mistakes, {len(warnings)} warnings\n")
        write("".join(f"  mistake: {text}\n" for text in mistakes))
        write("".join(f"  warning: {text}\n" for text in warnings))
        write("\nstatus: ")
        status.show(health, facts, as_json=False)
        if answers:
            write("\n")
            status.print_answers(answers)
    raise typer.Exit(state.exit_code)


def _answers(context: typer.Context, config: Path | None) -> "dict[str, EchoResult]":
    try:
        settings = settings_from(context, config)
    except ConfigError:
        return {}  # told already
    return status.ask(settings, [peer.name for peer in settings.destination])


def add_to(app: typer.Typer) -> None:
    """Register the command of this module."""
    app.command()(doctor)
