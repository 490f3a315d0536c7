"""Sets the switches that pynetdicom has only for a whole process."""

import logging

from pynetdicom import _config


def configure_pynetdicom() -> None:
    """Silence pynetdicom's log, which quotes what a peer sent, and let foreign UIDs pass to where they are judged."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.ENFORCE_UID_CONFORMANCE = False
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
