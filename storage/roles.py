"""What a person may do with the status page: four roles, each with everything that the one before may do."""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """Ordered: VIEWER < OPERATOR < PHYSICIST < ADMIN."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    PHYSICIST = "physicist"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """0 for the role that may do least."""
        return _ORDER.index(self)

    # A StrEnum would compare the words.
    def __lt__(self, other: str) -> bool:
        return self.rank < Role(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Role(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Role(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Role(other).rank


_ORDER: Final = tuple(Role)
