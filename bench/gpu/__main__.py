"""The GPU check: sections in their order, within a deadline; exit code 1 where a check failed. See bench/README.md."""

import argparse
import importlib
import importlib.util
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.gpu.report import Report, Section, say
from bench.gpu.size import size_of
from models.process import settle_process

Work = Callable[..., None]
NEEDED = ("torch", "numpy", "scipy", "safetensors")
SECTIONS = ("node", "sharing", "bundles", "training", "correctness", "determinism", "speed", "memory", "graphs")
"""Each is a module of this folder with a function of its name. Graphs come last: a recording that fails can leave the
card in a state in which nothing else runs."""
DEADLINE_S = {"cuda": 465.0, "cpu": 240.0}
"""The dry run takes half a minute on two quiet cores; on busy ones it is late rather than that it leaves out checks."""


def main(arguments: Sequence[str] | None = None, sections: Mapping[str, Work] | None = None) -> int:
    """Run the sections, by default all, and write the report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench/gpu.sh", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--deadline-s", type=float, help="of the whole; what does not fit is left out and named")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    options = parser.parse_args(arguments)
    begun, device = time.monotonic(), options.device
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        return refuse(f"The GPU check needs the Python package {missing[0]}, which {sys.executable} does not have.")
    settle_process()
    # What `timeout` sends: every section ends its own processes, and the report has all that was found.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # torch is loaded only now, after the lines above settled what it reads when it is.
    import torch  # noqa: PLC0415

    from bench.gpu import machine  # noqa: PLC0415

    if device == "cuda" and not torch.cuda.is_available():
        return refuse("DEVICE is cuda, but torch finds no usable GPU on this machine; DEVICE=cpu is the dry run.")
    if device == "cpu":
        torch.set_num_threads(1)  # small networks on several threads wait for each other, and here no second counts
    report = Report(options.out / machine.file_name(device), machine.about(device))
    say(f"{report.about}")
    folder = Path(tempfile.mkdtemp(prefix="syncect-gpu-check-"))
    works = sections if sections is not None else {name: partial(_work, name) for name in options.only}
    later_s, size = 0.0, size_of(device)
    deadline_s = DEADLINE_S[device] if options.deadline_s is None else options.deadline_s
    # A deadline that is too short for all takes from every section, not from the first ones alone.
    share = min(1.0, deadline_s / max(sum(size.budget_s.get(name, 0.0) for name in works), 1e-9))
    ends: dict[str, float] = {}
    for name in reversed(list(works)):
        ends[name] = begun + deadline_s - later_s
        later_s += share * size.budget_s.get(name, 0.0)
    try:
        for name, work in works.items():
            report.run(name, partial(work, device=device, size=size, folder=folder), until_s=ends[name])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.finish()
    say(f"{'passed' if report.passed else 'FAILED'} in {time.monotonic() - begun:.0f} s; kept in {report.path}")
    return 0 if report.passed else 1


def refuse(sentence: str) -> int:
    """Say why nothing was run; returns the exit code."""
    sys.stderr.write(sentence + "\n")
    return 2


def _work(name: str, section: Section, **places: object) -> None:
    function: Work = getattr(importlib.import_module(f"bench.gpu.{name}"), name)
    function(section, **places)


if __name__ == "__main__":
    sys.exit(main())
