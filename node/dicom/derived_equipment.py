"""Owns what highdicom builds in a derived slice: codes and contributing equipment; must not let it read foreign text.

Importing this module imports highdicom, which takes as long as a whole `jobs ls`: import it where a slice is built.
"""

from typing import Final

from highdicom import ContributingEquipment
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from node.dicom.attributes import SCANNER_IDENTITY
from node.dicom.constants import PRODUCT_NAME
from node.dicom.derived_plan import DerivedSeriesPlan
from node.dicom.elements import own_copy
from node.dicom.raw import charset_of, element_bytes, is_valid_text, raw_element, seal, tag_of, vr_of

_UNNAMED: Final = "UNKNOWN"  # Manufacturer is of type 1 in this sequence


def source_image_purpose() -> Dataset:
    """Code item that says: this image was the source of an image processing operation (PS3.16 CID 7202)."""
    return _code(codes.DCM.SourceImageForImageProcessingOperation)


def contributing_equipment(plan: DerivedSeriesPlan, source: Dataset) -> list[Dataset]:
    """Items of ContributingEquipmentSequence (PS3.3 C.12.1, CID 7005), in the order in which they contributed."""
    return [_scanner(source), _model(plan, source)]


def _code(code: Code) -> Dataset:
    return own_copy(CodedConcept.from_code(code))


def _scanner(source: Dataset) -> Dataset:
    """The scanner's identity in the source's own bytes; values that break their VR are left out.

    highdicom would decode these values, write them in another character set, and raise for an empty manufacturer, a
    backslash in an address or a long station name. It therefore builds the item of text of ours, and the source's bytes
    are put into it.
    """
    item = own_copy(ContributingEquipment(_UNNAMED, codes.DCM.AcquisitionEquipment))
    charset = charset_of(source)
    for keyword in SCANNER_IDENTITY:
        tag = tag_of(keyword)
        value = element_bytes(source, tag)
        if value and is_valid_text(value, vr_of(tag), charset):
            item[tag] = raw_element(tag, vr_of(tag), value)
    return seal(item)


def _model(plan: DerivedSeriesPlan, source: Dataset) -> Dataset:
    offset = (element_bytes(source, tag_of("TimezoneOffsetFromUTC")) or b"").decode("latin-1").strip()
    return own_copy(
        ContributingEquipment(
            PRODUCT_NAME,
            codes.DCM.SynthesizingEquipment,
            manufacturer_model_name=plan.model.name,
            software_versions=[plan.model.version, plan.model.weights_sha256],
            contribution_datetime=plan.local_time(offset).strftime("%Y%m%d%H%M%S%z"),
            contribution_description=f"Prediction of contrast enhancement with {plan.model.method}",
        )
    )
