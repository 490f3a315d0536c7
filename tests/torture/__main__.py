"""`make torture`: every kind of fault on both databases, at most 30 minutes on two cores; ends in a table."""

import argparse
import errno
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from random import Random

from models.testing import write_tiny_bundle
from node.version import software_version
from tests.conftest import PostgresCluster
from tests.torture.calls import CHAIN, Paths, strike
from tests.torture.faults import FAULTS, Kept
from tests.torture.ledger import Verdict
from tests.torture.power import Session, cut_points, cuts
from tests.torture.report import TARGET, Report
from tests.torture.rounds import Beds, fault_round, kill_round
from tests.torture.shim import EVERY_KIND, EXIT, NEEDS_SPACE, TORN, Kind

_KILLS = 110  # on each database
_MINUTES = 28.0
_NAMES = {
    (EXIT, 1): "killed at every call",
    (TORN, 4): "killed within every 4th write",
    (errno.ENOSPC, 8): "no space at every 8th call",
    (errno.EIO, 8): "input/output error at every 8th call",
}
_SPARSER = {"create": 4}  # the making of the schema, of which a node has one in its life, has hundreds of calls
_KINDS = {TORN: (Kind.WRITE,), errno.ENOSPC: NEEDS_SPACE}


class Run:
    """One run with its time: each part ends when the whole time is over."""

    def __init__(self, folder: Path, seed: int, minutes: float, only: str = "") -> None:
        self.folder, self.rng, self.only, self.report = folder, Random(seed), only, Report()
        self.begun = time.monotonic()
        self._end = self.begun + 60 * minutes
        self.bundle = folder / "bundle"
        write_tiny_bundle(self.bundle)

    def is_over(self, part: str) -> bool:
        """Whether no time is left for more of a part; then the report says so."""
        if time.monotonic() < self._end:
            return False
        text = f"{part}: the time was over"
        if text not in self.report.skipped:
            self.report.skipped.append(text)
        return True

    def say(self, text: str) -> None:
        """Progress, with the minutes since the start."""
        print(f"{(time.monotonic() - self.begun) / 60:5.1f} min  {text}", flush=True)  # noqa: T201

    # -- parts -------------------------------------------------------------------------------------------------

    def power(self) -> None:
        """A power cut before and after each sync of one session."""
        with self._paths("power", records=True) as paths:
            session = Session(paths, is_first_start=False)
            before = 0
            row = self.report.row("power cut", "SQLite")
            for outcome in cuts(paths, cut_points(session.records), session, recover_every=10):
                row.add(outcome.verdict, acknowledged=max(0, outcome.verdict.acknowledged - before))
                before = max(before, outcome.verdict.acknowledged)

    def node(self, cluster: PostgresCluster | None, *parts: Callable[[Beds], None]) -> None:
        """Parts that need whole nodes."""
        beds = Beds(self.folder, self.bundle, self.rng, cluster)
        try:
            for part in parts:
                part(beds)
        finally:
            beds.drop()

    def faults(self, beds: Beds) -> None:
        """Each fault of a whole node."""
        for kept in FAULTS:
            if kept.only not in ("", beds.database) or self.only not in kept.name:
                continue
            if not self.is_over(f"{kept.name} on {beds.database}"):
                self._fault(beds, kept)
                self.say(f"{beds.database}: {kept.name}")

    def _fault(self, beds: Beds, kept: Kept) -> None:
        try:
            fault_round(beds, self.report, kept)
        except (AssertionError, OSError, subprocess.SubprocessError) as error:  # the node did not come back, or worse
            verdict = Verdict(stuck=[f"{type(error).__name__}: {error}"])
            self.report.row(kept.name, beds.database).add(verdict, acknowledged=0)
            beds.drop()

    def kills(self, beds: Beds) -> None:
        """Kills at random moments."""
        done = 0
        while done < _KILLS and not self.is_over(f"kills on {beds.database}"):
            done += kill_round(beds, self.report)
            self.say(f"{beds.database}: {done} kills")

    def calls(self, database: str, url: str) -> None:
        """Something at the calls of each durable path."""
        with self._paths(f"calls-{database}", postgres_url=url) as paths:
            paths.prepare()
            for (action, step), name in _NAMES.items():
                for operation in CHAIN:
                    sparser = _SPARSER.get(operation, 1)
                    title = f"{name}{f', of which one in {sparser}' if sparser > 1 else ''}: {operation}"
                    self._strike(paths, database, operation, action, step * sparser, title)

    def _strike(self, paths: Paths, database: str, operation: str, action: int, step: int, name: str) -> None:
        row, begun = self.report.row(name, database), time.monotonic()
        for at in range(1, paths.calls[operation] + 1, step):
            if self.is_over(f"{name} on {database}"):
                return
            for outcome in strike(paths, operation, action, [at], kinds=_KINDS.get(action, EVERY_KIND)):
                now = time.monotonic()
                row.add(outcome.verdict, acknowledged=outcome.verdict.acknowledged, seconds=now - begun)
            begun = time.monotonic()
        self.say(f"{database}: {name}, {row.times} times, {row.wrong} wrong")

    @contextmanager
    def _paths(self, name: str, *, records: bool = False, postgres_url: str = "") -> Iterator[Paths]:
        paths = Paths(self.folder / name, self.bundle, records=records, postgres_url=postgres_url)
        try:
            yield paths
        finally:
            paths.close()
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def whole(self) -> None:
        """Everything; whole nodes mostly wait, so the calls are taken beside them."""
        with ThreadPoolExecutor(2) as pool:
            for part in [pool.submit(self._nodes), pool.submit(self._calls)]:
                part.result()

    def _nodes(self) -> None:
        self.node(None, self.faults, self.kills)
        with PostgresCluster() as cluster:
            self.node(cluster, self.faults, self.kills)

    def _calls(self) -> None:
        self.power()
        self.calls("SQLite", "")
        with PostgresCluster() as cluster:
            self.calls("PostgreSQL", cluster.url("calls"))


def main() -> int:
    """Run, write the page, and return 1 where anything was lost, twice, false or stuck."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--minutes", type=float, default=_MINUTES)
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument("--part", choices=("power", "faults", "kills", "calls"))
    parser.add_argument("--postgresql", action="store_true", help="run the part on PostgreSQL")
    parser.add_argument("--only", default="", help="faults of a whole node whose name has this text")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="syncect-torture-"))
    run = Run(folder, options.seed, options.minutes, options.only)
    run.say(f"seed {options.seed}; the same seed gives the same faults at the same moments of the test")
    try:
        if options.part is None:
            run.whole()
        else:
            with PostgresCluster() if options.postgresql else nullcontext() as cluster:
                _one_part(run, options.part, cluster)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    minutes = (time.monotonic() - run.begun) / 60
    run.report.write(seed=options.seed, minutes=minutes, version=software_version(), target=options.target)
    print(run.report.table())  # noqa: T201
    for finding in run.report.findings():
        print(finding)  # noqa: T201
    return 1 if run.report.wrong else 0


def _one_part(run: Run, part: str, cluster: PostgresCluster | None) -> None:
    if part == "power":
        run.power()
    elif part == "calls":
        run.calls("SQLite" if cluster is None else "PostgreSQL", "" if cluster is None else cluster.url("calls"))
    else:
        run.node(cluster, run.faults if part == "faults" else run.kills)


if __name__ == "__main__":
    sys.exit(main())
