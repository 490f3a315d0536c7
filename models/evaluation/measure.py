"""All figures of one prediction of one patient."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.cohort import CohortPatient
from models.frame import Frame
from models.metrics.fsim import FsimFeatures, FsimMeter
from models.metrics.hu import (
    Change,
    HuError,
    Mask,
    VesselRegion,
    cnr_gains,
    enhancement_agreement,
    false_enhancement,
    hu_error,
    interslice_jump_hu,
    quiet_body,
    structure_masks,
    vessel_dice,
    vessel_region,
    vessel_threshold_hu,
)
from models.metrics.image import PictureFeatures, picture_features, similarities
from models.metrics.registered import FIGURES, RegisteredDifference

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
    *FIGURES,
)


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
class _Slice:
    """What similarity needs of one picture [M, M] in [0, 1], once for all pairs in which it stands."""

    picture: PictureFeatures
    fsim: FsimFeatures


@dataclass(frozen=True)
class _Reading:
    """What predictions are held against: pictures by their features, and HU [z, y, x]."""

    cohort: str
    slices: tuple[_Slice, ...]
    truth_hu: Volume


@dataclass(frozen=True)
class _Vessels:
    """Where vessels are, and above which HU a voxel counts as one."""

    region: VesselRegion
    threshold_hu: float


@dataclass(frozen=True)
class _Enhancement:
    """The true enhancement, where there is none of it, and where the window lets it be seen."""

    true: Change
    quiet: Mask
    visible: Mask


class PatientBench:
    """One patient with all that predictions are measured against, read and prepared once.

    Two readings: "internal" or "external" against the registered second scan (pictures with its noise, HU without),
    and, where the cohort knows it and the two differ, "..._misregistered" against the second scan as it was taken.
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
        split = patient.record.split + ("_virtual" if patient.has_virtual_source else "")
        self.cohort = split
        self._readings = [self._reading(split, registered, self.clean_hu)]
        stored = patient.record.arrays or {}
        if stored.get("cect_registered", stored["cect"]) != stored["cect"]:
            as_taken = np.clip(patient.hu("cect"), low, high)
            self._readings.append(self._reading(f"{split}_misregistered", "cect", as_taken))
        self.source_hu = np.clip(self.ncct_hu, low, high)
        self._difference = RegisteredDifference(self.ncct_hu, patient.hu(registered), frame.hu_window)
        labels = patient.labels() if patient.has("labels") else None
        self._masks: Mapping[str, Mask] = {} if labels is None else structure_masks(labels)
        self._vessels, self._enhancement = None, None
        if labels is not None and patient.has("enhancement"):  # then every voxel is labelled
            self._vessels = _Vessels(vessel_region(labels), vessel_threshold_hu(self._masks, self.clean_hu))
            true_hu = patient.hu("enhancement")
            quiet = quiet_body(labels, self.source_hu, true_hu, frame.hu_window)
            visible = patient.hu("cect_clean") - true_hu > low
            self._enhancement = _Enhancement(Change.of(true_hu), quiet, visible)

    def measure(self, name: str, prediction_hu: Volume) -> list[PatientFigures]:
        """Figures of a prediction [z, y, x] in HU inside the window, one for each reading."""
        predicted = self._slices(prediction_hu)
        shared = self._values(prediction_hu)
        results = []
        for reading in self._readings:
            pairs = [
                similarities(p.picture, t.picture) | {"fsim": self._meter.similarity(p.fsim, t.fsim)}
                for p, t in zip(predicted, reading.slices, strict=True)
            ]
            slices = {key: tuple(pair[key] for pair in pairs) for key in SLICE_METRICS}
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
        """Figures over the whole patient; not a number where the labels or the truth that they need are not known."""
        values = dict.fromkeys(PATIENT_METRICS, math.nan) | self._difference.figures(prediction_hu)
        gains = cnr_gains(prediction_hu, self.source_hu, self._masks, self.ncct_hu)
        values |= {"cnr_gain_vessel": gains["vessel"], "cnr_gain_node": gains["node"]}
        if self._vessels is not None:
            values["vessel_dice"] = vessel_dice(prediction_hu, self._vessels.region, self._vessels.threshold_hu)
        if self._enhancement is not None:
            change = Change.of(prediction_hu - self.source_hu)
            mean, rate = false_enhancement(change, self._enhancement.quiet)
            values |= {"false_enhancement_mae_hu": mean, "false_enhancement_rate": rate}
            values |= enhancement_agreement(change, self._enhancement.true, self._enhancement.visible)
        return values

    def _reading(self, cohort: str, array: str, truth_hu: Volume) -> _Reading:
        return _Reading(cohort, self._slices(self.patient.hu(array)), truth_hu)

    def _slices(self, hu: Volume) -> tuple[_Slice, ...]:
        """HU [z, y, x] as pictures in [0, 1], by their features."""
        values = self.frame.to_model(torch.from_numpy(np.ascontiguousarray(hu)))[:, 0]
        pictures = np.asarray(((values + 1) / 2).numpy(), dtype=np.float32)
        return tuple(_Slice(picture_features(p), self._meter.features(p)) for p in pictures)
