"""What highdicom makes of a written series; it is never read here with the node's own reader."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from highdicom.spatial import get_series_volume_positions
from highdicom.volume import VolumeGeometry
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.dicom.constants import CT_IMAGE_STORAGE
from node.dicom.geometry import ORIENTATION_TOLERANCE, SlicePlane
from node.dicom.headers import SliceHeader
from node.dicom.quiet import quiet_pydicom
from node.dicom.volume import CTVolume
from node.translate.proof import OWN, SAME, Comparison, ProofFailed, own_planes, read_or_fail, unevenness_mm

_READER: Final = "highdicom"
# The node's gate lets a stack drift by 0.2 mm in its plane; over a step of 1 mm that is a cosine of 0.98.
_PERPENDICULAR_TOLERANCE: Final = 0.02
_ROUNDING_MM: Final = 1e-6
# The mean step: highdicom's lies along the line through the positions, ours along the normal.
_DRIFT_MM: Final = 0.05
_READ: Final = (
    "SOPClassUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
)


@dataclass(frozen=True, slots=True)
class _Volume:
    """A regular volume as highdicom finds it; places[i] is where slice i lies along the volume's first axis."""

    spacing_mm: float
    places: tuple[int, ...]
    geometry: VolumeGeometry


def prove_by_highdicom(volume: CTVolume, written: Sequence[Path]) -> dict[str, float]:
    """Compare the volume that highdicom finds in the written files with the one it finds in the source's files.

    written: the files of the derived series in the order of z, as `volume.slices`. Returns figures: whether highdicom
    finds a regular volume in the source (1 or 0; where it does not, single slices are compared), and its spacing, mm.
    Raises ProofFailed with the figure that differs in position, orientation, pixel spacing, size, order or spacing.
    """
    with quiet_pydicom():
        result = read_or_fail(_READER, lambda: _headers(written))
        seen = read_or_fail(_READER, lambda: [_plane(ds) for ds in result])
        source = _source_headers(volume)
        if source is not None:
            Comparison(_READER, "its source", SAME).planes(seen, [_plane(ds) for ds in source])
        own = own_planes(volume)
        Comparison(_READER, "the node's own geometry", OWN).planes(seen, own)
        # The gate has judged how even the stack is; here both series must be as even as the node read them.
        uneven_mm = unevenness_mm(own)
        meant = None if source is None else _find_volume(source, uneven_mm)
        if meant is None:
            return {"highdicom_reads_source": 0.0}
        found = _find_volume(result, uneven_mm)
    if found is None:
        raise ProofFailed("highdicom finds no regular volume in the derived series, but one in its source")
    _require_same_volume(found, meant, volume.spacing_mm[0])
    return {"highdicom_reads_source": 1.0, "highdicom_spacing_mm": found.spacing_mm}


def load_tables() -> None:
    """Let highdicom load the standard's tables, which takes 0.3 s, before the first job and not in it."""
    first, second = Dataset(), Dataset()
    for z, ds in enumerate((first, second)):
        ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = CT_IMAGE_STORAGE, f"1.2.{z + 1}", "1.2"
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, z], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.Rows, ds.Columns = [1, 1], 2, 2
    _find_volume([first, second], 0.0)


def _headers(paths: Sequence[Path]) -> list[Dataset]:
    return [dcmread(path, stop_before_pixels=True, specific_tags=list(_READ)) for path in paths]


def _source_headers(volume: CTVolume) -> list[Dataset] | None:
    """None where a source file cannot be read in this way, though the node could."""
    try:
        source = _frames(volume.headers) if volume.headers[0].frame else _headers([h.path for h in volume.headers])
        for ds in source:
            _plane(ds)
    except Exception:
        return None
    return source


def _frames(headers: Sequence[SliceHeader]) -> list[Dataset]:
    """The frames of multi-frame sources as single images, by pydicom's reading of their functional groups."""
    opened = {path: dcmread(path, stop_before_pixels=True) for path in {header.path for header in headers}}
    return [_frame(opened[header.path], (header.frame or 1) - 1) for header in headers]


def _frame(source: Dataset, index: int) -> Dataset:
    groups = [source.PerFrameFunctionalGroupsSequence[index], *source.get("SharedFunctionalGroupsSequence", [])]
    ds = Dataset()
    ds.SOPClassUID, ds.Rows, ds.Columns = CT_IMAGE_STORAGE, source.Rows, source.Columns
    for group, keyword in (
        ("PlanePositionSequence", "ImagePositionPatient"),
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
        ("PixelMeasuresSequence", "PixelSpacing"),
    ):
        ds[keyword] = next(one[group][0][keyword] for one in groups if one.get(group))
    return ds


def _plane(ds: Dataset) -> SlicePlane:
    x, y, z = (float(value) for value in ds.ImagePositionPatient)
    a, b, c, d, e, f = (float(value) for value in ds.ImageOrientationPatient)
    between_rows, between_columns = (float(value) for value in ds.PixelSpacing)
    return SlicePlane((x, y, z), (a, b, c, d, e, f), (between_rows, between_columns), int(ds.Rows), int(ds.Columns))


def _find_volume(datasets: Sequence[Dataset], uneven_mm: float) -> _Volume | None:
    """None where highdicom does not take the slices for a volume whose steps differ by `uneven_mm` from their mean."""
    try:
        spacing_mm, places = get_series_volume_positions(
            datasets,
            atol=uneven_mm + _ROUNDING_MM,
            perpendicular_tol=_PERPENDICULAR_TOLERANCE,
            orientation_tol=ORIENTATION_TOLERANCE,
        )
        if spacing_mm is None or places is None:
            return None
        first = datasets[places.index(0)]
        geometry = VolumeGeometry.from_attributes(
            image_position=first.ImagePositionPatient,
            image_orientation=first.ImageOrientationPatient,
            rows=first.Rows,
            columns=first.Columns,
            pixel_spacing=first.PixelSpacing,
            spacing_between_slices=spacing_mm,
            number_of_frames=len(datasets),
            coordinate_system="PATIENT",
        )
    except (ValueError, TypeError):  # such as cosines that are not orthogonal to 1e-4
        return None
    return _Volume(float(spacing_mm), tuple(places), geometry)


def _require_same_volume(found: _Volume, meant: _Volume, own_spacing_mm: float) -> None:
    along = sorted(found.places)
    if found.places != meant.places or list(found.places) not in (along, along[::-1]):
        raise ProofFailed("highdicom puts the slices of the derived series in another order than their source slices")
    against_source = Comparison(_READER, "its source", SAME)
    against_source.figure("slice spacing", [found.spacing_mm], [meant.spacing_mm], 0.0, " mm")
    shapes = found.geometry.spatial_shape, meant.geometry.spatial_shape
    against_source.figure("size of the volume", *shapes, 0.0, " voxels")
    affines = np.ravel(found.geometry.affine).tolist(), np.ravel(meant.geometry.affine).tolist()
    against_source.figure("transform from voxels to mm", *affines, 0.0, "")
    if len(found.places) > 1:
        own = Comparison(_READER, "the node's own geometry", OWN)
        own.figure("slice spacing", [found.spacing_mm], [own_spacing_mm], _DRIFT_MM, " mm")
