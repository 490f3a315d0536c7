"""Owns the list of attributes that a derived slice takes from its source slice; must not hold any value."""

from enum import Enum
from typing import Final


class Presence(Enum):
    """What to do where the source has no usable value (PS3.5 7.4)."""

    REQUIRED = "1"  # copied verbatim whatever it holds; the input gate has seen to it that it exists
    EMPTY_IF_ABSENT = "2"  # copied verbatim, else written empty
    OPTIONAL = "3"  # copied where it is non-empty and valid, else left out


_R, _E, _O = Presence.REQUIRED, Presence.EMPTY_IF_ABSENT, Presence.OPTIONAL

# Nothing outside this table reaches a derived slice from its source. What is missing here is missing on purpose: the
# contrast/bolus and multi-energy modules, exposure and dose, kernel and filter, the scanner's performed procedure step,
# overlays, icons, signatures and all private elements.
COPIED: Final[tuple[tuple[str, Presence], ...]] = (
    # SOP Common
    ("SpecificCharacterSet", _O),
    ("TimezoneOffsetFromUTC", _O),
    ("LongitudinalTemporalInformationModified", _O),
    # Patient and Patient Study
    ("PatientName", _E),
    ("PatientID", _E),
    ("IssuerOfPatientID", _O),
    ("IssuerOfPatientIDQualifiersSequence", _O),
    ("OtherPatientIDsSequence", _O),
    ("PatientBirthDate", _E),
    ("PatientSex", _E),
    ("PatientAge", _O),
    ("PatientSize", _O),
    ("PatientWeight", _O),
    ("PatientIdentityRemoved", _O),
    ("DeidentificationMethod", _O),
    ("DeidentificationMethodCodeSequence", _O),
    # General Study
    ("StudyInstanceUID", _R),
    ("StudyDate", _E),
    ("StudyTime", _E),
    ("AccessionNumber", _E),
    ("IssuerOfAccessionNumberSequence", _O),
    ("ReferringPhysicianName", _E),
    ("StudyID", _E),
    ("StudyDescription", _O),
    ("ProcedureCodeSequence", _O),
    # General Series, General Equipment (the place, not the device)
    ("ProtocolName", _O),
    ("BodyPartExamined", _O),
    ("PatientPosition", _E),
    ("RequestAttributesSequence", _O),
    ("InstitutionName", _O),
    ("InstitutionalDepartmentName", _O),
    # Frame of Reference
    ("FrameOfReferenceUID", _R),
    ("PositionReferenceIndicator", _E),
    # General Acquisition and General Image
    ("AcquisitionUID", _O),
    ("AcquisitionNumber", _E),
    ("AcquisitionDate", _O),
    ("AcquisitionTime", _O),
    ("AcquisitionDateTime", _O),
    ("InstanceNumber", _E),
    ("LossyImageCompression", _O),
    ("LossyImageCompressionRatio", _O),
    ("LossyImageCompressionMethod", _O),
    # Image Plane
    ("ImagePositionPatient", _R),
    ("ImageOrientationPatient", _R),
    ("PixelSpacing", _R),
    ("SliceThickness", _E),
    ("SliceLocation", _O),
    # CT Image
    ("KVP", _E),
    ("DataCollectionDiameter", _O),
    ("ReconstructionDiameter", _O),
    ("GantryDetectorTilt", _O),
    ("TableHeight", _O),
    ("RescaleIntercept", _R),
    ("RescaleSlope", _R),
    # Image Pixel
    ("SamplesPerPixel", _R),
    ("PhotometricInterpretation", _R),
    ("Rows", _R),
    ("Columns", _R),
    ("BitsAllocated", _R),
    ("BitsStored", _R),
    ("HighBit", _R),
    ("PixelRepresentation", _R),
    ("PixelPaddingValue", _O),
    ("PixelPaddingRangeLimit", _O),
)

# Copied by a rule of their own in the derived builder.
COPIED_BY_RULE: Final = ("Laterality", "SpacingBetweenSlices", "SeriesDescription", "SeriesNumber")

# The scanner's identity: it never becomes the derived series' equipment, only an item of its contributing equipment.
SCANNER_IDENTITY: Final = (
    "Manufacturer",
    "InstitutionName",
    "InstitutionAddress",
    "StationName",
    "InstitutionalDepartmentName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)

# Read by the input gate, so a change in them may change what becomes of the series.
GATE: Final = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "ImageType",
    "Modality",
    "NumberOfFrames",
    "RescaleType",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "SyntheticData",
    "MultienergyCTAcquisition",
)

DIGESTED: Final = tuple(dict.fromkeys((*(keyword for keyword, _ in COPIED), *COPIED_BY_RULE, *SCANNER_IDENTITY, *GATE)))
