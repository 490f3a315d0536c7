"""What a shorter number format costs a bundle on this machine."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.metrics.image import psnr_db
from models.phantom import make_patient
from models.translator import Device, load_bundle

MAX_MAE_HU = 1.0
MAX_DIFFERENCE_HU = 15.0
MAX_PSNR_CHANGE_DB = 0.02
_SPACING_MM = (20.0, 1.9531, 1.9531)


@dataclass(frozen=True)
class PrecisionLoss:
    """bf16 against fp32 of the same bundle and noise: mean and largest |difference| in HU, change of PSNR in dB."""

    mae_hu: float
    max_hu: float
    psnr_change_db: float

    @property
    def acceptable(self) -> bool:
        """Whether all three stay within the gates of this module."""
        return (
            self.mae_hu <= MAX_MAE_HU
            and self.max_hu <= MAX_DIFFERENCE_HU
            and abs(self.psnr_change_db) <= MAX_PSNR_CHANGE_DB
        )


def precision_loss(bundle: Path, *, device: Device = "cpu", slices: int = 3) -> PrecisionLoss:
    """Translate slices of an invented patient in both precisions on `device` and compare all pixels.

    PSNR is that against the patient's enhanced scan in the bundle's window. Raises BundleError, DeviceUnavailable and
    TranslationError as `models.load_bundle` and its translator do.
    """
    patient = make_patient(4, slices=slices, rows=256, spacing_mm=_SPACING_MM)
    source = patient.ncct_hu.astype(np.float32)
    exact, short = (load_bundle(bundle, device=device, precision=precision) for precision in ("fp32", "bf16"))
    low, high = exact.card.hu_window

    def scaled(hu: NDArray[np.float32]) -> NDArray[np.float32]:
        return (np.clip(hu, low, high) - low) / (high - low)

    found, expected = (t.translate(source, 7, spacing_mm=_SPACING_MM[0]) for t in (short, exact))
    difference, truth = np.abs(found - expected), scaled(patient.cect_hu)
    return PrecisionLoss(
        mae_hu=float(difference.mean()),
        max_hu=float(difference.max()),
        psnr_change_db=psnr_db(scaled(found), truth) - psnr_db(scaled(expected), truth),
    )
