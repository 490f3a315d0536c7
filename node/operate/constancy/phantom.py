"""The series of a constancy run: always the same pixels, under UIDs that are new in every run."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.metrics.hu import quiet_body, structure_masks
from models.phantom import PhantomPatient, make_patient
from node.dicom.headers import SliceHeader
from node.dicom.synthetic_scan import ScanIdentity, write_scan
from node.dicom.volume import CTVolume, read_volume

SEED: Final = 20_261
PATIENT_ID: Final = "QA-CONSTANCY"
PATIENT_NAME: Final = "QA^Constancy"

_STEP_MM: Final = 5.0
_FIELD_MM: Final = 500.0

Hu = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Size:
    """Pixels of the phantom: `slices` of `rows` x `rows`, 5 mm apart in a field of view of 500 mm."""

    slices: int
    rows: int

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances of slices, rows and columns."""
        pixel_mm = round(_FIELD_MM / self.rows, 4)
        return _STEP_MM, pixel_mm, pixel_mm


SIZE: Final = Size(slices=16, rows=512)


@dataclass(frozen=True)
class Scan:
    """The phantom as a scanner would send it, with its truth; arrays are [z, y, x].

    truth_hu: the scan without noise plus the true enhancement, blood at `blood_hu`. blood, muscle, fat, quiet: where a
    figure is taken; `quiet` is soft tissue that does not enhance.
    """

    volume: CTVolume
    paths: tuple[Path, ...]
    truth_hu: Hu
    blood_hu: float
    blood: Mask
    muscle: Mask
    fat: Mask
    quiet: Mask

    @property
    def headers(self) -> tuple[SliceHeader, ...]:
        """Headers of the slices, in the order of z."""
        return self.volume.headers

    @property
    def series_uid(self) -> str:
        """Its SeriesInstanceUID."""
        return self.headers[0].series_uid


def scan_phantom(folder: Path, level_hu: float | None, window_hu: tuple[float, float], now: datetime) -> Scan:
    """Write the phantom into `folder`, which exists, as a series of this moment.

    level_hu: enhancement of blood that the bundle draws, HU; None for that of the phantom itself. The identity names it
    as a test object. SeriesDescription does not: the rules of the node would hold a series whose text names a phantom.
    """
    patient = make_patient(SEED, slices=SIZE.slices, rows=SIZE.rows, spacing_mm=SIZE.spacing_mm)
    # Random, so that nobody can send a series under this UID before the run names it, and no run meets an older one.
    identity = ScanIdentity(
        patient_id=PATIENT_ID,
        patient_name=PATIENT_NAME,
        seed=f"constancy-{uuid.uuid4()}",
        study_date=f"{now:%Y%m%d}",
    )
    paths = write_scan(patient.ncct_hu, SIZE.spacing_mm, folder, identity)
    return _with_truth(patient, tuple(paths), level_hu, window_hu)


def _with_truth(
    patient: PhantomPatient, paths: tuple[Path, ...], level_hu: float | None, window_hu: tuple[float, float]
) -> Scan:
    masks = structure_masks(patient.labels)
    blood = masks["blood_pool"]
    own_hu = float(patient.enhancement_hu[blood].mean(dtype=np.float64))
    blood_hu = level_hu or own_hu
    return Scan(
        volume=read_volume(paths),
        paths=paths,
        truth_hu=patient.ncct_clean_hu + patient.enhancement_hu * np.float32(blood_hu / own_hu),
        blood_hu=blood_hu,
        blood=blood,
        muscle=masks["muscle"],
        fat=masks["fat"],
        quiet=quiet_body(patient.labels, patient.ncct_hu, patient.enhancement_hu, window_hu),
    )
