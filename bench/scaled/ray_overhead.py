"""What Ray adds on one machine: the same series by four plain processes and by four actors, in turn, several times.

Compared is what a job costs from the files of its source in the spool to those of its result on the disk. Start-up is
apart. Processor seconds are those of every process that works for a side, Ray's own included; they say what Ray adds
also on a machine that is busy with other work, where times do not.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

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
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_made: dict[str, Executor] = {}  # of one plain process, which loads its bundle once


def ray_overhead(section: Section, services: Services, *, short: bool) -> None:
    """Rounds of plain processes and of actors alternate; the least of each side is taken."""
    slices, series, rounds = (12, 4, 2) if short else (60, 8, 4)
    folder = services.folder("ray-overhead")
    bundle = folder / "tiny"
    write_tiny_bundle(bundle)
    scans = [sorted(make_scan(folder / f"scan{number}", slices, number).glob("*.dcm")) for number in range(series)]
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        with _plain(bundle) as plain, _by_ray(bundle) as by_ray:
            sides = {"plain": plain, "ray": by_ray}
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            cpu_s: dict[str, list[float]] = {name: [] for name in sides}
            results: dict[str, list[list[str]]] = {}
            for side in sides.values():  # every process has its bundle before anything is measured
                side(scans[:PROCESSES], folder)
            for number in range(rounds):
                for name, side in sides.items():
                    used_s, begun_s = _cpu_s(), time.monotonic()
                    results[name] = side(scans, folder)
                    seconds[name].append(time.monotonic() - begun_s)
                    cpu_s[name].append(_cpu_s() - used_s)
                    section.row(
                        round=number, side=name, seconds=round(seconds[name][-1], 3), cpu_s=round(cpu_s[name][-1], 3)
                    )
    finally:
        if before is None:
            os.environ.pop("OMP_NUM_THREADS")
        else:
            os.environ["OMP_NUM_THREADS"] = before
    differing = sum(one != other for one, other in zip(results["plain"], results["ray"], strict=True))
    figure(section, "ray, series whose bytes differ from those of a plain worker", differing)
    figure(section, f"ray / plain, {PROCESSES} actors, processor time of the same work", _ratio(cpu_s))
    figure(section, f"ray / plain, {PROCESSES} actors, wall time of the same work, least of {rounds}", _ratio(seconds))


def _ratio(found: dict[str, list[float]]) -> float:
    return min(found["ray"]) / min(found["plain"])


Side = Callable[[list[list[Path]], Path], list[list[str]]]
"""Translates series; returns the digests of each one's files."""


@contextmanager
def _plain(bundle: Path) -> Iterator[Side]:
    """Four processes that take one series after the other, as four workers do."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as processes:

        def run(scans: list[list[Path]], folder: Path) -> list[list[str]]:
            count = len(scans)
            return list(processes.map(_translate_here, scans, [bundle] * count, [folder] * count))

        yield run


def _translate_here(paths: list[Path], bundle: Path, folder: Path) -> list[str]:
    if "tiny" not in _made:
        _made["tiny"] = Executor("tiny", models.load_bundle(bundle, precision="fp32"))
    with tempfile.TemporaryDirectory(dir=folder) as out:
        result = _made["tiny"].run(paths, _options(), Path(out), _nothing)
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

        def translate(paths: list[Path], folder: Path) -> list[str]:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                result = pool.run(ask, paths, _options(), Path(out), _nothing, limit_s=600.0)
            return [made.sha256 for made in result.files]

        def run(scans: list[list[Path]], folder: Path) -> list[list[str]]:
            return list(threads.map(translate, scans, [folder] * len(scans)))

        yield run
        pool.close()


def _options() -> JobOptions:
    return JobOptions(EquipmentIdentity(software_version="0.1.0"), datetime(2026, 1, 2, tzinfo=UTC))


def _nothing(_stage: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def _cpu_s() -> float:
    """Processor seconds of this process, of all that it started, directly or not, and of their ended children."""
    parents: dict[int, list[int]] = {}
    used: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
            used[int(entry.name)] = sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    total, todo = 0, [os.getpid()]
    while todo:
        pid = todo.pop()
        total += used.get(pid, 0)
        todo += parents.get(pid, [])
    return total / _TICKS_PER_S
