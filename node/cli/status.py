"""`status` and `peers` show whether the node runs, what waits, and whether the peers answer."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from config.load import ConfigError
from config.settings import Settings
from node.beats import WAITS_FOR_DATABASE
from node.bootstrap.store import Node
from node.cli.console import (
    ConfigOption,
    Exit,
    JsonOption,
    age,
    out,
    print_json,
    print_table,
    reading,
    say,
    settings_from,
    system_answer,
    write,
)
from node.cli.moments import local_time, time_left, zone_of
from node.ops.alerts import urgency
from node.ops.disk import why_unwritable
from node.ops.health import ROLES, Facts, Health, down, judge
from node.ops.processes import ProcessView, Waiting, running_processes, working_roles
from storage.errors import NotFound, StorageError
from storage.overview import RefusedView
from storage.peers import PeerView
from storage.retention import Ages

if TYPE_CHECKING:
    from node.send.scu import EchoResult

peers = typer.Typer(no_args_is_help=True, help="The destinations, and whether they answer.")


def status(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every two seconds.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """How the node is, in the first line and as exit code 0 ok, 1 degraded, 2 down; then what runs and what waits."""
    while True:
        health, facts = look(context, config)
        if watch and not as_json:
            out().clear()
        show(health, facts, as_json=as_json)
        if not watch:
            raise typer.Exit(health.state.exit_code)
        time.sleep(2)


def look(context: typer.Context, config: Path | None) -> tuple[Health, dict[str, Any]]:
    """How the node is, and what is known about it; settings or a store that cannot be read are down."""
    try:
        with reading(context, config) as node:
            facts = _facts(node)
            return _judge(node, facts), facts
    except ConfigError as error:
        return down(error.mistakes), {}
    except StorageError as error:
        return down([str(error)]), {}
    except OSError as error:
        return down([system_answer(error)]), {}


def show(health: Health, facts: dict[str, Any], *, as_json: bool) -> None:
    """Print the judgement first, then the facts."""
    if as_json:
        print_json({"state": health.state, "reasons": health.reasons, "needs_person": health.needs_person, **facts})
        return
    write(f"{health.headline}\n")
    if facts:
        _print(facts)


def _facts(node: Node) -> dict[str, Any]:
    processes = running_processes(node.run_dir)
    working = working_roles(processes)
    return {
        "ae_title": node.settings.scp.ae_title,
        "host": node.settings.scp.listening_host,
        "port": node.settings.scp.port,
        "only_this_machine": node.settings.scp.is_closed,
        "bundle": node.settings.model.bundle,
        "processes": processes,
        "missing": [role for role in ROLES if role not in working],
        "not_started": [role for view in processes for role in view.waiting],
        "unwritable": why_unwritable(node.settings.node.data_dir),
        "counts": node.overview.counts(),
        "oldest_queued_at": node.overview.oldest_queued_at(),
        "last_sent_at": node.overview.last_sent_at(),
        "refused_24_h": node.overview.refused_since(datetime.now(UTC), hours=24),
        "free_gb": round(node.spool.free_bytes() / 1024**3, 1),
        "reserve_gb": node.settings.retention.min_free_gb,
        "retention": _retention(node),
        "alerts": _alerts(node),
        "destinations": node.destination_names,
        "peers": [view for view in node.peers.all() if view.destination in node.destination_names],
    }


def _retention(node: Node) -> dict[str, Any]:
    """How long the disk lasts, whether it is so full that files go early, and what goes next."""
    settings, now = node.settings.retention, datetime.now(UTC)
    free_gb = node.spool.free_bytes() / 1024**3
    growth_gb_per_h = node.retention.growth_bytes_per_h(now) / 1024**3
    spare_gb = max(0.0, free_gb - settings.min_free_gb)
    first = node.retention.first_to_go(Ages(now, now))
    next_at = first[1] + timedelta(days=settings.days) if first is not None and settings.days else None
    below = free_gb < settings.target_free_gb
    return {
        "growth_gb_per_h": round(growth_gb_per_h, 4),
        "hours_left": round(spare_gb / growth_gb_per_h, 1) if growth_gb_per_h > 0 else None,
        "target_free_gb": settings.target_free_gb,
        "below_target": below,
        "next_id": first[0] if first is not None else None,
        "next_at": next_at,
        "words": _goes(first, next_at, zone_of(node.settings), below=below),
    }


def _goes(first: tuple[str, datetime] | None, next_at: datetime | None, zone: tzinfo | None, *, below: bool) -> str:
    state = "less is free than target_free_gb: the oldest go early; " if below else ""
    if first is None:
        return f"{state}nothing may go: everything on the disk is still needed"
    when = f"on {local_time(next_at, zone)}" if next_at else "only where space is needed" if below else "by no setting"
    return f"{state}the files of {first[0]} go first, {when}"


def _space(facts: dict[str, Any]) -> str:
    hours = facts["retention"]["hours_left"]
    if hours is None:
        return f"{facts['free_gb']} GB"
    return f"{facts['free_gb']} GB; at the pace of the last 3 days the receiver refuses in {time_left(hours * 3600)}"


def _alerts(node: Node) -> dict[str, Any]:
    """How many alerts are open, how many of them nobody acknowledged, and the most urgent of these in words."""
    standing = sorted(node.alerts.open(), key=urgency)
    unknown = [alert for alert in standing if alert.acknowledged_at is None]
    return {
        "open": len(standing),
        "unacknowledged": len(unknown),
        "most_urgent": f"{unknown[0].kind}: {unknown[0].text}" if unknown else "",
        "channels_failing": [alert.text for alert in standing if alert.kind == "channel"],
    }


def _judge(node: Node, facts: dict[str, Any]) -> Health:
    return judge(
        Facts(
            missing=facts["missing"],
            counts=facts["counts"],
            free_gb=node.spool.free_bytes() / 1024**3,
            reserve_gb=facts["reserve_gb"],
            now=datetime.now(UTC),
            refused=[(row.last_at, row.calling_ae, row.reason) for row in facts["refused_24_h"]],
            unreachable={
                peer.destination: (peer.failing_since, peer.reason) for peer in facts["peers"] if peer.failing_since
            },
            standing=node.peers.standing(),
            waiting={one.role: _waits(one) for one in facts["not_started"]},
            troubles=_troubles(facts),
            silent=[view.role for view in facts["processes"] if view.silent() is not None],
            alerts=(facts["alerts"]["unacknowledged"], facts["alerts"]["most_urgent"]),
        )
    )


def _troubles(facts: dict[str, Any]) -> list[str]:
    """What is wrong with the disk and with processes that run, and why the node as a whole cannot start."""
    found = [facts["unwritable"]] if facts["unwritable"] else []
    found += [f"the node cannot start {_waits(one)}" for one in facts["not_started"] if one.role == "serve"]
    for view in facts["processes"]:
        if words := _silence(view):
            found.append(f"{ROLES.get(view.role, view.role)} is {words}")
        elif any(beat.stage == WAITS_FOR_DATABASE for beat in view.beats):
            found.append(f"{ROLES.get(view.role, view.role)} waits for the database; its log says why")
        elif view.details.startswith("CANNOT WORK"):
            found.append(f"{ROLES.get(view.role, view.role)} {view.details.replace('CANNOT WORK', 'cannot work', 1)}")
    return found


def _silence(view: ProcessView) -> str:
    """How long a process has not responded, and where it was; "" for one that responds."""
    late = view.silent()
    return f"not responding for {late.silent_s(time.monotonic()):.0f} s, at {late.work}" if late is not None else ""


def _waits(one: Waiting) -> str:
    """Since when and why a role does not run, and when it is tried again."""
    left_s = max(0.0, (datetime.fromisoformat(one.next_try_at) - datetime.now(UTC)).total_seconds())
    since = datetime.fromisoformat(one.since).astimezone()
    return f"since {since:%Y-%m-%d %H:%M}, next try in {left_s:.0f} s: {one.reason}"


def _print(facts: dict[str, Any]) -> None:
    rows = [
        (
            view.role,
            "NOT RESPONDING" if _silence(view) else "running",
            f"pid {view.pid}, since {view.started_at}, {_silence(view) or view.details}".rstrip(", "),
        )
        for view in facts["processes"]
        if (view.role, view.name) not in {(role, "1") for role in facts["missing"]}
    ]
    waiting = {one.role: _waits(one) for one in facts["not_started"]}
    rows += [(role, "NOT RUNNING", waiting.get(role, "start `syncect serve`")) for role in facts["missing"]]
    print_table(["PROCESS", "STATE", "DETAILS"], rows)
    counts = ", ".join(f"{count} {key.replace(':', ' ')}" for key, count in sorted(facts["counts"].items()))
    print_table(
        ["", ""],
        [
            ("receiver", _listening(facts)),
            ("bundle", facts["bundle"]),
            ("destinations", ", ".join(facts["destinations"]) or "none"),
            *((f"peer {peer.destination}", _reached(peer)) for peer in facts["peers"]),
            ("in the store", counts or "nothing yet"),
            ("oldest queued", _since(facts["oldest_queued_at"])),
            ("last sent", _since(facts["last_sent_at"])),
            ("refused in 24 h", _refused(facts["refused_24_h"])),
            ("free space", _space(facts)),
            ("retention", facts["retention"]["words"]),
            ("alerts", _alerts_text(facts["alerts"])),
        ],
    )


def _listening(facts: dict[str, Any]) -> str:
    text = f"{facts['ae_title']}, port {facts['port']} of {facts['host']}"
    if facts["only_this_machine"]:
        text += "; only programs of this machine can send, because scp.allowed_peers is empty"
    return text


def _alerts_text(alerts: dict[str, Any]) -> str:
    if not alerts["open"]:
        return "none is open"
    text = f"{alerts['open']} open, {alerts['unacknowledged']} of them not acknowledged (`syncect alerts ls`)"
    return f"{text}; {alerts['most_urgent']}" if alerts["most_urgent"] else text


def _reached(peer: PeerView) -> str:
    answered = f"answered {_since(peer.answered_at)}" if peer.answered_at else "never answered"
    if peer.failing_since is None:
        return answered
    return f"cannot be reached for {age(peer.failing_since)}, {answered}: {peer.reason}"


def _since(moment: datetime | None) -> str:
    return f"{age(moment)} ago" if moment else "-"


def _refused(rows: list[RefusedView]) -> str:
    """How many instances the receiver refused, and the newest reason."""
    if not rows:
        return "no instance"
    newest = rows[0]
    total = sum(row.count for row in rows)
    return (
        f"{total} instance{'s' if total > 1 else ''}; the newest {age(newest.last_at)} ago from {newest.calling_ae}: "
        f"status {newest.status}, {newest.reason}"
    )


@peers.command("ls")
def list_peers(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the configured destinations and the callers that the receiver accepts."""
    settings = settings_from(context, config)
    if as_json:
        print_json(
            {
                "destinations": [peer.model_dump(mode="json") for peer in settings.destination],
                "allowed_peers": [peer.model_dump(mode="json") for peer in settings.scp.allowed_peers],
            }
        )
        return
    rows = [
        ("sends to", peer.name, peer.ae_title, f"{peer.host}:{peer.port}", "TLS" if peer.tls else "")
        for peer in settings.destination
    ]
    rows += [
        ("accepts", "", peer.ae_title, peer.host or "any host", peer.certificate) for peer in settings.scp.allowed_peers
    ]
    if not settings.scp.allowed_peers:
        rows.append(("accepts", "", "any AE title", "this machine" if settings.scp.is_closed else "any host", ""))
    print_table(["ROLE", "NAME", "AE TITLE", "ADDRESS", ""], rows)


@peers.command("echo")
def echo(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Destinations; all without one.", metavar="NAME...")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Ask each destination by C-ECHO whether it is there and would take CT images; exit code 5 if one is not."""
    settings = settings_from(context, config)
    known = {peer.name: peer for peer in settings.destination}
    if unknown := [name for name in names or [] if name not in known]:
        raise NotFound(f"no destination is named {unknown[0]}; there are {', '.join(known) or 'none'}")
    if not known:
        say("no [[destination]] is configured: there is nobody to ask")
    results = ask(settings, names or list(known))
    if as_json:
        print_json(results)
    else:
        print_answers(results)
    if not all(result.ok for result in results.values()):
        raise typer.Exit(Exit.UNREACHABLE)


def ask(settings: Settings, names: Sequence[str]) -> "dict[str, EchoResult]":
    """The answer of each of these destinations to a C-ECHO."""
    from node.send.scu import StorageScu

    return {
        peer.name: StorageScu(peer, settings.scp.ae_title).echo() for peer in settings.destination if peer.name in names
    }


def print_answers(results: "Mapping[str, EchoResult]") -> None:
    """Print what `ask` found as a table."""
    print_table(
        ["NAME", "ANSWER", "TIME", "DETAIL"],
        [
            (name, "ok" if result.ok else "NO", f"{result.latency_s * 1000:.0f} ms", result.detail)
            for name, result in results.items()
        ],
    )


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(status)
    app.add_typer(peers, name="peers")
