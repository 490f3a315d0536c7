"""The node of the demo: settings of its own, and `syncect serve`, started as an operator starts it."""

import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import models
from config.load import CONFIG_VARIABLE, ENV_PREFIX
from config.settings import DestinationSettings, Settings, WebSettings
from node.bootstrap.store import open_store
from node.demo.failed import DemoFailed
from node.demo.folder import DemoFolder
from node.demo.scanner import AE_TITLE
from node.demo.story import Story
from node.demo.tps import Tps
from node.operate.texts import now_utc
from node.send.scu import StorageScu
from node.web.passwords import hash_password
from storage.roles import Role

USER: Final = "demo"
_ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_UP_WITHIN_S: Final = 120.0
_PAGE_WITHIN_S: Final = 30.0
_END_WITHIN_S: Final = 60.0
_PAGE_SWITCH: Final = f"{ENV_PREFIX}WEB__ENABLED"


@contextmanager
def only_own_settings() -> Iterator[tuple[str, ...]]:
    """While the block runs no variable of the environment changes a setting: a demo must never touch another node.

    Gives the names of those that are ignored.
    """
    ignored = {name: os.environ.pop(name) for name in sorted(os.environ) if _is_setting(name)}
    try:
        yield tuple(ignored)
    finally:
        os.environ.update(ignored)


def _is_setting(name: str) -> bool:
    return name == CONFIG_VARIABLE or (name.startswith(ENV_PREFIX) and "__" in name)


def write_settings(folder: DemoFolder, tps: Tps, bundle: str) -> None:
    """Write the node's settings, with free ports of the loopback interface; the demo takes any bundle."""
    name = models.read_card(models.find_bundle(bundle)).name
    with free_ports(2) as (port, page_port):
        folder.settings.write_text(
            f'[node]\ndata_dir = "data"\n[scp]\nhost = "127.0.0.1"\nport = {port}\n'
            f'[[scp.allowed_peers]]\nae_title = "{AE_TITLE}"\nhost = "127.0.0.1"\n'
            f"[completion]\nquiet_s = 1.0\n[model]\nbundle = {_quoted(bundle)}\n"
            f'allow_unproven = ["{name}"]\n[retention]\nmin_free_gb = 0.1\n'
            f'[web]\nhost = "127.0.0.1"\nport = {page_port}\n'
            f'[[destination]]\nname = "tps"\nae_title = "{tps.ae_title}"\nhost = "127.0.0.1"\nport = {tps.port}\n',
            encoding="utf-8",
        )


def _quoted(bundle: str) -> str:
    """A bundle as a string of TOML; a folder's path is meant from where the demo was started."""
    text = str(Path(bundle).absolute()) if Path(bundle).is_dir() else bundle
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@contextmanager
def free_ports(count: int) -> Iterator[tuple[int, ...]]:
    """Ports of the loopback interface that nobody uses, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        yield tuple(int(probe.getsockname()[1]) for probe in probes)
    finally:
        for probe in probes:
            probe.close()


@dataclass(frozen=True)
class RunningNode:
    """The node while it runs. Commands are run with its settings."""

    folder: DemoFolder
    process: "subprocess.Popen[bytes]"

    def require_alive(self) -> None:
        """Raise DemoFailed where it ended."""
        if (code := self.process.poll()) is not None:
            raise DemoFailed(f"the node ended with code {code}: {_last_words(self.folder.log)}; see {self.folder.log}")

    def wait_for_page(self, settings: WebSettings) -> None:
        """Wait until the page answers; raises DemoFailed."""
        deadline = time.monotonic() + _PAGE_WITHIN_S
        while True:
            try:
                connection = http.client.HTTPConnection(settings.host, settings.port, timeout=5.0)
                connection.request("GET", "/login")
                connection.getresponse().read()
                return
            except (http.client.HTTPException, OSError) as error:
                self.require_alive()
                if time.monotonic() > deadline:
                    raise DemoFailed(
                        f"the page at {settings.address} does not answer; see {self.folder.log}"
                    ) from error
            time.sleep(0.2)


def add_user(settings: Settings) -> str:
    """Let a person log in to the page as `USER`, with everything a physicist may do; returns the password."""
    password = secrets.token_hex(8)
    with open_store(settings) as node:
        node.users.add(USER, "", Role.PHYSICIST, hash_password(password), now_utc())
    return password


@contextmanager
def running_node(folder: DemoFolder, port: int, story: Story, *, page: bool) -> Iterator[RunningNode]:
    """The node, answering; all its processes end with the block. page: with its status page.

    It has a session of its own, so that Ctrl-C reaches the demo alone, which then stops it in good order.
    """
    environment = {**os.environ, _PAGE_SWITCH: str(page).lower()}
    with folder.log.open("w", encoding="utf-8") as log, ExitStack() as ending:
        with _signals_wait():  # a node that was started and is not known yet would be left running
            process = subprocess.Popen(
                [*_command(folder), "serve"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
            ending.callback(_stop, process, story)
        node = RunningNode(folder, process)
        with story.during("the node starts"):
            _wait_until_up(node, port)
        yield node


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """While the block runs, being told to end, or the loss of the terminal, ends the demo as Ctrl-C does."""
    with _handled_by(_interrupt):
        yield


@contextmanager
def _signals_wait() -> Iterator[None]:
    """A signal that ends the demo and comes while the block runs raises KeyboardInterrupt at its end."""
    came: list[int] = []
    with _handled_by(lambda number, _frame: came.append(number)):
        yield
    if came:
        raise KeyboardInterrupt


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """What is ignored stays ignored: `nohup` wants the demo to outlive its terminal."""
    heard = [number for number in _ENDING_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _stop(process: "subprocess.Popen[bytes]", story: Story) -> None:
    process.terminate()
    try:
        with story.during("stopping the node"):
            process.wait(_END_WITHIN_S)
    finally:
        process.kill()  # its children end when it is gone; nothing is done where it ended already
        process.wait()


def _command(folder: DemoFolder) -> list[str]:
    return [sys.executable, "-P", "-m", "node.cli", "--config", str(folder.settings)]


def _wait_until_up(node: RunningNode, port: int) -> None:
    peer = StorageScu(DestinationSettings(name="node", ae_title="SYNCECT", host="127.0.0.1", port=port), AE_TITLE)
    deadline = time.monotonic() + _UP_WITHIN_S
    while not peer.echo().ok:
        node.require_alive()
        if time.monotonic() > deadline:
            raise DemoFailed(f"the node did not answer a C-ECHO within {_UP_WITHIN_S:.0f} s; see {node.folder.log}")
        time.sleep(0.2)


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
