"""`status` and `peers` show whether the node runs, what waits, and whether the peers answer."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from node.bootstrap.store import Node
from node.cli.console import ConfigOption, Exit, JsonOption, age, out, print_json, print_table, reading, settings_from
from node.ops.processes import running_processes
from storage.errors import NotFound
from storage.refusals import RefusedView

ROLES = ("receive", "work", "deliver")

peers = typer.Typer(no_args_is_help=True, help="The destinations, and whether they answer.")


def status(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Refresh every two seconds.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """One screen: which processes run, what waits, what was sent last, how much space is left."""
    while True:
        with reading(context, config) as node:
            facts = _facts(node)
        if as_json:
            print_json(facts)
        else:
            if watch:
                out().clear()
            _print(facts)
        if not watch:
            return
        time.sleep(2)


def _facts(node: Node) -> dict[str, Any]:
    processes = running_processes(node.run_dir)
    return {
        "ae_title": node.settings.scp.ae_title,
        "port": node.settings.scp.port,
        "bundle": node.settings.model.bundle,
        "processes": processes,
        "missing": [role for role in ROLES if not any(view.role == role for view in processes)],
        "counts": node.overview.counts(),
        "oldest_queued_at": node.overview.oldest_queued_at(),
        "last_sent_at": node.overview.last_sent_at(),
        "refused_24_h": node.refusals.since(datetime.now(UTC), hours=24),
        "free_gb": round(node.spool.free_bytes() / 1024**3, 1),
        "destinations": node.destination_names,
    }


def _print(facts: dict[str, Any]) -> None:
    rows = [
        (view.role, "running", f"pid {view.pid}, since {view.started_at}, {view.details}".rstrip(", "))
        for view in facts["processes"]
    ]
    rows += [(role, "NOT RUNNING", "start `syncect serve`") for role in facts["missing"]]
    print_table(["PROCESS", "STATE", "DETAILS"], rows)
    counts = ", ".join(f"{count} {key.replace(':', ' ')}" for key, count in sorted(facts["counts"].items()))
    print_table(
        ["", ""],
        [
            ("receiver", f"{facts['ae_title']}, port {facts['port']}"),
            ("bundle", facts["bundle"]),
            ("destinations", ", ".join(facts["destinations"]) or "none"),
            ("in the store", counts or "nothing yet"),
            ("oldest queued", _since(facts["oldest_queued_at"])),
            ("last sent", _since(facts["last_sent_at"])),
            ("refused in 24 h", _refused(facts["refused_24_h"])),
            ("free space", f"{facts['free_gb']} GB"),
        ],
    )


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
    rows += [("accepts", "", peer.ae_title, peer.host or "any host", "") for peer in settings.scp.allowed_peers]
    if not settings.scp.allowed_peers:
        rows.append(("accepts", "", "any AE title", "any host", ""))
    print_table(["ROLE", "NAME", "AE TITLE", "ADDRESS", ""], rows)


@peers.command("echo")
def echo(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Destinations; all without one.", metavar="NAME...")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Ask each destination by C-ECHO whether it is there and would take CT images; exit code 5 if one is not."""
    from node.send.scu import StorageScu

    settings = settings_from(context, config)
    known = {peer.name: peer for peer in settings.destination}
    if unknown := [name for name in names or [] if name not in known]:
        raise NotFound(f"no destination is named {unknown[0]}; there are {', '.join(known) or 'none'}")
    results = {name: StorageScu(known[name], settings.scp.ae_title).echo() for name in (names or known)}
    if as_json:
        print_json({name: result for name, result in results.items()})
    else:
        print_table(
            ["NAME", "ANSWER", "TIME", "DETAIL"],
            [
                (name, "ok" if result.ok else "NO", f"{result.latency_s * 1000:.0f} ms", result.detail)
                for name, result in results.items()
            ],
        )
    if not all(result.ok for result in results.values()):
        raise typer.Exit(Exit.UNREACHABLE)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command()(status)
    app.add_typer(peers, name="peers")
