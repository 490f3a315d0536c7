"""Owns the proof that a written slice lies exactly where its source lies; must not trust what was meant."""

import hashlib
from pathlib import Path
from typing import Final

import numpy as np

from node.dicom.headers import load_dataset
from node.dicom.raw import element_bytes, tag_of
from node.dicom.volume import SourceSlice, StoredPixels
from node.errors import Permanent

LOCKED: Final = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "FrameOfReferenceUID",
    "StudyInstanceUID",
    "PatientID",
    "Rows",
    "Columns",
    "RescaleSlope",
    "RescaleIntercept",
)


class ProofFailed(Permanent):
    """A file that was just written does not say what it must; it must not leave the node."""


def prove_slice(path: Path, source: SourceSlice, stored: StoredPixels) -> tuple[str, str]:
    """Read a derived slice back and compare it with its source, byte by byte in the LOCKED attributes and the pixels.

    Returns its SOPInstanceUID and the SHA-256 of the file. Raises ProofFailed for the slightest difference.
    """
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        written = load_dataset(path)
        for keyword in LOCKED:
            if element_bytes(written, tag_of(keyword)) != element_bytes(source.dataset, tag_of(keyword)):
                raise ProofFailed(f"{keyword} of a written slice differs from its source slice")
        pixels = np.frombuffer(element_bytes(written, tag_of("PixelData")) or b"", dtype=stored.dtype.newbyteorder("<"))
        if not np.array_equal(pixels, stored.ravel()):
            raise ProofFailed("the pixels of a written slice differ from those that were computed")
        uid = (element_bytes(written, tag_of("SOPInstanceUID")) or b"").decode("ascii")
    except ProofFailed:
        raise
    except Exception as error:  # an unreadable result fails the proof, whatever made it so
        raise ProofFailed(f"a written slice cannot be read back ({type(error).__name__})") from error
    return uid, sha256
