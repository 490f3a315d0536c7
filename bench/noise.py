"""Does noise flicker from slice to slice? One noise for the series, one for each slice, or the mean of several samples.

Run as `.venv/bin/python bench/noise.py --cohort COHORT --bundle BUNDLE`; prints a Markdown table over the first test
patients of both hospitals of a phantom cohort, against the second scan in register. Nothing here is a test.
"""

import argparse
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np

from models import Translator, find_bundle, load_bundle
from models.cohort import open_cohort
from models.evaluation.measure import PatientBench, Volume
from models.frame import Frame

Mode = Callable[[Volume], Volume]

_SLICES_MM = 5.0
COLUMNS = ("PSNR [dB]", "SSIM", "blood bias [HU]", "blood MAE [HU]", "false enhancement [HU]", "inter-slice jump [HU]")


def modes(translator: Translator, samples: int) -> dict[str, Mode]:
    """Ways to use noise, by name; each makes HU [z, y, x] of HU [z, y, x]."""

    def per_slice(hu: Volume) -> Volume:
        return np.concatenate(
            [translator.translate(hu[k : k + 1], 100 + k, spacing_mm=_SLICES_MM) for k in range(len(hu))]
        )

    def mean(hu: Volume) -> Volume:
        total = np.zeros_like(hu)
        for seed in range(7, 7 + samples):
            total += translator.translate(hu, seed, spacing_mm=_SLICES_MM)
        return total / np.float32(samples)

    return {
        "one noise for the series": lambda hu: translator.translate(hu, 7, spacing_mm=_SLICES_MM),
        "a noise for each slice": per_slice,
        f"mean of {samples} samples": mean,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--bundle", default="demo")
    parser.add_argument("--patients", type=int, default=5, help="of each hospital")
    parser.add_argument("--samples", type=int, default=4)
    options = parser.parse_args()
    cohort, translator = open_cohort(options.cohort), load_bundle(find_bundle(options.bundle))
    lines = ["| cohort | noise | " + " | ".join(COLUMNS) + " |", "|---|---|" + "---|" * len(COLUMNS)]
    for split in ("internal", "external"):
        figures: dict[str, list[list[float]]] = {}
        for patient in islice(cohort.split(split), options.patients):
            bench = PatientBench(patient, Frame.of(translator.card))
            for name, mode in modes(translator, options.samples).items():
                # The first reading is the one in register.
                f = bench.measure(name, mode(bench.ncct_hu))[0]
                blood = f.structures["blood_pool"]
                per_slice = [float(np.mean(f.slices[key])) for key in ("psnr_db", "ssim")]
                rest = [f.values["false_enhancement_mae_hu"], f.values["interslice_jump_hu"]]
                figures.setdefault(name, []).append([*per_slice, blood.bias_hu, blood.mae_hu, *rest])
        for name, rows in figures.items():
            means = " | ".join(f"{value:.3f}" if k == 1 else f"{value:.2f}" for k, value in enumerate(np.mean(rows, 0)))
            lines.append(f"| {split} | {name} | {means} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
