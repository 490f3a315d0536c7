"""Owns elements of our own making: validated strictly before they are written; must not carry a source's text."""

from collections.abc import Sequence

from pydicom.config import RAISE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.valuerep import validate_value

from node.dicom.raw import raw_element, seal, tag_of, vr_of


def put(ds: Dataset, keyword: str, *values: str) -> None:
    """Add a text element; raises ValueError where a value is not ASCII or breaks its VR (PS3.5 6.2)."""
    tag = tag_of(keyword)
    vr = vr_of(tag)
    for value in values:
        validate_value(vr, value, RAISE)
    try:
        ds[tag] = raw_element(tag, vr, "\\".join(values).encode("ascii"))
    except UnicodeEncodeError as error:
        raise ValueError(f"{keyword} must be ASCII") from error


def put_items(ds: Dataset, keyword: str, items: Sequence[Dataset]) -> None:
    """Add a sequence of sealed items."""
    tag = tag_of(keyword)
    ds[tag] = DataElement(tag, "SQ", DicomSequence(items))


def code_item(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    """Item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    put(item, "CodeValue", value)
    put(item, "CodingSchemeDesignator", scheme)
    put(item, "CodeMeaning", meaning)
    return seal(item)
