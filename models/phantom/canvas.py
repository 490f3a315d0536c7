"""The label volume and how solids are painted into it.

Coordinates are mm in patient axes: x to the left of the patient, y to the back, z to the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

Points = Sequence[tuple[float, float, float]]


@dataclass(frozen=True)
class Canvas:
    """Labels uint8 [z, y, x] with the position of every voxel: x_mm, y_mm [y, x] (may be warped) and z_mm [z]."""

    labels: NDArray[np.uint8]
    x_mm: NDArray[np.float32]
    y_mm: NDArray[np.float32]
    z_mm: NDArray[np.float32]
    warp_margin_mm: float = 0.0
    # First x, step of x, first y, step of y: the grid without its warp.
    _bounds: tuple[float, float, float, float] = field(init=False)

    def __post_init__(self) -> None:
        """Fit the unwarped grid, by which boxes are found."""
        rows, columns = self.x_mm.shape
        step_x = float(self.x_mm[:, -1].mean() - self.x_mm[:, 0].mean()) / (columns - 1)
        step_y = float(self.y_mm[-1].mean() - self.y_mm[0].mean()) / (rows - 1)
        first = (float(self.x_mm[:, 0].mean()), step_x, float(self.y_mm[0].mean()), step_y)
        object.__setattr__(self, "_bounds", first)

    def box(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[slice, slice, slice] | None:
        """Index slices (z, y, x) that contain the box from low to high (x, y, z in mm), or None outside the volume."""
        first_x, step_x, first_y, step_y = self._bounds
        margin = self.warp_margin_mm
        z0, z1 = np.searchsorted(self.z_mm, [low[2], high[2]])
        x0 = max(0, int((low[0] - margin - first_x) / step_x))
        x1 = min(self.x_mm.shape[1], int((high[0] + margin - first_x) / step_x) + 2)
        y0 = max(0, int((low[1] - margin - first_y) / step_y))
        y1 = min(self.x_mm.shape[0], int((high[1] + margin - first_y) / step_y) + 2)
        if z0 >= z1 or x0 >= x1 or y0 >= y1:
            return None
        return slice(int(z0), int(z1)), slice(y0, y1), slice(x0, x1)

    def ellipsoid(
        self,
        centre: tuple[float, float, float],
        semi_axes: tuple[float, float, float],
        label: int,
        *,
        axes: NDArray[np.float64] | None = None,
        only: Sequence[int] | None = None,
    ) -> None:
        """Paint an ellipsoid; rows of `axes` [3, 3] are its unit axes; `only` restricts painting to these labels."""
        basis = np.eye(3) if axes is None else axes
        extent = np.sqrt(((basis * np.asarray(semi_axes)[:, None]) ** 2).sum(axis=0))
        where = self.box(np.asarray(centre) - extent, np.asarray(centre) + extent)
        if where is None:
            return
        x, y, z = self._relative(where, centre)
        scaled = (basis / np.asarray(semi_axes)[:, None]).astype(np.float32)
        squared = sum((row[0] * x + row[1] * y + row[2] * z) ** 2 for row in scaled)
        self._fill(where, np.asarray(squared) < 1, label, only)

    def tube(self, points: Points, radii: Sequence[float], label: int, *, only: Sequence[int] | None = None) -> None:
        """Paint a chain of capsules through the points, the radius linear between them."""
        for p, q, r_p, r_q in zip(points, points[1:], radii, radii[1:], strict=False):
            self.capsule(np.asarray(p, float), np.asarray(q, float), r_p, r_q, label, only=only)

    def capsule(
        self,
        p: NDArray[np.float64],
        q: NDArray[np.float64],
        r_p: float,
        r_q: float,
        label: int,
        *,
        only: Sequence[int] | None = None,
    ) -> None:
        """Paint all voxels nearer to the segment from p to q than the radius, which is linear along it."""
        r = max(r_p, r_q)
        where = self.box(np.minimum(p, q) - r, np.maximum(p, q) + r)
        if where is None:
            return
        x, y, z = self._relative(where, (p[0], p[1], p[2]))
        d = (q - p).astype(np.float32)
        along = np.clip((x * d[0] + y * d[1] + z * d[2]) / max(float(d @ d), 1e-6), 0, 1)
        squared = (x - along * d[0]) ** 2 + (y - along * d[1]) ** 2 + (z - along * d[2]) ** 2
        self._fill(where, squared < (r_p + (r_q - r_p) * along) ** 2, label, only)

    def _relative(
        self, where: tuple[slice, slice, slice], origin: tuple[float, float, float]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        z, y, x = where
        return (
            (self.x_mm[y, x] - np.float32(origin[0]))[None],
            (self.y_mm[y, x] - np.float32(origin[1]))[None],
            (self.z_mm[z] - np.float32(origin[2]))[:, None, None],
        )

    def _fill(
        self, where: tuple[slice, slice, slice], inside: NDArray[np.bool_], label: int, only: Sequence[int] | None
    ) -> None:
        block = self.labels[where]
        if only is not None:
            inside = inside & np.isin(block, only)
        block[inside] = label


def rotation(yaw_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> NDArray[np.float64]:
    """Unit axes [3, 3]: rows are the images of x, y, z after roll about x, pitch about y and yaw about z."""
    a, b, c = np.deg2rad([yaw_deg, pitch_deg, roll_deg])
    about_z = np.array([[np.cos(a), np.sin(a), 0], [-np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(c), np.sin(c)], [0, -np.sin(c), np.cos(c)]])
    return np.asarray(about_x @ about_y @ about_z)


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: Sequence[float], length_mm: float
) -> NDArray[np.float32]:
    """Smooth random field of zero mean and unit variance with a correlation length, interpolated from a coarse grid."""
    coarse = [max(4, int(np.ceil(n * s / length_mm)) + 3) for n, s in zip(shape, spacing_mm, strict=True)]
    values = rng.standard_normal(coarse).astype(np.float32)
    factors = [n / (c - 2) for n, c in zip(shape, coarse, strict=True)]
    large = zoom(values, factors, order=1 if len(shape) == 3 else 3)
    field_ = large[tuple(slice(0, n) for n in shape)]
    return np.asarray((field_ - field_.mean()) / field_.std(), dtype=np.float32)
