"""What was measured of a result, beside the limits of the gates that judged it."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from models.bundle import Envelope
from models.errors import ModelsError
from node.bootstrap.bundles import BundleInUse, bundles_in_use, in_use_as
from node.bootstrap.store import Node
from node.translate.native_contrast import ENHANCED_LIMIT_ML
from node.translate.quality import DARKENED_HU, RULE_OF, limit_words, quantity
from storage.cases import Case

Range = tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """One figure with its limit in words, "" where no gate looks at it; within: False where a gate doubts it."""

    name: str
    value: str
    limit: str
    within: bool


@dataclass(frozen=True)
class _Figure:
    words: str
    unit: str = ""
    limits: Range | None = None


_FIGURES: Final = {
    "changed_share": _Figure("soft tissue that changed", "%"),
    "mean_shift_hu": _Figure("change of soft tissue on average", "HU"),
    "max_abs_shift_hu": _Figure("largest change of a voxel", "HU"),
    "darkened_share": _Figure(f"soft tissue darker by more than {-DARKENED_HU:.0f} HU", "%"),
    "changed_outside_voxels": _Figure("voxels changed outside soft tissue"),
    "not_finite_voxels": _Figure("values that are no numbers"),
    "inside_share": _Figure("share of the scan in the soft-tissue window", "%"),
    "quiet_tissue_hu": _Figure("change of quiet tissue such as muscle", "HU"),
    "untouched_share": _Figure("soft tissue that did not change", "%"),
    "untouched_slice_share": _Figure("the same in the slice with most of it", "%"),
    "untouched_slice_z_mm": _Figure("that slice, z", "mm"),
    "slice_step_hu": _Figure("quiet tissue of one slice against the others", "HU"),
    "slice_step_z_mm": _Figure("that slice, z", "mm"),
    "darkened_blob_ml": _Figure("largest piece that became darker", "mL"),
    "darkened_blob_z_mm": _Figure("that piece, z", "mm"),
    "bright_blob_ml": _Figure("largest piece brighter than enhanced blood", "mL"),
    "bright_blob_z_mm": _Figure("that piece, z", "mm"),
    "blood_gap_ml": _Figure("largest piece that lacks enhancement between slices with it", "mL"),
    "blood_gap_z_mm": _Figure("that piece, z", "mm"),
    "side_difference_hu": _Figure("change of outer tissue, one side against the other", "HU"),
    "grain_hu": _Figure("noise of the change", "HU"),
    "detail_kept": _Figure("fine detail of the scan that is kept", "%"),
    "placement_fit": _Figure("fit of the enhancement to the scan's soft tissue"),
    "placement_elsewhere": _Figure("best fit in another place, less the fit where it is"),
    "native_enhanced_ml": _Figure("source: tissue as bright as with contrast agent", "mL", (0.0, ENHANCED_LIMIT_ML)),
    "native_enhanced_mean_hu": _Figure("source: its mean", "HU"),
    "native_enhanced_z_mm": _Figure("source: the slice with most of it, z", "mm"),
    "doubtful_share": _Figure("brightened tissue that a second look contradicts", "%"),
    "doubtful_ml": _Figure("tissue that a second look contradicts", "mL"),
    "doubtful_z_mm": _Figure("the slice with most of it, z", "mm"),
    "brightened_ml": _Figure("soft tissue that became brighter", "mL"),
    "noise_hu": _Figure("source: noise in soft tissue", "HU"),
}


def measured_of(node: Node, case: Case) -> list[Measured]:
    """The figures of a case that are numbers, those with a limit first; none where nothing was measured."""
    envelope = _envelope_of(bundles_in_use(node.settings), case.bundle or "")
    rows = []
    for key, number in case.measurements.items():
        if isinstance(number, int | float):
            figure = _FIGURES.get(key, _Figure(key.replace("_", " ")))
            limits = envelope.noise_hu if key == "noise_hu" and envelope else figure.limits or _limits_of_result(key)
            rows.append(_row(figure, float(number), limits))
    return sorted(rows, key=lambda row: (row.within, not row.limit))


def _limits_of_result(key: str) -> Range | None:
    rule = RULE_OF.get(key)
    return (rule.low, rule.high) if rule and key != "inside_share" else None


def _row(figure: _Figure, number: float, limits: Range | None) -> Measured:
    value = quantity(number, figure.unit)
    if limits is None:
        return Measured(figure.words, value, "", True)
    low, high = limits
    return Measured(figure.words, value, limit_words(low, high, figure.unit), low <= number <= high)


@lru_cache(maxsize=4)
def _envelope_of(bundles: tuple[BundleInUse, ...], label: str) -> Envelope | None:
    """The envelope of the bundle that made a case, where it is one in use; None where nobody knows it."""
    made_by = in_use_as(bundles, label)
    try:
        return None if made_by is None else made_by.card().envelope
    except ModelsError:
        return None
