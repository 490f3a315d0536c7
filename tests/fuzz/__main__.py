"""`make fuzz`: every target for its share of the time, each in a process of its own; exit code 1 on a finding."""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from node.version import software_version
from tests.fuzz.loop import Kept, Note, Result, save
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS
from tests.fuzz.watch import LIMIT_S, WAIT_S, Finding, Watch

ROOT: Final = Path(__file__).parents[2]
FOUND: Final = ROOT / "runs" / "fuzz"
RESULTS: Final = ROOT / "bench" / "results"
_GRACE_S: Final = 2 * WAIT_S  # a process that its own alarm did not wake
_END_S: Final = 180.0  # to make the inputs of findings small


def main() -> int:
    """Run; 0 where nothing was found."""
    options = _options()
    if options.again:
        return _again(TARGETS[options.again[0]], Path(options.again[1]))
    targets = [TARGETS[name] for name in options.target or TARGETS]
    seed = options.seed if options.seed is not None else int(time.time())
    share_s = options.minutes * 60 / sum(target.share for target in targets)
    _say(f"{len(targets)} targets, {options.minutes:g} minutes, seed {seed}")
    begun = datetime.now(UTC)
    results = [_told(_one(target, seed, target.share * share_s)) for target in targets]
    findings = [one for result in results for one in result["findings"]]
    path = _write(begun, seed, options.minutes, results)
    total = sum(result["executions"] for result in results)
    _say(f"seed {seed}: {total} inputs, {len(findings)} findings; {path.relative_to(ROOT)}")
    return 1 if findings else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="for all targets together")
    parser.add_argument("--seed", type=int, help="repeats the choices of a run; the time if left out")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this one; more than once")
    parser.add_argument("--again", nargs=2, metavar=("TARGET", "FILE"), help="run one input and print what it does")
    return parser.parse_args()


def _again(target: Target, path: Path) -> int:
    with target.open() as run:
        found = Watch(target, run).try_one(path.read_bytes())
    _say(f"{found.name}\n{found.text}" if found else "nothing is wrong with it")
    return 1 if found else 0


def _one(target: Target, seed: int, seconds: float) -> dict[str, Any]:
    """The target for so long; a process that does not answer any more is killed, and what it did is a finding."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "note"
        arguments = [target.name, str(seed), str(seconds), str(FOUND), str(note)]
        output = Path(folder) / "output"
        with output.open("wb") as stdout:
            process = subprocess.Popen([sys.executable, "-m", "tests.fuzz.loop", *arguments], cwd=ROOT, stdout=stdout)
            end_s = time.monotonic() + seconds + _END_S
            while process.poll() is None:
                try:
                    process.wait(1)
                except subprocess.TimeoutExpired:
                    began_s, _ = Note.read(note) if note.exists() else (0.0, b"")
                    is_stuck = began_s and time.monotonic() - began_s > _GRACE_S and time.monotonic() < end_s - _END_S
                    if is_stuck or time.monotonic() > end_s:
                        process.kill()
        if process.returncode == 0:
            answer: dict[str, Any] = json.loads(output.read_text().splitlines()[-1])
            return answer
        _, data = Note.read(note) if note.exists() else (0.0, b"")
        ended = "killed after it did not answer" if process.returncode == -9 else f"exit code {process.returncode}"
        kind = "hang" if process.returncode == -9 else "crash"
        lost = Result(target.name, seed, seconds)
        lost.findings = [save(FOUND, target.name, Kept(Finding(kind, f"the process: {ended}", ended), data))]
        return asdict(lost)


def _told(result: dict[str, Any]) -> dict[str, Any]:
    _say(
        f"{result['target']:<12} {result['executions']:>8} inputs in {result['seconds']:.0f} s, "
        f"{result['lines_of_seeds']} -> {result['lines']} lines, slowest {result['slowest_s']:.2f} s, "
        f"largest {result['largest_input_mib']:.0f} MiB, {len(result['findings'])} findings"
    )
    for one in result["findings"]:
        _say(f"  {one['kind']} {one['where']} ({one['times']} times, {one['bytes']} bytes)\n    again: {one['again']}")
    return result


def _write(begun: datetime, seed: int, minutes: float, results: list[dict[str, Any]]) -> Path:
    about = {
        "made": f"{begun:%Y-%m-%dT%H:%M:%SZ}",
        "version": software_version(),
        "python": platform.python_version(),
        "seed": seed,
        "minutes": minutes,
        "limit_s": LIMIT_S,
        "wait_s": WAIT_S,
        "memory": "largest size of the process (getrusage), and tracemalloc for an input with which it grew",
        "executions": sum(result["executions"] for result in results),
        "targets": results,
    }
    path = RESULTS / f"fuzz-{begun:%Y-%m-%dT%H%M%S}.json"
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return path


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
