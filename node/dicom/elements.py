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


def own_copy(built: Dataset) -> Dataset:
    """What another library built of our own text, each element validated and in the bytes that will be written, sealed.

    Raises ValueError for a value that is not ASCII or breaks its VR.
    """
    copy = Dataset()
    for element in built:
        if element.VR == "SQ":
            put_items(copy, element.keyword, [own_copy(item) for item in element.value])
        else:
            values = element.value if element.VM > 1 else [element.value]
            put(copy, element.keyword, *(str(value) for value in values))
    return seal(copy)
