"""One target for some seconds, in a process of its own: inputs are made, run, kept where they reach new lines."""

import hashlib
import json
import logging
import mmap
import os
import random
import resource
import sys
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from node.network.library import configure_libraries
from tests.fuzz.edits import draw, edited
from tests.fuzz.seen import Seen
from tests.fuzz.target import MB, Target
from tests.fuzz.watch import Finding, Watch, peak_rss_bytes

MAX_KEPT: Final = 3000
_MINIMISE_S: Final = 10.0
_MOST_FINDINGS: Final = 20
_NOTE_BYTES: Final = 2 * MB


@dataclass
class Kept:
    """A finding with the smallest input that was found for it, and how often it came."""

    finding: Finding
    data: bytes
    times: int = 1


@dataclass
class Result:
    """What became of one target. lines: of the product, after the seeds and in the end."""

    target: str
    seed: int
    seconds: float = 0.0
    executions: int = 0
    lines_of_seeds: int = 0
    lines: int = 0
    inputs_kept: int = 0
    slowest_s: float = 0.0
    largest_input_mib: float = 0.0
    process_grew_mib: float = 0.0
    findings: list[dict[str, Any]] = field(default_factory=list)


class Note:
    """A file that says what runs at this moment, for whoever has to kill this process."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_NOTE_BYTES))
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), _NOTE_BYTES)

    def write(self, data: bytes) -> None:
        """This input begins now."""
        self._map[0:16] = int(time.monotonic() * 1000).to_bytes(8) + len(data).to_bytes(8)
        self._map[16 : 16 + len(data)] = data

    @staticmethod
    def read(path: Path) -> tuple[float, bytes]:
        """When the last input began, by the monotonic clock, and the input; 0 before the first."""
        raw = path.read_bytes()
        return int.from_bytes(raw[:8]) / 1000, raw[16 : 16 + int.from_bytes(raw[8:16])]


class Fuzzer:
    """Inputs of one target. seconds: how long they are made. note: where the one that runs is told."""

    def __init__(self, target: Target, seed: int, seconds: float, note: Note | None = None) -> None:
        self._target, self._chance, self._note = target, random.Random(f"{seed} {target.name}"), note
        self._end_s = time.monotonic() + seconds
        self.result = Result(target.name, seed)
        self.found: dict[str, Kept] = {}
        self._seen = Seen()
        self._pool: list[bytes] = []

    def run(self) -> Result:
        """Until the time is up, or there are too many findings; after each the target is opened anew."""
        begun, rss = time.monotonic(), peak_rss_bytes()
        waiting = list(self._target.seeds())
        while time.monotonic() < self._end_s and len(self.found) < _MOST_FINDINGS:
            with self._target.open() as run:
                watch = Watch(self._target, run)
                self._seen.start()
                try:
                    finding = self._until_finding(watch, waiting)
                finally:
                    self._seen.stop()
            self.result.slowest_s = max(self.result.slowest_s, round(watch.slowest_s, 3))
            self.result.largest_input_mib = max(self.result.largest_input_mib, round(watch.largest_bytes / MB, 1))
            if finding is not None:
                self._keep(*finding)
        self.result.seconds = round(time.monotonic() - begun, 1)
        self.result.lines, self.result.inputs_kept = len(self._seen.lines), len(self._pool)
        self.result.process_grew_mib = round((peak_rss_bytes() - rss) / MB, 1)
        return self.result

    def _until_finding(self, watch: Watch, waiting: list[bytes]) -> tuple[Finding, bytes] | None:
        while time.monotonic() < self._end_s:
            is_seed = bool(waiting)
            data = waiting.pop(0) if waiting else self._next()
            before = len(self._seen.lines)
            if self._note is not None:
                self._note.write(data)
            found = watch.try_one(data)
            self.result.executions += 1
            if is_seed or len(self._seen.lines) > before:
                self._pool.append(data)
                del self._pool[MAX_KEPT:]
            if is_seed and not waiting:
                self.result.lines_of_seeds = len(self._seen.lines)
            if found is not None:
                if found.name not in self.found:
                    return found, data
                self.found[found.name].times += 1
                if found.kind != "crash":
                    return found, data
        return None

    def _next(self) -> bytes:
        chance = self._chance
        recent = self._pool[-20:]
        parent = chance.choice(recent if chance.random() < 0.3 else self._pool)
        edits = [draw(chance) for _ in range(1 + chance.randrange(1 << chance.randrange(4)))]
        return edited(parent, edits, self._pool, self._target.tokens, self._target.max_bytes)

    def _keep(self, finding: Finding, data: bytes) -> None:
        if finding.name not in self.found:
            self.found[finding.name] = Kept(finding, minimised(self._target, finding, data))


def minimised(target: Target, finding: Finding, data: bytes, within_s: float = _MINIMISE_S) -> bytes:
    """A smaller input with the same finding: pieces are left out, the large ones first."""
    if finding.kind == "hang":
        return data
    end_s = time.monotonic() + within_s
    with target.open() as run:
        watch = Watch(target, run)
        size = max(1, len(data) // 2)
        while size and time.monotonic() < end_s:
            at = 0
            while at < len(data) and time.monotonic() < end_s:
                shorter = data[:at] + data[at + size :]
                found = watch.try_one(shorter)
                if found is not None and found.name == finding.name:
                    data = shorter
                else:
                    at += size
            size //= 2
    return data


def save(folder: Path, target: str, kept: Kept) -> dict[str, Any]:
    """Write the input of a finding into the folder, with the command that runs it again."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{target}-{hashlib.sha256(kept.finding.name.encode()).hexdigest()[:10]}"
    path.write_bytes(kept.data)
    again = f"python -m tests.fuzz --again {target} {path}"
    return {**asdict(kept.finding), "times": kept.times, "bytes": len(kept.data), "file": str(path), "again": again}


def main(name: str, seed: str, seconds: str, folder: str, note: str) -> None:
    """The process of one target: its result is the last line of its standard output."""
    from tests.fuzz.targets import TARGETS

    logging.getLogger().addHandler(logging.NullHandler())  # Python would print every warning of the product
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # as in the node
    configure_libraries()
    # What a library warns of would stand on standard error with the value that it is about, so it is a finding.
    warnings.simplefilter("error")
    for kind in (DeprecationWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)
    target = TARGETS[name]
    # Beyond every limit of a target, but far below what the machine has: an input that wants all of it ends here.
    limit = 4 * MB * 1024 + 4 * target.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    fuzzer = Fuzzer(target, int(seed), float(seconds), Note(Path(note)))
    result = fuzzer.run()
    result.findings = [save(Path(folder), name, kept) for kept in fuzzer.found.values()]
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
    sys.stdout.flush()
    os._exit(0)  # threads of a target that hung would keep the process


if __name__ == "__main__":
    main(*sys.argv[1:])
