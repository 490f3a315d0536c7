"""The derived series as its companions need it, and the identity that they take from it byte by byte.

highdicom decodes the texts of a patient and refuses odd ones. It therefore gets a series without a patient, and what it
built gets the identity of the derived slices in their own bytes afterwards.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr

from node.dicom.constants import PRODUCT_NAME
from node.dicom.derived_plan import MAX_SERIES_NUMBER
from node.dicom.elements import ascii_text, element_items, put, seal, tag_of
from node.dicom.quiet import quiet_pydicom
from node.dicom.uids import UidFactory

# What a builder learns of a slice: where it lies, what kind of image it is, and nothing of the patient.
_EVIDENCE: Final = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("PositionReferenceIndicator", "ImageType", "InstanceNumber", "Rows", "Columns", "PixelSpacing", "SliceThickness"),
    *("SpacingBetweenSlices", "ImagePositionPatient", "ImageOrientationPatient", "RescaleIntercept", "RescaleSlope"),
    *("RescaleType", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "WindowCenter", "WindowWidth", "LossyImageCompression"),
)
_NO_PATIENT: Final = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ReferringPhysicianName"),
)
# What every companion has as the derived slices have it: whose it is, when and by which device it was made.
_IDENTITY: Final = (
    *("SpecificCharacterSet", "TimezoneOffsetFromUTC", "InstanceCreationDate", "InstanceCreationTime"),
    *("InstanceCreatorUID", "PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"),
    *("OtherPatientIDsSequence", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize", "PatientWeight"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "IssuerOfAccessionNumberSequence"),
    *("ReferringPhysicianName", "StudyID", "StudyDescription", "ProcedureCodeSequence"),
    *("SeriesDate", "SeriesTime", "Manufacturer", "ManufacturerModelName", "StationName", "DeviceSerialNumber"),
    *("SoftwareVersions", "InstitutionName", "InstitutionalDepartmentName", "ContributingEquipmentSequence"),
)
BODY_PART: Final = ("BodyPartExamined", "Laterality")  # General Series; a document's series has none
SPACE: Final = ("FrameOfReferenceUID", "PositionReferenceIndicator")
_SYNTHESIZING_EQUIPMENT: Final = "109100"
_NUMBERS_FROM: Final = 1_000_000  # above those of the derived series, so that a list by number shows these below


@dataclass(frozen=True)
class DerivedSeries:
    """The slices of a derived series in ascending order along the slice normal, without their pixels."""

    slices: tuple[Dataset, ...]

    @classmethod
    def read(cls, paths: Sequence[Path]) -> "DerivedSeries":
        """The files of a derived series, in the order of z; passes on what pydicom or the file system raises."""
        with quiet_pydicom():
            return cls(tuple(dcmread(path, stop_before_pixels=True) for path in paths))

    @cached_property
    def evidence(self) -> list[Dataset]:
        """The slices for a builder: geometry and references, and a patient without a name."""
        return [_evidence(ds) for ds in self.slices]

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return ascii_text(self.slices[0], "SeriesInstanceUID").rstrip("\0 ")

    @property
    def model(self) -> tuple[str, str]:
        """Name and version of the model that made the pixels."""
        for item in element_items(self.slices[0], tag_of("ContributingEquipmentSequence")):
            if item.PurposeOfReferenceCodeSequence[0].CodeValue == _SYNTHESIZING_EQUIPMENT:
                return str(item.ManufacturerModelName), str(item.SoftwareVersions[0])
        raise ValueError("the derived series names no model")


@dataclass(frozen=True)
class Frame:
    """What each builder needs: the derived series, and how the object beside it is called.

    series_uid: SeriesInstanceUID of the object, which has a series of its own. words: end its SeriesDescription;
    number: one digit, the last of its SeriesNumber. made_at: when it was made, in the time of the series; None for the
    moment of the derived slices.
    """

    series: DerivedSeries
    uids: UidFactory
    series_uid: str
    words: str
    number: int
    made_at: datetime | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What every constructor of highdicom asks for and `finished` replaces or keeps."""
        return {
            "series_instance_uid": self.series_uid,
            "series_number": self._number,
            "sop_instance_uid": self.uids.make("companion draft", self.series_uid),
            "instance_number": 1,
            "manufacturer": PRODUCT_NAME,
            "manufacturer_model_name": PRODUCT_NAME,
            "software_versions": ascii_text(self.series.slices[0], "SoftwareVersions").strip(),
            "device_serial_number": ascii_text(self.series.slices[0], "DeviceSerialNumber").strip(),
        }

    @property
    def _number(self) -> int:
        number = _NUMBERS_FROM + int(ascii_text(self.series.slices[0], "SeriesNumber") or 0) * 10 + self.number
        return number if number <= MAX_SERIES_NUMBER else _NUMBERS_FROM + self.number

    @property
    def _description(self) -> str:
        """At most 64 characters (LO), and it begins as that of the derived series, so with the site's prefix."""
        words = f" - {self.words}"
        return ascii_text(self.series.slices[0], "SeriesDescription").strip()[: 64 - len(words)].strip() + words

    def finished(self, built: Dataset, *also: str) -> Dataset:
        """What highdicom built with the identity of the derived series, sealed; the same input gives the same bytes.

        also: keywords that this kind of object has in common with the slices, beside what all have. The SOPInstanceUID
        follows from all other bytes, so that two contents never share one.
        """
        ds = Dataset()
        for element in correct_ambiguous_vr(built, is_little_endian=True):
            ds[element.tag] = element
        first = self.series.slices[0]
        for keyword in (*_IDENTITY, *also):
            tag = tag_of(keyword)
            ds.pop(tag, None)
            if tag in first:
                ds[tag] = first.get_item(tag)
        for moment in ("Content", "PresentationCreation"):
            if tag_of(f"{moment}Date") in ds:
                put(ds, f"{moment}Date", ascii_text(first, "ContentDate"))
                put(ds, f"{moment}Time", ascii_text(first, "ContentTime"))
        if self.made_at is not None:
            for moment in ("InstanceCreation", "Series", "Content"):
                put(ds, f"{moment}Date", self.made_at.strftime("%Y%m%d"))
                put(ds, f"{moment}Time", self.made_at.strftime("%H%M%S"))
        put(ds, "SyntheticData", "YES")
        put(ds, "ContentQualification", "RESEARCH")
        put(ds, "SeriesDescription", self._description)
        seal(ds)
        _fix_made_uids(ds, self.uids.make("companion dimensions", self.series_uid))
        put(ds, "SOPInstanceUID", self.uids.make("companion", self.series_uid, _digest(ds)))
        return ds


def _evidence(ds: Dataset) -> Dataset:
    plain = Dataset()
    for keyword in _EVIDENCE:
        if tag_of(keyword) in ds:
            plain[tag_of(keyword)] = ds[tag_of(keyword)]
    for keyword in _NO_PATIENT:
        setattr(plain, keyword, "")
    return plain


def _fix_made_uids(ds: Dataset, uid: str) -> None:
    """highdicom gives the dimensions of each object a random UID; there is one organization in an object."""
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in ds.get(keyword, ()):
            item.DimensionOrganizationUID = uid


def _digest(ds: Dataset) -> str:
    with io.BytesIO() as stream, quiet_pydicom():
        dcmwrite(stream, ds, implicit_vr=False, little_endian=True)
        return hashlib.sha256(stream.getbuffer()).hexdigest()
