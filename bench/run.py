"""All figures of this project in one table, each beside its aim: `make bench`, or `--only NAME ...` for some of it.

Ratios are measured side by side in one run. The table is kept as JSON in bench/results/ with the machine, the versions,
the commit and the load of the machine at the start. Nothing here is a test.
"""

import argparse
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from bench.aims import aim_of, unit_of
from models.process import settle_process
from node.version import find_build

SECTIONS = ("listing", "page", "delivery", "job", "receive", "generator")
"""Each is a module of this folder with a function of its name: folder -> figures by name."""
WITH_BUNDLE = ("job", "delivery")
VERSIONS = ("torch", "numpy", "scipy", "pydicom", "pynetdicom", "sqlalchemy")

Results = dict[str, dict[str, float]]


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="NAME", help=f"of {SECTIONS}")
    parser.add_argument("--bundle", default="demo-1step", help="name of a shipped bundle or path of a bundle folder")
    options = parser.parse_args()
    about, results = machine(), Results()
    for section in options.only:
        begun = time.monotonic()
        figures = measure(section, options.bundle)
        if figures is not None:
            results[section] = figures
            say(f"{section}: {time.monotonic() - begun:.0f} s")
    keep(about, results)
    for section, figures in results.items():
        say(f"\n{section}\n" + table(figures))


def measure(section: str, bundle: str) -> dict[str, float] | None:
    """The figures of one section; None, and a sentence, where a peer program or a part of the bench is missing."""
    folder = Path(tempfile.mkdtemp(prefix=f"syncect-bench-{section}-"))
    try:
        function: Callable[..., dict[str, float]] = getattr(importlib.import_module(f"bench.{section}"), section)
        return function(folder, bundle) if section in WITH_BUNDLE else function(folder)
    except pytest.skip.Exception as missing:  # raised by the peers' harness
        say(f"{section} is left out: {missing}.")
    except ModuleNotFoundError as missing:
        say(f"{section} is left out: the module {missing.name} is missing.")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def table(figures: dict[str, float]) -> str:
    """Lines of figure, value, unit, aim, and whether the aim is met."""
    rows = [("figure", "value", "unit", "aim", "met")]
    for figure, value in figures.items():
        aim = aim_of(figure)
        met = "-" if aim is None else "yes" if aim.met(value) else "no"
        rows.append((figure, f"{value:.4g}", unit_of(figure), "-" if aim is None else str(aim), met))
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        f"  {name:<{wide[0]}}  {value:>{wide[1]}}  {unit:<{wide[2]}}  {aim:<{wide[3]}}  {met}\n"
        for name, value, unit, aim, met in rows
    )


def keep(about: dict[str, Any], results: Results) -> None:
    """Write the report to bench/results/, named after its time (UTC)."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    kept = Path(__file__).parent / "results"
    kept.mkdir(exist_ok=True)
    path = kept / f"{at[:19].replace(':', '')}.json"
    report = {"at": at, "machine": about, "results": results}
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    say(f"kept in {path.relative_to(Path(__file__).parents[1])}")


def machine() -> dict[str, Any]:
    """What the figures belong to, and how busy it was before they were taken."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS} | {"syncect": find_build().version},
        "commit": commit.stdout.strip(),
    }


def cpu_model() -> str:
    """The processor's name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def say(text: str) -> None:
    """Print one line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler writes lines of its own to standard error
    settle_process()
    main()
