"""`syncect queue` shows what waits for its turn, and pauses, resumes and drains stages and hosts."""

import socket
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final

import typer

from node.bootstrap.store import Node, open_store
from node.cli.console import (
    ConfigOption,
    Exit,
    JsonOption,
    operator,
    print_json,
    print_table,
    reading,
    say,
    settings_from,
    tidy_reason,
    write,
)
from node.operate.texts import due_text, now_utc, priority_words, zone_of
from node.operate.turns import pause_words
from storage.audit import AuditEntry
from storage.errors import NotFound
from storage.pauses import Pause
from storage.states import Stage
from storage.waiting import InHand, Waiting

app = typer.Typer(no_args_is_help=True, help="What waits for its turn; pause, resume and drain stages and hosts.")

_POLL_S: Final = 1.0


class StageName(StrEnum):
    """What `--stage` takes."""

    RECEIVE = "receive"
    TRANSLATE = "translate"
    SEND = "send"
    ALL = "all"


Stages = Annotated[
    list[StageName] | None, typer.Option("--stage", "-s", help="receive, translate, send or all; may be repeated.")
]
HostOption = Annotated[str, typer.Option("--host", help="Only on this host; otherwise on all.", metavar="NAME")]
OneHost = Annotated[str, typer.Option("--host", help="The host that shall take nothing new.", metavar="NAME")]
Why = Annotated[str, typer.Option("--reason", "-m", help="Why; everybody who looks at the node reads it.")]


@app.command("ls")
def list_queue(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """What waits in each stage, by priority, sender and destination; what is paused; what each host has in hand."""
    with reading(context, config) as node:
        now, zone = node.now(), zone_of(node.settings)
        waiting, pauses, hosts = node.waiting.rows(now), node.pauses.all(), node.waiting.in_hand()
    if as_json:
        shown = [{**vars(row), "priority": priority_words(row.priority) or None} for row in waiting]
        in_hand = [{"host": name, **vars(one)} for name, one in hosts.items()]
        print_json({"waiting": shown, "pauses": pauses, "hosts": in_hand})
        return
    for pause in pauses:
        write(f"PAUSED: {pause_words(pause, zone)}\n")
    cells = [_cells(row, due_text(row.due_at, now)) for row in waiting]
    if cells:
        print_table(["STAGE", "PRIORITY", "FROM", "TO", "WAIT", "IN HAND", "LATE", "FIRST DUE"], cells)
    else:
        write("nothing waits\n")
    if hosts:
        rows = [(name, _in_hand(one), _of(pauses, name)) for name, one in hosts.items()]
        print_table(["HOST", "IN HAND", "PAUSED"], rows)


@app.command("pause")
def pause(
    context: typer.Context,
    reason: Why,
    stage: Stages = None,
    host: HostOption = "",
    config: ConfigOption = None,
) -> None:
    """Let a stage take nothing new until `queue resume`; without --stage translating and sending.

    What is under way ends. A receiver that is paused refuses images as where its disk is full, and senders try again.
    """
    stages, why = _stages(stage, [Stage.TRANSLATE, Stage.SEND]), _needed(reason)
    with open_store(settings_from(context, config)) as node:
        _require_known(node, host)
        changed = node.pauses.pause(stages, host, operator(), why, node.now())
        _tell(node, "queue pause", ("paused", "was paused already"), changed, stages, host, why)
        _tell_of_others(node, host, stages, changed)


@app.command("resume")
def resume(
    context: typer.Context,
    stage: Stages = None,
    host: HostOption = "",
    config: ConfigOption = None,
) -> None:
    """End pauses: those of all hosts, or with --host those of that host, drains included; without --stage every one."""
    stages = _stages(stage, list(Stage))
    with open_store(settings_from(context, config)) as node:
        _require_known(node, host)
        ended = node.pauses.resume(stages, host)
        _tell(node, "queue resume", ("resumed", "was not paused"), [one.stage for one in ended], stages, host)
        for left in node.pauses.all():
            say(f"still so: {pause_words(left, zone_of(node.settings))}")


@app.command("drain")
def drain(
    context: typer.Context,
    host: OneHost,
    reason: Why,
    wait: Annotated[bool, typer.Option("--wait", help="End only when the host has nothing in hand.")] = False,
    at_most_s: Annotated[
        float, typer.Option("--at-most", min=0, help="Wait no longer than this; 0 for ever.", metavar="SECONDS")
    ] = 0.0,
    config: ConfigOption = None,
) -> None:
    """Let a host take nothing new in any stage, so that it can be switched off; `queue resume --host` takes that back.

    Exit code 1 where --at-most passed and something is still in hand, or somebody resumed the host meanwhile.
    """
    stages, why = list(Stage), _needed(reason)
    with open_store(settings_from(context, config)) as node:
        _require_known(node, host)
        changed = node.pauses.pause(stages, host, operator(), why, node.now(), drains=True)
        _tell(node, "queue drain", ("drained", "was drained already"), changed, stages, host, why)
        _tell_of_others(node, host, stages, changed)
        left = _await_empty(node, host, at_most_s) if wait else _hand_of(node, host)
        is_drained = _is_drained(node, host)
    if not is_drained:
        say(f"somebody resumed {host} meanwhile: it takes what is new")
        raise typer.Exit(Exit.ERROR)
    if left.is_empty:
        say(f"{host} has nothing in hand and can be switched off")
        return
    say(f"{host} still has in hand: {_in_hand(left)}")
    if wait:
        raise typer.Exit(Exit.ERROR)


def _await_empty(node: Node, host: str, at_most_s: float) -> InHand:
    """Wait until a host has nothing in hand, or for so long; says on the way what is left."""
    until_s = time.monotonic() + at_most_s if at_most_s else float("inf")
    told = None
    while not (left := _hand_of(node, host)).is_empty and time.monotonic() < until_s and _is_drained(node, host):
        if left != told:
            say(f"waiting for {host}: {_in_hand(left)}")
            told = left
        time.sleep(_POLL_S)
    return left


def _tell_of_others(node: Node, host: str, stages: Sequence[Stage], changed: Sequence[Stage]) -> None:
    """Who paused before: that pause goes on with its reason, and `resume` ends it for both."""
    for one in node.pauses.all():
        if one.host == host and one.stage in stages and one.stage not in changed:
            say(f"since before: {pause_words(one, zone_of(node.settings))}")


def _is_drained(node: Node, host: str) -> bool:
    return {one.stage for one in node.pauses.all() if one.host == host} == {*Stage}


def _hand_of(node: Node, host: str) -> InHand:
    return node.waiting.in_hand().get(host, InHand())


def _require_known(node: Node, host: str) -> None:
    """Raise NotFound for a host that this node has never heard of: a typing error must not look like an empty host."""
    known = {*node.waiting.in_hand(), *(one.host for one in node.pauses.all() if one.host), socket.gethostname()}
    if host and host not in known:
        raise NotFound(f"no host of this node is named {host}; there are {', '.join(sorted(known))}")


def _stages(given: Sequence[StageName] | None, default: list[Stage]) -> list[Stage]:
    if not given:
        return default
    if StageName.ALL in given:
        return list(Stage)
    return [one for one in Stage if one.value in given]


def _needed(reason: str) -> str:
    if not (tidy := tidy_reason(reason)):
        raise typer.BadParameter("say why: --reason TEXT; everybody who looks at the node reads it")
    return tidy


def _tell(
    node: Node,
    action: str,
    words: tuple[str, str],
    changed: Sequence[Stage],
    asked: Sequence[Stage],
    host: str,
    why: str = "",
) -> None:
    """Say what was done, and keep it in the audit trail where anything was."""
    where = f"on {host}" if host else "on all hosts"
    if changed:
        detail = f"{', '.join(changed)} {where}" + (f": {why}" if why else "")
        node.audit.record(AuditEntry(now_utc(), operator(), "local", action, "ok", detail=detail))
    for stage in asked:
        say(f"{stage} {where}: {words[0] if stage in changed else words[1]}")


def _cells(row: Waiting, due: str) -> tuple[str, ...]:
    counts = (str(count) if count else "" for count in (row.waiting, row.in_hand, row.late))
    return (row.stage, priority_words(row.priority), row.sender, row.destination, *counts, due)


def _in_hand(one: InHand) -> str:
    """What a host has in hand, in words."""
    counts = ((one.jobs, "job"), (one.deliveries, "delivery"), (one.associations, "association"))
    said = [f"{count} {_plural(word) if count > 1 else word}" for count, word in counts if count]
    return ", ".join(said) or "nothing"


def _plural(word: str) -> str:
    return "deliveries" if word == "delivery" else f"{word}s"


def _of(pauses: Sequence[Pause], host: str) -> str:
    """Which stages of a host take nothing new."""
    found = {pause.stage: "drained" if pause.drains else "paused" for pause in pauses if pause.host in ("", host)}
    return ", ".join(f"{stage} {word}" for stage, word in found.items())
