"""A cohort on which a network learns something in a second, and how the tests of the training loop use it."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.cohort import Cohort, CohortWriter, PatientRecord
from models.training import TrainOptions
from models.training.loop import Silent

SIDE = 32
SPLITS = ("train", "train", "train", "validation", "internal")


def disc_cohort(folder: Path) -> Cohort:
    """Discs of muscle in air that get brighter; two slices a patient, every patient a little different."""
    writer = CohortWriter(folder, kind="phantom", provenance={"data": "discs"})
    y, x = np.mgrid[:SIDE, :SIDE]
    for number, split in enumerate(SPLITS):
        disc = (x - 16) ** 2 + (y - 16) ** 2 < 60 + 10 * number
        ncct = np.stack([np.where(disc, 40 + number + z, -1000) for z in range(2)]).astype(np.float32)
        record = PatientRecord(f"P{number}", "H1", split, ncct.shape, (5.0, 1.5, 1.25), e_hu=90.0)
        arrays = {"ncct": ncct, "cect": ncct + 100 * disc, "enhancement": np.stack([90.0 * disc] * 2)}
        writer.add(record, arrays)
    return writer.close()


def options(method: str = "syndiff_paired", **changes: object) -> TrainOptions:
    values: dict[str, object] = {"preset": "tiny", "device": "cpu", "regime": {"epochs": 3}} | changes
    return TrainOptions(method=method, **values)  # type: ignore[arg-type]


def lines(run: Path, file: str = "losses.jsonl") -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / file).read_text().splitlines()]


class PullsThePlug(Silent):
    """Ends the process's run in the middle, as a crash would."""

    def __init__(self, step: int) -> None:
        self.at = step

    def stepped(self, epoch: int, step: int, losses: Mapping[str, float]) -> None:
        if step == self.at:
            raise KeyboardInterrupt
