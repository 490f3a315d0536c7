"""What was measured of a result, beside the limits of the gates that judged it."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from models.bundle import Envelope, find_bundle, read_card
from models.errors import ModelsError
from node.bootstrap.roles import bundle_label
from node.bootstrap.store import Node
from node.translate.native_contrast import ENHANCED_LIMIT_ML
from node.translate.quality import DARKENED_HU, MAX_DARKENED_SHARE, MEAN_SHIFT_HU, MIN_CHANGED_SHARE
from storage.cases import Case

_INF: Final = float("inf")
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
    "changed_share": _Figure("soft tissue that changed", "%", (MIN_CHANGED_SHARE, _INF)),
    "mean_shift_hu": _Figure("change of soft tissue on average", "HU", MEAN_SHIFT_HU),
    "max_abs_shift_hu": _Figure("largest change of a voxel", "HU"),
    "darkened_share": _Figure(f"soft tissue darker by more than {-DARKENED_HU:.0f} HU", "%", (0.0, MAX_DARKENED_SHARE)),
    "changed_outside_voxels": _Figure("voxels changed outside soft tissue", "", (0.0, 0.0)),
    "not_finite_voxels": _Figure("values that are no numbers", "", (0.0, 0.0)),
    "inside_share": _Figure("share of the scan in the soft-tissue window", "%"),
    "native_enhanced_ml": _Figure("source: tissue as bright as with contrast agent", "mL", (0.0, ENHANCED_LIMIT_ML)),
    "native_enhanced_mean_hu": _Figure("source: its mean", "HU"),
    "native_enhanced_z_mm": _Figure("source: the slice with most of it, z", "mm"),
    "noise_hu": _Figure("source: noise in soft tissue", "HU"),
}


def measured_of(node: Node, case: Case) -> list[Measured]:
    """The figures of a case that are numbers, those with a limit first; none where nothing was measured."""
    envelope = _envelope_of(node.settings.model.bundle, case.bundle or "")
    rows = []
    for key, number in case.measurements.items():
        if isinstance(number, int | float):
            figure = _FIGURES.get(key, _Figure(key.replace("_", " ")))
            limits = envelope.noise_hu if key == "noise_hu" and envelope else figure.limits
            rows.append(_row(figure, float(number), limits))
    return sorted(rows, key=lambda row: (row.within, not row.limit))


def _row(figure: _Figure, number: float, limits: Range | None) -> Measured:
    if limits is None:
        return Measured(figure.words, _text(number, figure.unit), "", True)
    low, high = limits
    if high == _INF:
        limit = f"at least {_text(low, figure.unit)}"
    elif low == 0.0:
        limit = f"at most {_text(high, figure.unit)}" if high else "none"
    else:
        limit = f"{_text(low, figure.unit)} to {_text(high, figure.unit)}"
    return Measured(figure.words, _text(number, figure.unit), limit, low <= number <= high)


def _text(number: float, unit: str) -> str:
    return f"{100 * number:.3g} %" if unit == "%" else f"{number:.4g} {unit}".rstrip()


@lru_cache(maxsize=4)
def _envelope_of(bundle: str, label: str) -> Envelope | None:
    """The envelope of the bundle that made a case, where it is the one of the settings; None where nobody knows it."""
    try:
        card = read_card(find_bundle(bundle))
    except ModelsError:
        return None
    return card.envelope if bundle_label(card) == label else None
