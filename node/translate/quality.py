"""The gate on a result: is it a plausible enhancement of its source? Nothing is changed here."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.dicom.volume import CTVolume
from node.translate.change import BRIGHTER_THAN_BLOOD_HU, DARK_HU, GAP_MM, UNTOUCHED_HU, Figures, measure_change
from node.translate.change_grid import change_inside
from node.translate.composite import Composite

INFINITE: Final = float("inf")
DARKENED_HU: Final = -40.0
DEFAULT_LEVEL_HU: Final = 200.0
"""By how much blood may enhance in the result of a bundle whose card names no level."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit. low, high: the closed range of what is plausible. unit: of the figure, "%" for a share 0..1. words: a
    sentence for the person who decides, with {value}, {limit}, {z} (where it is worst) and {where} (of a placement)."""

    figure: str
    low: float
    high: float
    unit: str
    words: str

    def is_broken(self, measured: Figures) -> bool:
        """Whether the figure was measured and lies outside, or is no number."""
        return self.figure in measured and not self.low <= measured[self.figure] <= self.high

    def sentence(self, measured: Figures, where: str) -> str:
        """What is wrong, where, and what would be plausible."""
        z_mm = measured.get(f"{self.figure.rpartition('_')[0]}_z_mm")
        return self.words.format(
            value=quantity(measured[self.figure], self.unit),
            limit=limit_words(self.low, self.high, self.unit),
            z="" if z_mm is None else f", most of it at z = {z_mm:.1f} mm",
            where=where,
        )


def quantity(number: float, unit: str) -> str:
    """A figure with its unit, as people read it."""
    return f"{100 * number:.3g} %" if unit == "%" else f"{number:.4g} {unit}".rstrip()


def limit_words(low: float, high: float, unit: str) -> str:
    """A closed range in words."""
    if high == INFINITE:
        return f"at least {quantity(low, unit)}"
    if low in (0.0, -INFINITE):
        return f"at most {quantity(high, unit)}" if high else "none"
    return f"{quantity(low, unit)} to {quantity(high, unit)}"


# Contrast medium brightens: tissue by up to some 200 HU and blood the most, muscle by a few HU, and it darkens nothing.
# The first six rules judge every result; they leave room for a model that also smooths noise. The others need a body
# (LEAST_TISSUE_ML) and were chosen between what clean results give and what gross manipulations of them give. The
# command `python -m bench.trust.calibrate` prints both again, and docs/physics/doubt.md tells what it printed.
RULES: Final = (
    Rule("not_finite_voxels", 0, 0, "", "the model returned values that are no numbers"),
    Rule("changed_outside_voxels", 0, 0, "", "pixels outside the window (bone, lung, air) were changed"),
    Rule("inside_share", 1e-9, INFINITE, "%", "no pixel of the scan lies in the soft-tissue window"),
    Rule(
        "changed_share",
        0.001,
        INFINITE,
        "%",
        "the model left the scan unchanged ({value} of soft tissue changed; {limit})",
    ),
    Rule("mean_shift_hu", -20, 120, "HU", "soft tissue changed by {value} on average (plausible: {limit})"),
    Rule(
        "darkened_share",
        0,
        0.30,
        "%",
        f"{{value}} of soft tissue became darker by more than {-DARKENED_HU:.0f} HU, which contrast medium never does "
        "({limit})",
    ),
    Rule(
        "quiet_tissue_hu",
        -1,
        65,
        "HU",
        "muscle and other quiet tissue (lower quartile of soft tissue) changed by {value} (plausible: {limit})",
    ),
    Rule(
        "untouched_share",
        0,
        0.10,
        "%",
        f"{{value}} of soft tissue did not change by even {UNTOUCHED_HU:.0f} HU ({{limit}}): enhancement is missing or "
        "lies beside its tissue",
    ),
    Rule(
        "untouched_slice_share",
        0,
        0.4,
        "%",
        f"in one slice {{value}} of soft tissue did not change by even {UNTOUCHED_HU:.0f} HU ({{limit}}){{z}}",
    ),
    Rule(
        "slice_step_hu",
        0,
        100,
        "HU",
        "quiet tissue of one slice changed by {value} more or less than that of the others ({limit}){z}",
    ),
    Rule(
        "darkened_blob_ml",
        0,
        1.5,
        "mL",
        f"one piece of {{value}} became darker by more than {-DARK_HU:.0f} HU, which contrast medium never does "
        "({limit}){z}",
    ),
    Rule(
        "bright_blob_ml",
        0,
        3,
        "mL",
        f"one piece of {{value}} is brighter than the bundle's level of blood and {BRIGHTER_THAN_BLOOD_HU:.0f} HU "
        "({limit}){z}",
    ),
    Rule(
        "blood_gap_ml",
        0,
        20,
        "mL",
        f"one piece of {{value}} does not light up though slices within {GAP_MM:.0f} mm above and below it do "
        "({limit}){z}",
    ),
    Rule(
        "side_difference_hu",
        0,
        40,
        "HU",
        "the outer tissue of one side of the body changed by {value} more than that of the other ({limit})",
    ),
    Rule("grain_hu", 0, 5, "HU", "the change holds noise of {value} from pixel to pixel ({limit})"),
    Rule("detail_kept", 0.7, 1.3, "%", "the result keeps {value} of the scan's fine detail (plausible: {limit})"),
    Rule(
        "placement_elsewhere",
        -INFINITE,
        -0.02,
        "",
        "the enhancement fits the scan's soft tissue as well or better when it is {where} (fit there less fit here "
        "{value}; {limit})",
    ),
)
RULE_OF: Final = {rule.figure: rule for rule in RULES}


@dataclass(frozen=True, slots=True)
class QualityVerdict:
    """reason: None where the result may be sent, else a sentence for each broken rule, joined by "; ", for the person
    who decides. broken: the figures of these rules. measurements: named, units in their names."""

    reason: str | None
    measurements: Figures
    broken: tuple[str, ...] = ()


def judge_result(
    volume: CTVolume, predicted_hu: NDArray[np.float32], result: Composite, *, level_hu: float | None
) -> QualityVerdict:
    """Compare a composited result with its source.

    predicted_hu: float32 [z, y, x], what the model returned before compositing. level_hu: the enhancement of blood that
    the bundle draws, HU; None where it names none, and then blood may enhance by DEFAULT_LEVEL_HU.
    """
    change = measure_change(volume, result, DEFAULT_LEVEL_HU if level_hu is None else level_hu)
    measured = _measure_shares(volume, predicted_hu, result) | change.figures
    broken = [rule for rule in RULES if rule.is_broken(measured)]
    reason = "; ".join(rule.sentence(measured, change.better_where) for rule in broken) or None
    return QualityVerdict(reason, measured, tuple(rule.figure for rule in broken))


def _measure_shares(volume: CTVolume, predicted_hu: NDArray[np.float32], result: Composite) -> Figures:
    """Figures of the change from source to result: shares 0..1 of the window's voxels, shifts in HU, counts."""
    inside_total, changed, darkened, outside_changed, not_finite = 0, 0, 0, 0, 0
    shift_sum, largest = 0.0, 0.0
    for z in range(len(volume.slices)):
        shift = change_inside(volume, result, z)
        changed_here = int(np.count_nonzero(shift))
        inside_total += shift.size
        changed += changed_here
        darkened += int(np.count_nonzero(shift < DARKENED_HU))
        outside_changed += int(np.count_nonzero(result.stored[z] != volume.stored[z])) - changed_here
        not_finite += predicted_hu[z].size - int(np.count_nonzero(np.isfinite(predicted_hu[z])))
        shift_sum += float(shift.sum(dtype=np.float64))
        largest = max(largest, float(np.abs(shift).max(initial=0.0)))
    counts = {
        "inside_share": inside_total / volume.hu.size,
        "changed_outside_voxels": float(outside_changed),
        "not_finite_voxels": float(not_finite),
    }
    if not inside_total:
        return counts
    return counts | {
        "changed_share": changed / inside_total,
        "mean_shift_hu": shift_sum / inside_total,
        "max_abs_shift_hu": largest,
        "darkened_share": darkened / inside_total,
    }
