"""The derived CT slice: built from an allow-list, never a copy of the source's dataset that is edited.

highdicom builds codes and contributing equipment, of text of our own only. Importing this module imports highdicom,
which takes as long as a whole `jobs ls`: receiver, courier and readers do not import it.
"""

from typing import Final

import numpy as np
from highdicom import ContributingEquipment
from highdicom.sr import CodedConcept
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from node.dicom.constants import CT_IMAGE_STORAGE, PRODUCT_NAME
from node.dicom.content import COPIED, SCANNER_IDENTITY
from node.dicom.derived_plan import DerivedSeriesPlan
from node.dicom.elements import (
    charset_of,
    element_bytes,
    is_valid_value,
    keep,
    own_copy,
    put,
    put_items,
    raw_element,
    seal,
    split_values,
    tag_of,
    vr_of,
)
from node.dicom.headers import SliceHeader
from node.dicom.pixels import StoredPixels
from node.dicom.quiet import quiet_pydicom
from node.dicom.source_values import Remarks, ValueKeeper, drop_dependants, written_charset
from node.dicom.volume import SourceSlice

# Laterality (2C) must be absent for an unpaired body part and present, if only empty, for any other term. These terms
# are the unpaired ones as dciodvfy 20260927 reads them; it knows others neither as unpaired nor as paired (THORAX).
_UNPAIRED_TERMS: Final = """
    ABDOMEN ABDOMENPELVIS AORTA BLADDER BRAIN CHEST CHESTABDOMEN CHESTABDPELVIS COCCYX CSPINE CTSPINE ESOPHAGUS HEAD
    HEADNECK HEART JAW LIVER LSPINE LSSPINE MAXILLA MEDIASTINUM NECK NECKCHEST NECKCHESTABDPELV NOSE PANCREAS PELVIS
    PHARYNX PROSTATE RECTUM SKULL SPINE SPLEEN SSPINE STERNUM STOMACH THYROID TLSPINE TRACHEA TSPINE UTERUS WHOLEBODY
"""
UNPAIRED_BODY_PARTS: Final = frozenset(_UNPAIRED_TERMS.split())
_UNNAMED: Final = "UNKNOWN"  # Manufacturer is of type 1 in ContributingEquipmentSequence
_LABEL: Final = "SYNTHETIC IMAGE MADE BY AI. No contrast agent was given. Not for dose calculation."


def build_slice(
    plan: DerivedSeriesPlan, source: SourceSlice, stored: StoredPixels, remarks: Remarks | None = None
) -> Dataset:
    """The derived slice that belongs to one source slice.

    stored: [rows, columns] of the source's size, uint16 or int16 by its PixelRepresentation. Same plan, source and
    pixels give the same dataset. Copied values are the source's bytes; no odd value of a source makes this fail, and
    `remarks` learns which ones were not simply kept. Raises ValueError where `stored` does not fit the source.
    """
    header = source.header
    signed = header.pixel_representation == 1
    if stored.shape != (header.rows, header.columns) or stored.dtype != (np.int16 if signed else np.uint16):
        raise ValueError(f"{stored.dtype} pixels of shape {stored.shape} do not fit the source slice")
    ds = Dataset()
    keeper = ValueKeeper(charset_of(source.dataset))
    with quiet_pydicom():
        _copy(ds, source.dataset, keeper, signed=signed)
        _copy_by_rule(ds, source, plan)
        _put_identity(ds, plan, header)
        _put_description(ds, plan)
        _put_references(ds, header)
        put_items(ds, "ContributingEquipmentSequence", _contributing_equipment(plan, source.dataset, keeper))
    if remarks is not None:
        remarks.add_slice(keeper.notes)
    pixel_data = tag_of("PixelData")
    ds[pixel_data] = raw_element(pixel_data, "OW", stored.astype(stored.dtype.newbyteorder("<"), copy=False).tobytes())
    return seal(ds)


def _copy(ds: Dataset, source: Dataset, keeper: ValueKeeper, *, signed: bool) -> None:
    """Copy the allow-list and the character set of its text, as `source_values` says."""
    for keyword, presence in COPIED:
        tag = tag_of(keyword)
        vr = vr_of(tag, signed=signed)
        if vr == "SQ":
            if items := keeper.items(source, tag):
                ds[tag] = DataElement(tag, "SQ", DicomSequence(items))
            continue
        value = keeper.value(keyword, element_bytes(source, tag) or b"", vr, presence)
        if value is not None:
            ds[tag] = raw_element(tag, vr, value)
    if terms := written_charset(source, keeper.notes):
        ds[tag_of("SpecificCharacterSet")] = raw_element(tag_of("SpecificCharacterSet"), "CS", terms)
    drop_dependants(ds, keeper.notes)


def _copy_by_rule(ds: Dataset, source: SourceSlice, plan: DerivedSeriesPlan) -> None:
    """Attributes whose presence depends on others (PS3.3 C.7.3.1 Laterality, C.7.6.2 spacing)."""
    laterality = tag_of("Laterality")
    value = element_bytes(source.dataset, laterality) or b""
    body_part = split_values(element_bytes(ds, tag_of("BodyPartExamined")) or b"", "CS")
    unpaired = len(body_part) == 1 and body_part[0] in UNPAIRED_BODY_PARTS
    if value in (b"L", b"R") and not unpaired:
        ds[laterality] = raw_element(laterality, "CS", value)
    elif not unpaired:
        ds[laterality] = raw_element(laterality, "CS", b"")
    spacing = source.header.spacing_between_slices_mm
    if spacing is not None and spacing > 0 and abs(spacing - plan.slice_spacing_mm) <= 0.01:
        tag = tag_of("SpacingBetweenSlices")
        raw = element_bytes(source.dataset, tag) or b""
        if is_valid_value(raw, "DS", ()):
            ds[tag] = raw_element(tag, "DS", raw)


def _put_identity(ds: Dataset, plan: DerivedSeriesPlan, header: SliceHeader) -> None:
    """Whose object it is, when it was made and by which device: SOP Common, General Series, General Equipment."""
    made = plan.local_time(_offset(ds))
    date, time = made.strftime("%Y%m%d"), made.strftime("%H%M%S")
    put(ds, "SOPClassUID", CT_IMAGE_STORAGE)
    put(ds, "SOPInstanceUID", plan.uids.instance_uid(plan.series_uid, header.image_name))
    put(ds, "SeriesInstanceUID", plan.series_uid)
    put(ds, "Modality", "CT")
    put(ds, "SeriesNumber", str(plan.series_number))
    put(ds, "SeriesDescription", plan.series_description)
    for moment in ("InstanceCreation", "Series", "Content"):
        put(ds, f"{moment}Date", date)
        put(ds, f"{moment}Time", time)
    equipment = plan.equipment
    if equipment.installation_uid is not None:
        put(ds, "InstanceCreatorUID", equipment.installation_uid)
    put(ds, "Manufacturer", PRODUCT_NAME)
    put(ds, "ManufacturerModelName", PRODUCT_NAME)
    put(ds, "StationName", PRODUCT_NAME.upper())
    put(ds, "DeviceSerialNumber", equipment.device_serial_number)
    put(ds, "SoftwareVersions", equipment.software_version)


def _put_description(ds: Dataset, plan: DerivedSeriesPlan) -> None:
    """What the pixels are: synthetic, derived, for contouring, in HU."""
    put(ds, "ImageType", "DERIVED", "SECONDARY", "AXIAL")
    put(ds, "SyntheticData", "YES")
    put(ds, "ContentQualification", "RESEARCH")
    put(ds, "BurnedInAnnotation", "NO")
    put(ds, "ImageComments", _LABEL)
    put(ds, "DerivationDescription", plan.derivation_description())
    put(ds, "RescaleType", "HU")
    put(ds, "WindowCenter", "60")
    put(ds, "WindowWidth", "400")


def _put_references(ds: Dataset, header: SliceHeader) -> None:
    """The one slice that the network saw for this one, and the series it belongs to."""
    image = _reference(header)
    if header.frame is not None:
        put(image, "ReferencedFrameNumber", str(header.frame))
    put(image, "SpatialLocationsPreserved", "YES")
    put_items(image, "PurposeOfReferenceCodeSequence", [_code(codes.DCM.SourceImageForImageProcessingOperation)])
    put_items(ds, "SourceImageSequence", [seal(image)])
    series = Dataset()
    keep(series, "SeriesInstanceUID", header.series_uid)
    put_items(series, "ReferencedInstanceSequence", [_reference(header)])
    put_items(ds, "ReferencedSeriesSequence", [seal(series)])
    related = Dataset()
    keep(related, "StudyInstanceUID", header.study_uid)
    keep(related, "SeriesInstanceUID", header.series_uid)
    put_items(related, "PurposeOfReferenceCodeSequence", [])
    put_items(ds, "RelatedSeriesSequence", [seal(related)])


def _reference(header: SliceHeader) -> Dataset:
    item = Dataset()
    keep(item, "ReferencedSOPClassUID", header.sop_class_uid)
    keep(item, "ReferencedSOPInstanceUID", header.sop_instance_uid)
    return seal(item)


def _contributing_equipment(plan: DerivedSeriesPlan, source: Dataset, keeper: ValueKeeper) -> list[Dataset]:
    """Items of ContributingEquipmentSequence (PS3.3 C.12.1, CID 7005), in the order in which they contributed."""
    return [_scanner(source, keeper), _model(plan, source)]


def _code(code: Code) -> Dataset:
    """Code item (PS3.16), such as CID 7202 that an image was the source of an image processing operation."""
    return own_copy(CodedConcept.from_code(code))


def _scanner(source: Dataset, keeper: ValueKeeper) -> Dataset:
    """The scanner's identity in the source's own bytes, as `source_values` says.

    highdicom would decode these values, write them in another character set, and raise for an empty manufacturer, a
    backslash in an address or a long station name. It therefore builds the item of text of ours, and the source's bytes
    are put into it.
    """
    item = own_copy(ContributingEquipment(_UNNAMED, codes.DCM.AcquisitionEquipment))
    for keyword in SCANNER_IDENTITY:
        tag = tag_of(keyword)
        raw = element_bytes(source, tag) or b""
        value = keeper.value(keyword, raw, vr_of(tag))
        if value is not None:
            item[tag] = raw_element(tag, vr_of(tag), value)
    return seal(item)


def _offset(ds: Dataset) -> str:
    return (element_bytes(ds, tag_of("TimezoneOffsetFromUTC")) or b"").decode("latin-1").strip()


def _model(plan: DerivedSeriesPlan, source: Dataset) -> Dataset:
    return own_copy(
        ContributingEquipment(
            PRODUCT_NAME,
            codes.DCM.SynthesizingEquipment,
            manufacturer_model_name=plan.model.name,
            software_versions=[plan.model.version, plan.model.weights_sha256],
            contribution_datetime=plan.local_time(_offset(source)).strftime("%Y%m%d%H%M%S%z"),
            contribution_description=f"Prediction of contrast enhancement with {plan.model.method}",
        )
    )
