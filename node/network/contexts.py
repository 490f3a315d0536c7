"""The presentation contexts that the receiver accepts; no association, no storage.

A refused context ends the send job of many a scanner, the CT images in it included. So every storage SOP class of the
standard is accepted in every transfer syntax of the standard that a data set in little endian can have; what is no CT
image is looked at for its UIDs only. A private class is refused, as PS3.8 wants it, except for the one that Siemens
scanners put into their CT studies.
"""

from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pydicom.uid import ExplicitVRLittleEndian as ExplicitLE
from pydicom.uid import ImplicitVRLittleEndian as ImplicitLE
from pynetdicom import AllStoragePresentationContexts, build_context, register_uid
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass

from node.dicom.constants import STORED_CLASSES

VERIFICATION = "1.2.840.10008.1.1"
SIEMENS_CSA_NON_IMAGE = "1.3.12.2.1107.5.9.1"

# Storage SOP classes that left the standard, and that old equipment still sends; pynetdicom does not know them.
_RETIRED_CLASSES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{number}"
    for number in (
        *("3", "5", "6", "8", "9", "9.1", "10", "11", "12.3"),
        *("77.1", "77.2", "88.1", "88.2", "88.3", "88.4", "129"),
    )
)

# The acceptor's order decides.
_UNCOMPRESSED = (ExplicitLE, ImplicitLE)
_CT_SYNTAXES = (*_UNCOMPRESSED, JPEGLSLossless, JPEG2000Lossless, RLELossless, JPEGLosslessSV1, JPEGLossless)

_REAL_TIME_VIDEO = "1.2.840.10008.1.2.7."  # no data set is stored in these
# Of the standard and missing in pydicom's list: encapsulated uncompressed, JPEG XL, retired JPEG, deflated frames.
_OTHER_SYNTAXES = tuple(
    UID(f"1.2.840.10008.1.2.{number}")
    for number in (
        "1.98",
        *(f"4.{retired}" for retired in (*range(52, 57), *range(58, 67))),
        *("4.94", "4.95", "4.110", "4.111", "4.112", "8.1"),
    )
)
_IGNORED_SYNTAXES = (
    *_UNCOMPRESSED,
    *(
        uid
        for uid in (*AllTransferSyntaxes, *_OTHER_SYNTAXES)
        if uid not in _UNCOMPRESSED and uid.is_little_endian and not uid.startswith(_REAL_TIME_VIDEO)
    ),
)
DEFLATED_SYNTAXES = frozenset(
    {str(DeflatedExplicitVRLittleEndian), "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"}  # two of them JPIP
)
# A CT that a sender has in none of the others is stored, and skipped with the reason: its send job goes on.
_LAST_RESORT = tuple(uid for uid in _IGNORED_SYNTAXES if uid not in _CT_SYNTAXES and str(uid) not in DEFLATED_SYNTAXES)


def verification_context() -> PresentationContext:
    """C-ECHO, which every server here answers."""
    return build_context(VERIFICATION, list(_UNCOMPRESSED))


def supported_contexts() -> list[PresentationContext]:
    """One context for each SOP class, its transfer syntaxes the most wanted first, which is how pynetdicom chooses."""
    register_uid(SIEMENS_CSA_NON_IMAGE, "SiemensCSANonImageStorage", StorageServiceClass)
    for uid in _RETIRED_CLASSES:
        register_uid(uid, f"Retired{uid.replace('.', '_')}", StorageServiceClass)
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    ignored = [uid for uid in (*classes, *_RETIRED_CLASSES, SIEMENS_CSA_NON_IMAGE) if uid not in STORED_CLASSES]
    return [
        verification_context(),
        *(build_context(uid, [*_CT_SYNTAXES, *_LAST_RESORT]) for uid in sorted(STORED_CLASSES)),
        *(build_context(uid, list(_IGNORED_SYNTAXES)) for uid in ignored),
    ]
