"""The content of an instance: which attributes a derived slice takes from its source slice, and the digest over all
that can influence the derived series, however it was sent.
"""

import hashlib
from enum import Enum
from typing import Final

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from node.dicom.constants import UNCOMPRESSED
from node.dicom.elements import copy_public_items, element_bytes, tag_of, unpack_numbers, vr_of


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


def content_sha256(ds: Dataset, transfer_syntax_uid: str) -> str:
    """Hex SHA-256 over all that can influence the derived series: copied and gate attributes, and the pixels.

    Every value goes in as (tag, length, bytes), so no two contents run into each other. Values are taken without
    padding and little endian, so Implicit VR, Explicit VR, Big Endian and Deflated copies of one image agree. The
    pixels of a compressed instance go in as they are encapsulated, with the transfer syntax: the same image, compressed
    by somebody in between, counts as a different content and is never mixed up with the first.
    """
    digest = hashlib.sha256()
    for tag in sorted(tag_of(keyword) for keyword in DIGESTED):
        if tag in ds:
            _feed(digest, f"{tag:08X}".encode(), _canonical(ds, tag))
    pixels = element_bytes(ds, tag_of("PixelData")) or b""
    if transfer_syntax_uid in UNCOMPRESSED:
        _feed(digest, b"pixels", pixels[: _pixel_bytes(ds, len(pixels))])
    else:
        _feed(digest, b"encapsulated " + transfer_syntax_uid.encode(), pixels)
    return digest.hexdigest()


def _feed(digest: "hashlib._Hash", name: bytes, value: bytes) -> None:
    digest.update(b"%d:%b%d:" % (len(name), name, len(value)))
    digest.update(value)


def _canonical(ds: Dataset, tag: BaseTag) -> bytes:
    if vr_of(tag) != "SQ":
        return element_bytes(ds, tag) or b""
    return b"".join(_canonical_item(item) for item in copy_public_items(ds, tag))


def _canonical_item(item: Dataset) -> bytes:
    parts = [
        b"%08X%d:%b" % (tag, len(value), value) for tag in sorted(item.keys()) for value in (_canonical(item, tag),)
    ]
    body = b"".join(parts)
    return b"%d:%b" % (len(body), body)


def _pixel_bytes(ds: Dataset, present: int) -> int:
    """Length of the pixel data without a padding byte; all that is present where the header does not say."""
    sizes = [element_bytes(ds, tag_of(keyword)) or b"" for keyword in ("Rows", "Columns", "BitsAllocated")]
    if any(len(size) < 2 for size in sizes):
        return present
    rows, columns, bits = (int(unpack_numbers(size, "US")[0]) for size in sizes)
    expected = rows * columns * bits // 8
    return expected if present - expected == 1 else present
