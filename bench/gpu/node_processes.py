"""A node and its peers as processes, for the section `node`; each ends with the block that it was started in."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from node.beats import CANNOT_WORK
from node.ops.processes import running_processes
from storage.database import Database

LOADING = "loading the model"
"""What a worker says of itself before it has its bundle."""
POLL_S = 0.05


class Node:
    """The roles of `syncect serve`, each started singly, so that workers with a stopwatch can be added."""

    def __init__(self, folder: Path, bundle: str, device: str) -> None:
        folder.mkdir(parents=True)
        self._folder, self._data, self._stack = folder, folder / "data", ExitStack()
        self.port, self._tps_port = free_port(), free_port()
        self.config = folder / "node.toml"
        self.config.write_text(
            '[node]\ndata_dir = "data"\n'
            f'[scp]\nhost = "127.0.0.1"\nport = {self.port}\n'
            "[completion]\nquiet_s = 0.6\n[retention]\nmin_free_gb = 0.05\n[web]\nenabled = false\n"
            f'[model]\nbundle = "{bundle}"\ndevice = "{device}"\noutside_envelope = "warn"\ndoubt = "mark"\n'
            f'[[destination]]\nname = "tps"\nae_title = "TPS"\nhost = "127.0.0.1"\nport = {self._tps_port}\n'
        )
        self.log = folder / "node.log"
        self.workers = 0
        self._lines_read: dict[Path, int] = {}

    def __enter__(self) -> "Node":
        self._start("-m", "bench.gpu.peers", "plan", str(self._tps_port))
        self._role("receive")
        self._role("deliver")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def is_up(self) -> bool:
        """Whether receiver and planning system accept connections."""
        return answers(self.port) and answers(self._tps_port)

    def add_worker(self) -> None:
        """Start one more worker; `ready_workers` says when it has its bundle."""
        self.workers += 1
        name = str(self.workers)
        file = self._folder / f"timings-{name}.jsonl"
        self._start("-m", "bench.gpu.timed_worker", str(file), str(self.config), name)

    def ready_workers(self) -> int:
        """How many workers have loaded their bundle; raises RuntimeError with the words of one that cannot."""
        said = [view.details for view in running_processes(self._data / "run") if view.role == "work"]
        if broken := [words for words in said if words.startswith(CANNOT_WORK)]:
            raise RuntimeError(broken[0])
        return sum(bool(words) and words != LOADING for words in said)

    def start_scanner(self, scan: Path, seeds: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Begin to send these series one after the other."""
        return self._start("-m", "bench.gpu.peers", "scan", str(self.port), str(scan), *seeds)

    def timings(self) -> list[dict[str, Any]]:
        """What the workers wrote of their jobs since the last call."""
        found: list[dict[str, Any]] = []
        for file in sorted(self._folder.glob("timings-*.jsonl")):
            lines = file.read_text(encoding="utf-8").splitlines()
            found += [json.loads(line) for line in lines[self._lines_read.get(file, 0) :]]
            self._lines_read[file] = len(lines)
        return found

    def database(self) -> Database:
        """The node's store, to be read and closed."""
        return Database(f"sqlite:///{self._data / 'syncect.sqlite3'}")

    def last_words(self) -> str:
        """The end of what its processes wrote to standard error."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-2000:] if self.log.exists() else ""

    def _role(self, *words: str) -> None:
        self._start("-m", "node.cli", "--config", str(self.config), *words)

    def _start(self, *words: str) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            process = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log, env=dict(os.environ))
        self._stack.callback(end, process)
        return process


def end(process: "subprocess.Popen[bytes]") -> None:
    """SIGTERM, by which the receiver ends its completion too, and SIGKILL for what does not end by it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(probe: Callable[[], bool], until_s: float) -> bool:
    """Ask again and again until it is so, or until this time of the monotonic clock; returns whether it is so."""
    while not probe():
        if time.monotonic() > until_s:
            return False
        time.sleep(POLL_S)
    return True
