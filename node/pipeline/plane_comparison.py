"""Owns comparing image planes figure by figure and saying which one differs; must not read files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from node.dicom.geometry import SlicePlane
from node.dicom.volume import CTVolume, plane_of
from node.pipeline.proof import ProofFailed

_Read = TypeVar("_Read")


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


def read_or_fail(reader: str, read: Callable[[], _Read]) -> _Read:
    """What `read` returns; raises ProofFailed where the reader cannot read the derived series, whatever it raises."""
    try:
        return read()
    except Exception as error:  # the texts of foreign readers may hold paths and names
        raise ProofFailed(f"{reader} cannot read the derived series ({type(error).__name__})") from error


def _text(numbers: Sequence[float]) -> str:
    return f"({', '.join(f'{number:.10g}' for number in numbers)})"
