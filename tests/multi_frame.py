"""Enhanced CT objects, made of the files of a classic series as a scanner or a converter would make them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pydicom
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

# What leaves the top of an enhanced object for its functional groups, or is not in it at all.
_LEAVES = (
    *(
        "ImageType",
        "InstanceNumber",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
    ),
    *("SliceLocation", "RescaleIntercept", "RescaleSlope", "RescaleType", "KVP", "ConvolutionKernel", "Exposure"),
    *("AcquisitionNumber", "XRayTubeCurrent", "ExposureTime", "GantryDetectorTilt", "TableHeight", "PixelData"),
)


def _item(source: Dataset | None = None, *same: str, **values: Any) -> Dataset:
    made = Dataset()
    for keyword in same:
        if source is not None and keyword in source:
            made[keyword] = source[keyword]
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def _groups(ds: Dataset, number: int) -> Dataset:
    """The functional groups of one frame (PS3.3 C.7.6.16.2 and C.8.15.3)."""
    return _item(
        FrameContentSequence=[_item(FrameAcquisitionNumber=1, StackID="1", InStackPositionNumber=number)],
        PlanePositionSequence=[_item(ds, "ImagePositionPatient")],
        PlaneOrientationSequence=[_item(ds, "ImageOrientationPatient")],
        PixelValueTransformationSequence=[_item(ds, "RescaleIntercept", "RescaleSlope", RescaleType="HU")],
        CTExposureSequence=[_item(ExposureInmAs=100.2, XRayTubeCurrentInmA=200.0, ExposureTimeInms=500.0)],
    )


def _common(ds: Dataset) -> Dataset:
    """What all frames share."""
    return _item(
        PixelMeasuresSequence=[_item(ds, "PixelSpacing", "SliceThickness")],
        CTImageFrameTypeSequence=[
            _item(
                FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
                PixelPresentation="MONOCHROME",
                VolumetricProperties="VOLUME",
                VolumeBasedCalculationTechnique="NONE",
            )
        ],
        CTAcquisitionTypeSequence=[_item(AcquisitionType="SPIRAL")],
        CTReconstructionSequence=[_item(ds, "ConvolutionKernel")],
        CTXRayDetailsSequence=[_item(ds, "KVP")],
    )


def enhanced(
    files: Sequence[Path],
    out: Path,
    *,
    order: Sequence[int] = (),
    edit: Callable[[Dataset], None] = lambda _ds: None,
    frames: Callable[[list[bytes]], list[bytes]] | None = None,
    syntax: UID = ExplicitVRLittleEndian,
) -> Path:
    """Write one Enhanced CT Image of the slices of a series. order: of the frames, by the files. `edit` runs last.

    frames: makes the codestreams of a compressed object of the stored values of the frames.
    """
    slices = [dcmread(path) for path in files]
    ds = Dataset()
    for element in slices[0]:
        if element.keyword not in _LEAVES:
            ds[element.tag] = element
    ds.SOPClassUID, ds.SOPInstanceUID = EnhancedCTImageStorage, generate_uid(entropy_srcs=[str(out)])
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.InstanceNumber, ds.ContentQualification = 1, "PRODUCT"
    ds.PixelPresentation, ds.VolumetricProperties = "MONOCHROME", "VOLUME"
    ds.VolumeBasedCalculationTechnique, ds.LossyImageCompression = "NONE", "00"
    ordered = [slices[index] for index in order] if order else slices
    ds.NumberOfFrames = len(ordered)
    ds.SharedFunctionalGroupsSequence = [_common(slices[0])]
    ds.PerFrameFunctionalGroupsSequence = [_groups(one, number) for number, one in enumerate(ordered, 1)]
    pixels = [one.PixelData for one in ordered]
    ds.PixelData = encapsulate(frames(pixels)) if frames else b"".join(pixels)
    ds["PixelData"].VR = "OB" if frames else "OW"
    edit(ds)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    out.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(out, enforce_file_format=True)
    return out


def legacy_converted(files: Sequence[Path], out: Path) -> Path:
    """Write one Legacy Converted Enhanced CT Image of a series, by highdicom."""
    made = LegacyConvertedEnhancedCTImage(
        [dcmread(path) for path in files],
        series_instance_uid=generate_uid(entropy_srcs=[str(out), "series"]),
        series_number=7,
        sop_instance_uid=generate_uid(entropy_srcs=[str(out)]),
        instance_number=1,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(out, made, enforce_file_format=True)
    return out
