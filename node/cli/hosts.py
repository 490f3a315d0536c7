"""`hosts` shows on which hosts the node runs, and forgets one that is gone for good."""

from typing import Annotated

import typer

from node.cli.console import ConfigOption, JsonOption, print_json, print_table, reading, say, settings_from
from node.operate.texts import age
from storage.states import Stage

app = typer.Typer(no_args_is_help=True, help="The hosts on which the node runs, where its store is on PostgreSQL.")


@app.command("ls")
def list_hosts(context: typer.Context, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List every host with its processes as they last reported themselves, one line for each."""
    with reading(context, config) as node:
        found = node.hosts.all()
    if as_json:
        print_json(found)
        return
    if not found:
        say("no host reports itself; with SQLite there is one, and `syncect status` shows its processes")
        return
    rows = [
        (
            host.name,
            "GONE" if host.is_gone else "SILENT" if process.name in host.silent else "runs",
            process.role,
            str(process.pid),
            process.version,
            f"{age(process.seen_at)} ago",
            process.details,
        )
        for host in found
        for process in host.processes
    ]
    print_table(["HOST", "STATE", "ROLE", "PID", "VERSION", "SEEN", "DETAILS"], rows)


@app.command("forget")
def forget(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="As `syncect hosts ls` shows it.", metavar="NAME")],
    config: ConfigOption = None,
) -> None:
    """Take away what is known about a host that was switched off for good; exit code 4 while it reports itself."""
    from node.bootstrap.store import open_store

    with open_store(settings_from(context, config)) as node:
        known = {host.name: host for host in node.hosts.all()}
        ended = [] if name in known and not known[name].is_gone else node.pauses.resume(list(Stage), name)
        count = node.hosts.forget(name) if name in known or not ended else 0
        say(f"forgot {count} processes of that host; whatever they had in hand was freed when its lease ended")
        if ended:
            say(f"and that it was paused: {', '.join(pause.stage for pause in ended)}")
