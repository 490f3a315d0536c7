"""Which side of the patient is at which edge of a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# PS3.3 C.7.6.2.1.1: x grows to the patient's left, y to the back, z to the head.
_TOWARDS: Final = (("R", "L"), ("A", "P"), ("F", "H"))
_NAMES: Final = {"R": "right", "L": "left", "A": "front", "P": "back", "F": "feet", "H": "head"}


@dataclass(frozen=True, slots=True)
class Sides:
    """The letter of the patient's side at each edge: R, L, A (front), P (back), F, H."""

    left: str
    right: str
    top: str
    bottom: str

    @property
    def in_words(self) -> str:
        """For who cannot see the letters."""
        return f"the patient's {_NAMES[self.left]} is on the left, the {_NAMES[self.top]} is at the top"


def sides_of(orientation: Sequence[float]) -> Sides:
    """orientation: the direction in which columns are counted, and that of rows, as six cosines."""
    left, right = _ends(orientation[:3])
    top, bottom = _ends(orientation[3:])
    return Sides(left, right, top, bottom)


def _ends(direction: Sequence[float]) -> tuple[str, str]:
    axis = max(range(3), key=lambda index: abs(direction[index]))
    low, high = _TOWARDS[axis]
    return (low, high) if direction[axis] >= 0 else (high, low)
