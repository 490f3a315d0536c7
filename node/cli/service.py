"""`serve`, `receive`, `complete`, `work`, `deliver`, `watch`: the processes of the node."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from config.settings import Settings
from node.bootstrap.store import Node, open_store
from node.cli.console import ConfigOption, say, settings_from
from node.errors import Misconfigured
from node.ops.health import ROLES
from node.ops.log import configure_logging
from node.ops.processes import process_lock
from node.ops.supervisor import Supervisor, stop_event

LEASE_TICK_S = 5.0
COMPLETION_TICK_S = 0.5
WATCH_TICK_S = 5.0
TELL_TICK_S = 5.0
SWITCH_INTERVAL_S = 0.0005

Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]
Name = Annotated[
    str, typer.Option("--name", help="Distinguishes several of these on one host.", metavar="NAME", show_default=True)
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every step.")]


def serve(context: typer.Context, config: ConfigOption = None, verbose: Verbose = False) -> None:
    """Run the whole node: receiver, completion, worker, courier and watch, each restarted when it dies."""
    settings = settings_from(context, config)
    configure_logging("serve", verbose=verbose)
    path = config or context.obj
    stop = stop_event(supervised=False)
    with open_store(settings) as node, process_lock(node.run_dir, "serve", "1"):
        _check(settings, node.run_dir)
        commands = {role: _command(role, path, verbose=verbose) for role in ROLES}
        code = Supervisor(commands).run(stop)
    raise typer.Exit(code)


def receive(
    context: typer.Context, supervised: Supervised = False, config: ConfigOption = None, verbose: Verbose = False
) -> None:
    """Run the receiver: C-STORE in. Started alone, it brings the completion with it as a process of its own."""
    from node.bootstrap.roles import make_receiver

    settings = settings_from(context, config)
    # With 25 associations at work, another peer's echo waits its turn for the interpreter some twenty times.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if not supervised:
        _check_completion(settings)
    frame = _process("receive", "1", settings, _address(settings), supervised=supervised, verbose=verbose)
    with frame as (node, stop, _):
        receiver = make_receiver(node)
        receiver.start()
        command = _command("complete", config or context.obj, verbose=verbose)
        try:
            with nullcontext() if supervised else _beside(command):
                stop.wait()
        finally:
            receiver.stop()


def complete(
    context: typer.Context, supervised: Supervised = False, config: ConfigOption = None, verbose: Verbose = False
) -> None:
    """Run the completion: it decides when a received series is complete, and what becomes of it."""
    from node.bootstrap.roles import make_completion
    from node.ops.scheduler import Ticker

    frame = _process("complete", "1", settings_from(context, config), supervised=supervised, verbose=verbose)
    with frame as (node, stop, _):
        completion = make_completion(node)
        completion.begin()
        with Ticker({completion.tick: COMPLETION_TICK_S}):
            stop.wait()


def work(
    context: typer.Context,
    name: Name = "1",
    supervised: Supervised = False,
    config: ConfigOption = None,
    verbose: Verbose = False,
) -> None:
    """Run a worker: it turns queued series into synthetic ones."""
    from node.bootstrap.worker import make_worker
    from node.ops.scheduler import Ticker

    settings = settings_from(context, config)
    frame = _process("work", name, settings, "loading the model", supervised=supervised, verbose=verbose)
    with frame as (node, stop, announce):
        worker = make_worker(node, name, announce)
        with Ticker({worker.release_expired: LEASE_TICK_S}):
            worker.run(stop)


def deliver(
    context: typer.Context,
    name: Name = "1",
    supervised: Supervised = False,
    config: ConfigOption = None,
    verbose: Verbose = False,
) -> None:
    """Run a courier: it sends produced series to their destinations."""
    from node.bootstrap.roles import make_courier, make_retention
    from node.ops.retention import TICK_S
    from node.ops.scheduler import Ticker

    frame = _process("deliver", name, settings_from(context, config), supervised=supervised, verbose=verbose)
    with frame as (node, stop, _), Ticker({make_retention(node).tick: TICK_S}):
        make_courier(node, name).run(stop)


def watch(
    context: typer.Context, supervised: Supervised = False, config: ConfigOption = None, verbose: Verbose = False
) -> None:
    """Run the watch: it opens and closes alerts, and tells them by the channels of the settings."""
    from node.bootstrap.watch import make_tellers, make_watch
    from node.ops.scheduler import Ticker

    frame = _process("watch", "1", settings_from(context, config), supervised=supervised, verbose=verbose)
    with frame as (node, stop, _):
        tellers = make_tellers(node)
        watching = make_watch(node, tellers, supervised=supervised)
        ticks: dict[Callable[[], object], float] = {teller.tick: TELL_TICK_S for teller in tellers}
        with Ticker({watching.tick: WATCH_TICK_S, **ticks}):
            stop.wait()


def _command(role: str, config: Path | None, *, verbose: bool) -> Sequence[str]:
    """How a supervised process of a role is started."""
    base = [sys.executable, "-P", "-m", "node.cli", *(["--config", str(config)] if config else [])]
    return [*base, role, "--supervised", *(["--verbose"] if verbose else [])]


@contextmanager
def _beside(command: Sequence[str]) -> Iterator[None]:
    """Keep the completion running while the block runs, also where another one still holds its lock."""
    stop = threading.Event()

    def supervise() -> None:
        while not stop.is_set():
            Supervisor({"complete": command}).run(stop)
            stop.wait(LEASE_TICK_S)

    thread = threading.Thread(target=supervise, name="completion", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _process(
    role: str, name: str, settings: Settings, details: str = "", *, supervised: bool, verbose: bool
) -> Iterator[tuple[Node, threading.Event, Callable[[str], None]]]:
    """The opened stores, the event that ends the process and what tells `status` details, while it holds its role."""
    configure_logging(role, verbose=verbose)
    stop = stop_event(supervised=supervised)
    with open_store(settings) as node, process_lock(node.run_dir, role, name, details) as announce:
        yield node, stop, announce


def _check(settings: Settings, run_dir: Path) -> None:
    """What can be known to be wrong before any process starts."""
    from node.ops.checks import check_port

    for finding in check_port(settings.scp, run_dir):
        raise Misconfigured(finding.text)
    _check_completion(settings)
    if not settings.destination:
        say("no [[destination]] is configured: synthetic series will be produced and stay on this node")


def _check_completion(settings: Settings) -> None:
    """What the completion cannot work with; raises ConfigError."""
    from node.bootstrap.roles import eligibility_policy, expected_counts, verified_card

    verified_card(settings)
    eligibility_policy(settings)
    expected_counts(settings)


def _address(settings: Settings) -> str:
    scp = settings.scp
    return f"{scp.ae_title} on {scp.listening_host}:{scp.port}"


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for command in (serve, receive, complete, work, deliver, watch):
        app.command()(command)
