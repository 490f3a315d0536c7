"""Owns the contributing equipment of a derived slice: the scanner that measured, the model that synthesised."""

from pydicom.dataset import Dataset

from node.dicom.attributes import SCANNER_IDENTITY
from node.dicom.constants import ACQUISITION_EQUIPMENT, PRODUCT_NAME, SYNTHESIZING_EQUIPMENT
from node.dicom.derived_plan import DerivedSeriesPlan
from node.dicom.elements import code_item, put, put_items
from node.dicom.raw import charset_of, element_bytes, is_valid_text, raw_element, seal, tag_of, vr_of


def contributing_equipment(plan: DerivedSeriesPlan, source: Dataset) -> list[Dataset]:
    """Items of ContributingEquipmentSequence (PS3.3 C.12.1, CID 7005), in the order in which they contributed."""
    return [_scanner(source), _model(plan, source)]


def _scanner(source: Dataset) -> Dataset:
    """The scanner's identity in the source's own bytes; values that break their VR are left out."""
    item = Dataset()
    put_items(item, "PurposeOfReferenceCodeSequence", [code_item(*ACQUISITION_EQUIPMENT)])
    charset = charset_of(source)
    for keyword in SCANNER_IDENTITY:
        tag = tag_of(keyword)
        value = element_bytes(source, tag)
        if value and is_valid_text(value, vr_of(tag), charset):
            item[tag] = raw_element(tag, vr_of(tag), value)
    if tag_of("Manufacturer") not in item:  # type 1 in this sequence
        put(item, "Manufacturer", "UNKNOWN")
    return seal(item)


def _model(plan: DerivedSeriesPlan, source: Dataset) -> Dataset:
    offset = (element_bytes(source, tag_of("TimezoneOffsetFromUTC")) or b"").decode("latin-1").strip()
    item = Dataset()
    put_items(item, "PurposeOfReferenceCodeSequence", [code_item(*SYNTHESIZING_EQUIPMENT)])
    put(item, "Manufacturer", PRODUCT_NAME)
    put(item, "ManufacturerModelName", plan.model.name)
    put(item, "SoftwareVersions", plan.model.version, plan.model.weights_sha256)
    put(item, "ContributionDateTime", plan.local_time(offset).strftime("%Y%m%d%H%M%S%z"))
    put(item, "ContributionDescription", f"Prediction of contrast enhancement with {plan.model.method}")
    return seal(item)
