"""Every figure of trust beside its aim, for bundles side by side: `make trust`, or this module with bundles.

    .venv/bin/python -m bench.trust [--bundle DIR ...] [--only regions continuity doubt level attacks] [--write-card]

Without --bundle both shipped bundles are measured. --data is a folder with the series that the files of regions name,
--regions such files (bench/trust/tracks.json is always among them); without --data the public scans of the tests are
taken, and where they are missing only phantoms are. --write-card puts the figures into the cards of bundles that are
given by path. The figures are kept as JSON in bench/results/. --short: a rehearsal of seconds on a few slices.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import models
from bench.aims import aim_of, unit_of
from bench.run import machine, say
from bench.trust import sections
from bench.trust.cases import Bundle, Case, cut_regions, level_patients, phantom_cases, read_case, shoulder_patients
from bench.trust.size import FULL, SHORT, Size
from models.bundle import read_card
from models.card_text import DETAIL_SECTION
from models.evaluation.card import write_trust
from models.evaluation.level import LevelPatient
from models.evaluation.regions import RegionFile, read_regions
from models.process import settle_process
from models.translator import Device

SECTIONS = ("regions", "continuity", "doubt", "level", "attacks")
SHIPPED = ("demo", "demo-1step")
TRACKS = Path(__file__).with_name("tracks.json")
RESULTS = Path(__file__).parents[1] / "results"
LEVEL_SEED, ATTACK_SEED, SHOULDER_SEED = 770_015, 770_016, 770_200

Measured = dict[str, dict[str, sections.Figures]]
Step = Callable[[Bundle], sections.Figures]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    options = _options(arguments)
    size = SHORT if options.short else FULL
    with TemporaryDirectory() as folder:
        paths = [models.find_bundle(name) for name in options.bundle or _default(options.short, Path(folder))]
        results = measure(
            paths, options.only, real_cases(size, options.data, options.regions), size, device=options.device
        )
    say(table(results))
    if options.write_card:
        for path in paths:
            write_trust(path, facts(size), results[_label(path)], aim_of)
            say(f"card written: {path}")
    if not options.short:
        keep(results)


def measure(
    paths: Sequence[Path],
    only: Sequence[str],
    real: tuple[Sequence[Case], RegionFile],
    size: Size,
    *,
    device: Device = "cpu",
) -> Measured:
    """Figures by section of every bundle, by its name."""
    steps = _steps(only, real, size)
    results: Measured = {}
    for path in paths:
        bundle, label = Bundle(path, device), _label(path)
        results[label] = {}
        for section, step in steps.items():
            begun = time.monotonic()
            results[label][section] = step(bundle)
            say(f"{label}: {section}, {time.monotonic() - begun:.0f} s")
    return results


def _steps(only: Sequence[str], real: tuple[Sequence[Case], RegionFile], size: Size) -> dict[str, Step]:
    """What is measured of a bundle, by section; makes the phantoms that are needed for it."""
    cases, named = real
    steps: dict[str, Step] = {}
    if cases and "regions" in only:
        steps["regions"] = lambda bundle: sections.regions(bundle, cases, named)
        steps[DETAIL_SECTION] = lambda bundle: sections.each_region(bundle, cases, named)
    if cases and "continuity" in only:
        steps["continuity"] = lambda bundle: sections.continuity(bundle, cases, named)
    if cases and "doubt" in only:
        steps["doubt"] = lambda bundle: sections.doubt(bundle, cases, named)
    if "level" in only:
        patients: list[LevelPatient] = []
        for anatomy, count in (("thorax", size.patients), ("teaching", size.teaching)):
            patients += level_patients(count, LEVEL_SEED, slices=size.level_slices, rows=size.rows, anatomy=anatomy)
        shoulders = shoulder_patients(size.shoulders, SHOULDER_SEED, slices=size.level_slices, rows=size.rows)
        steps["level"] = lambda bundle: sections.level(bundle, patients, shoulders)
    if "attacks" in only:
        phantoms = level_patients(size.phantoms, ATTACK_SEED, slices=size.attack_slices, rows=size.rows)
        attacked = [*cases, *phantom_cases(phantoms)]
        for doubt in sections.input_doubts(attacked):
            say(f"the source itself would be held, {doubt}")
        steps["attacks"] = lambda bundle: sections.attacks(bundle, attacked)
    return steps


def table(results: Measured) -> str:
    """One line a figure: unit, aim, and for each bundle its value and whether the aim is met."""
    rows = [("figure", "unit", "aim", *(cell for name in results for cell in (name, "aim met")))]
    figures = dict.fromkeys((s, f) for own in results.values() for s, found in own.items() for f in found)
    for section, figure in figures:
        aim = aim_of(figure)
        cells: list[str] = []
        for own in results.values():
            value = own.get(section, {}).get(figure, math.nan)
            cells += [f"{value:.4g}", "-" if aim is None else "yes" if aim.met(value) else "NO"]
        rows.append((f"{section}: {figure}", unit_of(figure), "-" if aim is None else str(aim), *cells))
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)) for row in rows)


def keep(results: Measured) -> None:
    """Write the report to bench/results/, named after its time (UTC)."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    kept = RESULTS / f"trust-{at[:19].replace(':', '')}.json"
    plain = {
        name: {s: {f: _plain(value) for f, value in found.items()} for s, found in own.items()}
        for name, own in results.items()
    }
    report = {"at": at, "machine": machine(), "results": plain}
    kept.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    say(f"kept in {kept}")


def facts(size: Size) -> str:
    """On what the figures were measured, one sentence for a card."""
    return (
        "Real non-contrast series with regions placed by eye, which no reader has checked; "
        f"{size.patients + size.teaching} unseen phantom patients of {size.level_slices} slices; attacks on these "
        f"series and on {size.phantoms} phantoms."
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "bench.trust", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", nargs="+", metavar="DIR", help="names of shipped bundles or bundle folders")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="NAME", help=f"of {SECTIONS}")
    parser.add_argument("--data", type=Path, help="folder with the series that the files of regions name")
    parser.add_argument("--regions", type=Path, nargs="+", metavar="FILE", help="files of regions and tracks")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="cpu")
    parser.add_argument("--write-card", action="store_true", help="put the figures into the bundles' cards")
    parser.add_argument("--short", action="store_true", help="a rehearsal on a few slices, by default of a tiny bundle")
    options = parser.parse_args(arguments)
    if options.write_card and not (options.bundle and all(Path(name).is_dir() for name in options.bundle)):
        parser.error("--write-card needs bundles given by path")
    if options.write_card and (options.short or set(options.only) != set(SECTIONS)):
        parser.error("--write-card needs every section in full")
    return options


def real_cases(
    size: Size, data: Path | None = None, regions: Sequence[Path] | None = None
) -> tuple[list[Case], RegionFile]:
    """The real series and what is named on them; nothing, and a sentence, where they are missing.

    data: a folder of other series, those that `regions` name; None for the public scans of the tests.
    """
    shared = Path(__file__).parents[2].parent / "shared"
    folder = data or Path(os.environ.get("SYNCECT_TEST_DATA") or shared / "data")
    default = [folder.parent / "field" / "regions.json"]
    files = [TRACKS, *(regions or [file for file in default if file.is_file()])]
    if data:
        files = files[1:]
    named = sum((read_regions(file) for file in files), RegionFile())
    missing = [series for series in named.series if not (folder / series).is_dir()]
    if missing:
        say(f"real series are left out: {folder} has no {missing[0]}")
        return [], RegionFile()
    cut = slice(None) if data else size.cut
    if size.series and not data:
        named = cut_regions(named.of(size.series), cut)
    return [read_case(folder, series, named, cut) for series in named.series], named


def _default(short: bool, folder: Path) -> Sequence[str]:
    if not short:
        return SHIPPED
    from models.testing import write_tiny_bundle  # noqa: PLC0415  # loads torch's training parts

    write_tiny_bundle(folder / "tiny")
    return (str(folder / "tiny"),)


def _label(path: Path) -> str:
    return f"{read_card(path).name} {read_card(path).digest[:8]}"


def _plain(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


if __name__ == "__main__":
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler writes lines of its own to standard error
    settle_process()
    main()
