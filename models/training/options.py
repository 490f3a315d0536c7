"""What a person decides about a training run beside its method. This module loads no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from models.bundle import LEVELS_HU
from models.errors import ModelsError
from models.training.augmentation import Augmentation
from models.translator import Device, Precision

TARGETS: Mapping[str, str] = {
    "cect": "the second scan as it is in the cohort",
    "cect_registered": "the second scan without the patient's motion, known of phantoms only",
    "enhanced_source": "the source plus the true enhancement, known of phantoms only",
}
"""What can be predicted, in the words of a card; see `TrainOptions.target`."""

_LEAST = {"patience": 0, "validation_slices": 1, "checkpoint_every": 1, "workers": 0, "folds": 0, "fold": 0}


class TrainingError(ModelsError):
    """A run cannot start, or cannot go on from where it stopped."""


class Diverged(ModelsError):
    """A loss is infinite or not a number; the checkpoint is from before."""


@dataclass(frozen=True)
class TrainOptions:
    """One run, whole: equal options on an equal cohort and machine give equal losses.

    `regime`: fields of the preset's `Regime` to replace, such as {"epochs": 20}. `model`: fields of the method's
    configuration to replace, networks as mappings of their own, such as {"generator": {"dropout": 0.1}}. `target`, what
    is to be predicted: "cect", the second scan as it is in the cohort (all that a hospital has); and for phantoms
    "cect_registered", the same without motion, or "enhanced_source", the source plus the true enhancement, which
    teaches to leave noise and everything else alone. `blood_level_hu`: the enhancement of the blood, in HU, to which
    the true enhancement of every patient is scaled, so that blood is learned at one level by convention; None leaves
    each patient's own; it needs the target "enhanced_source". `resident`: all slices lie in the memory of the device
    that trains, at half precision, and no `workers` read them. `augmentation`: what is changed of them each time they
    are shown; it needs `resident`. `precision` of the networks' arithmetic: "auto" is bf16 on a GPU.
    `patience`: the run ends after so many validations in a row without a better one; 0 never ends it early. `minutes`:
    the run ends in order after so many minutes of training, those before a stop included, and learning rates come to
    their end with them; None: after the regime's epochs alone. `validation_slices`: so many, evenly spread over the
    patients of the split "validation"; `without_validation` trains without any such patient, and the last epoch counts.
    `folds`: 0, or into how many parts the patients of the splits "train" and "validation" are divided, of which part
    `fold`, counted from 1, validates and the others train. `checkpoint_every` counts optimisation steps; there is one
    at the end of every epoch too. `workers`: processes that read slices, 0 for none. `name` of the bundle, by default
    the method's. `teacher`: folder of the bundle that a syndiff_student learns from.
    """

    method: str
    preset: str = "paper"
    target: str = "cect"
    regime: Mapping[str, object] = field(default_factory=dict)
    model: Mapping[str, object] = field(default_factory=dict)
    blood_level_hu: float | None = None
    resident: bool = False
    augmentation: Augmentation | None = None
    device: Device = "auto"
    precision: Precision = "auto"
    patience: int = 0
    minutes: float | None = None
    without_validation: bool = False
    folds: int = 0
    fold: int = 0
    validation_slices: int = 64
    checkpoint_every: int = 500
    workers: int = 0
    name: str | None = None
    teacher: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no run can follow, in words."""
        if self.target not in TARGETS:
            raise TrainingError(f"target is {self.target!r}; allowed are {', '.join(TARGETS)}.")
        for key, least in _LEAST.items():
            if getattr(self, key) < least:
                raise TrainingError(f"{key} is {getattr(self, key)}; it must be at least {least}.")
        if self.minutes is not None and not self.minutes > 0:
            raise TrainingError(f"minutes is {self.minutes}; it must be above 0.")
        if self.folds == 1 or self.fold > self.folds:
            raise TrainingError(
                f"fold is {self.fold} of {self.folds}; folds must be 0 or at least 2, fold up to folds."
            )
        if self.folds and self.without_validation:
            raise TrainingError("each fold validates on its own patients; without_validation does not go with folds.")
        self._check_shown()

    def _check_shown(self) -> None:
        if self.augmentation is not None and not self.resident:
            raise TrainingError("augmentation changes slices on the device only; it needs resident = true.")
        level, (low, high) = self.blood_level_hu, LEVELS_HU
        if level is None:
            return
        if not low <= level <= high:
            raise TrainingError(f"blood_level_hu is {level:g}; it must lie from {low:g} to {high:g}.")
        if self.target != "enhanced_source":
            raise TrainingError(
                f"blood_level_hu scales the true enhancement, which the target {self.target} does not have apart from "
                "the rest of the scan; it needs the target enhanced_source, known of phantoms only."
            )
        if self.augmentation is not None and self.augmentation.level != (1.0, 1.0):
            raise TrainingError("augmentation.level changes the level of blood, and blood_level_hu fixes it; give one.")

    def to_mapping(self) -> dict[str, object]:
        """All that decides the losses beside regime and model, as plain JSON values; how often a run saves does not."""
        free = ("regime", "model", "checkpoint_every", "workers", "name", "teacher")
        return {key: value for key, value in asdict(self).items() if key not in free}
