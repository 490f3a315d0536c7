"""A canvas whose planes have coordinates of their own, which smooths borders and bends the spine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from models.phantom.canvas import Canvas

Place = tuple[float, float, float]
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class PlanesCanvas(Canvas):
    """`x_planes`, `y_planes` [z, y, x]: the positions of every voxel in canonical mm; x_mm, y_mm are their means.

    The planes of a slice are shifted against each other by parts of a pixel: their mean shows partial volume in plane.
    """

    x_planes: Floats
    y_planes: Floats

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
