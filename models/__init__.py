"""Mathematics of NCCT-to-CECT translation; knows no DICOM, database or settings; imports torch only when it must."""

from models.bundle import (
    BundleCard,
    BundleError,
    Envelope,
    find_bundle,
    list_bundles,
    read_card,
    verify_bundle,
    write_bundle,
)
from models.proven import why_unproven
from models.translator import (
    DeviceFault,
    DeviceUnavailable,
    TranslationError,
    Translator,
    count_alike_gpus,
    device_memory,
    load_bundle,
)

__all__ = [
    "BundleCard",
    "BundleError",
    "DeviceFault",
    "DeviceUnavailable",
    "Envelope",
    "TranslationError",
    "Translator",
    "count_alike_gpus",
    "device_memory",
    "find_bundle",
    "list_bundles",
    "load_bundle",
    "read_card",
    "verify_bundle",
    "why_unproven",
    "write_bundle",
]
