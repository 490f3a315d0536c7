"""Ends or fails a durable path at each of its calls that change a file, then lets it begin again, and judges."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, make_url, text

from storage.database import Database
from storage.errors import SchemaMismatch, StoreUnavailable
from tests.torture.ledger import Ledger, Verdict, judge
from tests.torture.scans import Scan, make_scan
from tests.torture.shim import EVERY_KIND, Kind, Shim
from tests.torture.tps import Tps, accept

_NEXT_TRY_S = 1000.0  # longer than any wait before the next try
ROOT = Path(__file__).parents[2]
CHAIN = ("create", "receive", "complete", "work", "deliver")


@dataclass(frozen=True)
class Answer:
    """How one run of the driver ended."""

    code: int
    said: tuple[str, ...]

    @property
    def acknowledged(self) -> list[str]:
        """The SOP Instance UIDs that were promised."""
        return [line.split()[1] for line in self.said if line.startswith("acknowledged ")]


class Paths:
    """A driver under a shim, and the nodes it works on; `folder` is below the shim's root."""

    def __init__(
        self, folder: Path, bundle: Path, *, records: bool = False, postgres_url: str = "", slices: int = 8
    ) -> None:
        self.folder, self.postgres_url = folder, postgres_url
        self.root = folder / "root"
        self.shim = Shim(folder / "shim", self.root, records=records)
        self.scan: Scan = make_scan(folder / "scan", f"calls-{folder.name}")
        self.files = sorted((folder / "scan").glob("*.dcm"))
        self.tps = Tps(Ledger()).start()
        self.tps.answer = self._take
        self._empty_ledger()
        self._records = records
        self.config = folder / "node.toml"
        self._bundle = bundle
        self.write_settings(self.config, self.data_dir)
        if postgres_url:
            _make_database(postgres_url)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.shim.environment}
        self._driver = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.driver"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "driver.log").open("wb"),
            text=True,
        )
        warm = folder / "warm.toml"
        self.write_settings(warm, folder / "warm")
        self._ask(warm, CHAIN[:4])
        if postgres_url:  # the one database is shared with the first run, which is over when the next has its answer
            self.run(config=warm)
            _make_database(postgres_url)
        self._promised: dict[str, Any] = {}
        self.calls: dict[str, int] = {}

    def write_settings(self, config: Path, data_dir: Path) -> None:
        """A settings file for a node with its data elsewhere."""
        url = f'database_url = "{self.postgres_url}"\n' if self.postgres_url else ""
        config.write_text(
            f'[node]\ndata_dir = "{data_dir}"\n{url}'
            "[completion]\nquiet_s = 0.2\ngive_up_s = 30.0\n[retention]\nmin_free_gb = 0.05\n"
            f'[model]\nbundle = "{self._bundle}"\ndevice = "cpu"\nprecision = "fp32"\noutside_envelope = "warn"\n'
            f'[[destination]]\nname = "tps"\nae_title = "TPS"\nhost = "127.0.0.1"\nport = {self.tps.port}\n'
        )

    def _ask(self, config: Path, operations: Sequence[str], later_s: float = 0.0) -> None:
        request = {
            "operations": operations,
            "config": str(config),
            "scan": [str(path) for path in self.files],
            "later_s": later_s,
        }
        assert self._driver.stdin is not None
        self._driver.stdin.write(json.dumps(request) + "\n")
        self._driver.stdin.flush()

    @property
    def data_dir(self) -> Path:
        """The data of the node, below the shim's root."""
        return self.root / "data"

    @property
    def url(self) -> str:
        """The database of the node."""
        return self.postgres_url or f"sqlite:///{self.data_dir / 'syncect.sqlite3'}"

    def close(self) -> None:
        """End driver and TPS."""
        assert self._driver.stdin is not None
        self._driver.stdin.close()
        self._driver.wait(30)
        self.tps.stop()

    def run(self, *operations: str, config: Path | None = None, later_s: float = 0.0) -> Answer:
        """Do operations in a fork, for which it is later than it is; what they promise goes into the ledger."""
        self._ask(config or self.config, operations, later_s)
        assert self._driver.stdout is not None
        raw: dict[str, Any] = json.loads(self._driver.stdout.readline())
        answer = Answer(raw["code"], tuple(raw["said"]))
        sent = {each.uid: each.data for each in self.scan.slices}
        for uid in answer.acknowledged:
            self.ledger.acknowledge(self.scan.series_uid, uid, sent[uid])
        return answer

    def prepare(self) -> None:
        """Keep the state before each operation, from which its runs begin."""
        self._empty()
        for operation in CHAIN:
            self._save(operation)
            self.shim.disarm()
            answer = self.run(operation)
            assert answer.code == 0, answer.said
            self.calls[operation] = self.shim.count

    def _save(self, operation: str) -> None:
        if self.data_dir.exists():
            shutil.copytree(self.data_dir, self.folder / "states" / operation)
        if self.postgres_url:
            _copy_database(self.postgres_url, operation, back=False)
        self._promised[operation] = self.ledger.copies()

    def begin_before(self, operation: str) -> None:
        """Go back to the state before an operation."""
        shutil.rmtree(self.data_dir, ignore_errors=True)
        if (self.folder / "states" / operation).exists():
            shutil.copytree(self.folder / "states" / operation, self.data_dir)
        if self.postgres_url:
            _copy_database(self.postgres_url, operation, back=True)
        self._empty_ledger()
        acknowledged, taken = self._promised[operation]
        self.ledger.acknowledged, self.ledger.taken = dict(acknowledged), list(taken)

    def _empty(self) -> None:
        shutil.rmtree(self.data_dir, ignore_errors=True)
        self._empty_ledger()

    def _empty_ledger(self) -> None:
        self.ledger = self.tps.ledger = Ledger()
        self.ledger.expect(self.scan.series_uid, len(self.scan.slices))

    def adopt(self, ledger: Ledger) -> None:
        """Go on from the promises of another ledger."""
        self._empty_ledger()
        self.ledger.acknowledged, self.ledger.taken = ledger.copies()

    def judge(self) -> Verdict:
        """What became of all that was promised."""
        return self.judge_at(self.url, self.data_dir / "spool")

    def judge_at(self, url: str, spool: Path) -> Verdict:
        """The same, of a store elsewhere."""
        database = Database(url, read_only=True)
        try:
            if not database.has_schema():
                return Verdict(stuck=["the store is empty"])
            return judge(self.ledger, database, spool)
        except (SchemaMismatch, StoreUnavailable) as error:
            return Verdict(stuck=[str(error)])
        finally:
            database.close()

    def _take(self, tps: Tps, event: Any) -> int:
        status = accept(tps, event)
        if self._records:
            self.shim.mark(f"taken {tps.ledger.taken[-1].uid}")
        return status


def _make_database(url: str) -> None:
    """An empty PostgreSQL database, whatever was there."""
    with _server(url) as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)'))
        connection.execute(text(f'CREATE DATABASE "{make_url(url).database}"'))


@contextmanager
def _server(url: str) -> Iterator[Connection]:
    engine = create_engine(make_url(url).set(database="postgres"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _copy_database(url: str, state: str, *, back: bool) -> None:
    """Copy a PostgreSQL database to one that is named after a state, or back."""
    present = str(make_url(url).database)
    copy = f"{present}_{state}"
    source, target = (copy, present) if back else (present, copy)
    with _server(url) as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{target}" WITH (FORCE)'))
        connection.execute(text(f'CREATE DATABASE "{target}" TEMPLATE "{source}"'))


@dataclass(frozen=True)
class Outcome:
    """One call at which something was done."""

    operation: str
    at: int
    verdict: Verdict
    note: str = ""


def strike(
    paths: Paths, operation: str, action: int, calls: Iterable[int], *, kinds: tuple[Kind, ...] = EVERY_KIND
) -> Iterator[Outcome]:
    """Act at each of these calls of one operation, counted from 1.

    After each the chain begins again without a fault, as a restarted node and a scanner that tries again would; then
    everything is judged. An errno strikes once. Ends early where the operation has no such call.
    """
    for at in calls:
        paths.shim.disarm()
        paths.begin_before(operation)
        paths.shim.arm(at, action, kinds=kinds)
        struck = paths.run(operation)
        fired = paths.shim.fired
        paths.shim.disarm()
        if not fired:
            return
        if action < 0:
            assert struck.code == 137, struck.said
        note = "; ".join(line for line in struck.said if line.startswith("error"))
        again = _recover(paths)
        if again is not None:
            note = f"{note}; afterwards {'; '.join(again.said)}"
        verdict = paths.judge()
        if again is not None and verdict.is_clean:
            verdict.stuck = [note]
        yield Outcome(operation, at, verdict, note)


def some(count: int, of: int) -> list[int]:
    """`count` numbers spread over 1 to `of`, first and last among them."""
    return sorted({1 + round(step * (of - 1) / max(1, count - 1)) for step in range(count)})


def _recover(paths: Paths) -> Answer | None:
    """Begin again until the result is sent; the answer of what went wrong, or None."""
    answer = paths.run("receive")
    for operation in CHAIN[2:]:
        if answer.code:
            return answer
        answer = paths.run(operation, later_s=_NEXT_TRY_S)
    return answer if answer.code else None
