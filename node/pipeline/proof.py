"""Owns the proof that a written series lies exactly where its source lies; must not trust what was meant."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from node.dicom.headers import load_dataset
from node.dicom.raw import element_bytes, tag_of
from node.dicom.volume import CTVolume, SourceSlice, StoredPixels
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


def flush_and_digest(path: Path) -> str:
    """Force a written file to the disk; returns its SHA-256, hex. Both let other threads run meanwhile."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        return hashlib.file_digest(stream, "sha256").hexdigest()


def prove_slice(path: Path, source: SourceSlice, stored: StoredPixels) -> str:
    """Read a derived slice back and compare it with its source, byte by byte in the LOCKED attributes and the pixels.

    Returns its SOPInstanceUID. Raises ProofFailed for the slightest difference.
    """
    try:
        written = load_dataset(path)
        for keyword in LOCKED:
            if element_bytes(written, tag_of(keyword)) != element_bytes(source.dataset, tag_of(keyword)):
                raise ProofFailed(f"{keyword} of a written slice differs from its source slice")
        pixels = np.frombuffer(element_bytes(written, tag_of("PixelData")) or b"", dtype=stored.dtype.newbyteorder("<"))
        if not np.array_equal(pixels, stored.ravel()):
            raise ProofFailed("the pixels of a written slice differ from those that were computed")
        return (element_bytes(written, tag_of("SOPInstanceUID")) or b"").decode("ascii")
    except ProofFailed:
        raise
    except Exception as error:  # an unreadable result fails the proof, whatever made it so
        raise ProofFailed(f"a written slice cannot be read back ({type(error).__name__})") from error


def load_readers() -> None:
    """Load highdicom and SimpleITK, which takes nearly a second; a worker does it before its first job.

    Receiver, courier and readers import this module and prove nothing: they need not wait for the two packages.
    """
    from node.pipeline import proof_by_highdicom, proof_by_simpleitk  # noqa: F401, PLC0415

    proof_by_highdicom.warm_up()


def prove_series(volume: CTVolume, written: Sequence[Path], stored: StoredPixels, series_uid: str) -> dict[str, float]:
    """Let highdicom and SimpleITK, which are not ours, read a written series and its source, and compare what they see.

    written: all files of the series, in one folder and in the order of z. stored: [z, y, x], the values meant. Returns
    figures of both readers. Raises ProofFailed that names the reader and the figure that
    differs: number or order of slices, position, orientation, pixel spacing, slice spacing, size, HU.
    """
    # Not at the top: see `load_readers`.
    from node.pipeline.proof_by_highdicom import prove_by_highdicom  # noqa: PLC0415
    from node.pipeline.proof_by_simpleitk import prove_by_simpleitk  # noqa: PLC0415

    # One after the other: beside highdicom, which is Python, SimpleITK's threads would wait for the interpreter's lock.
    return prove_by_highdicom(volume, written) | prove_by_simpleitk(volume, written, stored, series_uid)
