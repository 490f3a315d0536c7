"""Whether the model says what a real node does: two and four workers on few cores, predicted from one worker.

A node of real processes takes the same number of series with one, two and four workers, sent one behind the other and
then at a rate. What one worker needs, in processor time and in waiting, is all that the model is told; that workers are
in each other's way on the cores follows from the model and is not fitted. Of the phase that it predicts the model knows
how many programs of others wanted a core.
"""

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.gpu.node_processes import Node, wait_until
from bench.gpu.node_store import Course, courses
from bench.gpu.report import Section
from bench.scaled.figures import figure
from bench.scaled.model import Arrival, Outcome, Plan, Stage, Times, simulate
from bench.scaled.services import Services
from bench.scaled.stations import percentile
from bench.tools import environment
from models.phantom import make_patient
from models.testing import write_tiny_bundle
from node.dicom.synthetic_scan import ScanIdentity, write_scan

QUIET_S = 0.6  # as in the settings of `Node`
_BOUND_S = 600.0
_ROWS = 64
_WRITTEN_MM = (3.0, 1.0, 1.0)  # too little tissue for the gate to ask the random bundle for anatomy
_MODEL_SEEDS = 20


@dataclass(frozen=True)
class Size:
    """series: sent in each phase. rates: seconds between two of them, 0 for one behind the other."""

    series: int
    slices: int
    workers: tuple[int, ...]
    loads: tuple[float, ...]


FULL = Size(series=12, slices=64, workers=(1, 2, 4), loads=(1.3,))
SHORT = Size(series=1, slices=8, workers=(1,), loads=())


@dataclass(frozen=True)
class Phase:
    """What one phase gave: the courses of its series, and the processor seconds of each role.

    running, rivals: how many threads of the node and of others wanted a core, on average over the phase.
    """

    courses: list[Course]
    cpu_s: dict[str, float]
    running: float
    rivals: float

    @property
    def slowness(self) -> float:
        """How much longer than alone a thread took that wanted a core all the while."""
        return max(1.0, (max(1.0, self.running) + self.rivals) / _cores())

    def sojourns_s(self) -> list[float]:
        """From the time at which each series should have come to its last image at the planning system."""
        return [_known(course.sent_at) - course.opened_at for course in self.courses]

    def backlog_s(self) -> list[float]:
        """The same, from the begin of the phase."""
        begun = min(course.opened_at for course in self.courses)
        return [_known(course.sent_at) - begun for course in self.courses]


def prediction(section: Section, services: Services, *, short: bool) -> None:
    """Measure with each number of workers, predict those beyond one from one, and enter the ratios."""
    size, folder = SHORT if short else FULL, services.folder("prediction")
    write_tiny_bundle(folder / "tiny")
    scan = _scan(folder / "scan", size)
    section.row(figure="load of the machine before", value=os.getloadavg()[0], cores=os.cpu_count())
    tiny = environment(SYNCECT_MODEL__ALLOW_UNPROVEN='["tiny"]', OMP_NUM_THREADS="1")
    with tiny, Node(folder / "node", str(folder / "tiny"), "cpu") as node:
        _must(node, wait_until(node.is_up, time.monotonic() + _BOUND_S))
        _measure(section, node, scan, size)
    section.row(figure="load of the machine after", value=os.getloadavg()[0], cores=os.cpu_count())


def _measure(section: Section, node: Node, scan: Path, size: Size) -> None:
    times: Times | None = None
    for workers in size.workers:
        while node.workers < workers:
            node.add_worker()
        _must(node, wait_until(lambda n=workers: node.ready_workers() == n, time.monotonic() + _BOUND_S))  # type: ignore[misc]
        _phase(node, scan, f"warm-{workers}", workers, 0.0)
        found = _phase(node, scan, f"backlog-{workers}", size.series, 0.0)
        section.row(figure=f"{workers} workers: programs of others that want a core", value=found.rivals)
        times = times or times_of(found)
        if workers == 1:
            for stage in ("receive", "judge", "job", "deliver"):
                section.row(figure=f"one worker, {stage}", **vars(getattr(times, stage)))
        _compare(
            section,
            f"{workers} workers, backlog of {size.series}",
            found.backlog_s(),
            predict(times, workers, found),
        )
        for load in size.loads if workers > 1 else ():
            # Of the whole host, whose cores the scanner, receiver, workers and courier share: with less between them
            # the scanner, which sends one series after the other, would set the pace and not this time.
            stages = (times.receive, times.judge, times.job, times.deliver)
            every_s = load * sum(stage.cpu_s for stage in stages) / _cores()
            found = _phase(node, scan, f"rate-{workers}-{load}", size.series, every_s)
            what = f"{workers} workers, {size.series} at a rate"
            _compare(section, what, found.sojourns_s(), predict(times, workers, found, every_s))


def _phase(node: Node, scan: Path, name: str, series: int, every_s: float) -> Phase:
    """Send so many series and wait until each has its end. Raises RuntimeError."""
    seeds = [f"{name}-{number}" for number in range(series)]
    before, database, found, seen = cpu_seconds(), node.database(), list[Course](), list[tuple[int, int]]()
    node.start_scanner(scan, seeds, every_s)

    def ended() -> bool:
        time.sleep(0.2)  # the model knows of nobody who looks
        seen.append(_wanting_a_core())
        found[:] = courses(database, seeds)
        return sum(course.ended for course in found) == series

    try:
        _must(node, wait_until(ended, time.monotonic() + _BOUND_S))
    finally:
        database.close()
    if stopped := {f"{course.state}: {course.reason}" for course in found if course.sent_at is None}:
        raise RuntimeError(f"not sent: {'; '.join(sorted(stopped))}")
    after = cpu_seconds()
    own = {role: after[role] - before.get(role, 0.0) for role in after}
    return Phase(found, own, statistics.mean(one for one, _ in seen), statistics.mean(all_ - one for one, all_ in seen))


def times_of(phase: Phase) -> Times:
    """What one worker needs for a series.

    Scanner and receiver take turns, and so do courier and planning system: one core is busy all the while.
    """
    stages = [course.stages() for course in phase.courses]

    def median(stage: str) -> float:
        return statistics.median(found[stage] for found in stages)

    count, job_s = len(stages), median("job, from claim to record")
    cpu_s = phase.cpu_s["work"] / count
    return Times(
        receive=Stage(median("receive") / phase.slowness),
        judge=Stage(phase.cpu_s["complete"] / count),
        job=Stage(cpu_s, wait_s=max(0.0, job_s - cpu_s * phase.slowness), cores=max(1.0, cpu_s / job_s)),
        gpu_s=0.0,
        transactions_s=0.0,  # they are in the job
        deliver=Stage(median("send") / phase.slowness),
        quiet_s=QUIET_S,
    )


def predict(times: Times, workers: int, phase: Phase, every_s: float = 0.0) -> list[Outcome]:
    """The model's runs of one phase, which differ in the polls; of `phase` it knows the rivals and the number."""
    plan = Plan(cores=_cores(), workers=workers, is_one_host=True, rivals=phase.rivals)
    arrivals = [Arrival(number * every_s) for number in range(len(phase.courses))]
    return [simulate(times, plan, arrivals, seed) for seed in range(_MODEL_SEEDS)]


def _compare(section: Section, what: str, measured_s: Sequence[float], runs: Sequence[Outcome]) -> None:
    figures = {
        "mean": (statistics.mean(measured_s), [run.mean_s for run in runs]),
        "95th percentile": (percentile(list(measured_s), 0.95), [run.at(0.95) for run in runs]),
    }
    if "backlog" in what:
        figures["makespan"] = (max(measured_s), [max(run.sojourns_s) for run in runs])
    for name, (measured, predicted) in figures.items():
        section.row(what=what, sojourn=name, measured_s=measured, predicted_s=statistics.mean(predicted))
        figure(section, f"{what}, {name}: predicted / measured", statistics.mean(predicted) / measured)


def cpu_seconds() -> dict[str, float]:
    """Processor seconds so far of this process's living descendants, by role."""
    seconds: dict[str, float] = {}
    for pid in _descendants(os.getpid()):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended a moment ago
            continue
        role = next((role for role in ("receive", "complete", "deliver", "plan") if role in words), "")
        if not role:
            role = "work" if "bench.gpu.timed_worker" in words else "other"
        ticks = int(fields[11]) + int(fields[12])  # utime and stime of proc(5)
        seconds[role] = seconds.get(role, 0.0) + ticks / os.sysconf("SC_CLK_TCK")
    return seconds


def _wanting_a_core() -> tuple[int, int]:
    """Threads of the node and of the whole machine that run or could run (proc(5)), without the one that asks."""
    own = 0
    for pid in _descendants(os.getpid()):
        for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
            try:
                own += stat.read_text().rpartition(")")[2].split()[0] == "R"
            except OSError:
                continue
    total = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) - 1
    return own, max(own, total)


def _cores() -> int:
    return os.cpu_count() or 1


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *_descendants(child)]
    return found


def _scan(folder: Path, size: Size) -> Path:
    folder.mkdir()
    hu = make_patient(1, slices=size.slices, rows=_ROWS, spacing_mm=(5.0, 5.0, 5.0)).ncct_hu
    write_scan(hu, _WRITTEN_MM, folder, ScanIdentity("SCALE", "Scale^Model", "scale"))
    return folder


def _known(at: float | None) -> float:
    if at is None:
        raise RuntimeError("a series has no end")
    return at


def _must(node: Node, is_so: bool) -> None:
    if not is_so:
        raise RuntimeError(f"the node was not ready in time:\n{node.last_words()}")
