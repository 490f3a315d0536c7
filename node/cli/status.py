"""`status` and `peers` show whether the node runs, what waits, and whether the peers answer."""

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from config.load import ConfigError
from config.settings import DestinationSettings, Settings
from node.cli.console import (
    ConfigOption,
    Exit,
    JsonOption,
    out,
    print_json,
    print_table,
    reading,
    say,
    settings_from,
    system_answer,
    write,
)
from node.operate.situation import facts as facts_of_node
from node.operate.situation import health_of, silence, waits
from node.operate.texts import age, time_left
from node.operate.turns import pause_words
from node.ops.health import Health, down
from storage.errors import NotFound, StorageError
from storage.hosts import Host
from storage.overview import RefusedView
from storage.peers import PeerView

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
            facts = facts_of_node(node)
            return health_of(node, facts), facts
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


def _space(facts: dict[str, Any]) -> str:
    hours = facts["retention"]["hours_left"]
    if hours is None:
        return f"{facts['free_gb']} GB"
    return f"{facts['free_gb']} GB; at the pace of the last 3 days the receiver refuses in {time_left(hours * 3600)}"


def _print(facts: dict[str, Any]) -> None:
    rows = [
        (
            view.role,
            "NOT RESPONDING" if silence(view) else "running",
            f"pid {view.pid}, since {view.start.isoformat(timespec='seconds')}, {silence(view) or view.details}".rstrip(
                ", "
            ),
        )
        for view in facts["processes"]
        if (view.role, view.name) not in {(role, "1") for role in facts["missing"]}
    ]
    waiting = {one.role: waits(one) for one in facts["not_started"]}
    rows += [(role, "NOT RUNNING", waiting.get(role) or _start(role, facts)) for role in facts["missing"]]
    print_table(["PROCESS", "STATE", "DETAILS"], rows)
    counts = ", ".join(f"{count} {key.replace(':', ' ')}" for key, count in sorted(facts["counts"].items()))
    print_table(
        ["", ""],
        [
            ("receiver", _listening(facts)),
            *((f"host {host.name}", _host(host)) for host in facts["hosts"]),
            ("bundle", _bundle(facts)),
            *((one["used_by"], _bundle(one)) for one in facts["bundles_of_routes"]),
            *([("routes", ", ".join(facts["routes"]))] if facts["routes"] else []),
            ("destinations", ", ".join(facts["destinations"]) or "none"),
            *((f"peer {peer.destination}", _reached(peer)) for peer in facts["peers"]),
            ("in the store", counts or "nothing yet"),
            *(("paused", pause_words(pause, None)) for pause in facts["pauses"]),
            ("oldest queued", _since(facts["oldest_queued_at"])),
            ("last sent", _since(facts["last_sent_at"])),
            ("refused in 24 h", _refused(facts["refused_24_h"])),
            ("free space", _space(facts)),
            *([("object store", facts["object_store"])] if facts["object_store"] else []),
            ("retention", facts["retention"]["words"]),
            ("constancy", _constancy(facts["constancy"])),
            ("certificates", _certificates(facts["certificates"])),
            ("alerts", _alerts_text(facts["alerts"])),
        ],
    )


def _start(role: str, facts: dict[str, Any]) -> str:
    """How a role is started that runs nowhere; on one of several hosts `serve` could be a second receiver."""
    is_split = facts["hosts"] and all(view.role != "serve" for view in facts["processes"])
    return f"on no host; start `syncect {role}` where it belongs" if is_split else "start `syncect serve`"


def _host(host: Host) -> str:
    """Its roles, those that are silent in capitals, its versions, and when it was heard."""
    roles = [f"{one.role.upper()} SILENT" if one.name in host.silent else one.role for one in host.processes]
    state = "GONE" if host.is_gone else f"runs {', '.join(roles)}"
    return f"{state}; version {' and '.join(host.versions)}; heard {age(host.seen_at)} ago"


def _bundle(facts: dict[str, Any]) -> str:
    unproven = f"UNPROVEN: {facts['unproven']}" if facts["unproven"] else ""
    return "; ".join(word for word in (facts["bundle"], unproven, facts["acceptance"]) if word)


def _listening(facts: dict[str, Any]) -> str:
    titles = " or ".join((facts["ae_title"], *facts["more_ae_titles"]))
    text = f"{titles}, port {facts['port']} of {facts['host']}"
    if facts["only_this_machine"]:
        text += "; only programs of this machine can send, because scp.allowed_peers is empty"
    return text


def _constancy(last: dict[str, Any] | None) -> str:
    if last is None:
        return "no run was made (`syncect qa run`)"
    words = f"run {last['id']} {last['outcome']} {_since(last['at'])} with {last['bundle']}"
    return f"{words}: {last['reason']}" if last["reason"] else words


def _certificates(found: dict[str, Any]) -> str:
    if wrong := [*found["mistakes"], *found["warnings"]]:
        return "; ".join(wrong)
    if found["ends_at"] is None:
        return "none is in use (no TLS is set)"
    return f"the first to end is one of {found['first_to_end']}, on {found['ends_at']:%Y-%m-%d}"


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
        if isinstance(peer, DestinationSettings)
        else ("sends to", peer.name, "DICOMweb", peer.url, "TLS" if peer.url.startswith("https:") else "")
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
    """Ask each destination by C-ECHO or QIDO-RS whether it is there and takes CT images; exit code 5 if one is not."""
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
    """The answer of each of these destinations to a C-ECHO, or to a query by QIDO-RS."""
    from node.send.peer import sender_for

    return {
        peer.name: sender_for(peer, settings.scp.ae_title).echo() for peer in settings.destination if peer.name in names
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
