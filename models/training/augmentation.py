"""What is changed of slices while a method is trained on them. This module loads no torch."""

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Augmentation:
    """What is drawn anew for every slice of every batch; 0 or equal bounds leave a change out.

    `noise_hu`: bounds of the SD of noise added to the slice and its neighbours, in HU at the model's matrix, with the
    spectrum f exp(-(f/f0)^2) of filtered back-projection, f0 from `noise_f0` in cycles per pixel; `noise_share` of the
    slices get some. The target gets the same noise, since a result keeps the source's. `shift_hu`: SD of a shift of the
    calibration. `sharpen`: bounds of the share by which detail is raised (above 0) or lowered (a soft kernel).
    `rotate_deg`, `move_px`: SDs. `scale`: bounds of the magnification. `level`: bounds of the factor of the
    enhancement. `lesions`: mean number of masses pasted into the lungs, which do not enhance.
    """

    noise_hu: tuple[float, float] = (0.0, 0.0)
    noise_f0: tuple[float, float] = (0.15, 0.45)
    noise_share: float = 1.0
    shift_hu: float = 0.0
    sharpen: tuple[float, float] = (0.0, 0.0)
    rotate_deg: float = 0.0
    move_px: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    level: tuple[float, float] = (1.0, 1.0)
    lesions: float = 0.0

    def __post_init__(self) -> None:
        """Refuse bounds that are none, in words; raises ValueError."""
        for item in fields(self):
            value = getattr(self, item.name)
            bounds = value if isinstance(value, tuple) else (0.0, value)
            if len(bounds) != 2 or not all(math.isfinite(v) for v in bounds) or bounds[0] > bounds[1]:
                raise ValueError(f"{item.name} is {value!r}; it must be two numbers, the lower first, or one from 0")
            if item.name in ("noise_hu", "noise_f0", "scale", "level") and bounds[0] < 0:
                raise ValueError(f"{item.name} is {value!r}; its bounds must be at least 0")
        if self.noise_share > 1 or self.sharpen[0] < -1:
            raise ValueError("noise_share must be at most 1, and sharpen at least -1")
