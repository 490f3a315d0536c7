"""`syncect work` with a stopwatch around the stages of a job: `python -m bench.gpu.timed_worker FILE CONFIG NAME`.

After each job one JSON line is added to FILE: seconds by stage, slices, and whether it was this worker's first.
"""

import importlib
import json
import pkgutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

JOB = "job in the worker"
SECOND_LOOK, TRANSLATE = "second look", "translate"
TIMED = {
    "node.translate.job.read_volume": "read",
    "node.translate.job.find_native_contrast": "look for contrast medium, beside the network",
    "node.translate.job.composite": "composite",
    "node.translate.job.judge_envelope": "gate",
    "node.translate.job.judge_result": "gate",
    "node.translate.job.compare_looks": "gate",
    "node.translate.job.build_slice": "write",
    "node.translate.job.write_part10": "write",
    "node.translate.job.prove_slice": "prove",
    "node.translate.job.prove_series": "prove",
    "node.translate.job.write_doubt": "write",
}
"""Functions that run in the thread of the job, but for the look for contrast medium."""


def main(file: Path, config: str, name: str) -> None:
    """Be the worker `name` of the node with these settings."""
    from node.cli import main as syncect  # noqa: PLC0415  which settles the interpreter first

    module: Any = importlib.import_module("node.translate.job")
    seconds: dict[str, float] = {}
    for path, stage in TIMED.items():
        holder, _, function = path.rpartition(".")
        setattr(pkgutil.resolve_name(holder), function, timed(pkgutil.resolve_name(path), stage, seconds))
    predict = module.predict

    def looked(*arguments: Any, again: bool, **options: Any) -> Any:
        stage = SECOND_LOOK if again else TRANSLATE
        return timed(predict, stage, seconds)(*arguments, again=again, **options)

    run, done = module.Executor.run, 0

    def run_timed(executor: Any, paths: Any, *rest: Any) -> Any:
        nonlocal done
        seconds.clear()
        result = timed(run, JOB, seconds)(executor, paths, *rest)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"slices": len(paths), "first": not done, **seconds}) + "\n")
        done += 1
        return result

    module.predict = looked
    module.Executor.run = run_timed
    sys.argv = ["syncect", "--config", config, "work", "--name", name]
    syncect()


def timed(function: Callable[..., Any], stage: str, seconds: dict[str, float]) -> Callable[..., Any]:
    """`function` with its wall-clock seconds added to those of a stage."""

    def call(*arguments: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - begun

    return call


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
