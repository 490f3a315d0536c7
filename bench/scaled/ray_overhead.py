"""What Ray adds on one machine: the same series by four plain processes and by four actors, several times in turn.

Compared is what a series costs from its files in the spool, whose digests the store knows, to those of its result on
the disk, as a worker does it: read and compared, translated, looked at by the gates, written, flushed and proven. The
side of Ray is what the product starts for `ray.address = ""`. Start-up is apart: every process has its bundle before
the first round.

In each round both sides do the same series, and begin by turns; a round gives one ratio, and the figure is the median
of the ratios, with the least and the greatest beside it. Processor seconds are those of the processes that work for a
side: four and this one, or the actors, this one and Ray's own, which are charged for as long as a round of Ray takes.
They say what Ray adds also on a machine that is busy with other work, where times do not. Ray is idle while the plain
side works; what an idle cluster takes is measured apart.
"""

import hashlib
import multiprocessing
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

import models
from bench.gpu.report import Section
from bench.scaled.figures import figure
from bench.scaled.services import Services
from bench.tools import make_scan
from models.testing import write_tiny_bundle
from node.dicom.derived_plan import EquipmentIdentity
from node.translate.carried import BundleAsk
from node.translate.job import Executor, JobOptions
from node.version import software_version

PROCESSES = 4
IDLE_S = 10.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_made: dict[str, Executor] = {}  # of one plain process, which loads its bundle once


Work = tuple[list[Path], JobOptions]
Side = Callable[[list[Work], Path], list[list[str]]]
"""Translates series; returns the digests of each one's files."""


@dataclass(frozen=True)
class _Compared:
    """Two sides and what both do. plain_pids: of the processes of the plain side, which are no part of the other."""

    plain: Side
    by_ray: Side
    plain_pids: frozenset[int]
    work: list[Work]
    folder: Path


def ray_overhead(section: Section, services: Services, *, short: bool) -> None:
    """The median of the ratios of the rounds, Ray / plain, of processor time and of wall time."""
    slices, series, rounds = (12, 4, 2) if short else (60, 8, 6)
    folder = services.folder("ray-overhead")
    bundle = folder / "tiny"
    write_tiny_bundle(bundle)
    scans = [sorted(make_scan(folder / f"scan{number}", slices, number).glob("*.dcm")) for number in range(series)]
    work = [(scan, _options(scan)) for scan in scans]
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        with _plain(bundle) as plain:
            plain(work[:PROCESSES], folder)
            pids = frozenset(process.pid for process in multiprocessing.active_children() if process.pid)
            with _by_ray(bundle) as by_ray:
                by_ray(work[:PROCESSES], folder)
                compared = _Compared(plain, by_ray, pids, work, folder)
                _idle(section, pids, IDLE_S / 10 if short else IDLE_S)
                found = [_round(section, number, compared) for number in range(rounds)]
    finally:
        if before is None:
            os.environ.pop("OMP_NUM_THREADS")
        else:
            os.environ["OMP_NUM_THREADS"] = before
    figure(section, "ray, series whose bytes differ from those of a plain worker", sum(one[2] for one in found))
    for name, ratios in (("processor", [one[0] for one in found]), ("wall", [one[1] for one in found])):
        what = f"ray / plain, {PROCESSES} actors, {name} time of the same work"
        figure(section, f"{what}, median of {rounds} rounds", median(ratios))
        section.row(ratios=name, least=round(min(ratios), 3), greatest=round(max(ratios), 3))


def _round(section: Section, number: int, compared: _Compared) -> tuple[float, float, int]:
    """Ray / plain of processor time and of wall time, and how many series differ."""
    sides = {"plain": compared.plain, "ray": compared.by_ray}
    seconds: dict[str, float] = {}
    cpu_s: dict[str, float] = {}
    results: dict[str, list[list[str]]] = {}
    for name in sorted(sides, reverse=bool(number % 2)):
        used, begun_s = _cpu_s(), time.monotonic()
        results[name] = sides[name](compared.work, compared.folder)
        seconds[name] = time.monotonic() - begun_s
        spent = _spent_s(used, _cpu_s())
        mine = spent.keys() - compared.plain_pids if name == "ray" else compared.plain_pids | {os.getpid()}
        cpu_s[name] = sum(spent[pid] for pid in mine)
        section.row(round=number, side=name, seconds=round(seconds[name], 3), cpu_s=round(cpu_s[name], 3))
    differing = sum(one != other for one, other in zip(results["plain"], results["ray"], strict=True))
    return cpu_s["ray"] / cpu_s["plain"], seconds["ray"] / seconds["plain"], differing


def _idle(section: Section, plain_pids: frozenset[int], seconds: float) -> None:
    """What Ray takes while there is nothing to do."""
    used, begun_s = _cpu_s(), time.monotonic()
    threading.Event().wait(seconds)
    spent = _spent_s(used, _cpu_s())
    rate = sum(spent[pid] for pid in spent.keys() - plain_pids) / (time.monotonic() - begun_s)
    figure(section, f"ray, processor time of an idle cluster with {PROCESSES} actors, ms per s", 1000 * rate)


@contextmanager
def _plain(bundle: Path) -> Iterator[Side]:
    """Four processes that take one series after the other, as four workers do."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as processes:

        def run(work: list[Work], folder: Path) -> list[list[str]]:
            return list(processes.map(partial(_translate_here, bundle=bundle, folder=folder), work))

        yield run


def _translate_here(work: Work, *, bundle: Path, folder: Path) -> list[str]:
    if "tiny" not in _made:
        _made["tiny"] = Executor("tiny", models.load_bundle(bundle, precision="fp32"))
    with tempfile.TemporaryDirectory(dir=folder) as out:
        result = _made["tiny"].run(*work, Path(out), _nothing)
    return [made.sha256 for made in result.files]


@contextmanager
def _by_ray(bundle: Path) -> Iterator[Side]:
    """Four actors, and a thread of this process for each job that is in hand, as the worker of a cluster has."""
    from node.translate.ray_cluster import ClusterPlan  # noqa: PLC0415
    from node.translate.ray_executor import ActorPool, connected  # noqa: PLC0415  # few sections need Ray

    plan = ClusterPlan(actors=PROCESSES, jobs_per_actor=1, object_store_mb=1024, cores_per_actor=1)
    card = models.read_card(bundle)
    ask = BundleAsk(str(bundle), "tiny", card.digest, software_version(), "cpu", "fp32", None, None)
    with connected(plan), ThreadPoolExecutor(PROCESSES) as threads:
        pool = ActorPool(plan, "cpu")

        def translate(work: Work, folder: Path) -> list[str]:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                result = pool.run(ask, *work, Path(out), _nothing, limit_s=600.0)
            return [made.sha256 for made in result.files]

        def run(work: list[Work], folder: Path) -> list[list[str]]:
            return list(threads.map(partial(translate, folder=folder), work))

        yield run
        pool.close()


def _options(paths: list[Path]) -> JobOptions:
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    equipment = EquipmentIdentity(software_version="0.1.0")
    return JobOptions(equipment, datetime(2026, 1, 2, tzinfo=UTC), sha256=digests)


def _nothing(_stage: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def _spent_s(before: dict[int, float], after: dict[int, float]) -> Counter[int]:
    return Counter({pid: used - before.get(pid, 0.0) for pid, used in after.items()})


def _cpu_s() -> dict[int, float]:
    """Processor seconds of this process, and of each that it started, directly or not, with its ended children."""
    parents: dict[int, list[int]] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
            used[int(entry.name)] = sum(map(int, fields[11:15])) / _TICKS_PER_S  # utime, stime, cutime, cstime
    found, todo = {}, [os.getpid()]
    while todo:
        pid = todo.pop()
        if pid in used:
            found[pid] = used[pid]
        todo += parents.get(pid, [])
    return found
