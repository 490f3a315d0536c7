"""Writes a HU volume as if a scanner had sent it, for the demo, cohorts and tests; never used on patients."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from node.dicom.constants import CT_IMAGE_STORAGE
from node.dicom.elements import put, raw_element, seal, tag_of, vr_of, write_part10
from node.dicom.uids import UidFactory

_INTERCEPT_HU: Final = -1024
_AXIAL: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

Customise = Callable[[Dataset, int], None]


@dataclass(frozen=True, slots=True)
class ScanIdentity:
    """Whose scan it pretends to be. All UIDs come from `seed`: the same seed gives the same UIDs.

    study_seed: scans of one patient with the same value share study and frame of reference; default is `seed`.
    """

    patient_id: str
    patient_name: str
    seed: str
    study_seed: str | None = None
    series_number: int = 3
    series_description: str = "Thorax native 5.0 B40"
    study_date: str = "20200101"
    attributes: Mapping[str, str] = field(default_factory=dict)


def write_scan(
    hu: NDArray[np.floating] | NDArray[np.integer],
    spacing_mm: tuple[float, float, float],
    out_dir: Path,
    identity: ScanIdentity,
    *,
    first_position_mm: tuple[float, float, float] | None = None,
    orientation: Sequence[float] = _AXIAL,
    customise: Customise | None = None,
    only: Iterable[int] | None = None,
) -> list[Path]:
    """Write `hu` [z, y, x] as an ORIGINAL\\PRIMARY\\AXIAL CT Image series of Explicit VR Little Endian files.

    spacing_mm is (z, y, x). HU are rounded and clipped to -1024..3071 (12 bits stored, intercept -1024). The first
    pixel of slice z lies at first_position_mm (default: centred in the plane, 0 along the normal) plus z steps along
    the normal of `orientation`. customise(dataset, z) may change each dataset before it is written, through
    `node.dicom.elements`. Files are named 0001.dcm and so on in `out_dir`, which must exist; `only` limits them to
    these slices. Returns their paths.
    """
    count, rows, columns = hu.shape
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    normal = np.cross(row, column)
    if first_position_mm is None:
        centre = row * (columns - 1) / 2 * spacing_mm[2] + column * (rows - 1) / 2 * spacing_mm[1]
        first_position_mm = (-centre[0], -centre[1], -centre[2])
    common = Dataset()
    _put_scan(common, identity, spacing_mm)
    paths = []
    for z in range(count) if only is None else sorted(only):
        stored = np.clip(np.rint(hu[z]) - _INTERCEPT_HU, 0, 4095).astype("<u2")
        ds = Dataset()
        ds.update(common)
        position = np.asarray(first_position_mm) + normal * z * spacing_mm[0]
        put(ds, "SOPInstanceUID", UidFactory().make("scan instance", identity.seed, str(z)))
        put(ds, "InstanceNumber", str(z + 1))
        _put_plane(ds, position, orientation, spacing_mm)
        _put_pixels(ds, stored)
        if customise:
            customise(ds, z)
        path = out_dir / f"{z + 1:04d}.dcm"
        write_part10(seal(ds), path)
        paths.append(path)
    return paths


def decimal_string(value: float) -> str:
    """A number as DS: at most 16 characters, no exponent where that is possible (PS3.5 6.2)."""
    text = f"{value:.10f}".rstrip("0").rstrip(".")
    return ("0" if text in ("-0", "") else text) if len(text) <= 16 else f"{value:.8e}"


def _put_scan(ds: Dataset, identity: ScanIdentity, spacing_mm: tuple[float, float, float]) -> None:
    uids, study = UidFactory(), identity.study_seed or identity.seed
    texts = {
        "SpecificCharacterSet": "ISO_IR 100",
        "SOPClassUID": CT_IMAGE_STORAGE,
        "StudyDate": identity.study_date,
        "SeriesDate": identity.study_date,
        "AcquisitionDate": identity.study_date,
        "ContentDate": identity.study_date,
        "StudyTime": "080000",
        "SeriesTime": "080100",
        "AcquisitionTime": "080130",
        "ContentTime": "080130",
        "AccessionNumber": "",
        "Modality": "CT",
        "Manufacturer": "Phantom scanner",
        "ManufacturerModelName": "Procedural",
        "DeviceSerialNumber": "1",
        "StationName": "PHANTOM",
        "SoftwareVersions": "1",
        "ReferringPhysicianName": "",
        "StudyDescription": "Radiotherapy planning",
        "SeriesDescription": identity.series_description,
        "PatientName": identity.patient_name,
        "PatientID": identity.patient_id,
        "PatientBirthDate": "",
        "PatientSex": "O",
        "BodyPartExamined": "CHEST",
        "SliceThickness": decimal_string(spacing_mm[0]),
        "KVP": "120",
        "GantryDetectorTilt": "0",
        "ConvolutionKernel": "B40",
        "PatientPosition": "HFS",
        "StudyInstanceUID": uids.make("scan study", study),
        "FrameOfReferenceUID": uids.make("scan frame", study),
        "SeriesInstanceUID": uids.make("scan series", identity.seed),
        "StudyID": "1",
        "SeriesNumber": str(identity.series_number),
        "AcquisitionNumber": "1",
        "PositionReferenceIndicator": "",
        "PhotometricInterpretation": "MONOCHROME2",
        "WindowCenter": "40",
        "WindowWidth": "400",
        "RescaleIntercept": str(_INTERCEPT_HU),
        "RescaleSlope": "1",
        "RescaleType": "HU",
    } | dict(identity.attributes)
    for keyword, value in texts.items():
        put(ds, keyword, *value.split("\\"))
    put(ds, "ImageType", "ORIGINAL", "PRIMARY", "AXIAL")


def _put_plane(
    ds: Dataset,
    position_mm: NDArray[np.float64],
    orientation: Sequence[float],
    spacing_mm: tuple[float, float, float],
) -> None:
    put(ds, "ImagePositionPatient", *(decimal_string(float(value)) for value in position_mm))
    put(ds, "ImageOrientationPatient", *(decimal_string(float(value)) for value in orientation))
    put(ds, "PixelSpacing", decimal_string(spacing_mm[1]), decimal_string(spacing_mm[2]))
    put(ds, "SliceLocation", decimal_string(float(position_mm[2])))


def _put_pixels(ds: Dataset, stored: NDArray[np.uint16]) -> None:
    numbers = {
        "SamplesPerPixel": 1,
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
    }
    for keyword, number in numbers.items():
        put_number(ds, keyword, number)
    tag = tag_of("PixelData")
    ds[tag] = raw_element(tag, "OW", stored.tobytes())


def put_number(ds: Dataset, keyword: str, number: int) -> None:
    """Add a US element, or SS for a negative number."""
    tag = tag_of(keyword)
    ds[tag] = raw_element(tag, vr_of(tag, signed=number < 0), number.to_bytes(2, "little", signed=number < 0))
