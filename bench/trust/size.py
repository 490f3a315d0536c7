"""How much is measured: everything, or a rehearsal of seconds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How many phantoms there are, and how large; how much of the real series is taken.

    patients, teaching: phantoms whose levels are measured, of level_slices slices; shoulders: those whose small vessels
    are; phantoms: those that are attacked, of attack_slices; rows: of all. series, cut: the only real series and the
    slices of it; "" takes all of all.
    """

    patients: int
    teaching: int
    shoulders: int
    level_slices: int
    phantoms: int
    attack_slices: int
    rows: int
    series: str
    cut: slice


FULL = Size(16, 6, 4, 6, 3, 24, 512, "", slice(None))
SHORT = Size(4, 2, 1, 2, 3, 6, 128, "ct/siemens_chest_ncct", slice(9, 14))
