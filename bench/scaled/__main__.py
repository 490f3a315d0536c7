"""The figures of many processes, jobs and scanners, each beside its aim: `make scale`, or `--only NAME ...` for some.

The services that a section needs (PostgreSQL, an S3 server) are started here, in a temporary folder, and end with
the run. The report is written anew with every finding. --short is a rehearsal of seconds: its figures mean nothing.
"""

import argparse
import importlib
import importlib.util
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from bench.gpu.report import Report, Section, say
from bench.run import machine
from bench.scaled.figures import table
from bench.scaled.services import Services
from models.process import settle_process

Work = Callable[..., None]
ORDER = ("exactly_once", "claims", "million", "ray_overhead", "archive", "prediction")
SECTIONS = tuple(name for name in ORDER if importlib.util.find_spec(f"bench.scaled.{name}"))
"""Each is a module of this folder with a function of its name: (section, services, *, short) -> None."""
RESULTS = Path(__file__).parents[1] / "results"
REHEARSALS = Path(__file__).parents[2] / "runs"
BUDGET_S = 1200.0
"""Of one section. A section that takes long asks `Section.has_time_for` before each part."""


def main(arguments: Sequence[str] | None = None, sections: Mapping[str, Work] | None = None) -> int:
    """Run the sections, by default all, write the report and print the table.

    Returns 1 where an aim was missed; of a rehearsal, where a section ended by an error.
    """
    parser = argparse.ArgumentParser(
        prog="bench.scaled", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="NAME", help=f"of {SECTIONS}")
    parser.add_argument("--short", action="store_true", help="a rehearsal of seconds")
    parser.add_argument(
        "--out", type=Path, help="folder of the report, by default bench/results, and runs of a rehearsal"
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of the faults and the model")
    options = parser.parse_args(arguments)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    about = {"at": at, "short": options.short, "seed": options.seed, "machine": machine()}
    kept = options.out or (REHEARSALS if options.short else RESULTS)
    report = Report(kept / f"scale-{at[:19].replace(':', '')}.json", about)
    works = {name: partial(_work, name) for name in options.only} if sections is None else sections
    folder = Path(tempfile.mkdtemp(prefix="syncect-scale-"))
    folder.chmod(0o755)  # the user of the database has a folder below
    services = Services(folder, options.seed)
    try:
        for name, work in works.items():
            run = partial(_run, work, services=services, short=options.short)
            report.run(name, run, until_s=time.monotonic() + BUDGET_S)
    finally:
        services.close()
        shutil.rmtree(folder, ignore_errors=True)
    report.finish()
    say(table(report))
    if options.short:
        failed = [section.name for section in report.sections if section.error is not None]
        say(f"a rehearsal{f', FAILED in {failed}' if failed else ': each section came to its end'}; {report.path}")
        return 1 if failed else 0
    say(f"{'passed' if report.passed else 'FAILED'}; kept in {report.path}")
    return 0 if report.passed else 1


def _run(work: Work, section: Section, *, services: Services, short: bool) -> None:
    try:
        work(section, services, short=short)
    except pytest.skip.Exception as missing:  # raised by the peers' harness
        raise RuntimeError(f"{missing}") from missing


def _work(name: str, section: Section, services: Services, *, short: bool) -> None:
    function: Work = getattr(importlib.import_module(f"bench.scaled.{name}"), name)
    function(section, services, short=short)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # many processes on few cores; threads would only wait for each other
    settle_process()
    sys.exit(main())
