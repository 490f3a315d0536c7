"""Owns the measurement of a bundle on unseen phantom patients, beside the identity; must not train.

Metrics as the breast-radiotherapy literature reads them (whole slice at the model's matrix, window clipped, peak = the
window's width), and HU errors per structure, which those whole-slice figures barely see.
Run as `python -m models.evaluate BUNDLE --write` to put the figures into a bundle's card.
"""

import argparse
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, uniform_filter

from models.bundle import BundleCard, read_card, read_weights, write_bundle
from models.card_text import render_card
from models.frame import Frame
from models.phantom import HOSPITALS, Label, PhantomPatient, make_patient
from models.phantom.tissues import BLOOD_POOL
from models.translator import Translator, load_bundle

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class MetricsRow:
    """Means over slices (PSNR, NMAE) and over pixels (the rest), against the registered second scan.

    `psnr_db` and `nmae`: against the noisy CECT, clipped to the window, whole slice at the model's matrix.
    `blood_pool_*`: chambers, aorta and pulmonary artery eroded by 2 pixels, native matrix, against the noise-free CECT.
    `false_enhancement_mae_hu`: mean |prediction - NCCT| after a 5 x 5 mean filter, body pixels inside the window whose
    true enhancement is under 5 HU. `slope`: predicted over true enhancement in pixels with more than 15 HU.
    """

    name: str
    cohort: str
    patients: int
    psnr_db: float
    nmae: float
    blood_pool_bias_hu: float
    blood_pool_mae_hu: float
    false_enhancement_mae_hu: float
    slope: float


def evaluate_on_phantom(
    translator: Translator, seeds: Iterable[int], *, cohort: str, slices: int = 24, spacing_z_mm: float = 5.0
) -> list[MetricsRow]:
    """Translate phantom patients of these seeds and return the rows "identity" and the bundle's name."""
    low, high = translator.card.hu_window
    frame = Frame.of(translator.card)
    sums: dict[str, list[dict[str, float]]] = {"identity": [], translator.card.name: []}
    for seed in seeds:
        patient = make_patient(seed, slices=slices, hospital=cohort, spacing_mm=(spacing_z_mm, 0.9766, 0.9766))
        source = np.clip(patient.ncct_hu, low, high)
        predictions = {"identity": source, translator.card.name: translator.translate(patient.ncct_hu, seed)}
        for name, predicted in predictions.items():
            sums[name].append(measure_patient(patient, predicted, frame))
    return [_mean_row(name, cohort, values) for name, values in sums.items()]


def measure_patient(patient: PhantomPatient, predicted_hu: NDArray[np.float32], frame: Frame) -> dict[str, float]:
    """Figures of one patient, keyed like the fields of MetricsRow; predicted_hu [z, y, x] at the native matrix."""
    low, high = frame.hu_window
    truth, native = (np.clip(a, low, high) for a in (patient.cect_hu, patient.ncct_hu))
    small = [frame.to_model(torch.from_numpy(a)).numpy() for a in (predicted_hu, truth)]
    difference = (small[0] - small[1]) / 2  # in units of the window's width
    mse = (difference**2).mean(axis=(1, 2, 3))
    blood = _eroded(np.isin(patient.labels, BLOOD_POOL))
    error = (predicted_hu - np.clip(patient.cect_clean_hu, low, high))[blood]
    quiet = _quiet_body(patient, native, low, high)
    change = uniform_filter(predicted_hu - native, size=(1, 5, 5))
    enhanced = (patient.enhancement_hu > 15) & (patient.ncct_clean_hu > low)
    gained = (predicted_hu - native)[enhanced].mean() / patient.enhancement_hu[enhanced].mean()
    return {
        "psnr_db": float((-10 * np.log10(mse)).mean()),
        "nmae": float(np.abs(difference).mean()),
        "blood_pool_bias_hu": float(error.mean()) if error.size else float("nan"),
        "blood_pool_mae_hu": float(np.abs(error).mean()) if error.size else float("nan"),
        "false_enhancement_mae_hu": float(np.abs(change[quiet]).mean()),
        "slope": float(gained),
    }


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.stack([binary_erosion(plane, iterations=2) for plane in mask])


def _quiet_body(patient: PhantomPatient, native: NDArray[np.float32], low: float, high: float) -> NDArray[np.bool_]:
    outside = (Label.AIR, Label.COUCH_SHELL, Label.COUCH_FOAM, Label.COUCH_RAIL, Label.AIRWAY, Label.LUNG)
    inside = (native > low) & (native < high) & ~np.isin(patient.labels, outside)
    return inside & (patient.enhancement_hu < 5)


def _mean_row(name: str, cohort: str, values: list[dict[str, float]]) -> MetricsRow:
    means = {key: float(np.nanmean([v[key] for v in values])) for key in values[0]}
    return MetricsRow(name=name, cohort=cohort, patients=len(values), **means)


def as_metrics(rows: Iterable[MetricsRow]) -> tuple[dict[str, object], ...]:
    """Rows as plain values for a card, rounded to what is meant."""
    digits = {"nmae": 5, "slope": 3}
    return tuple(
        {key: round(v, digits.get(key, 2)) if isinstance(v, float) else v for key, v in asdict(row).items()}
        for row in rows
    )


def write_metrics(path: Path, rows: Iterable[MetricsRow]) -> BundleCard:
    """Replace the metrics of a bundle's card, and its text, and leave the weights as they are."""
    card = read_card(path)
    measured = replace(card, metrics=as_metrics(rows))
    return write_bundle(path, measured, read_weights(path, card), text=render_card(measured))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure both cohorts, log the rows and write them where asked."""
    parser = argparse.ArgumentParser(prog="python -m models.evaluate", description="Measure a bundle on the phantom.")
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    parser.add_argument("--patients", type=int, default=8, help="unseen patients of each cohort")
    parser.add_argument(
        "--first-seed", type=int, default=900_000, help="seed of the first patient; none was trained on"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--write", action="store_true", help="put the figures into bundle.json and CARD.md")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    translator = load_bundle(options.bundle)
    seeds = range(options.first_seed, options.first_seed + options.patients)
    rows = [row for cohort in HOSPITALS for row in evaluate_on_phantom(translator, seeds, cohort=cohort)]
    for row in as_metrics(rows):
        _LOG.info("%s", row)
    if options.write:
        write_metrics(options.bundle, rows)


if __name__ == "__main__":
    main()
