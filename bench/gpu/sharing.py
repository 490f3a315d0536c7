"""Several processes that share one device by their translators alone, and several small series in one batch.

Each process is `python -m bench.gpu.sharing DEVICE SLICES ROWS FOLDER NAME PRECISION BATCH...`. It says when it is
ready, and for each line "NUMBER SERIES" it translates so many series with the translator of that number.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.gpu.report import Section
from bench.gpu.size import Size
from bench.gpu.tools import SEED, SLICES_MM, bundle_of, peak_gb, phantom_slices, shipped, tidy, time_calls, translator
from models.process import settle_process
from models.translator import Precision

START_S = 20.0


class Shared(NamedTuple):
    """What every process holds: a bundle in a precision with a batch."""

    name: str
    precision: Precision
    batch: int


def sharing(section: Section, *, device: str, size: Size, folder: Path) -> None:
    """Processes first: they say whether a second worker is worth its memory."""
    if section.has_time_for("processes that share the device", seconds=START_S if device == "cuda" else 2):
        _processes(section, device, size, folder)
    _small_series(section, device, size)


def _processes(section: Section, device: str, size: Size, folder: Path) -> None:
    held = [Shared(name, size.precisions[0], size.batch) for name in size.node_bundles]
    if device == "cuda":
        bundle_of("syndiff", size.published, folder)
        held.append(Shared("syndiff", size.precisions[0], size.batch))
    words = [device, str(size.shared_slices), str(size.rows), str(folder), *(str(part) for one in held for part in one)]
    with ExitStack() as stack:
        begun = time.monotonic()
        children = [_start(stack, words) for _ in range(max(size.shared_by))]
        for child in children:
            _answer(child)
        section.row(figure="start of the processes", value=time.monotonic() - begun, processes=len(children))
        for number, one in enumerate(held):
            alone_s = 0.0
            for processes in size.shared_by:
                what = f"series by {one.name}, {one.precision}, {processes} processes"
                if not section.has_time_for(what, seconds=processes * alone_s * size.shared_series):
                    continue
                taken_s = _together(children[:processes], number, size.shared_series)
                each_s = taken_s / (processes * size.shared_series)
                alone_s = alone_s or each_s
                section.row(
                    figure="translation by processes that share the device",
                    value=each_s,
                    series_per_hour=3600 / each_s,
                    against_one_process=alone_s / each_s,
                    bundle=one.name,
                    precision=one.precision,
                    processes=processes,
                    slices=size.shared_slices,
                )


def _start(stack: ExitStack, words: list[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bench.gpu.sharing", *words]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.callback(_end, child)
    return child


def _end(child: "subprocess.Popen[str]") -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        pipe.close()


def _together(children: "list[subprocess.Popen[str]]", number: int, series: int) -> float:
    """Seconds until each process has translated so many series, all at once."""
    begun = time.perf_counter()
    for child in children:
        _pipe(child.stdin).write(f"{number} {series}\n")
        _pipe(child.stdin).flush()
    for child in children:
        _answer(child)
    return time.perf_counter() - begun


def _answer(child: "subprocess.Popen[str]") -> None:
    if json.loads(_pipe(child.stdout).readline() or "null") is None:
        raise RuntimeError("a process that shares the device ended")


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _small_series(section: Section, device: str, size: Size) -> None:
    """The same slices one series after the other, and all in one call: a batch at the end of a series is not full."""
    hu = phantom_slices(size.small_slices, size.rows)
    many = phantom_slices(size.small_slices * size.small_series, size.rows)
    for name in size.node_bundles:
        for batch in size.batches[1:]:
            if not section.has_time_for(f"small series by {name}, batch {batch}", seconds=4 * size.seconds_each):
                continue
            tidy(device)
            loaded = translator(shipped(name), device, size.precisions[0], batch)
            translate = partial(loaded.translate, seed=SEED, spacing_mm=SLICES_MM)

            def in_turn(translate: Callable[[NDArray[np.float32]], object] = translate) -> None:
                for _ in range(size.small_series):
                    translate(hu)

            turn, whole = (
                time_calls(call, device, seconds=0, warm_up=1) for call in (in_turn, partial(translate, many))
            )
            section.row(
                figure=f"{size.small_series} series of {size.small_slices} slices",
                one_after_the_other_s=turn.least_s,
                in_one_call_s=whole.least_s,
                gained=turn.least_s / whole.least_s,
                bundle=name,
                precision=size.precisions[0],
                batch=batch,
                **peak_gb(device),
            )


def serve_lines(words: list[str]) -> None:
    """The whole work of one process."""
    device, slices, rows, folder, *rest = words
    hu, loaded = phantom_slices(int(slices), int(rows)), []
    for name, precision, batch in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
        path = bundle_of(name, "paper", Path(folder)) if name == "syndiff" else shipped(name)
        kind: Precision = "bf16" if precision == "bf16" else "fp32"
        loaded.append(translator(path, device, kind, int(batch)))
        loaded[-1].translate(hu[: 2 * int(batch)], SEED, spacing_mm=SLICES_MM)
    _say()
    for line in sys.stdin:
        number, series = map(int, line.split())
        for _ in range(series):
            loaded[number].translate(hu, SEED, spacing_mm=SLICES_MM)
        _say()


def _say() -> None:
    sys.stdout.write("true\n")
    sys.stdout.flush()


if __name__ == "__main__":
    settle_process()
    serve_lines(sys.argv[1:])
