"""`make soak`: a study a minute with faults on, and a measure of everything that could grow."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from models.testing import write_tiny_bundle
from tests.torture import tps as peer
from tests.torture.bed import Bed, Fault
from tests.torture.faults import ROLES, stopped, tps_down, tps_that
from tests.torture.report import TARGET, markdown, write_soak

_EVERY_S, _SAMPLE_S, _FAULT_S = 60.0, 10.0, 5.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MB = 1e6


@dataclass(frozen=True)
class Bound:
    """How much a figure may grow over the second half by its linear fit: a part of its mean, and an amount."""

    name: str
    unit: str
    share: float
    amount: float
    per_study: bool = False


# Files come and go, so that the spool stays flat; rows of a study stay, so the bound of the database is for one study.
BOUNDS = (
    Bound("memory, all processes", "MB", 0.03, 5.0),
    Bound("threads, all processes", "", 0.0, 2.0),
    Bound("descriptors, all processes", "", 0.0, 4.0),
    Bound("spool", "MB", 0.1, 0.2),
    Bound("database", "MB", 0.1, 0.02, per_study=True),
)
# The oldest files go as on a full disk, after minutes instead of an hour.
_RETENTION = """
import node.ops.retention as retention
from datetime import timedelta
retention.SETTLED_FOR, retention.TICK_S = timedelta(seconds=60), 10.0
"""


def sample(bed: Bed) -> list[float] | None:
    """The figures of this moment in the order of BOUNDS; None while a process is missing."""
    memory = threads = descriptors = 0
    views = bed.node.processes()
    if len(views) <= len(ROLES):
        return None
    with suppress(OSError):
        for view in views:
            folder = Path("/proc") / str(view.pid)
            memory += int((folder / "statm").read_text().split()[1]) * _PAGE_BYTES
            threads += len(list((folder / "task").iterdir()))
            descriptors += len(list((folder / "fd").iterdir()))
        disk = sum(path.stat().st_size for path in bed.spool.rglob("*") if path.is_file())
        store = sum(path.stat().st_size for path in bed.node.data_dir.glob("syncect.sqlite3*"))
        return [memory / _MB, float(threads), float(descriptors), disk / _MB, store / _MB]
    return None  # a process or a file went while it was looked at


def growth(times_s: Sequence[float], values: Sequence[float]) -> float:
    """By how much the linear fit grows from the first to the last of these."""
    slope = np.polyfit(np.asarray(times_s), np.asarray(values), 1)[0]
    return float(slope * (times_s[-1] - times_s[0]))


def judge(times_s: Sequence[float], samples: Sequence[Sequence[float]]) -> tuple[str, list[str]]:
    """The table of the figures, and a sentence for each that grew too much over the second half."""
    half = len(times_s) // 2
    studies = max(1.0, (times_s[-1] - times_s[half]) / _EVERY_S)
    rows, wrong = [], []
    for number, bound in enumerate(BOUNDS):
        first, values = [row[number] for row in samples[:half]], [row[number] for row in samples[half:]]
        grown, mean = growth(times_s[half:], values), float(np.mean(values))
        allowed = bound.share * mean + bound.amount * (studies if bound.per_study else 1.0)
        cells = (f"{float(np.mean(first)):.1f}", f"{mean:.1f}", f"{max(values):.1f}", f"{grown:+.2f}", f"{allowed:.2f}")
        rows.append((bound.name, bound.unit or "-", *cells))
        if grown > allowed:
            wrong.append(f"{bound.name} grew by {grown:.2f} {bound.unit} and may grow by {allowed:.2f}")
    columns = ("figure", "unit", "mean, first half", "mean, second half", "most", "growth, second half", "allowed")
    return markdown(columns, rows), wrong


def faults(rng: Random) -> Callable[[Bed], None]:
    """One fault a minute, which is over after some seconds."""
    lasting: list[Fault] = [tps_down, tps_that(peer.refuse), *(stopped(role) for role in ROLES)]

    def act(bed: Bed) -> None:
        if rng.random() < 0.5:
            bed.renew()
            bed.kill(rng.choice(ROLES))
            return
        fault = rng.choice(lasting)(bed)
        next(fault)
        bed.pause(_FAULT_S)
        list(fault)

    return act


def soak(bed: Bed, seconds: float, rng: Random) -> tuple[list[float], list[list[float]]]:
    """Send a study each minute, do something bad in each, and sample every 10 seconds."""
    act, begun = faults(rng), time.monotonic()
    times_s: list[float] = []
    samples: list[list[float]] = []
    minute = 0
    while (now := time.monotonic() - begun) < seconds:
        if now >= minute * _EVERY_S:
            minute += 1
            bed.push()
            bed.pause(rng.uniform(0.0, 3.0))
            act(bed)
        elif (figures := sample(bed)) is not None:
            times_s.append(now)
            samples.append(figures)
        bed.pause(_SAMPLE_S)
    return times_s, samples


def main() -> int:
    """Run for SOAK_S seconds and write the table; 1 where something grew or a promise was broken."""
    seconds, seed = float(os.environ.get("SOAK_S", "1200")), int(os.environ.get("SEED", "1"))
    folder = Path(tempfile.mkdtemp(prefix="syncect-soak-"))
    write_tiny_bundle(folder / "bundle")
    rng = Random(seed)
    bed = Bed(folder / "bed", folder / "bundle", rng)
    try:
        kept = bed.node.config.read_text()
        bed.node.config.write_text(kept.replace("min_free_gb", "target_free_gb = 1_000_000.0\nmin_free_gb"))
        with bed.environment(**bed.changed(_RETENTION)):
            times_s, samples = soak(bed, seconds, rng)
            bed.settle(120.0)
            verdict = bed.judge()
    finally:
        bed.close()
        shutil.rmtree(folder, ignore_errors=True)
    table, wrong = judge(times_s, samples)
    wrong += verdict.findings()
    when = f"`make soak` on {time.strftime('%Y-%m-%d')}: {seconds / 60:.0f} minutes, a study a minute, seed {seed}; "
    did = f"{bed.kills} kills, {verdict.acknowledged} instances acknowledged, {len(samples)} samples."
    text = "\n".join([when + did, "", table, *(["", "Wrong:", "", *(f"- {each}" for each in wrong)] if wrong else [])])
    write_soak(text, TARGET)
    print(text)  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
