"""The fixed DICOM names of this product: UIDs, codes, ranges; nothing that a site may change."""

from typing import Final

from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

PRODUCT_NAME: Final = "syncect"

# PS3.7 D.3.3.2. The class UID is a random 2.25 UID made once for this implementation; the version name has <= 16 chars.
IMPLEMENTATION_CLASS_UID: Final = "2.25.250613457706412862341092557201903384417"
IMPLEMENTATION_VERSION_NAME: Final = "SYNCECT_0.2"

# Part of every derived UID: raise it when the rules change by which a derived header or its pixels are made.
HEADER_POLICY_VERSION: Final = "3"

CT_IMAGE_STORAGE: Final = str(CTImageStorage)
MULTI_FRAME_CT_CLASSES: Final = frozenset({str(EnhancedCTImageStorage), str(LegacyConvertedEnhancedCTImageStorage)})
STORED_CLASSES: Final = frozenset({CT_IMAGE_STORAGE}) | MULTI_FRAME_CT_CLASSES  # all others are thrown away
SECONDARY_CAPTURE_CLASSES: Final = frozenset(
    str(uid)
    for uid in (
        SecondaryCaptureImageStorage,
        MultiFrameSingleBitSecondaryCaptureImageStorage,
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        MultiFrameTrueColorSecondaryCaptureImageStorage,
    )
)

# HU that stands for "no tissue" wherever a source pixel is padding.
AIR_HU: Final = -1024.0

# Transfer syntaxes whose pixels need no decoder: implicit, explicit, deflated, big endian (PS3.5 annex A).
UNCOMPRESSED: Final = frozenset(
    {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}
)
