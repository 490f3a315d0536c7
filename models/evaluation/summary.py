"""The rows of the report: means, spreads, gains and tests over patients."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from models.evaluation.measure import PATIENT_METRICS, SLICE_METRICS, PatientFigures
from models.metrics.statistics import Comparison, compare_pairs

HEADLINE = ("psnr_db", "ssim", "nmae")
GAINS = {"psnr_db": "psnr_gain_db", "ssim": "ssim_gain", "nmae": "nmae_gain"}
PAPERS_COHORTS = ("internal", "external")


@dataclass(frozen=True)
class StructureRow:
    """HU error in one eroded structure: means over patients, SD of the patients' biases, voxels of all patients."""

    bias_hu: float
    mae_hu: float
    bias_sd_hu: float
    patients: int
    voxels: int


@dataclass(frozen=True)
class Row:
    """One name in one cohort. `means` and `sds`: SLICE_METRICS over slices (infinite PSNR of equal slices left out),
    PATIENT_METRICS over patients. `gains`: mean minus the identity's mean, keyed by GAINS. SDs are of the sample."""

    cohort: str
    name: str
    patients: int
    slices: int
    means: Mapping[str, float]
    sds: Mapping[str, float]
    gains: Mapping[str, float]
    structures: Mapping[str, StructureRow]

    def to_mapping(self) -> dict[str, object]:
        """Plain JSON values as in metrics.json; what is not a number becomes null."""
        plain: dict[str, object] = {"cohort": self.cohort, "name": self.name}
        plain |= {"patients": self.patients, "slices": self.slices}
        plain |= {key: finite_or_none(value) for key, value in self.means.items()}
        plain |= {f"{key}_sd": finite_or_none(value) for key, value in self.sds.items()}
        plain |= {key: finite_or_none(value) for key, value in self.gains.items()}
        plain["structures"] = {
            name: {key: finite_or_none(value) for key, value in asdict(row).items()}
            for name, row in self.structures.items()
        }
        return plain


@dataclass(frozen=True)
class PairedTest:
    """A paired comparison of two rows: in which cohort, of which figure, and whether over patients or slices."""

    cohort: str
    metric: str
    unit: str
    comparison: Comparison

    def to_mapping(self) -> dict[str, object]:
        """Plain JSON values."""
        figures = {k: finite_or_none(v) for k, v in asdict(self.comparison).items()}
        return {"cohort": self.cohort, "metric": self.metric, "unit": self.unit, **figures}


def summarise(figures: Sequence[PatientFigures]) -> list[Row]:
    """One row for each cohort and name, in the order in which they were measured; "identity" must be among the names.

    Cohorts come in the order internal, external, then their misregistered readings.
    """
    rows: list[Row] = []
    for cohort in cohorts_of(figures):
        of_cohort = [f for f in figures if f.cohort == cohort]
        reference = _means([f for f in of_cohort if f.name == "identity"])
        for name in dict.fromkeys(f.name for f in of_cohort):
            rows.append(_row(cohort, name, [f for f in of_cohort if f.name == name], reference))
    return rows


def run_tests(figures: Sequence[PatientFigures]) -> list[PairedTest]:
    """Wilcoxon signed-rank tests of every two rows, Holm-corrected within each cohort, figure and unit.

    Over patients (their means over slices) for PSNR, SSIM, NMAE, false enhancement and the blood pool's MAE; over
    slices, which are correlated and make any difference significant, for the first three, as the literature does.
    """
    tests = []
    over_patients: dict[str, Callable[[PatientFigures], list[float]]] = {
        **{key: _slice_mean(key) for key in HEADLINE},
        "false_enhancement_mae_hu": lambda f: [f.values["false_enhancement_mae_hu"]],
        "blood_pool_mae_hu": lambda f: [
            f.structures["blood_pool"].mae_hu if "blood_pool" in f.structures else math.nan
        ],
    }
    over_slices: dict[str, Callable[[PatientFigures], list[float]]] = {key: _slice_values(key) for key in HEADLINE}
    for cohort in cohorts_of(figures):
        of_cohort = [f for f in figures if f.cohort == cohort]
        for unit, metrics in (("patient", over_patients), ("slice", over_slices)):
            for metric, extract in metrics.items():
                values: dict[str, list[float]] = {}
                for f in of_cohort:
                    values.setdefault(f.name, []).extend(extract(f))
                tests += [PairedTest(cohort, metric, unit, c) for c in compare_pairs(values)]
    return tests


def cohorts_of(figures: Iterable[PatientFigures]) -> list[str]:
    """Cohorts among the figures, registered readings first."""
    return sorted({f.cohort for f in figures}, key=lambda c: (c.endswith("_misregistered"), not c.startswith("int"), c))


def finite_or_none(value: object) -> object:
    """The value, or None for a float that JSON cannot say."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(cohort: str, name: str, figures: Sequence[PatientFigures], reference: Mapping[str, float]) -> Row:
    means = _means(figures)
    sds = {key: _sd(_over_slices(figures, key)) for key in SLICE_METRICS}
    sds |= {key: _sd([f.values[key] for f in figures]) for key in PATIENT_METRICS}
    structures = {}
    for structure in dict.fromkeys(s for f in figures for s in f.structures):
        errors = [f.structures[structure] for f in figures if structure in f.structures]
        structures[structure] = StructureRow(
            bias_hu=_mean([e.bias_hu for e in errors]),
            mae_hu=_mean([e.mae_hu for e in errors]),
            bias_sd_hu=_sd([e.bias_hu for e in errors]),
            patients=len(errors),
            voxels=sum(e.voxels for e in errors),
        )
    return Row(
        cohort=cohort,
        name=name,
        patients=len(figures),
        slices=len(_over_slices(figures, "nmae")),
        means=means,
        sds=sds,
        gains={gain: means[key] - reference[key] for key, gain in GAINS.items()},
        structures=structures,
    )


def _means(figures: Sequence[PatientFigures]) -> dict[str, float]:
    means = {key: _mean(_over_slices(figures, key)) for key in SLICE_METRICS}
    return means | {key: _mean([f.values[key] for f in figures]) for key in PATIENT_METRICS}


def _over_slices(figures: Iterable[PatientFigures], key: str) -> list[float]:
    return [value for f in figures for value in f.slices[key]]


def _slice_mean(key: str) -> Callable[[PatientFigures], list[float]]:
    return lambda f: [_mean(f.slices[key])]


def _slice_values(key: str) -> Callable[[PatientFigures], list[float]]:
    return lambda f: list(f.slices[key])


def _mean(values: Iterable[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return float(np.mean(finite)) if finite else math.nan


def _sd(values: Iterable[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]
    return float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan
