"""One node with its scanner and its TPS, on either database, and the wait for its recovery."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import TypeVar

from node.ops.processes import ProcessView, running_processes
from storage.database import Database
from storage.errors import SchemaMismatch, StoreUnavailable
from storage.overview import Case, Overview
from tests.conftest import PostgresCluster
from tests.quick import FORKS_ROLES
from tests.slice.harness import RunningNode, wait_for
from tests.torture.ledger import Ledger, Verdict, judge, unsettled
from tests.torture.scans import Scan, Scanner, make_scan
from tests.torture.shim import Shim
from tests.torture.tps import Tps

T = TypeVar("T")

_POLL_S = 0.1
_FRESH_AFTER_DEATHS = 2  # the supervisor waits longer after each; a new one begins anew


class TortureNode(RunningNode):
    """A node whose cases are read from either database, and whose processes may run under a shim.

    `serve` is a process that loads the program under the shim, if there is one; its roles are forked from it.
    """

    def __init__(self, folder: Path, bundle: Path, tps: Tps, url: str, environment: dict[str, str]) -> None:
        extra = 'outside_envelope = "warn"'
        completion = "quiet_s = 0.5\ngive_up_s = 300.0"  # the scanner tries again for far less long
        super().__init__(folder, bundle, [tps], is_real=True, database_url=url, extra=extra, completion=completion)
        self.environment = environment

    def spawn(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start one `syncect` command beside the node's log."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment}
        with self.log.open("ab") as log:
            return subprocess.Popen([*self.command, *arguments], stdout=log, stderr=log, env=environment)

    def processes(self) -> list[ProcessView]:
        """The living processes of the node."""
        return running_processes(self.data_dir / "run")


class Bed:
    """Everything that one run of faults needs.

    `deaths` counts the kills since the supervisor was started, `judged` the acknowledged instances of rounds that are
    over; `missed` has what the node did not do although its documents say so.
    """

    def __init__(
        self,
        folder: Path,
        bundle: Path,
        rng: Random,
        *,
        cluster: PostgresCluster | None = None,
        shim: bool = False,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder, self.rng, self.cluster = folder, rng, cluster
        self.ledger = Ledger()
        self.tps = Tps(self.ledger).start()
        self.shim = Shim(folder / "shim", folder / "node" / "data") if shim else None
        url = "" if cluster is None else _new_database(cluster, folder.name)
        self._changes = 0
        shimmed = self.shim.environment if self.shim is not None else {}
        self.node = TortureNode(folder / "node", bundle, self.tps, url, {**shimmed, **self.changed("")})
        self.deaths = self.kills = self.judged = 0
        self.missed: list[str] = []
        self._scans = 0
        self._scanners: list[Scanner] = []
        self._serve: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def spool(self) -> Path:
        """The folder of the spool."""
        return self.node.data_dir / "spool"

    def start(self) -> None:
        """Start `serve` and wait until it takes instances."""
        wait_for("the end of the former processes", lambda: not self.node.processes(), 60.0)
        self._serve, self.deaths = self.node.spawn("serve"), 0
        wait_for("the receiver's start", self.node._listening)

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        if self._serve is not None:
            self._serve.terminate()
            self._serve.wait(60)

    def changed(self, text: str) -> dict[str, str]:
        """Variables with which each process of the node runs this Python text at its start, such as other limits."""
        self._changes += 1
        folder = self.folder / f"changed{self._changes}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(text + FORKS_ROLES)
        return {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}

    @contextmanager
    def environment(self, **variables: str) -> Iterator[None]:
        """The node runs with these variables meanwhile; it is restarted before and afterwards."""
        before = self.node.environment
        for environment in ({**before, **variables}, before):
            self.stop()
            self.node.environment = environment
            self.start()
            if environment is not before:
                yield

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for scanner in self._scanners:
            scanner.quit()
        if self._serve is not None:
            self._serve.kill()
            self._serve.wait()
        for view in self.node.processes():
            os.kill(view.pid, signal.SIGCONT)
            os.kill(view.pid, signal.SIGKILL)
        self.tps.stop()

    def push(self, scan: Scan | None = None) -> Scanner:
        """Let the scanner send one new series, or a known one again."""
        self._scans += 1
        seed = f"{self.folder.name}-{self._scans}-{self.rng.random()}"
        scan = scan or make_scan(self.folder / "scans" / str(self._scans), seed)
        scanner = Scanner(self.node.port, scan, self.ledger)
        self._scanners.append(scanner)
        return scanner

    @property
    def newest(self) -> Scanner:
        """The scanner that began last."""
        return self._scanners[-1]

    def has_sent(self, series_uid: str) -> bool:
        """Whether no scanner sends this series any more."""
        return all(each.finished_at for each in self._scanners if each.scan.series_uid == series_uid)

    def cases(self) -> list[Case]:
        """What `jobs ls` shows; nothing while the store cannot be read."""
        try:
            return self.read(lambda _ledger, database: Overview(database).cases())
        except (StoreUnavailable, SchemaMismatch):
            return []

    def await_(self, probe: Callable[[], bool], bound_s: float = 30.0) -> bool:
        """Wait until something is true, so long at most; whether it is."""
        deadline = time.monotonic() + bound_s
        while not (value := probe()) and time.monotonic() < deadline:
            self.pause(_POLL_S)
        return value

    def pid(self, role: str) -> int | None:
        """The process that holds a role now."""
        return next((view.pid for view in self.node.processes() if view.role == role), None)

    def kill(self, role: str) -> bool:
        """SIGKILL to the process of a role; False where there is none at this moment."""
        pid = self.pid(role)
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        self.kills += 1
        self.deaths += 1
        if role == "serve":
            assert self._serve is not None
            self._serve.wait()
            self.start()
        return True

    def kill_all(self) -> None:
        """SIGKILL to every process of the node at once, and a new start."""
        assert self._serve is not None
        for view in self.node.processes():
            with suppress(ProcessLookupError):  # it ended by itself a moment ago
                os.kill(view.pid, signal.SIGKILL)
                self.kills += 1
        self._serve.wait()
        self.start()

    def renew(self) -> None:
        """Start the supervisor anew where it would wait long before it starts the next process."""
        if self.deaths >= _FRESH_AFTER_DEATHS:
            self.stop()
            self.start()

    def require(self, is_so: bool, text: str) -> None:
        """Keep a sentence for the verdict where something is not so."""
        if not is_so:
            self.missed.append(text)

    def command(self, *arguments: str) -> str:
        """What an operator types, which must succeed; what it said."""
        answer = self.node.run(*arguments)
        self.require(answer.returncode == 0, f"syncect {' '.join(arguments)}: {answer.stderr.strip()}")
        return answer.stdout

    def pause(self, seconds: float) -> None:
        """Let the node work for a moment: the faults come at random times."""
        threading.Event().wait(seconds)

    def settle(self, bound_s: float) -> float:
        """Wait until every series has come to its end; seconds that it took, or the bound."""
        begun = time.monotonic()
        for scanner in self._scanners:
            scanner.join(max(0.0, begun + bound_s - time.monotonic()))
        while time.monotonic() - begun < bound_s:
            if not self.unsettled():
                break
            self.pause(_POLL_S)
        return time.monotonic() - begun

    def unsettled(self) -> list[str]:
        """The series that have not come to their end, each as a sentence."""
        try:
            return self.read(unsettled)
        except (StoreUnavailable, SchemaMismatch) as error:
            return [str(error)]

    def judge(self) -> Verdict:
        """What became of everything that was promised so far."""
        verdict = self.read(lambda ledger, database: judge(ledger, database, self.spool))
        verdict.stuck += self.missed
        return verdict

    def read(self, look: Callable[[Ledger, Database], T]) -> T:
        """Look at the ledger and the store side by side."""
        database = Database(self.node.url, read_only=True)
        try:
            return look(self.ledger, database)
        finally:
            database.close()


Fault = Callable[[Bed], Iterator[None]]
"""What stands before the `yield` injects while a scanner sends, what stands behind it cures."""


def _new_database(cluster: PostgresCluster, name: str) -> str:
    from sqlalchemy import create_engine, text

    engine = create_engine(cluster.url(), isolation_level="AUTOCOMMIT")
    name = "t" + "".join(letter for letter in name.lower() if letter.isalnum())
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return cluster.url(name)
