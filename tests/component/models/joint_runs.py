"""Short runs of every method, for one process or several that divide each batch; started as a program, one of several.

Each case has a batch of 4 and 3 steps, and something that depends on the whole batch: batch statistics and dropout in
pix2pix, the pools of cyclegan and reggan, the groups of images of the time-conditional discriminators and R1 in the
SynDiffs. Beside them changed slices, crops and accumulated parts.
"""

import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from models.cohort import open_cohort
from models.together import PeerLost
from models.training import Observer, TrainOptions, TrainResult, train
from models.training.accelerated import EndedByFirst
from models.training.augmentation import Augmentation

REGIME = {"batch_size": 4, "epochs": 3}
CASES: dict[str, TrainOptions] = {
    "pix2pix": TrainOptions(
        "pix2pix",
        "tiny",
        device="cpu",
        regime=REGIME,
        resident=True,
        augmentation=Augmentation(noise_hu=(5.0, 10.0), rotate_deg=3.0, lesions=1.0),
        model={"generator": {"dropout": 0.3}},
    ),
    "begun_by_one": TrainOptions("cyclegan", "tiny", device="cpu", regime=REGIME),
    "cyclegan": TrainOptions("cyclegan", "tiny", device="cpu", regime=REGIME),
    "reggan": TrainOptions("reggan", "tiny_cycle", device="cpu", regime=REGIME | {"accumulate": 2}),
    "syndiff": TrainOptions("syndiff", "tiny", device="cpu", regime=REGIME, model={"r1_every": 2}),
    "syndiff_paired": TrainOptions(
        "syndiff_paired", "tiny", device="cpu", regime=REGIME | {"crop": 8, "crop_share": 0.5, "accumulate": 2}
    ),
    "syndiff_student": TrainOptions("syndiff_student", "tiny", device="cpu", regime=REGIME, model={"r1_every": 2}),
}


def run(case: str, cohort: Path, out: Path, teacher: str, *, observer: Observer | None = None) -> TrainResult:
    """One case in the folder `out`/case; one that was begun there goes on."""
    options = CASES[case]
    if case == "syndiff_student":
        options = replace(options, teacher=teacher)
    return train(open_cohort(cohort), out / case, options, resume=(out / case).exists(), observer=observer)


def _say_what_ends(cohort: Path, out: Path) -> None:
    """Two runs that cannot go on: the first process cannot write, then the second dies in a step."""
    first = os.environ["RANK"] == "0"

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with patch("models.training.loop.save_checkpoint", full):
        try:
            train(open_cohort(cohort), out / "full", CASES["pix2pix"])
        except (OSError, EndedByFirst) as error:
            sys.stdout.write(f"{type(error).__name__} {error}\n")

    def die(*_: object) -> None:
        os._exit(3)

    with nullcontext() if first else patch("models.training.loop.Run._schedule", die):
        try:
            train(open_cohort(cohort), out / "lost", CASES["pix2pix"])
        except PeerLost as error:
            sys.stdout.write(f"{type(error).__name__} {error}\n")


if __name__ == "__main__":
    for name in CASES:
        run(name, Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    _say_what_ends(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.flush()
