"""A SIMULATION of the node for 1, 10 and 100 scanners and for an archive: `.venv/bin/python bench/scale.py`.

Service times come from the reports in bench/results (bench/scaled/measured.py), the rest are assumptions, and both are
printed with their sources. --write puts tables and pictures into deploy/scale.md. The same seeds give the same tables.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from bench.scaled.measured import HEADER_BYTES, PIXEL_BYTES, SLICES, Measured, measured
from bench.scaled.model import BACKGROUND, Arrival, Outcome, Plan, Times, mean_and_half_width, simulate

PAGE = Path(__file__).parents[1] / "deploy" / "scale.md"
IMAGES = PAGE.parent / "images"
LIMIT_S = 300.0
SCANNERS = (1, 10, 100)
_PAGE_BUNDLE = "syndiff"
SEEDS = (1, 2, 3, 4, 5)
ARCHIVE, ARCHIVE_PART = 100_000, 400
BYTES = SLICES * (PIXEL_BYTES + HEADER_BYTES)

# -- assumptions: nobody measured them for you --------------------------------------------------------------------
HOURS = {7: 0.5, 8: 1.0, 9: 1.3, 10: 1.5, 11: 1.3, 12: 0.7, 13: 1.0, 14: 1.4, 15: 1.2, 16: 0.8, 17: 0.3}
PER_DAY = 24
WIRE_MBIT_PER_S = 1000
TPS_SLICES_PER_S = 20
CORES = 16
ASSUMPTIONS = (
    f"A scanner sends {PER_DAY} series of {SLICES} slices of 512 x 512 a day, at random times from 7 to 18 o'clock, "
    f"most of them near 10 and 14 o'clock (the busiest hour has 1.5 times the mean). Appointments would be more even.",
    f"Scanners and node have {WIRE_MBIT_PER_S} Mbit/s, and all scanners share the node's.",
    f"The planning system takes {TPS_SLICES_PER_S} slices per s, in one association.",
    f"A host has {CORES} cores for each GPU, as the machine of the GPU report had.",
    "The GPU looks twice at each scan, as model.doubt has it unless somebody sets it to off.",
    "The host part was measured before the gates on results were made cheaper; it is too long by a second or two.",
    "Headers and digests in a job stand for what the completion does with a series.",
)


def day(scanners: int, seed: int) -> list[Arrival]:
    """The ends of all scans of one day, in seconds after midnight."""
    rng, total = Random(seed), sum(HOURS.values())
    arrivals = []
    for scanner in range(scanners):
        for hour, weight in HOURS.items():
            at_s, rate = hour * 3600.0, PER_DAY * weight / total / 3600
            while (at_s := at_s + rng.expovariate(rate)) < (hour + 1) * 3600:
                arrivals.append(Arrival(at_s, scanner))
    return arrivals or [Arrival(10 * 3600.0)]


def plan(*, workers: int, gpus: int = 1, mbit_per_s: float = WIRE_MBIT_PER_S, tps: float = TPS_SLICES_PER_S) -> Plan:
    """Hardware of a department."""
    return Plan(
        cores=CORES * gpus,
        workers=workers,
        gpus=gpus,
        wire_s=BYTES * 8 / mbit_per_s / 1e6,
        tps_s=SLICES / tps,
    )


def days(times: Times, hardware: Plan, scanners: int, seeds: Sequence[int] = SEEDS) -> list[Outcome]:
    """One simulated day for each seed."""
    return [simulate(times, hardware, day(scanners, seed), seed) for seed in seeds]


def archive_days(times: Times, gpus: int, workers: int) -> tuple[float, Outcome]:
    """Days for the archive with nothing beside it, and the run of a part of it from which they follow."""
    hardware = replace(plan(workers=workers, gpus=gpus), couriers=gpus, tps_s=0.0)
    streams = 4 * gpus
    part = [Arrival(0.0, number % streams, BACKGROUND) for number in range(ARCHIVE_PART)]
    run = simulate(replace(times, quiet_s=0.0), hardware, part, 1)
    # All arrive at 0. Begin and end, when not every station has work yet or any more, are left out.
    steady_s = (run.at(0.9) - run.at(0.1)) / (0.8 * ARCHIVE_PART)
    return steady_s * ARCHIVE / 86400, run


# -- tables -------------------------------------------------------------------------------------------------------


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, labelled as what it is."""
    lines = [" | ".join(cells) for cells in (head, ["---"] * len(head), *rows)]
    return f"**Simulation: {title}**\n\n" + "".join(f"| {line} |\n" for line in lines)


def sources(found: Measured) -> str:
    """What the model was told, and where it stands."""
    rows = [(one.name, f"{one.value:.3g}", one.source) for one in found.figures.values()]
    given = table(
        "what it was told; seconds for 140 slices where nothing else is said", ("figure", "value", "from"), rows
    )
    return given + "\nAssumptions:\n\n" + "".join(f"- {text}\n" for text in ASSUMPTIONS)


def _cells(runs: Sequence[Outcome]) -> list[str]:
    """p50 and p95 with their intervals, and the busiest station."""
    cells = []
    for share in (0.5, 0.95):
        mean, half = mean_and_half_width([run.at(share) for run in runs])
        cells.append(f"{mean:.0f} ± {half:.0f} s")
    named = max(runs[0].busy, key=lambda name: sum(run.busy[name] for run in runs))
    busy = sum(run.busy[named] for run in runs) / len(runs)
    return [*cells, f"{named}, {busy:.0%}"]


def scanners_table(times: Times, bundle: str) -> str:
    """Scanners and workers."""
    rows = []
    for scanners in SCANNERS:
        for workers in (1, 2, 4):
            runs = days(times, plan(workers=workers), scanners)
            rows.append((str(scanners), str(workers), *_cells(runs), _held(runs)))
    return table(
        f"from the end of the scan to the last slice at the planning system, one GPU, {_named(bundle)} in bf16, "
        f"{len(SEEDS)} days, 95 % intervals",
        ("scanners", "workers", "median", "95th percentile", "busiest station over the day", "p95 < 5 min"),
        rows,
    )


def bottleneck_table(times: Times, sqlite: Times) -> str:
    """One thing worse at a time, for many scanners."""
    cases = {
        "as above, 4 workers": (times, plan(workers=4)),
        "node on 100 Mbit/s": (times, plan(workers=4, mbit_per_s=100)),
        "disk: receiver ten times as slow": (
            replace(times, receivers=times.receivers / 10),
            plan(workers=4),
        ),
        "SQLite": (sqlite, plan(workers=4)),
        "GPU four times as slow": (replace(times, gpu_s=4 * times.gpu_s), plan(workers=4)),
        "the same with 2 GPUs": (replace(times, gpu_s=4 * times.gpu_s), plan(workers=4, gpus=2)),
        "planning system takes 10 slices per s": (times, plan(workers=4, tps=10)),
        "the same with 2 couriers": (times, replace(plan(workers=4, tps=10), couriers=2)),
    }
    rows = []
    for name, (own, hardware) in cases.items():
        runs = days(own, hardware, SCANNERS[-1], SEEDS[:3])
        rows.append((name, *_cells(runs), _held(runs)))
    head = ("change", "median", "95th percentile", "busiest station over the day", "p95 < 5 min")
    return table(f"where the bottleneck moves, {SCANNERS[-1]} scanners, one GPU, 3 days", head, rows)


def archive_table(times: Times) -> str:
    """GPUs and days."""
    rows = []
    for gpus in (1, 2, 4, 8):
        for workers in (2 * gpus, 4 * gpus):
            taken, run = archive_days(times, gpus, workers)
            busiest = f"{run.bottleneck}, {run.busy[run.bottleneck]:.0%}"
            rows.append((str(gpus), str(workers), f"{ARCHIVE / taken / 24:.0f}", f"{taken:.1f}", busiest))
    return table(
        f"an archive of {ARCHIVE} series with nothing beside it, through one receiver and back to the archive",
        ("GPUs", "workers", "series per hour", "days", "busiest station"),
        rows,
    )


def _named(bundle: str) -> str:
    return "published SynDiff" if bundle == _PAGE_BUNDLE else bundle


def _held(runs: Sequence[Outcome]) -> str:
    mean, half = mean_and_half_width([run.at(0.95) for run in runs])
    return "yes" if mean + half < LIMIT_S else "no" if mean - half > LIMIT_S else "not certain"


# -- pictures -----------------------------------------------------------------------------------------------------


def draw(times: Times) -> Iterator[Path]:
    """The 95th percentile over the number of scanners, and the days over the number of GPUs."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    many = (1, 10, 25, 50, 75, 100, 125, 150)
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for workers in (1, 2, 4):
        points = [
            mean_and_half_width([run.at(0.95) for run in days(times, plan(workers=workers), n, SEEDS[:3])])
            for n in many
        ]
        axes.errorbar(
            many, [p[0] for p in points], [p[1] for p in points], marker="o", capsize=3, label=f"{workers} workers"
        )
    axes.axhline(LIMIT_S, color="black", linestyle="--", linewidth=1)
    axes.set(yscale="log", xlabel="scanners", ylabel="scan to TPS, 95th percentile, s")
    axes.set_title("Simulation: one GPU, published SynDiff, TPS of 20 slices per s", fontsize=10)
    axes.legend()
    yield _save(figure, "scale-scanners.png")

    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    gpus = (1, 2, 4, 8)
    for each in (2, 4):
        axes.plot(gpus, [archive_days(times, n, each * n)[0] for n in gpus], marker="o", label=f"{each} workers a GPU")
    axes.set(xlabel="GPUs", ylabel="days for 100,000 series", xscale="log", yscale="log")
    axes.set_xticks(gpus, [str(n) for n in gpus])
    axes.set_title("Simulation: an archive through one receiver", fontsize=10)
    axes.legend()
    yield _save(figure, "scale-archive.png")


def _save(figure: object, name: str) -> Path:
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / name
    figure.savefig(path, dpi=90, metadata={"Software": None})  # type: ignore[attr-defined]
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default=_PAGE_BUNDLE, help="as the GPU report names it: syndiff, demo, demo-1step")
    parser.add_argument("--write", action="store_true", help="renew tables and pictures of deploy/scale.md")
    options = parser.parse_args(arguments)
    if options.write and options.bundle != _PAGE_BUNDLE:
        parser.error(f"{PAGE.name} has the figures of {_PAGE_BUNDLE}; without --write those of another are printed")
    try:
        found = measured(options.bundle)
    except LookupError as missing:
        parser.error(str(missing))
    times, sqlite = found.times(), measured(options.bundle, "SQLite").times()
    parts = (
        sources(found),
        scanners_table(times, options.bundle),
        bottleneck_table(times, sqlite),
        archive_table(times),
    )
    text = "\n".join(parts)
    sys.stdout.write(text)
    if options.write:
        for path in draw(times):
            sys.stdout.write(f"written: {path.relative_to(PAGE.parents[1])}\n")
        begin, end = "<!-- begin: bench/scale.py --write -->", "<!-- end -->"
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(
            re.sub(f"(?s){re.escape(begin)}.*?{end}", lambda _: f"{begin}\n\n{text}\n{end}", page), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
