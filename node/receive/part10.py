"""Writes what stands before a received data set in its file (PS3.10 7.1); it never looks into the data set."""

from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info

from node.dicom.constants import IMPLEMENTATION_CLASS_UID, PRODUCT_NAME


def part10_head(class_uid: str, instance_uid: str, transfer_syntax: str) -> bytes:
    """A preamble of zeros, the prefix and the file meta information; one instance gets the same bytes every time.

    The preamble stays empty because its bytes could make another kind of file of it (CVE-2019-11687).
    """
    meta = FileMetaDataset()
    for tag, vr, value in (
        (0x00020000, "UL", 0),  # filled in when it is written
        (0x00020001, "OB", b"\0\1"),
        (0x00020002, "UI", class_uid),
        (0x00020003, "UI", instance_uid),
        (0x00020010, "UI", transfer_syntax),
        (0x00020012, "UI", IMPLEMENTATION_CLASS_UID),
        (0x00020013, "SH", PRODUCT_NAME.upper()),  # without a number, which would change the bytes
    ):
        meta[tag] = DataElement(tag, vr, value, validation_mode=IGNORE)  # a foreign UID is kept as it came
    stream = DicomBytesIO()
    stream.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(stream, meta, enforce_standard=False)
    return stream.getvalue()
