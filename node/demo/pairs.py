"""Source and synthetic slice side by side: their pixels in HU, what must hold between them, and which changed most."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom import Dataset

from node.demo.failed import DemoFailed
from node.dicom.headers import SliceHeader, header_of, read_dataset
from node.dicom.pixels import decode_slice, pixel_format_of

_SAME: Final = (
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
)

Image = npt.NDArray[np.float32]  # [y, x] in HU


@dataclass(frozen=True)
class Pair:
    """One slice of the source and the slice made of it.

    change_hu: the mean of the absolute difference. aspect: height of a pixel by its width.
    """

    source: Path
    derived: Path
    z_mm: float
    change_hu: float
    aspect: float


def compare(
    sources: Iterable[SliceHeader], derived: Iterable[Path], window_hu: tuple[float, float]
) -> tuple[list[Pair], tuple[str, ...]]:
    """The pairs in ascending z, and a sentence on each thing that was checked in all of them.

    window_hu: of the bundle; outside of it no pixel may change. Raises DemoFailed.
    """
    by_uid = {header.sop_instance_uid: header for header in sources}
    pairs = [_pair(by_uid, path, window_hu) for path in derived]
    if not pairs:
        raise DemoFailed("there is no synthetic slice")
    return sorted(pairs, key=lambda pair: pair.z_mm), (
        "study, frame of reference, position, orientation and spacing are the source's, character by character",
        "SyntheticData YES, ImageType DERIVED\\SECONDARY\\AXIAL, own equipment, no contrast agent claimed",
        f"every pixel outside [{window_hu[0]:g}, {window_hu[1]:g}] HU has the value of the source",
    )


def most_changed(pairs: list[Pair]) -> list[Pair]:
    """The two slices that changed most, at least a sixth of the series apart, the upper one first."""
    best = max(range(len(pairs)), key=lambda number: pairs[number].change_hu)
    apart = max(1, len(pairs) // 6)
    rest = [number for number in range(len(pairs)) if abs(number - best) >= apart]
    chosen = {best, *([max(rest, key=lambda number: pairs[number].change_hu)] if rest else [])}
    return [pairs[number] for number in sorted(chosen, reverse=True)]


def read_hu(path: Path) -> Image:
    """Pixels of one slice in HU, [y, x]."""
    return _read(path)[1]


def _pair(by_uid: dict[str, SliceHeader], path: Path, window_hu: tuple[float, float]) -> Pair:
    derived, after = _read(path)
    header = by_uid[derived.SourceImageSequence[0].ReferencedSOPInstanceUID]
    source, before = _read(header.path)
    _check(source, derived)
    outside = (before < window_hu[0]) | (before > window_hu[1])
    _require(np.array_equal(before[outside], after[outside]), "pixels outside the HU window changed")
    z_mm = header.image_position_mm[2] if header.image_position_mm else 0.0
    row_mm, column_mm = header.pixel_spacing_mm or (1.0, 1.0)
    return Pair(header.path, path, z_mm, float(np.abs(after - before).mean()), row_mm / column_mm)


def _check(source: Dataset, derived: Dataset) -> None:
    for keyword in _SAME:
        if keyword in source:
            _require(str(source[keyword].value) == str(derived[keyword].value), f"{keyword} differs from the source")
    _require(derived.SyntheticData == "YES", "SyntheticData is not YES")
    _require(list(derived.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"], "ImageType is not derived")
    _require(derived.SeriesInstanceUID != source.SeriesInstanceUID, "the series UID was not renewed")
    _require(derived.Manufacturer != source.get("Manufacturer"), "the scanner's identity was copied")
    _require("ContrastBolusAgent" not in derived, "a contrast agent is claimed")


def _read(path: Path) -> tuple[Dataset, Image]:
    dataset = read_dataset(path)
    form = pixel_format_of(dataset)
    decoded = decode_slice(dataset, form)
    header = header_of(path, dataset, form, decoded.sound)
    if decoded.sound is None or not header.rescale_slope or header.rescale_intercept is None:
        raise DemoFailed("pixels and header of a slice do not give HU")
    hu = decoded.sound.astype(np.float32) * np.float32(header.rescale_slope) + np.float32(header.rescale_intercept)
    return dataset, hu


def _require(condition: object, what: str) -> None:
    if not condition:
        raise DemoFailed(f"the derived series is wrong: {what}")
