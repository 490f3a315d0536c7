"""Sets the switches that pydicom and pynetdicom have only for a whole process."""

import logging

import pydicom.config
from pynetdicom import _config


def configure_libraries() -> None:
    """Let foreign values pass as they came, and files of our own go out as they are.

    Values of our own are validated where they are made (`node/dicom/elements.py`); what a peer sent is judged where it
    could do harm. pydicom would print a warning with the value, pynetdicom end the association for one irregular UID.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its errors quote what a peer sent
    _config.STORE_SEND_CHUNKED_DATASET = True  # a file goes out byte for byte as it was written
    _config.ENFORCE_UID_CONFORMANCE = False
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
