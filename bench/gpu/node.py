"""The whole node on the device: scanner, receiver, completion, workers, courier, planning system, stage by stage.

One, two and four workers share the device. Left out where the packages of a node are not installed.
"""

import importlib.util
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.gpu.report import Section
from bench.gpu.size import Size

if TYPE_CHECKING:
    from bench.gpu.node_processes import Node

NEEDED = ("pydicom", "pynetdicom", "highdicom", "SimpleITK", "sqlalchemy", "alembic", "pydantic_settings", "structlog")
SCANNERS = 4
SPACING_MM = 3.0
START_S = 60.0
"""Until a node listens, and until a worker has its bundle: torch is read from a cold disk."""
PHASE_S = 8.0
"""The least time in which a phase is begun at all on a device."""


def node(section: Section, *, device: str, size: Size, folder: Path) -> None:
    """The bundles one after the other, each in a node of its own."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        section.row(figure="the whole node", state=f"not run: {missing[0]} is not installed")
        return
    scan = _scan(folder / "scan", size)
    for bundle in size.node_bundles:
        share = (section.until_s - time.monotonic()) / (len(size.node_bundles) - size.node_bundles.index(bundle))
        until_s = time.monotonic() + share
        if section.has_time_for(f"the node with {bundle}", seconds=2 * PHASE_S if device == "cuda" else 1):
            _one_bundle(section, scan, folder / f"node-{bundle}", bundle, device=device, size=size, until_s=until_s)


def _scan(folder: Path, size: Size) -> Path:
    """A phantom series of `size.node_slices` slices; four different ones repeat."""
    from bench.gpu.tools import FIELD_OF_VIEW_MM, phantom_slices  # noqa: PLC0415
    from node.dicom.synthetic_scan import ScanIdentity, write_scan  # noqa: PLC0415

    folder.mkdir()
    pixel_mm = FIELD_OF_VIEW_MM / size.rows
    hu = phantom_slices(size.node_slices, size.rows)
    write_scan(hu, (SPACING_MM, pixel_mm, pixel_mm), folder, ScanIdentity("GPU", "Gpu^Check", "gpu check"))
    return folder


def _one_bundle(
    section: Section, scan: Path, folder: Path, bundle: str, *, device: str, size: Size, until_s: float
) -> None:
    from bench.gpu.node_processes import Node, wait_until  # noqa: PLC0415

    begun = time.monotonic()
    with Node(folder, bundle, device) as running:
        if not wait_until(running.is_up, min(until_s, begun + START_S)):
            raise RuntimeError(f"the node did not start:\n{running.last_words()}")
        section.row(figure="start of receiver and courier", value=time.monotonic() - begun, bundle=bundle)
        for workers in size.node_workers:
            what, begun = f"{bundle} with {workers} workers", time.monotonic()
            if begun + (PHASE_S if device == "cuda" else 0) > until_s:
                section.note(f"{what}: not run: out of time")
                return
            added = workers - running.workers
            while running.workers < workers:
                running.add_worker()
            if not wait_until(lambda n=workers: running.ready_workers() == n, until_s):  # type: ignore[misc]
                section.note(f"{what}: the workers were not ready in time\n{running.last_words()}")
                return
            _row(section, "start of the added workers", [time.monotonic() - begun], _of(bundle, workers, size))
            # A worker's first job also loads kernels; none of the figures below shall hold that.
            for kind, series in (("first", added), ("warm", workers * size.node_series)):
                if not _phase(section, running, scan, f"{bundle}-{workers}-{kind}", series, until_s=until_s, size=size):
                    return


def _phase(
    section: Section, running: "Node", scan: Path, seed: str, series: int, *, until_s: float, size: Size
) -> bool:
    """Send the series at once and wait until each has its end; rows of its stages. False where time was too short."""
    from bench.gpu.node_processes import wait_until  # noqa: PLC0415
    from bench.gpu.node_store import Course, courses  # noqa: PLC0415

    bundle, workers, kind = seed.rsplit("-", 2)[0], running.workers, seed.rsplit("-", 1)[1]
    seeds = [f"{seed}-{number}" for number in range(series)]
    scanners = min(SCANNERS, series)
    begun = time.monotonic()
    sending = [running.start_scanner(scan, seeds[number::scanners]) for number in range(scanners)]
    database, found = running.database(), list[Course]()

    def ended() -> bool:
        if any(process.poll() not in (None, 0) for process in sending):
            raise RuntimeError(f"a scanner failed:\n{running.last_words()}")
        found[:] = courses(database, seeds)
        return sum(course.ended for course in found) == series

    try:
        whole = wait_until(ended, until_s)
    finally:
        database.close()
    if not whole:
        section.note(f"{seed}: {sum(c.ended for c in found)} of {series} series had their end in time")
    if stopped := sorted({f"{c.state}: {c.reason}" for c in found if c.ended and c.sent_at is None}):
        section.note(f"{seed}: not sent: {'; '.join(stopped)}")
    jobs, of = running.timings(), _of(bundle, workers, size)
    _rows_of_stages(section, kind, found, jobs, of)
    if whole and kind == "warm":
        _throughput(section, found, time.monotonic() - begun, of)
        sent = sum(course.sent_at is not None for course in found)
        section.check(f"{bundle}, {workers} workers: series not sent", series - sent, 0, "each arrives at the planner")
    return whole


def _rows_of_stages(
    section: Section, kind: str, found: list[Any], jobs: list[dict[str, Any]], of: dict[str, Any]
) -> None:
    seconds: dict[str, list[float]] = {}
    for course in found:
        for stage, value in course.stages().items():
            seconds.setdefault(stage, []).append(value)
    for job in jobs:
        for stage, value in job.items():
            if stage not in ("slices", "first"):
                seconds.setdefault(stage, []).append(value)
    for stage, values in seconds.items():
        _row(section, f"{stage}{', first job of a worker' if kind == 'first' else ''}", values, of)


def _throughput(section: Section, found: list[Any], whole_s: float, of: dict[str, Any]) -> None:
    """Series per hour: of the workers alone while they were busy, and from the first image to the last answer."""
    busy_s = max(c.produced_at for c in found) - min(c.running_at for c in found)
    for figure, taken_s in (("workers: seconds a series", busy_s), ("whole node: seconds a series", whole_s)):
        section.row(
            figure=figure,
            value=taken_s / len(found),
            series_per_hour=3600 * len(found) / taken_s,
            series=len(found),
            **of,
        )


def _row(section: Section, figure: str, values: list[float], of: dict[str, Any]) -> None:
    section.row(
        figure=figure,
        value=median(values),
        least=min(values),
        most=max(values),
        count=len(values),
        **of,
    )


def _of(bundle: str, workers: int, size: Size) -> dict[str, Any]:
    """What a figure belongs to."""
    return {"bundle": bundle, "workers": workers, "slices": size.node_slices}
