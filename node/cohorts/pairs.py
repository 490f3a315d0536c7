"""Which two scans of a patient make a pair, by the criteria of the study."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Final

import numpy as np

from node.cohorts.scans import Role, Scan, Unusable

POSITION_TOLERANCE_MM: Final = 0.5
# Positions are printed with 2 or 3 decimals: a distance below this is none, and must not decide between partners.
_SAME_DISTANCE_MM: Final = 0.05


class Why(StrEnum):
    """Stable codes of why a patient is not in the cohort."""

    NO_CONTRAST_SCAN = "no_contrast_scan"
    NO_NATIVE_SCAN = "no_native_scan"
    AMBIGUOUS = "ambiguous"
    DIFFERENT_SLICES = "different_slices"
    DIFFERENT_POSITIONS = "different_positions"
    METAL_ARTEFACT = "metal_artefact"
    NOT_REGISTERED = "not_registered"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class Excluded:
    """Why a patient has no pair. sentence: for a person, without patient data."""

    why: Why
    sentence: str

    def __str__(self) -> str:
        """As the manifest holds it: the code first, so that programs can group by it."""
        return f"{self.why}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two scans of one patient that show the same part of the body."""

    native: Scan
    contrast: Scan

    @property
    def same_frame(self) -> bool:
        """Whether positions of both mean the same place."""
        return self.native.frame_uid == self.contrast.frame_uid

    @property
    def same_study(self) -> bool:
        """Whether both were made in one study."""
        return self.native.study_uid == self.contrast.study_uid

    @property
    def distance_mm(self) -> float:
        """Largest distance along z of a native slice from its nearest slice with contrast."""
        native, contrast = np.asarray(self.native.z_mm), np.asarray(self.contrast.z_mm)
        return float(np.abs(native[:, None] - contrast).min(axis=1).max())

    @property
    def rank(self) -> tuple[bool, int, bool]:
        """Lower is better: same frame of reference, closest slice positions, same study."""
        return not self.same_frame, round(self.distance_mm / _SAME_DISTANCE_MM), not self.same_study


def choose_pair(series: Sequence[Scan | Unusable], *, any_grid: bool = False) -> Pair | Excluded:
    """Choose a patient's native and contrast scan.

    A pair has as many slices in both scans, at the same positions (0.5 mm along z) in one frame of reference; with
    `any_grid`, every native and contrast scan that overlap along z, or lie in different frames. Of several pairs the
    best by `Pair.rank` is taken; where two are equally good the patient is ambiguous. Severe metal excludes. A virtual
    non-contrast scan stands in where no measured one makes a pair.
    """
    measured = _choose(series, Role.NATIVE, any_grid=any_grid)
    if isinstance(measured, Pair) or not any(isinstance(one, Scan) and one.role is Role.VIRTUAL for one in series):
        return measured
    virtual = _choose(series, Role.VIRTUAL, any_grid=any_grid)
    return virtual if isinstance(virtual, Pair) else measured


def _choose(series: Sequence[Scan | Unusable], source: Role, *, any_grid: bool) -> Pair | Excluded:
    scans = [scan for scan in series if isinstance(scan, Scan)]
    natives, contrasts = ([scan for scan in scans if scan.role is role] for role in (source, Role.CONTRAST))
    if not natives or not contrasts:
        return _missing(series, natives, contrasts)
    every = [Pair(native, contrast) for native, contrast in product(natives, contrasts)]
    refusals = [_mismatch(pair, any_grid=any_grid) for pair in every]
    pairs = sorted((p for p, refusal in zip(every, refusals, strict=True) if refusal is None), key=lambda p: p.rank)
    if not pairs:
        # The pair that came closest tells most: one that fails only by its positions.
        told = [refusal for refusal in refusals if refusal is not None]
        return min(told, key=lambda refusal: refusal.why is not Why.DIFFERENT_POSITIONS)
    if len(pairs) > 1 and pairs[0].rank == pairs[1].rank:
        equal = sum(1 for pair in pairs if pair.rank == pairs[0].rank)
        return Excluded(
            Why.AMBIGUOUS,
            f"{equal} pairs of {len(natives)} native and {len(contrasts)} contrast scans fit each other equally well",
        )
    return _without_metal(pairs[0])


def _missing(series: Sequence[Scan | Unusable], natives: Sequence[Scan], contrasts: Sequence[Scan]) -> Excluded:
    rest = _others(series)
    if natives:
        return Excluded(Why.NO_CONTRAST_SCAN, f"no scan shows contrast agent{rest}")
    if contrasts:
        return Excluded(Why.NO_NATIVE_SCAN, f"all usable scans show contrast agent{rest}")
    if any(isinstance(scan, Scan) for scan in series):
        return Excluded(Why.NO_CONTRAST_SCAN, f"no scan shows contrast agent, and none is native{rest}")
    refused = [one for one in series if isinstance(one, Unusable)]
    sentence = f"{refused[0].code}: {refused[0].reason}" if len(refused) == 1 else f"no series is a usable scan{rest}"
    return Excluded(Why.UNUSABLE, sentence)


def _others(series: Sequence[Scan | Unusable]) -> str:
    """What else the patient had, as it explains what is missing."""
    counts = Counter(one.code for one in series if isinstance(one, Unusable))
    unseen = sum(1 for one in series if isinstance(one, Scan) and one.role is Role.AGENT_NOT_SEEN)
    told = [f"{count} series not usable ({code})" for code, count in sorted(counts.items())]
    if unseen:
        told.insert(0, f"{unseen} series whose header names an agent that the pixels do not show")
    return f"; there {'is' if sum(counts.values()) + unseen == 1 else 'are'} {', '.join(told)}" if told else ""


def _mismatch(pair: Pair, *, any_grid: bool) -> Excluded | None:
    native, contrast = pair.native.z_mm, pair.contrast.z_mm
    if any_grid:
        apart = native[-1] < contrast[0] or contrast[-1] < native[0]
        if pair.same_frame and apart:
            return Excluded(Why.DIFFERENT_POSITIONS, "the scans show different parts of the body")
        return None
    if len(native) != len(contrast):
        return Excluded(Why.DIFFERENT_SLICES, f"{len(native)} native slices, {len(contrast)} with contrast agent")
    if not pair.same_frame:
        return Excluded(Why.DIFFERENT_POSITIONS, "the scans have different frames of reference")
    worst = float(np.abs(np.asarray(native) - np.asarray(contrast)).max())
    if worst > POSITION_TOLERANCE_MM:
        return Excluded(Why.DIFFERENT_POSITIONS, f"slices lie up to {worst:.1f} mm apart along z")
    return None


def _without_metal(pair: Pair) -> Pair | Excluded:
    for name, scan in (("native scan", pair.native), ("scan with contrast agent", pair.contrast)):
        if scan.metal.is_severe:
            return Excluded(Why.METAL_ARTEFACT, f"{scan.metal.reason}, in the {name}")
    return pair
