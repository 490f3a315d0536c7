"""The presentation contexts that the receiver accepts; what becomes of the instances is decided elsewhere.

A simulator sends a study, not a CT series: it proposes every class it has, and a rejected context makes its whole send
job fail. So the usual company of a CT is accepted, stored and later skipped with a reason, but never decoded.
"""

from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pydicom.uid import ExplicitVRLittleEndian as ExplicitLE
from pydicom.uid import ImplicitVRLittleEndian as ImplicitLE
from pynetdicom import build_context, register_uid
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass

from node.dicom.constants import CT_IMAGE_STORAGE, MULTI_FRAME_CT_CLASSES, SECONDARY_CAPTURE_CLASSES

VERIFICATION = "1.2.840.10008.1.1"
SIEMENS_CSA_NON_IMAGE = "1.3.12.2.1107.5.9.1"

_OTHER_COMPANY = (
    "1.2.840.10008.5.1.4.1.1.11.1",  # Grayscale Softcopy Presentation State
    "1.2.840.10008.5.1.4.1.1.88.11",  # Basic Text SR
    "1.2.840.10008.5.1.4.1.1.88.22",  # Enhanced SR
    "1.2.840.10008.5.1.4.1.1.88.33",  # Comprehensive SR
    "1.2.840.10008.5.1.4.1.1.88.67",  # X-Ray Radiation Dose SR
    "1.2.840.10008.5.1.4.1.1.104.1",  # Encapsulated PDF
    "1.2.840.10008.5.1.4.1.1.481.3",  # RT Structure Set
    SIEMENS_CSA_NON_IMAGE,
)

# The acceptor's order decides.
_UNCOMPRESSED = (ExplicitLE, ImplicitLE)
_CT_SYNTAXES = (*_UNCOMPRESSED, JPEGLSLossless, JPEG2000Lossless, RLELossless, JPEGLosslessSV1, JPEGLossless)
_CAPTURE_SYNTAXES = (
    *_UNCOMPRESSED,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    RLELossless,
)


_SUPPORTED = (
    ((VERIFICATION, *MULTI_FRAME_CT_CLASSES, *_OTHER_COMPANY), _UNCOMPRESSED),
    ((CT_IMAGE_STORAGE,), _CT_SYNTAXES),
    (SECONDARY_CAPTURE_CLASSES, _CAPTURE_SYNTAXES),
)


def supported_contexts() -> list[PresentationContext]:
    """One context for each SOP class, its transfer syntaxes the most wanted first, which is how pynetdicom chooses."""
    register_uid(SIEMENS_CSA_NON_IMAGE, "SiemensCSANonImageStorage", StorageServiceClass)
    return [build_context(abstract, list(syntaxes)) for abstracts, syntaxes in _SUPPORTED for abstract in abstracts]
