"""The content of an instance: which attributes a derived slice takes from its source slice, and the digest over all
that can influence the derived series, however it was sent.
"""

import hashlib
import re
from enum import Enum
from typing import Final

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from node.dicom.constants import UNCOMPRESSED
from node.dicom.elements import charset_of, element_bytes, element_items, parse_decimal, public_tags, tag_of, vr_of
from node.dicom.meaning import meaning_of
from node.dicom.pixels import PixelFormat, StoredPixels


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
COPIED_BY_RULE: Final = (
    "SpecificCharacterSet",
    "Laterality",
    "SpacingBetweenSlices",
    "SeriesDescription",
    "SeriesNumber",
)

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

# Read by the input gate and by the comparison with the model's envelope, so a change in them may change what becomes of
# the series. `SliceHeader.attribute` knows them all.
GATE: Final = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "ImageType",
    "Modality",
    "NumberOfFrames",
    "RescaleType",
    "SyntheticData",
    "MultienergyCTAcquisition",
    # contrast agent
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "ContrastBolusRoute",
    "ContrastBolusAdministrationRouteSequence",
    "ContrastBolusVolume",
    "ContrastBolusTotalDose",
    "ContrastBolusStartTime",
    "ContrastBolusStopTime",
    "ContrastFlowRate",
    "ContrastFlowDuration",
    "ContrastBolusIngredient",
    "ContrastBolusIngredientConcentration",
    # the parts of an object in several instances, and what a frame was calculated from
    "ConcatenationUID",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "VolumetricProperties",
    "VolumeBasedCalculationTechnique",
    # what the texts say
    "SeriesDescription",
    "ProtocolName",
    "ImageComments",
    "DerivationDescription",
    "LossyImageCompression",
    # how it was scanned and reconstructed
    "Manufacturer",
    "ManufacturerModelName",
    "ScanOptions",
    "KVP",
    "ConvolutionKernel",
    "FilterType",
    "ReconstructionDiameter",
    "Exposure",
    "XRayTubeCurrent",
    "ExposureTime",
    "AcquisitionNumber",
    "SpiralPitchFactor",
    "GantryDetectorTilt",
    # breathing, heart and time
    "NominalPercentageOfRespiratoryPhase",
    "RespiratoryTriggerType",
    "NominalRespiratoryTriggerDelayTime",
    "ActualRespiratoryTriggerDelayTime",
    "RespiratoryMotionCompensationTechnique",
    "NominalPercentageOfCardiacPhase",
    "CardiacSynchronizationTechnique",
    "NumberOfTemporalPositions",
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    # who or what was scanned
    "BodyPartExamined",
    "PatientAge",
    "StudyDate",
    "AcquisitionDate",
    "AcquisitionTime",
    "PatientSpeciesDescription",
    "PatientBreedDescription",
    "PatientSexNeutered",
    "QualityControlSubject",
)

DIGESTED: Final = tuple(dict.fromkeys((*(keyword for keyword, _ in COPIED), *COPIED_BY_RULE, *SCANNER_IDENTITY, *GATE)))


# Attributes that say how the others are written, not what they say.
_ENCODING: Final = frozenset(map(tag_of, ("SpecificCharacterSet", "BitsAllocated", "BitsStored", "HighBit")))
# DCMTK's note on a lossless copy, with the text that stood there before in brackets; it says nothing of the pixels.
_LOSSLESS_COPY: Final = re.compile(
    rb"Lossless JPEG(?:-LS)? compression[^\[\]]*(?:\[(.*)\])?", re.DOTALL | re.IGNORECASE
)
_DIGESTED_TAGS: Final = tuple(sorted(map(tag_of, DIGESTED)))
# Where results lie, HU, with a margin: BitsStored matters to them only where it cannot hold all of it.
_RESULT_HU: Final = (-1000.0, 1000.0)


def content_sha256(ds: Dataset, form: PixelFormat, stored: StoredPixels | None) -> str:
    """Hex SHA-256 over the meaning of all that can influence the derived series: attributes, and the pixels.

    stored: the decoded pixels, None where they cannot be decoded or do not fit BitsStored. Copies of one image agree in
    whatever transfer syntax, character set, padding or spelling of names and numbers they were sent, and with overlays
    in the bits above BitsStored, or bytes behind the last pixel; an empty value is an absent one. Pixels that are None
    count by their bytes. Every value goes in as (tag, length, bytes), so no two contents run into each other.
    """
    digest = hashlib.sha256()
    charset = charset_of(ds)
    for tag in _DIGESTED_TAGS:
        if tag in ds and tag not in _ENCODING and (value := _meaning(ds, tag, charset)):
            _feed(digest, f"{tag:08X}".encode(), value)
    if stored is not None and form.high_bit == (form.bits_stored or 0) - 1:
        _feed(digest, b"pixels", stored.astype(stored.dtype.newbyteorder("<"), copy=False).data)
        if _is_narrow(ds, form):
            _feed(digest, b"bits stored", str(form.bits_stored).encode())
    else:
        _feed_undecoded(digest, ds, form)
    return digest.hexdigest()


def _feed(digest: "hashlib._Hash", name: bytes, value: bytes | memoryview) -> None:
    size = value.nbytes if isinstance(value, memoryview) else len(value)
    digest.update(b"%d:%b%d:" % (len(name), name, size))
    digest.update(value)


def _feed_undecoded(digest: "hashlib._Hash", ds: Dataset, form: PixelFormat) -> None:
    """The bytes of the pixel data and the attributes by which somebody else may read them."""
    for tag in sorted(_ENCODING):
        _feed(digest, f"{tag:08X}".encode(), element_bytes(ds, tag) or b"")
    plain = form.transfer_syntax_uid in UNCOMPRESSED
    _feed(
        digest, b"bytes" if plain else form.transfer_syntax_uid.encode(), element_bytes(ds, tag_of("PixelData")) or b""
    )


def _is_narrow(ds: Dataset, form: PixelFormat) -> bool:
    """Whether BitsStored would clip a result (composite), so that another value of it may give other pixels."""
    slope, intercept = (
        parse_decimal((element_bytes(ds, tag_of(keyword)) or b"").decode("latin-1"))
        for keyword in ("RescaleSlope", "RescaleIntercept")
    )
    if slope is None or intercept is None:
        return True
    highest = (1 << (form.bits_stored or 0)) - 1
    if form.pixel_representation != 1:
        return highest * slope + intercept < _RESULT_HU[1]
    lowest = -(highest + 1) // 2
    return lowest * slope + intercept > _RESULT_HU[0] or (highest + lowest) * slope + intercept < _RESULT_HU[1]


def _meaning(ds: Dataset, tag: BaseTag, charset: tuple[str, ...]) -> bytes:
    vr = vr_of(tag)
    if vr != "SQ":
        raw = element_bytes(ds, tag) or b""
        if tag == tag_of("DerivationDescription") and (copy := _LOSSLESS_COPY.fullmatch(raw)):
            raw = copy[1] or b""
        return meaning_of(raw, vr, charset)
    return b"".join(_meaning_of_item(item, charset) for item in element_items(ds, tag))


def _meaning_of_item(item: Dataset, charset: tuple[str, ...]) -> bytes:
    own = charset_of(item) or charset
    parts = [
        b"%08X%d:%b" % (tag, len(value), value)
        for tag in public_tags(item)
        if tag not in _ENCODING and (value := _meaning(item, tag, own))
    ]
    body = b"".join(parts)
    return b"%d:%b" % (len(body), body)
