"""What is measured beside the bundles: the identity and the mean enhancement.

A figure says something only beside these two: the first adds nothing, the second adds what anyone would who has seen
the training patients and looks at brightness and place alone.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, uniform_filter

from models.cohort import CohortPatient, PatientRecord
from models.translator import Translator

Volume = NDArray[np.float32]

_BIN_HU = 10.0
_CELLS = 12
_REACH_SD = 2.5
_PRIOR_VOXELS = 10.0
_TISSUE_HU = -150.0


class Predictor(Protocol):
    """A row of the tables."""

    @property
    def name(self) -> str: ...
    def predict(self, ncct_hu: Volume, record: PatientRecord) -> Volume:
        """Predicted CECT in HU [z, y, x], inside the window, of the NCCT in HU [z, y, x]."""
        ...


@dataclass(frozen=True)
class Identity:
    """Returns the NCCT, clipped to the window."""

    window_hu: tuple[float, float]
    name: str = "identity"

    def predict(self, ncct_hu: Volume, record: PatientRecord) -> Volume:
        """The NCCT clipped to the window."""
        return np.clip(ncct_hu, *self.window_hu)


@dataclass(frozen=True)
class MeanEnhancement:
    """Adds the mean enhancement of the training patients at the same brightness and the same place in the body.

    `sums_hu`, `weights` [HU, y, x]: sum of CECT - NCCT, both clipped to the window, and number of all voxels of the
    split "train" with the NCCT strictly inside the window, in bins of 10 HU of the NCCT's 5 x 5 mean and 12 x 12
    places; what is added is the quotient of both, each interpolated linearly between bins. A place is counted from the
    centre of the slice's tissue (NCCT above -150 HU) in units of its SD, up to 2.5 of them; nothing along z. A bin is
    drawn to the mean of its brightness by 10 voxels' worth. The CECT is the registered one where the cohort knows it,
    which makes this row as strong as it can be.
    """

    window_hu: tuple[float, float]
    sums_hu: Volume
    weights: Volume
    name: str = "mean_enhancement"

    @classmethod
    def learn(cls, patients: Iterable[CohortPatient], window_hu: tuple[float, float]) -> "MeanEnhancement":
        """Learn the table; raises ValueError where there is no patient."""
        low, high = window_hu
        shape = (int(np.ceil((high - low) / _BIN_HU)), _CELLS, _CELLS)
        sums, counts, seen = np.zeros(shape), np.zeros(shape), 0
        for patient in patients:
            seen += 1
            ncct = patient.hu("ncct")
            cect = patient.hu("cect_registered" if patient.has("cect_registered") else "cect")
            inside = (ncct > low) & (ncct < high)
            cells = np.rint(_cells(ncct, inside, window_hu)).astype(np.intp)
            flat = np.ravel_multi_index(tuple(np.minimum(cells, np.array(shape)[:, None] - 1)), shape)
            change = (np.clip(cect, low, high) - ncct)[inside]
            sums += np.bincount(flat, change, sums.size).reshape(shape)
            counts += np.bincount(flat, minlength=sums.size).reshape(shape)
        if not seen:
            raise ValueError("mean_enhancement needs at least one patient to learn from")
        by_brightness = sums.sum(axis=(1, 2)) / np.maximum(counts.sum(axis=(1, 2)), 1)
        prior = _PRIOR_VOXELS * by_brightness[:, None, None]
        return cls(window_hu, (sums + prior).astype(np.float32), (counts + _PRIOR_VOXELS).astype(np.float32))

    def predict(self, ncct_hu: Volume, record: PatientRecord) -> Volume:
        """The NCCT plus the table's mean, clipped to the window."""
        low, high = self.window_hu
        result = np.clip(ncct_hu, low, high)
        inside = (ncct_hu > low) & (ncct_hu < high)
        places = _cells(ncct_hu, inside, self.window_hu)
        sums, weights = (map_coordinates(a, places, order=1, mode="nearest") for a in (self.sums_hu, self.weights))
        result[inside] += sums / weights
        return np.clip(result, low, high)


@dataclass(frozen=True)
class Bundle:
    """A bundle's translator; its noise comes from the patient's pseudonym, so that every run is the same."""

    name: str
    translator: Translator
    window_hu: tuple[float, float]

    def predict(self, ncct_hu: Volume, record: PatientRecord) -> Volume:
        """What the bundle predicts before compositing, clipped to the window."""
        seed = int.from_bytes(hashlib.sha256(record.id.encode()).digest()[:4], "big")
        predicted = self.translator.translate(ncct_hu, seed, spacing_mm=record.spacing_mm[0])
        return np.clip(predicted, *self.window_hu)


def _cells(ncct_hu: Volume, inside: NDArray[np.bool_], window_hu: tuple[float, float]) -> NDArray[np.float64]:
    """Coordinates [3, n] in the table of the voxels inside: brightness, y, x; each at least 0."""
    low, high = window_hu
    bright = uniform_filter(np.clip(ncct_hu, low, high), size=(1, 5, 5))[inside]
    z, y, x = np.nonzero(inside)
    tissue = ncct_hu > _TISSUE_HU
    coordinates = [np.clip((bright - low) / _BIN_HU - 0.5, 0, None)]
    for axis, where in ((2, y), (1, x)):
        profile = tissue.sum(axis=axis).astype(np.float64)
        line = np.arange(profile.shape[1])
        total = np.maximum(profile.sum(axis=1), 1)
        centre = (profile @ line) / total
        sd = np.sqrt((profile * (line - centre[:, None]) ** 2).sum(axis=1) / total)
        offset = (where - centre[z]) / np.maximum(sd[z], 1)
        coordinates.append(np.clip((offset / _REACH_SD + 1) / 2 * (_CELLS - 1), 0, _CELLS - 1))
    return np.stack(coordinates)
