"""A structure set drawn on a derived series, and the proof that it lies on the source where it was drawn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
import SimpleITK
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from node.dicom.quiet import quiet_pydicom
from node.dicom.volume import CTVolume

Mask = NDArray[np.bool_]  # [z, y, x]
Points = NDArray[np.float64]  # [n, 3] in mm, patient coordinates

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"


@dataclass(frozen=True)
class Overlay:
    """What two independent readings of one contour say. largest_mm: between the places of any point in both series.

    unequal_voxels: of both rasterised masks, and of each against the mask that was drawn.
    """

    contours: int
    points: int
    largest_mm: float
    voxels: int
    unequal_voxels: int
    unequal_to_drawn_voxels: int


def contours_of(mask: Mask, volume: CTVolume) -> list[tuple[int, Points]]:
    """Closed contours of a mask on a volume, as slice number and points in patient coordinates, rounded to 0.1 um."""
    found: list[tuple[int, Points]] = []
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        header = volume.headers[z]
        assert header.image_position_mm is not None  # a slice without has no place in a volume
        assert header.pixel_spacing_mm is not None
        row, column = (np.asarray(volume.orientation[at : at + 3]) for at in (0, 3))
        for line in _lines(mask[z]):
            x, y = line[:-1, 0] - 1, line[:-1, 1] - 1
            along = x[:, None] * row * header.pixel_spacing_mm[1] + y[:, None] * column * header.pixel_spacing_mm[0]
            found.append((int(z), np.round(np.asarray(header.image_position_mm) + along, 4)))
    return found


def _lines(image: NDArray[np.bool_]) -> list[Points]:
    """Closed lines (x, y) half-way between pixels inside and outside, in pixels of the image with a border of one."""
    lines: Any = contourpy.contour_generator(z=np.pad(image, 1).astype(float)).lines(0.5)
    return list(lines)


def write_structures(path: Path, name: str, contours: list[tuple[int, Points]], volume: CTVolume) -> None:
    """Write an RT Structure Set with one region, whose contours refer to the slices of the volume."""
    first = volume.slices[0].dataset
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = RT_STRUCTURE_SET, generate_uid(entropy_srcs=[volume.headers[0].series_uid])
    ds.Modality, ds.Manufacturer, ds.StructureSetLabel = "RTSTRUCT", "syncect", "COMMISSION"
    ds.StructureSetDate, ds.StructureSetTime = "20200101", "000000"
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        setattr(ds, keyword, str(first.get(keyword, "")))
    ds.AccessionNumber, ds.ReferringPhysicianName, ds.SeriesNumber = "", "", 1
    ds.StudyInstanceUID = volume.headers[0].study_uid
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=[volume.headers[0].series_uid, "structures"])
    frame = str(first.FrameOfReferenceUID)
    ds.ReferencedFrameOfReferenceSequence = [_referenced(frame, volume)]
    ds.StructureSetROISequence = [_dataset(ROINumber=1, ReferencedFrameOfReferenceUID=frame, ROIName=name)]
    ds.StructureSetROISequence[0].ROIGenerationAlgorithm = "AUTOMATIC"
    ds.ROIContourSequence = [
        _dataset(ReferencedROINumber=1, ROIDisplayColor=[255, 0, 0], ContourSequence=_contours(contours, volume))
    ]
    ds.RTROIObservationsSequence = [
        _dataset(ObservationNumber=1, ReferencedROINumber=1, RTROIInterpretedType="", ROIInterpreter="")
    ]
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with quiet_pydicom():
        dcmwrite(path, ds, enforce_file_format=True)


def read_structures(path: Path) -> list[Points]:
    """The contours of the first region of a structure set file, in patient coordinates, mm."""
    with quiet_pydicom():
        region = dcmread(path).ROIContourSequence[0]
        return [np.asarray(one.ContourData, dtype=np.float64).reshape(-1, 3) for one in region.ContourSequence]


def overlay(contours: list[Points], source: Path, derived: Path, drawn: Mask) -> Overlay:
    """Rasterise contours on both series, which SimpleITK reads on its own from their folders, and compare.

    drawn: the mask on the derived volume, z ascending along the slice normal.
    """
    pictures = [_read(folder) for folder in (source, derived)]
    masks, places = [], []
    for image in pictures:
        placed = [
            np.array([image.TransformPhysicalPointToContinuousIndex(p.tolist()) for p in one]) for one in contours
        ]
        places.append(np.concatenate(placed) * np.array(image.GetSpacing()))
        masks.append(_raster(placed, image.GetSize()))
    apart = np.linalg.norm(places[0] - places[1], axis=1)
    return Overlay(
        len(contours),
        sum(len(one) for one in contours),
        float(apart.max()),
        int(masks[1].sum()),
        int((masks[0] != masks[1]).sum()),
        min(int((masks[1] != one).sum()) for one in (drawn, drawn[::-1])),
    )


def _raster(contours: list[Points], size: tuple[int, int, int]) -> Mask:
    """Pixels whose centres lie inside an odd number of contours; x, y and z of the contours are in pixels."""
    mask = np.zeros(size[::-1], bool)
    for one in contours:
        low = np.maximum(np.floor(one[:, :2].min(axis=0)).astype(int), 0)
        high = np.minimum(np.ceil(one[:, :2].max(axis=0)).astype(int) + 1, size[:2])
        x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        inside = Polygon(one[:, :2], closed=False).contains_points(np.column_stack([x.ravel(), y.ravel()]))
        mask[round(float(one[0, 2])), low[1] : high[1], low[0] : high[0]] ^= inside.reshape(x.shape)
    return mask


def _read(folder: Path) -> Any:
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    return SimpleITK.ReadImage(list(names))


def _contours(contours: list[tuple[int, Points]], volume: CTVolume) -> list[Dataset]:
    found = []
    for z, points in contours:
        image = volume.slices[z].dataset
        reference = _dataset(
            ReferencedSOPClassUID=str(image.SOPClassUID), ReferencedSOPInstanceUID=str(image.SOPInstanceUID)
        )
        found.append(
            _dataset(
                ContourImageSequence=[reference],
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
                ContourData=[f"{value:.4f}" for value in points.ravel()],
            )
        )
    return found


def _referenced(frame: str, volume: CTVolume) -> Dataset:
    images = [
        _dataset(
            ReferencedSOPClassUID=str(one.dataset.SOPClassUID), ReferencedSOPInstanceUID=str(one.dataset.SOPInstanceUID)
        )
        for one in volume.slices
    ]
    series = _dataset(SeriesInstanceUID=volume.headers[0].series_uid, ContourImageSequence=images)
    study = _dataset(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",
        ReferencedSOPInstanceUID=volume.headers[0].study_uid,
        RTReferencedSeriesSequence=[series],
    )
    return _dataset(FrameOfReferenceUID=frame, RTReferencedStudySequence=[study])


def _dataset(**elements: Any) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds
