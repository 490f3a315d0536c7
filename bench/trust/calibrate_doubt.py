"""How often unseen phantoms would be held for the model's doubt: from here come the limits of node.translate.

    .venv/bin/python -m bench.trust.calibrate_doubt [--bundle DIR] [--patients 60] [--seed 770017] [--slices 12]

Half of the patients are of the phantom's chest, a quarter of them of the other hospital, and half of its teaching
anatomy, whose organs differ more. The two real series are measured where they are there. Printed are volume and share
of doubtful tissue of each, their quantiles, and the rate of holds with the 95 % Wilson interval.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.run import say
from bench.trust.calibrate import false_hold_rate
from bench.trust.cases import WINDOW_HU, Bundle, level_patients, read_case
from models import find_bundle
from models.doubt import DoubtFigures, doubtful, figures_of, limit_hu, measure_doubt
from models.evaluation.level import LevelPatient
from models.evaluation.regions import RegionFile
from models.process import settle_process
from node.dicom.uids import seed_of
from node.translate.second_look import is_too_much

SEED = 770_017
"""No bundle was trained on it, and no other figure of trust is measured on it."""
ROWS = 256
REAL = ("ct/philips_chest_ncct", "ct/siemens_chest_ncct")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("bench.trust.calibrate_doubt", description=__doc__)
    parser.add_argument("--bundle", default="demo-1step", metavar="DIR", help="a shipped bundle's name or a folder")
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--slices", type=int, default=12)
    options = parser.parse_args()
    bundle = Bundle(find_bundle(options.bundle))
    found: list[DoubtFigures] = []
    for name, one in phantoms(bundle, options.patients, options.seed, options.slices):
        found.append(one)
        say(f"{name}: {_words(one)}")
    for name, one in real(bundle):
        say(f"{name}: {_words(one)}")
    shares, volumes_ml = [one.doubtful_share for one in found], [one.doubtful_ml for one in found]
    for quantile in (0.5, 0.9, 0.95, 1.0):
        share, volume_ml = np.quantile(shares, quantile), np.quantile(volumes_ml, quantile)
        say(f"quantile {quantile:g}: share {share:.3f}, volume {volume_ml:.0f} mL")
    held = sum(is_too_much(one) for one in found)
    say(f"{bundle.card.name} {bundle.card.version}: {false_hold_rate(held, len(found), f'seed {options.seed}')}")


def phantoms(bundle: Bundle, count: int, seed: int, slices: int) -> Iterator[tuple[str, DoubtFigures]]:
    """The doubt of unseen phantom patients."""
    for anatomy, number in (("thorax", count - count // 2), ("teaching", count // 2)):
        for patient in level_patients(number, seed, slices=slices, rows=ROWS, anatomy=anatomy):
            yield f"{patient.hospital} {patient.id}", of_phantom(bundle, patient)


def of_phantom(bundle: Bundle, patient: LevelPatient) -> DoubtFigures:
    """Measured in arrays: a phantom lies as the network sees scans, and its files would add nothing."""
    hu, seed = patient.ncct_hu, seed_of(patient.ncct_hu, bundle.card.hu_window)
    loaded, z_mm = bundle.loaded, patient.spacing_mm[0]
    first = loaded.translate(hu, seed, spacing_mm=z_mm)
    second = loaded.second_look(hu, seed, spacing_mm=z_mm)
    inside = np.asarray((hu >= WINDOW_HU[0]) & (hu <= WINDOW_HU[1]))
    doubt = measure_doubt(first, second, inside, patient.spacing_mm)
    mask = doubtful(doubt, limit_hu(loaded.level_hu), patient.spacing_mm)
    return figures_of(mask, first, second, hu, inside=inside, spacing_mm=patient.spacing_mm)


def real(bundle: Bundle) -> Iterator[tuple[str, DoubtFigures]]:
    """The doubt of the real series of the tests, where they are."""
    shared = Path(__file__).parents[2].parent / "shared"
    data = Path(os.environ.get("SYNCECT_TEST_DATA") or shared / "data")
    for series in REAL:
        if (data / series).is_dir():
            case = read_case(data, series, RegionFile())
            yield series, bundle.looks(case).figures(case, bundle.loaded.level_hu)


def _words(one: DoubtFigures) -> str:
    held = ", HELD" if is_too_much(one) else ""
    return f"{one.doubtful_ml:.0f} mL, {100 * one.doubtful_share:.1f} % of {one.brightened_ml:.0f} mL brightened{held}"


if __name__ == "__main__":
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    settle_process()
    main()
