"""Owns all figures of one prediction of one patient; must not average over patients or write files."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.cohort import CohortPatient
from models.frame import Frame
from models.metrics.fsim import FsimFeatures, FsimMeter
from models.metrics.hu import (
    HuError,
    cnr_gains,
    enhancement_agreement,
    false_enhancement,
    hu_error,
    interslice_jump_hu,
    quiet_body,
    structure_masks,
    vessel_dice,
    vessel_threshold_hu,
)
from models.metrics.image import ms_ssim, nmae, psnr_db, ssim, vif

Volume = NDArray[np.float32]

SLICE_METRICS = ("psnr_db", "ssim", "nmae", "ms_ssim", "vif", "fsim")
PATIENT_METRICS = (
    "false_enhancement_mae_hu",
    "false_enhancement_rate",
    "slope",
    "enhanced_mae_hu",
    "enhancement_correlation",
    "cnr_gain_vessel",
    "cnr_gain_node",
    "vessel_dice",
    "interslice_jump_hu",
)
_PER_SLICE: dict[str, Callable[[Volume, Volume], float]] = {
    "psnr_db": psnr_db,
    "ssim": ssim,
    "nmae": nmae,
    "ms_ssim": ms_ssim,
    "vif": vif,
}


@dataclass(frozen=True)
class PatientFigures:
    """Figures of one row for one patient in one reading (cohort): per slice, per patient, per structure."""

    cohort: str
    name: str
    patient: str
    slices: Mapping[str, tuple[float, ...]]
    values: Mapping[str, float]
    structures: Mapping[str, HuError]


@dataclass(frozen=True)
class _Reading:
    """What predictions are held against: pictures [z, M, M] in [0, 1] with their features, and HU [z, y, x]."""

    cohort: str
    pictures: Volume
    features: tuple[FsimFeatures, ...]
    truth_hu: Volume


class PatientBench:
    """One patient with all that predictions are measured against, read and prepared once.

    Two readings: "internal" or "external" against the registered second scan (pictures with its noise, HU without),
    and, where the cohort knows the difference, "..._misregistered" against the second scan as it was taken.
    """

    def __init__(self, patient: CohortPatient, frame: Frame) -> None:
        """Read a patient; raises CohortError for a damaged one."""
        self.patient, self.frame = patient, frame
        self.ncct_hu = patient.hu("ncct")
        self._meter = FsimMeter((frame.matrix, frame.matrix))
        low, high = frame.hu_window
        registered = "cect_registered" if patient.has("cect_registered") else "cect"
        clean = "cect_clean" if patient.has("cect_clean") else registered
        self.clean_hu = np.clip(patient.hu(clean), low, high)
        split = patient.record.split
        self._readings = [self._reading(split, registered, self.clean_hu)]
        if patient.has("cect_registered"):
            as_taken = np.clip(patient.hu("cect"), low, high)
            self._readings.append(self._reading(f"{split}_misregistered", "cect", as_taken))
        self.source_hu = np.clip(self.ncct_hu, low, high)
        self.labels = patient.labels() if patient.has("labels") else None
        self._masks = {} if self.labels is None else structure_masks(self.labels)

    def measure(self, name: str, prediction_hu: Volume) -> list[PatientFigures]:
        """Figures of a prediction [z, y, x] in HU inside the window, one for each reading."""
        pictures = self._pictures(prediction_hu)
        features = [self._meter.features(picture) for picture in pictures]
        shared = self._values(prediction_hu)
        results = []
        for reading in self._readings:
            slices = {
                key: tuple(function(p, t) for p, t in zip(pictures, reading.pictures, strict=True))
                for key, function in _PER_SLICE.items()
            }
            slices["fsim"] = tuple(map(self._meter.similarity, features, reading.features))
            structures = {key: hu_error(prediction_hu, reading.truth_hu, mask) for key, mask in self._masks.items()}
            blood = self._masks.get("blood_pool")
            jump = math.nan if blood is None else interslice_jump_hu(prediction_hu, reading.truth_hu, blood)
            values = {**shared, "interslice_jump_hu": jump}
            results.append(PatientFigures(reading.cohort, name, self.patient.id, slices, values, structures))
        return results

    def telling_slice(self) -> int:
        """The slice that shows the largest blood pool, or the middle one where nothing is labelled."""
        blood = self._masks.get("blood_pool")
        return len(self.ncct_hu) // 2 if blood is None else int(blood.sum(axis=(1, 2)).argmax())

    def _values(self, prediction_hu: Volume) -> dict[str, float]:
        """Figures that need labels or the true enhancement; not a number where they are not known."""
        values = dict.fromkeys(PATIENT_METRICS, math.nan)
        gains = cnr_gains(prediction_hu, self.source_hu, self._masks)
        values |= {"cnr_gain_vessel": gains["vessel"], "cnr_gain_node": gains["node"]}
        if self.labels is None:
            return values
        threshold = vessel_threshold_hu(self.labels, self.clean_hu)
        values["vessel_dice"] = vessel_dice(prediction_hu, self.labels, threshold)
        if self.patient.has("enhancement"):
            enhancement = self.patient.hu("enhancement")
            quiet = quiet_body(self.labels, self.source_hu, enhancement, self.frame.hu_window)
            mean, rate = false_enhancement(prediction_hu, self.source_hu, quiet)
            values |= {"false_enhancement_mae_hu": mean, "false_enhancement_rate": rate}
            visible = self.patient.hu("cect_clean") - enhancement > self.frame.hu_window[0]
            values |= enhancement_agreement(prediction_hu, self.source_hu, enhancement, visible)
        return values

    def _reading(self, cohort: str, array: str, truth_hu: Volume) -> _Reading:
        pictures = self._pictures(self.patient.hu(array))
        return _Reading(cohort, pictures, tuple(self._meter.features(p) for p in pictures), truth_hu)

    def _pictures(self, hu: Volume) -> Volume:
        """HU [z, y, x] as pictures [z, M, M] in [0, 1]."""
        values = self.frame.to_model(torch.from_numpy(np.ascontiguousarray(hu)))[:, 0]
        return np.asarray(((values + 1) / 2).numpy(), dtype=np.float32)
