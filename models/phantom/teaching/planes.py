"""A canvas whose planes have coordinates of their own, which smooths borders and bends the spine."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from models.phantom.canvas import Canvas

Place = tuple[float, float, float]
Floats = NDArray[np.float32]


class _Map:
    """Where a position lies in the grid: a map fitted to all positions, each plane's shift, and how far it errs."""

    def __init__(self, x_planes: Floats, y_planes: Floats) -> None:
        every, shape = max(1, x_planes.shape[1] // 32), x_planes.shape[1:]
        self._shape = shape
        rows, columns = (index.ravel() for index in np.mgrid[0 : shape[0] : every, 0 : shape[1] : every])
        x, y = (v[:, ::every, ::every].reshape(len(v), -1).astype(float) for v in (x_planes, y_planes))
        self._shift_x, self._shift_y = x.mean(axis=1), y.mean(axis=1)
        flat_x, flat_y = (x - self._shift_x[:, None]), (y - self._shift_y[:, None])
        places = np.stack([flat_x.mean(axis=0), flat_y.mean(axis=0), np.ones(len(rows))], axis=1)
        self._fit = np.linalg.lstsq(places, np.stack([rows, columns], axis=1).astype(float), rcond=None)[0]
        errors = []
        for index in range(0, len(x), max(1, len(x) // 12)):
            seen = np.stack([flat_x[index], flat_y[index], np.ones(len(rows))], axis=1) @ self._fit
            errors.append(np.abs(seen - np.stack([rows, columns], axis=1)).max(axis=0))
        self._margin = np.max(errors, axis=0) + 2

    def ranges(
        self, low: NDArray[np.float64], high: NDArray[np.float64], z0: int, z1: int
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """First and last + 1 row and column between two positions in the planes from z0 to z1."""
        shift_x, shift_y = self._shift_x[z0:z1], self._shift_y[z0:z1]
        xs, ys = (low[0] - shift_x.max(), high[0] - shift_x.min()), (low[1] - shift_y.max(), high[1] - shift_y.min())
        found = np.array([(x, y, 1.0) for x in xs for y in ys]) @ self._fit
        first = np.maximum(found.min(axis=0) - self._margin, 0)
        last = np.minimum(found.max(axis=0) + self._margin + 1, self._shape)
        return (int(first[0]), int(last[0])), (int(first[1]), int(last[1]))


@dataclass(frozen=True, kw_only=True)
class PlanesCanvas(Canvas):
    """`x_planes`, `y_planes` [z, y, x]: the positions of every voxel in canonical mm; x_mm, y_mm are their means.

    The planes of a slice are shifted against each other by parts of a pixel: their mean shows partial volume in plane.
    """

    x_planes: Floats
    y_planes: Floats
    _map: _Map = field(init=False)

    def __post_init__(self) -> None:
        """Fit rows and columns to positions, by which boxes are found."""
        object.__setattr__(self, "_map", _Map(self.x_planes, self.y_planes))

    def box(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[slice, slice, slice] | None:
        """Index slices (z, y, x) that contain the box from low to high (x, y, z in mm), or None outside the volume."""
        z0, z1 = (int(index) for index in np.searchsorted(self.z_mm, [low[2], high[2]]))
        if z0 >= z1:
            return None
        (y0, y1), (x0, x1) = self._map.ranges(low, high, z0, z1)
        if y0 >= y1 or x0 >= x1:
            return None
        return slice(z0, z1), slice(y0, y1), slice(x0, x1)

    def _relative(self, where: tuple[slice, slice, slice], origin: Place) -> tuple[Floats, Floats, Floats]:
        x = self.x_planes[where] - np.float32(origin[0])
        y = self.y_planes[where] - np.float32(origin[1])
        return x, y, (self.z_mm[where[0]] - np.float32(origin[2]))[:, None, None]

    def _fill(
        self, where: tuple[slice, slice, slice], inside: NDArray[np.bool_], label: int, only: Sequence[int] | None
    ) -> None:
        block = self.labels[where]
        if only is not None:
            allowed = np.zeros(256, bool)
            allowed[list(only)] = True
            inside = inside & allowed[block]
        block[inside] = label

    def path(
        self, points: Sequence[Place], radii: Sequence[float], label: int, *, only: Sequence[int] | None = None
    ) -> list[tuple[Place, float]]:
        """Paint a smooth tube through the points; returns points and radii along it."""
        places, widths = smooth_path(points, radii)
        self.tube(places, widths, label, only=only)
        return list(zip(places, widths, strict=True))


def smooth_path(points: Sequence[Place], radii: Sequence[float]) -> tuple[list[Place], list[float]]:
    """A spline through the points about every 6 mm, and the radius along it."""
    nodes = np.asarray(points, float)
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1) + 1e-3)])
    at = np.linspace(0, lengths[-1], max(len(nodes), int(lengths[-1] / 6) + 2))
    curve = CubicSpline(lengths, nodes, bc_type="natural")(at) if len(nodes) > 2 else _line(at, lengths, nodes)
    widths = np.interp(at, lengths, radii)
    return [(float(x), float(y), float(z)) for x, y, z in curve], [float(w) for w in widths]


def _line(at: NDArray[np.float64], lengths: NDArray[np.float64], nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.interp(at, lengths, nodes[:, axis]) for axis in range(3)], axis=1)
