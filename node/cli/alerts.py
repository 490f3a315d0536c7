"""`alerts` lists what a person has to know, takes note that one knows, and sends a test message."""

from typing import Annotated

import typer

from node.cli.console import (
    ConfigOption,
    Exit,
    JsonOption,
    ReasonOption,
    operator,
    print_json,
    print_table,
    reading,
    say,
    settings_from,
    tidy_reason,
)
from node.cli.tables import Cell, Column, plain, print_list
from node.errors import Misconfigured
from node.operate.texts import age, now_utc
from storage.alerts import AlertView
from storage.errors import IllegalTransition, NotFound

app = typer.Typer(no_args_is_help=True, help="What a person has to know: open alerts, and who was told.")

_COLUMNS = (
    Column("ID"),
    Column("KIND"),
    Column("SINCE"),
    Column("TOLD", from_width=100),
    Column("STATE", at_most=24),
    Column("WHAT"),
)

Ids = Annotated[list[str], typer.Argument(help="Alert ids, as listed by `alerts ls`.", metavar="ID...")]
All = Annotated[bool, typer.Option("--all", "-a", help="Also those that are over.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=0, help="With --all: at most so many; 0 lists all.")]


@app.command("ls")
def list_alerts(
    context: typer.Context,
    everything: All = False,
    limit: Limit = 200,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the open alerts, the most urgent first; with --all also those that are over, newest first."""
    from node.ops.alerts import urgency

    with reading(context, config) as node:
        alerts = node.alerts.all(limit=limit) if everything else sorted(node.alerts.open(), key=urgency)
    if as_json:
        print_json(alerts)
    elif alerts:
        print_list(_COLUMNS, [_row(alert) for alert in alerts])
    else:
        say("no alert was ever opened" if everything else "no alert is open")


@app.command("ack")
def acknowledge(context: typer.Context, ids: Ids, reason: ReasonOption = "", config: ConfigOption = None) -> None:
    """Say that you know of these alerts: nobody is reminded of them any more. They end when their cause is gone."""
    from node.bootstrap.store import open_store

    reason, worst = tidy_reason(reason), Exit.OK
    with open_store(settings_from(context, config)) as node:
        for given in dict.fromkeys(ids):
            try:
                node.alerts.acknowledge(_number(given), operator(), reason, now_utc())
                say(f"{given}: acknowledged")
            except NotFound as error:
                say(f"syncect: {error}")
                worst = max(worst, Exit.NOT_FOUND)
            except IllegalTransition as error:
                say(f"syncect: {error}")
                worst = max(worst, Exit.REFUSED)
    if worst is not Exit.OK:
        raise typer.Exit(worst)


@app.command("test")
def send_test(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Send a test message by every channel of the settings; exit code 5 if one does not take it, 2 without one."""
    from node.bootstrap.watch import make_channels, node_name
    from node.ops.alert_channels import ChannelFailed
    from node.ops.alert_texts import plain_message

    settings = settings_from(context, config)
    channels = make_channels(settings)
    if not channels:
        raise Misconfigured("nobody is told of alerts: neither alerts.webhook nor [alerts.smtp] is set")
    text = "This is a test: alerts of this node come this way.\n"
    message = plain_message(node_name(settings), "test", text, now_utc())
    answers: dict[str, str] = {}
    for channel in channels:
        try:
            channel.send(message)
            answers[channel.name] = ""
        except ChannelFailed as error:
            answers[channel.name] = str(error)
    if as_json:
        print_json({name: {"ok": not why, "detail": why} for name, why in answers.items()})
    else:
        print_table(["CHANNEL", "ANSWER", ""], [(name, "NO" if why else "ok", why) for name, why in answers.items()])
    if any(answers.values()):
        raise typer.Exit(Exit.UNREACHABLE)


def _number(given: str) -> int:
    if not (given.isascii() and given.isdecimal() and len(given) < 10):
        raise NotFound(f"there is no alert {plain(given)}; `syncect alerts ls --all` lists them")
    return int(given)


def _row(alert: AlertView) -> list[Cell]:
    state = "open"
    if alert.closed_at is not None:
        state = f"over {age(alert.closed_at)} ago"
    elif alert.acknowledged_at is not None:
        state = f"known: {alert.acknowledged_by.removeprefix('operator ')}"
    return [
        Cell(str(alert.id)),
        Cell(alert.kind),
        Cell(age(alert.opened_at)),
        Cell(f"{age(alert.told_at)} ago" if alert.told_at else "never"),
        Cell(state, "red" if state == "open" else ""),
        Cell(f"{alert.text} ({alert.acknowledged_for})" if alert.acknowledged_for else alert.text),
    ]
