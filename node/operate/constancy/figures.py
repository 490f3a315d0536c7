"""What is measured on the result of a constancy run."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.metrics.hu import Change, false_enhancement
from node.dicom.headers import SliceHeader
from node.dicom.volume import CTVolume, read_volume
from node.operate.constancy.phantom import Hu, Mask, Scan

Stored = NDArray[np.int16]


@dataclass(frozen=True)
class Baseline:
    """The result that others are held against. hu: int16 [z, y, x], HU; None where its file is gone."""

    run: int
    sha256: str
    hu: Stored | None


def result_of(paths: list[Path]) -> CTVolume:
    """The derived series as it lies on the disk, in ascending order along the normal; raises Permanent."""
    return read_volume(paths)


def pixels_of(result: CTVolume) -> Stored:
    """Its HU as whole numbers, which is what the phantom's files hold."""
    return np.rint(result.hu).astype(np.int16)


def digest_of(pixels: Stored) -> str:
    """SHA-256 of the pixels, hex."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def measure(scan: Scan, result: CTVolume, window_hu: tuple[float, float]) -> dict[str, float]:
    """Figures of the result against the truth of the phantom: HU, dB, and counts of voxels and slices.

    Only `missing_slices` and `moved_slices` are given where the result has another size than the scan.
    """
    found = {
        "missing_slices": float(len(scan.headers) - len(result.headers)),
        "moved_slices": float(_moved(scan.headers, result.headers)),
    }
    if result.hu.shape != scan.volume.hu.shape:
        return found
    return found | _against_truth(scan, result, window_hu)


def compare(pixels: Stored, baseline: Baseline) -> dict[str, float]:
    """How far the pixels are from a baseline's; without its pixels only whether they are the same is known."""
    if digest_of(pixels) == baseline.sha256:
        return {"different_voxels": 0.0, "mean_difference_hu": 0.0, "largest_difference_hu": 0.0}
    if baseline.hu is None or baseline.hu.shape != pixels.shape:
        return {"different_voxels": math.nan, "mean_difference_hu": math.nan, "largest_difference_hu": math.nan}
    apart = np.abs(pixels.astype(np.int32) - baseline.hu)
    return {
        "different_voxels": float(np.count_nonzero(apart)),
        "mean_difference_hu": float(apart.mean()),
        "largest_difference_hu": float(apart.max()),
    }


def _moved(source: tuple[SliceHeader, ...], result: tuple[SliceHeader, ...]) -> int:
    """Slices whose place is not that of the source slice, to the last digit."""
    return sum(_place(one) != _place(other) for one, other in zip(source, result, strict=False))


def _place(header: SliceHeader) -> tuple[object, ...]:
    return header.image_position_mm, header.image_orientation, header.pixel_spacing_mm, header.frame_of_reference_uid


def _against_truth(scan: Scan, result: CTVolume, window_hu: tuple[float, float]) -> dict[str, float]:
    source_hu, (low, high) = scan.volume.hu, window_hu
    inside = (source_hu >= low) & (source_hu <= high)
    change = result.hu - source_hu
    truth_hu = np.clip(scan.truth_hu, low, high)
    false_hu, false_share = false_enhancement(Change.of(change.astype(np.float32)), scan.quiet)
    error = (result.hu - truth_hu)[inside].astype(np.float64)
    of_scan = (source_hu - truth_hu)[inside].astype(np.float64)
    rms_hu = math.sqrt(float(np.square(error).mean()))
    blood_hu = _mean(change, scan.blood & inside)
    return {
        "blood_enhancement_hu": blood_hu,
        "blood_bias_hu": blood_hu - scan.blood_hu,
        "false_enhancement_hu": false_hu,
        "false_enhancement_share": false_share,
        "muscle_change_hu": _mean(change, scan.muscle & inside),
        "fat_change_hu": _mean(change, scan.fat & inside),
        "mae_hu": float(np.abs(error).mean()),
        "gain_hu": float(np.abs(of_scan).mean() - np.abs(error).mean()),
        "psnr_db": 20 * math.log10((high - low) / rms_hu) if rms_hu else math.inf,
        "changed_outside_voxels": float(np.count_nonzero(change[~inside])),
    }


def _mean(values_hu: Hu, where: Mask) -> float:
    """Mean over a region; 0 where it has no voxel in the window, as fat, most of which lies below it, in few slices."""
    return float(values_hu[where].mean(dtype=np.float64)) if where.any() else 0.0
