"""The proof that a written series lies exactly where its source lies: what is read back counts, not what was meant.

`prove_slice` reads with the node's own reader. The two readers that are not ours compare planes by `Comparison`.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from node.dicom.elements import element_bytes, tag_of
from node.dicom.geometry import SlicePlane, positions_along_normal
from node.dicom.headers import load_dataset
from node.dicom.pixels import StoredPixels
from node.dicom.volume import CTVolume, SourceSlice, plane_of
from node.errors import Permanent

_Read = TypeVar("_Read")

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
    """A file that was just written differs from what was meant; the series is not sent."""


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


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far the figures of two planes may differ: mm, mm and direction cosines. Sizes must be equal."""

    position_mm: float
    pixel_spacing_mm: float
    orientation: float


# One reader on both series: the decimal strings are the source's, so the numbers are too.
SAME: Final = Tolerance(0.0, 0.0, 0.0)
# A reader against the node: the same decimal strings through two parsers. GDCM mends cosines that are no unit vectors,
# where the node's gate takes them as they are, up to 1e-2 off.
OWN: Final = Tolerance(1e-6, 1e-6, 1e-2)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one reader makes of the derived series, held against `whose` ("its source"); every method raises ProofFailed
    with the reader, the figure and both values where they differ.
    """

    reader: str
    whose: str
    allowed: Tolerance

    def planes(self, seen: Sequence[SlicePlane], other: Sequence[SlicePlane]) -> None:
        """Number of slices, then position, orientation, pixel spacing and size of each."""
        if len(seen) != len(other):
            raise ProofFailed(
                f"{self.reader} reads {len(seen)} slices in the derived series and {len(other)} in {self.whose}"
            )
        for number, (one, two) in enumerate(zip(seen, other, strict=True), 1):
            self.plane(f"slice {number}", one, two)

    def plane(self, where: str, one: SlicePlane, two: SlicePlane) -> None:
        """Position, orientation, pixel spacing and size; `where` says which slice it is."""
        allowed = self.allowed
        self.figure(f"position of {where}", one.position_mm, two.position_mm, allowed.position_mm, " mm")
        self.figure(f"orientation of {where}", one.orientation, two.orientation, allowed.orientation, "")
        spacings = one.pixel_spacing_mm, two.pixel_spacing_mm
        self.figure(f"pixel spacing of {where}", *spacings, allowed.pixel_spacing_mm, " mm")
        self.figure(f"size of {where}", (one.rows, one.columns), (two.rows, two.columns), 0.0, " pixels")

    def figure(self, name: str, one: Sequence[float], two: Sequence[float], tolerance: float, unit: str) -> None:
        """Numbers of the same unit, each within `tolerance` of the other."""
        if not all(abs(left - right) <= tolerance for left, right in zip(one, two, strict=True)):
            raise ProofFailed(
                f"{self.reader} reads the {name} as {_text(one)}{unit} in the derived series and as {_text(two)}{unit} "
                f"in {self.whose}"
            )


def own_planes(volume: CTVolume) -> list[SlicePlane]:
    """The planes of the source as the node itself read them, in the order of z."""
    return [plane for header in volume.headers if (plane := plane_of(header)) is not None]


def unevenness_mm(planes: Sequence[SlicePlane]) -> float:
    """By how many mm a step between consecutive slices differs most from the mean step; 0 for one slice."""
    steps_mm = np.diff(positions_along_normal(planes))
    return float(np.abs(steps_mm - steps_mm.mean()).max()) if steps_mm.size else 0.0


def read_or_fail(reader: str, read: Callable[[], _Read]) -> _Read:
    """What `read` returns; raises ProofFailed where the reader cannot read the derived series, whatever it raises."""
    try:
        return read()
    except Exception as error:  # the texts of foreign readers may hold paths and names
        raise ProofFailed(f"{reader} cannot read the derived series ({type(error).__name__})") from error


def _text(numbers: Sequence[float]) -> str:
    return f"({', '.join(f'{number:.10g}' for number in numbers)})"
