"""Says why the receiver keeps nothing of an instance, in a clause that names its SOP class."""

from pydicom.uid import UID

from node.dicom.constants import SECONDARY_CAPTURE_CLASSES
from node.network.contexts import SIEMENS_CSA_NON_IMAGE


def why_discarded(sop_class_uid: str) -> str:
    """The reason for a series of this storage class, without patient data."""
    if sop_class_uid in SECONDARY_CAPTURE_CLASSES:
        return f"{UID(sop_class_uid).name}: a screen capture, dose or protocol page, not a scan"
    name = "Siemens CSA Non-Image Storage" if sop_class_uid == SIEMENS_CSA_NON_IMAGE else UID(sop_class_uid).name
    return f"{name}: this node translates CT images and keeps nothing else"
