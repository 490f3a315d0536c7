"""Codes of our own for what no standard code says: private scheme 99SYNCECT (PS3.16 8.2, PS3.3 C.12.1)."""

from typing import Final

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.coding import Code

from node.dicom.constants import PRODUCT_NAME

SCHEME: Final = "99SYNCECT"
HU: Final = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
REGION_OF_DOUBT: Final = CodedConcept("DOUBTREGION", SCHEME, "Region of doubt of a synthetic image")
DOUBT: Final = CodedConcept("DOUBT", SCHEME, "Doubt about the value of a synthetic pixel")
REVIEW: Final = CodedConcept("REVIEW", SCHEME, "Decision of the reviewer")
RELEASED: Final = CodedConcept("RELEASED", SCHEME, "Released although a gate doubted it")
GATES: Final = CodedConcept("GATES", SCHEME, "Gates of the synthetic series")


def own_scheme() -> list[CodingSchemeIdentificationItem]:
    """What the object says of the scheme."""
    return [
        CodingSchemeIdentificationItem(SCHEME, name=f"Codes of {PRODUCT_NAME}", responsible_organization=PRODUCT_NAME)
    ]


def measured(key: str) -> CodedConcept:
    """The concept of a figure of the gates, such as `native_enhanced_ml`; the key is the code."""
    return CodedConcept(key, SCHEME, key.replace("_", " ")[:64])
