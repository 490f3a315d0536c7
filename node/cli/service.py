"""`serve`, `receive`, `complete`, `work`, `deliver`, `watch`, `query`, `web`: the processes of the node."""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from config.load import ConfigError
from config.settings import ScpSettings, Settings
from node.beats import Beating, Heart, Numbers
from node.bootstrap.store import DataDirUnusable, Node, make_data_dir, open_store
from node.cli.console import ConfigOption, say, settings_from
from node.errors import Misconfigured
from node.ops.health import roles_of
from node.ops.notify import notifying
from node.ops.processes import Sign, kill_silent, process_lock
from node.ops.reporting import reported
from node.ops.supervised import Link, stop_event
from node.ops.supervisor import Supervisor, keep_trying
from node.version import software_version
from storage.database import Database
from storage.errors import ObjectsUnavailable, SchemaMismatch, StoreUnavailable, WrongStore
from storage.shared_spool import SharedSpool
from storage.wakes import waking

if TYPE_CHECKING:
    from models import BundleCard
    from node.ops.scheduler import Ticker

LEASE_TICK_S = 5.0
COMPLETION_TICK_S = 0.5
WATCH_TICK_S = 5.0
TELL_TICK_S = 5.0
SWITCH_INTERVAL_S = 0.0005
TRANSIENT = (DataDirUnusable, Misconfigured, ObjectsUnavailable, StoreUnavailable, OSError)
"""What can pass by itself, or when a person mends the machine: no reason for `serve` to end."""

Supervised = Annotated[bool, typer.Option("--supervised", hidden=True)]
Name = Annotated[
    str, typer.Option("--name", help="Distinguishes several of these on one host.", metavar="NAME", show_default=True)
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every step.")]


@dataclass(frozen=True)
class Frame:
    """What a role works in: the opened stores, the event that ends it, its text for `status`, its beat and numbers."""

    node: Node
    stop: threading.Event
    announce: Callable[[str], None]
    beat: Beating
    numbers: Numbers


def serve(context: typer.Context, config: ConfigOption = None, verbose: Verbose = False) -> None:
    """Run the whole node, each role in a process of its own; what dies, hangs or cannot start yet is tried again.

    It ends by itself only for settings that can never work.
    """
    settings = settings_from(context, config)
    _begin_log("serve", "1", settings, verbose=verbose)
    path = config or context.obj
    stop = stop_event(supervised=False)
    keep_trying(lambda: _check(settings), stop, transient=(OSError,))
    supervise(settings, {role: _command(role, path, verbose=verbose) for role in roles_of(settings)}, stop)


def supervise(settings: Settings, commands: dict[str, Sequence[str]], stop: threading.Event) -> None:
    """Run these commands as the roles of a node until `stop` is set, from whenever the machine allows it.

    Raises ConfigError and WrongStore, which will not pass by themselves.
    """
    run_dir = settings.node.data_dir / "run"
    with ExitStack() as held:
        held.enter_context(_of_another_version())

        def hold() -> Sign:
            make_data_dir(settings)
            kill_silent(run_dir, "serve", "1")
            sign = held.enter_context(process_lock(run_dir, "serve", "1"))
            _keep_log("serve", "1", settings)
            return sign

        def prepare() -> bool:
            for role in commands:  # one of an earlier start that was stopped may hold the lock of the database
                kill_silent(run_dir, role, "1")
            with open_store(settings):  # the schema is made once, before several processes want it
                return True

        sign = keep_trying(hold, stop, transient=TRANSIENT)
        if sign is None or not keep_trying(prepare, stop, transient=TRANSIENT, show=sign.waiting):
            return
        numbers = Numbers()
        sign.numbers = numbers.all
        over = Supervisor(
            commands,
            beat=notifying(Heart(sign.beats).beat, run_dir),
            numbers=numbers,
            show=sign.waiting,
            before_start=partial(kill_silent, run_dir, name="1"),
        ).run(stop)
        if over:
            raise SchemaMismatch(over)


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
    with _process("receive", "1", settings, _address(settings.scp), supervised=supervised, verbose=verbose) as frame:
        receiver = make_receiver(frame.node, frame.beat, frame.numbers)
        receiver.start()
        command = _command("complete", config or context.obj, verbose=verbose)
        try:
            with nullcontext() if supervised else _beside(command):
                frame.stop.wait()
        finally:
            receiver.stop()


def complete(
    context: typer.Context, supervised: Supervised = False, config: ConfigOption = None, verbose: Verbose = False
) -> None:
    """Run the completion: it decides when a received series is complete, and what becomes of it."""
    from node.bootstrap.roles import make_completion
    from node.ops.scheduler import Ticker
    from node.translate.leases import ExpiredLeases

    settings = settings_from(context, config)
    with (
        _process("complete", "1", settings, supervised=supervised, verbose=verbose) as frame,
        waking(frame.node.database, frame.stop, frame.node.clock) as wakes,
    ):

        def release_expired() -> None:
            """Also where no worker lives, a job does not stay RUNNING."""
            leases.tick()

        completion, bell = make_completion(frame.node), wakes.completion()
        leases = ExpiredLeases(frame.node.jobs, frame.node.clock)

        def complete_series() -> None:
            """Where nothing tells of a new series, at every tick."""
            if bell.is_due():
                bell.listen()
                completion.tick()
                bell.rest()

        completion.begin()
        with Ticker({complete_series: COMPLETION_TICK_S, release_expired: LEASE_TICK_S}, frame.beat):
            frame.stop.wait()


def work(
    context: typer.Context,
    name: Name = "1",
    supervised: Supervised = False,
    config: ConfigOption = None,
    verbose: Verbose = False,
) -> None:
    """Run a worker: it turns queued series into synthetic ones."""
    from node.bootstrap.bundles import verified_cards
    from node.bootstrap.worker import worker_of_settings
    from node.ops.scheduler import Ticker

    settings = settings_from(context, config)
    if not supervised:  # `serve` has looked; a bundle that was changed since holds the jobs and says why
        _check_proven(settings, verified_cards(settings).values())
    with (
        _process("work", name, settings, "loading the model", supervised=supervised, verbose=verbose) as frame,
        waking(frame.node.database, frame.stop, frame.node.clock) as wakes,
    ):
        worker = worker_of_settings(frame.node, name, frame.announce, frame.beat, frame.numbers, bell_of=wakes.worker)
        with Ticker({worker.release_expired: LEASE_TICK_S}, frame.beat):
            worker.run(frame.stop)


def deliver(
    context: typer.Context,
    name: Name = "1",
    supervised: Supervised = False,
    config: ConfigOption = None,
    verbose: Verbose = False,
) -> None:
    """Run a courier: it sends produced series to their destinations."""
    from node.bootstrap.roles import make_courier, make_probe, make_retention
    from node.ops.retention import TICK_S
    from node.ops.scheduler import Ticker
    from node.send.probe import TICK_S as PROBE_TICK_S

    settings = settings_from(context, config)
    _check_dicomweb(settings)
    with (
        _process("deliver", name, settings, supervised=supervised, verbose=verbose) as frame,
        waking(frame.node.database, frame.stop, frame.node.clock) as wakes,
    ):
        tidy, ask = make_retention(frame.node).tick, make_probe(frame.node).tick
        with Ticker({tidy: TICK_S, ask: PROBE_TICK_S}, frame.beat):
            make_courier(frame.node, name, frame.beat, frame.numbers).run(frame.stop, bell_of=wakes.courier)


def watch(
    context: typer.Context, supervised: Supervised = False, config: ConfigOption = None, verbose: Verbose = False
) -> None:
    """Run the watch: it opens and closes alerts, and tells them by the channels of the settings."""
    from node.bootstrap.watch import make_tellers, make_watch
    from node.ops.scheduler import Ticker

    settings = settings_from(context, config)
    with _process("watch", "1", settings, supervised=supervised, verbose=verbose) as frame:
        tellers = make_tellers(frame.node)
        watching = make_watch(frame.node, tellers)
        ticks: dict[Callable[[], object], float] = {teller.tick: TELL_TICK_S for teller in tellers}
        with Ticker({watching.tick: WATCH_TICK_S, **ticks}, frame.beat):
            frame.stop.wait()


def query(
    context: typer.Context, supervised: Supervised = False, config: ConfigOption = None, verbose: Verbose = False
) -> None:
    """Run the query service: peers find and fetch results by C-FIND, C-MOVE and C-GET."""
    from node.bootstrap.roles import make_query_scp

    settings = settings_from(context, config)
    with _process(
        "query", "1", settings, _address(settings.query_scp), supervised=supervised, verbose=verbose
    ) as frame:
        scp = make_query_scp(frame.node, frame.beat)
        scp.start()
        try:
            frame.stop.wait()
        finally:
            scp.stop()


def web(
    context: typer.Context, supervised: Supervised = False, config: ConfigOption = None, verbose: Verbose = False
) -> None:
    """Run the status page, with /healthz, /readyz and /metrics."""
    from node.web.server import Page

    settings = settings_from(context, config)
    page = Page(settings.web)
    with _process("web", "1", settings, page.address, supervised=supervised, verbose=verbose) as frame:
        page.run(frame.node, frame.stop, frame.beat)


def _command(role: str, config: Path | None, *, verbose: bool) -> Sequence[str]:
    """How a supervised process of a role is started."""
    base = [sys.executable, "-P", "-m", "node.cli", *(["--config", str(config)] if config else [])]
    return [*base, role, "--supervised", *(["--verbose"] if verbose else [])]


@contextmanager
def _beside(command: Sequence[str]) -> Iterator[None]:
    """Keep the completion running while the block runs, also where another one still holds its lock."""
    stop = threading.Event()
    thread = threading.Thread(target=Supervisor({"complete": command}).run, args=(stop,), name="completion")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _process(
    role: str, name: str, settings: Settings, details: str = "", *, supervised: bool, verbose: bool
) -> Iterator[Frame]:
    """What the role works in, while this process holds it; its end is told to the supervisor, with the reason."""
    _begin_log(role, name, settings, verbose=verbose)
    stop = stop_event(supervised=supervised)
    with ExitStack() as held:
        held.enter_context(_of_another_version())
        link = Link() if supervised else None
        if link is not None:
            held.enter_context(link.last_words())
        node = held.enter_context(open_store(settings))
        sign = held.enter_context(process_lock(node.run_dir, role, name, details))
        _keep_log(role, name, settings)
        heart = Heart(sign.beats, *([link.beats] if link is not None else []))
        numbers = Numbers()
        sign.numbers = numbers.all
        node.database.guard_schema(stop.set)
        held.enter_context(reported(node.database, sign, software_version(), stop))
        if isinstance(node.spool, SharedSpool):
            held.enter_context(_tidying(node, node.spool, heart.beat))
        yield Frame(node, stop, sign, heart.beat, numbers)
        node.database.require_schema()


@contextmanager
def _of_another_version() -> Iterator[None]:
    """A process that the database is too new or too old for ends with the code after which nothing starts it again."""
    try:
        yield
    except SchemaMismatch as error:
        raise WrongStore(str(error)) from error


def _tidying(node: Node, spool: SharedSpool, beat: Beating) -> "Ticker":
    """Each process looks after the cache of its host: nobody knows which others run there."""
    from node.ops.cached import TICK_S, CacheTidy
    from node.ops.scheduler import Ticker

    return Ticker({CacheTidy(node.retention, node.jobs, spool, clock=node.clock).tick: TICK_S}, beat)


def _begin_log(role: str, name: str, settings: Settings, *, verbose: bool) -> None:
    from node.ops.log import configure_logging  # with structlog, for which no reader shall wait

    configure_logging(role, settings.log, name=name, verbose=verbose)


def _keep_log(role: str, name: str, settings: Settings) -> None:
    from node.ops.log import keep_log_file

    keep_log_file(role, settings.log, settings.node.data_dir, name=name)


def _check(settings: Settings) -> None:
    """What no pause can put right, before any process starts. Raises ConfigError and UnusableUrl."""
    Database.masked_url(settings.node.url())
    _check_proven(settings, _check_completion(settings))
    _check_dicomweb(settings)
    if not settings.destination:
        say("no [[destination]] is configured: synthetic series will be produced and stay on this node")


def _check_dicomweb(settings: Settings) -> None:
    """Raises ConfigError for a destination that the installed packages cannot reach."""
    from node.ops.checks import WITHOUT_DICOMWEB, is_without_dicomweb

    for peer in settings.destination:
        if is_without_dicomweb(peer):
            raise ConfigError(f"destination {peer.name}: {WITHOUT_DICOMWEB}")


def _check_proven(settings: Settings, cards: Iterable["BundleCard"]) -> None:
    """Raises Refused for a bundle that is not better than no model, unless the settings allow it by name."""
    from node.bootstrap.allowed import refuse_unproven

    for card in cards:
        refuse_unproven(card, settings.model)


def _check_completion(settings: Settings) -> Iterable["BundleCard"]:
    """The cards of the bundles in use; raises ConfigError for what the completion cannot work with."""
    from node.bootstrap.bundles import verified_cards
    from node.bootstrap.roles import eligibility_policy, expected_counts

    cards = verified_cards(settings)
    eligibility_policy(settings)
    expected_counts(settings)
    return cards.values()


def _address(scp: ScpSettings) -> str:
    return f"{scp.ae_title} on {scp.listening_host}:{scp.port}"


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for command in (serve, receive, complete, work, deliver, watch, query, web):
        app.command()(command)
