"""Which slices of a result a person should look at first: those that a gate names, and those that changed most.

A gate names slices only where it measured something in them. The slices that changed most are marked in every result,
and are called no more than that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from node.translate.native_contrast import ENHANCED_LIMIT_ML
from node.translate.quality import DARKENED_HU, RULE_OF
from node.web.tiles import Hu, Mask
from node.web.volumes import SliceFigures
from storage.cases import Case

_MOST_CHANGED: Final = 3
_APART: Final = 4  # slices between two that are marked for the same reason; neighbours look alike


@dataclass(frozen=True, slots=True)
class Mark:
    """One slice, counted from 1, and why it is marked. by_gate: whether a gate doubts what is to be seen there."""

    number: int
    words: str
    by_gate: bool


def is_darkened(case: Case) -> bool:
    """Whether the gate on the result doubts it for tissue that became darker: then there is a region to outline."""
    return RULE_OF["darkened_share"].is_broken(case.measurements)


def doubtful_region(case: Case, difference_hu: Hu) -> Mask | None:
    """The pixels of one slice for which a gate doubts the result; None where no gate names any."""
    return difference_hu < DARKENED_HU if is_darkened(case) else None


def marks_of(case: Case, figures: Sequence[SliceFigures]) -> list[Mark]:
    """What is marked in a case, in the order of its slices."""
    found = [*_darkest(case, figures), *_enhanced(case, figures), *_most_changed(figures)]
    return sorted(found, key=lambda mark: (mark.number, not mark.by_gate))


def _darkest(case: Case, figures: Sequence[SliceFigures]) -> list[Mark]:
    if not is_darkened(case) or not any(one.darkened for one in figures):
        return []
    worst = max(range(len(figures)), key=lambda index: figures[index].darkened)
    words = f"most pixels that became darker by more than {-DARKENED_HU:.0f} HU ({figures[worst].darkened} of them)"
    return [Mark(worst + 1, words, by_gate=True)]


def _enhanced(case: Case, figures: Sequence[SliceFigures]) -> list[Mark]:
    """Where the scan looks most as if contrast agent had been given, if the gate on the source says that it does."""
    wanted_mm = case.measurements.get("native_enhanced_z_mm")
    if wanted_mm is None or float(case.measurements.get("native_enhanced_ml", 0.0)) <= ENHANCED_LIMIT_ML:
        return []
    away_mm = {index: abs(one.z_mm - float(wanted_mm)) for index, one in enumerate(figures) if one.z_mm is not None}
    if not away_mm:
        return []
    words = "most of the tissue in the source that looks as if contrast agent had been given"
    return [Mark(min(away_mm, key=away_mm.__getitem__) + 1, words, by_gate=True)]


def _most_changed(figures: Sequence[SliceFigures]) -> list[Mark]:
    means = {index: one.mean_hu for index, one in enumerate(figures) if one.mean_hu}
    marked: list[Mark] = []
    for index in sorted(means, key=means.__getitem__, reverse=True):
        if len(marked) == _MOST_CHANGED:
            break
        if all(abs(index + 1 - mark.number) >= _APART for mark in marked):
            rank = "greatest" if not marked else "next greatest"
            words = f"{rank} change: {means[index]:.1f} HU on average over the slice"
            marked.append(Mark(index + 1, words, by_gate=False))
    return marked
