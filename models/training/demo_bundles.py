"""The shipped bundles, trained by one command on invented patients that are made while it trains.

    python -m models.training.demo_bundles demo --out RUN --minutes 240 --workers 1 --batch 4         # on a CPU
    python -m models.training.demo_bundles demo --out RUN --minutes 5 --workers 12 --device cuda
    python -m models.training.demo_bundles demo-1step --out OTHER --minutes 60 --batch 4 --teacher RUN/bundle
    ... --resume                                                                                     # after a stop

RUN holds `checkpoint-0.pt`, `state.json` and, from the first minute on, `bundle/`. torch, numpy, scipy and safetensors
are all that it needs. `models.training.demo_run` says how it trains.
"""

import argparse
import multiprocessing
import sys
from pathlib import Path

from models.process import settle_process

NAMES = ("demo", "demo-1step")


def main(arguments: list[str] | None = None) -> int:
    """Train one bundle; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=240.0, help="of training in all, those before a stop counted")
    parser.add_argument("--workers", type=int, default=1, help="processes that make patients")
    parser.add_argument("--patients", type=int, default=400, help="at most so many; 5 MB of memory each")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--teacher", type=Path, help="bundle whose first step a demo-1step begins as")
    parser.add_argument("--resume", action="store_true", help="go on after a stop")
    words = parser.parse_args(arguments)
    settle_process()
    # torch is loaded only now, after the line above settled what it reads when it is.
    from models.training.checkpoint import load_checkpoint  # noqa: PLC0415
    from models.training.demo_run import Options, Run, patients_of  # noqa: PLC0415

    options = Options(**vars(words))
    if load_checkpoint(options.out) is not None and not options.resume:
        sys.stderr.write(f"{options.out} already holds a run; go on with it by --resume, or name another folder.\n")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
        run = Run.begin(options)
        run.train(patients_of(run, pool))
        run.keep()
    return 0


if __name__ == "__main__":
    sys.exit(main())
