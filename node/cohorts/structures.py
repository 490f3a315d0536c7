"""Labels from a hospital's contours: RT Structure Sets and DICOM Segmentations on the native scan of a pair.

A table says which structure is which label of the cohort; what it does not name is left out. Names of structures are
free text, in which people write anything: they are compared here and kept nowhere.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from highdicom import Volume, VolumeGeometry
from highdicom.seg import Segmentation
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from models.alignment import Grid
from models.phantom.tissues import Label
from node.cohorts.scans import plain_text
from node.dicom.headers import read_dataset
from node.dicom.quiet import quiet_pydicom
from node.errors import Refused, UnreadableInstance

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_CLOSED: Final = "CLOSED_PLANAR"
_SAME_PLACE_MM: Final = 0.01


def read_structure_table(file: Path) -> dict[str, Label]:
    """Structure name, as `plain_text`, -> label, of a TOML file with a table `[structures]`; raises Refused.

    In it each key is a structure as the hospital calls it, in any case, and each value a label of the phantom in small
    letters, such as `"Aorta asc." = "aorta"`. Where structures overlap, the one that comes later in the file counts.
    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8")).get("structures")
    except (OSError, ValueError) as error:
        raise Refused(f"{file} cannot be read as a table of structures: {error}") from error
    if not isinstance(values, dict) or not values:
        raise Refused(f'{file} needs a table [structures], such as "Aorta asc." = "aorta"')
    known = {label.name.lower(): label for label in Label if label}
    for name, label in values.items():
        if label not in known:
            raise Refused(f"{file}: {name!r} is {label!r}, which is no label; allowed are {', '.join(known)}")
    return {plain_text(name): known[label] for name, label in values.items()}


def read_labels(
    series: Iterable[Sequence[Path]], table: Mapping[str, Label], native_uid: str, shape: tuple[int, ...], grid: Grid
) -> Labels | None:
    """Label map [z, y, x] of the structures in `table` that were drawn on the series `native_uid`; None without any.

    series: the files of each series of the patient; those that hold no structures are passed over, and so are files
    that cannot be read and segmentations on another grid. shape, grid: of the native scan as `read_oriented` gives it.
    """
    found: dict[Label, Mask] = {}
    for path in (path for paths in series for path in paths):
        for name, mask in _structures(path, native_uid, shape, grid):
            label = table.get(plain_text(name))
            if label is not None and mask.any():
                found[label] = found.get(label, np.zeros(shape, bool)) | mask
    if not found:
        return None
    labels = np.zeros(shape, np.uint8)
    for label in dict.fromkeys(table.values()):
        if label in found:
            labels[found[label]] = label
    return labels


def _structures(path: Path, native_uid: str, shape: tuple[int, ...], grid: Grid) -> Iterator[tuple[str, Mask]]:
    """Every structure of one file by its name, if it is drawn on the native series."""
    try:
        with quiet_pydicom():
            dataset = read_dataset(path)
            sop_class = dataset.get("SOPClassUID")
            if sop_class == RTStructureSetStorage and native_uid in _drawn_on(dataset):
                yield from _contoured(dataset, shape, grid)
            elif sop_class == SegmentationStorage and native_uid in _segmented(dataset):
                yield from _segments(dataset, shape, grid)
    except (UnreadableInstance, OSError, AttributeError, KeyError, TypeError, ValueError, RuntimeError):
        return  # what another program wrote wrongly is no label; its text may hold a name, so nothing is said of it


def _drawn_on(dataset: Dataset) -> set[str]:
    """Series on which an RT Structure Set was drawn (PS3.3 C.8.8.5)."""
    return {
        str(series.SeriesInstanceUID)
        for frame in dataset.get("ReferencedFrameOfReferenceSequence", ())
        for study in frame.get("RTReferencedStudySequence", ())
        for series in study.get("RTReferencedSeriesSequence", ())
    }


def _segmented(dataset: Dataset) -> set[str]:
    return {str(series.SeriesInstanceUID) for series in dataset.get("ReferencedSeriesSequence", ())}


def _contoured(dataset: Dataset, shape: tuple[int, ...], grid: Grid) -> Iterator[tuple[str, Mask]]:
    """ROIs of an RT Structure Set; contours inside each other leave a hole, as planning systems write them."""
    names = {int(roi.ROINumber): str(roi.get("ROIName", "")) for roi in dataset.get("StructureSetROISequence", ())}
    for roi in dataset.get("ROIContourSequence", ()):
        mask = np.zeros(shape, bool)
        for contour in roi.get("ContourSequence", ()):
            if contour.get("ContourGeometricType") == _CLOSED:
                _fill(mask, np.asarray(contour.ContourData, dtype=np.float64).reshape(-1, 3), grid)
        yield names.get(int(roi.ReferencedROINumber), ""), mask


def _fill(mask: Mask, points_mm: NDArray[np.float64], grid: Grid) -> None:
    """Exchange inside and outside in the pixels whose centre lies in one contour, in the slice on which it lies."""
    z_mm, y_mm, x_mm = grid.spacing_mm
    z = round((points_mm[:, 2].mean() - grid.origin_mm[2]) / z_mm)
    if not 0 <= z < len(mask) or np.ptp(points_mm[:, 2]) > z_mm / 2:
        return
    columns = (points_mm[:, 0] - grid.origin_mm[0]) / x_mm
    rows = (points_mm[:, 1] - grid.origin_mm[1]) / y_mm
    box = tuple(
        slice(max(0, int(np.floor(line.min()))), min(size, int(np.ceil(line.max())) + 1))
        for line, size in zip((rows, columns), mask.shape[1:], strict=True)
    )
    y, x = np.mgrid[box]
    inside = Outline(np.column_stack([columns, rows])).contains_points(np.column_stack([x.ravel(), y.ravel()]))
    mask[z][box] ^= inside.reshape(y.shape)


def _segments(dataset: FileDataset, shape: tuple[int, ...], grid: Grid) -> Iterator[tuple[str, Mask]]:
    """Segments of a DICOM Segmentation on the grid of the native scan; RuntimeError where it has another."""
    segmentation = Segmentation.from_dataset(dataset, copy=False)
    z_mm, y_mm, x_mm = grid.spacing_mm
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = z_mm, y_mm, x_mm, 1.0
    affine[:3, 3] = grid.origin_mm
    native = VolumeGeometry(affine, shape, "PATIENT")
    for number in segmentation.segment_numbers:
        found: Any = segmentation.get_volume(segment_numbers=[number], combine_segments=True, relabel=True)
        matched: Volume = found.match_geometry(native, tol=_SAME_PLACE_MM)
        yield str(segmentation.get_segment_description(number).SegmentLabel), np.asarray(matched.array) > 0
