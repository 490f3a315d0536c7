"""The trunk: skin, fat, muscle, breasts, lungs, mediastinal fat and couch.

Canonical coordinates: z = 0 at the carina, x = y = 0 in the middle of the chest; a patient's size scales the grid.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.phantom.canvas import Canvas
from models.phantom.tissues import Label

# Half axes in mm along z: the pleural cavity with its centre, the muscular envelope, half the mediastinum's width.
_Z = np.array([-220, -160, -60, 0, 40, 70, 95, 112, 150], float)
_CAVITY_A = np.array([122, 126, 122, 110, 90, 66, 42, 20, 16], float)
_CAVITY_B = np.array([92, 92, 86, 75, 60, 46, 32, 16, 12], float)
_CAVITY_Y = np.array([0, 0, 0, 4, 12, 18, 22, 25, 25], float)
_ENVELOPE_A = np.array([137, 139, 139, 145, 160, 183, 190, 150, 90], float)
_ENVELOPE_B = np.array([105, 105, 102, 98, 91, 84, 76, 66, 60], float)
_ENVELOPE_Y = np.array([2, 2, 2, 4, 8, 12, 16, 18, 18], float)
_MEDIASTINUM = np.array([44, 40, 31, 30, 27, 24, 21, 20, 20], float)
_WALL_MM = 11.0
_APEX_Z_MM = 112.0


@dataclass(frozen=True)
class Couch:
    """Shape of the table top: flat as in radiotherapy or curved as in diagnostics, and whether a rail shows below."""

    gap_mm: float
    curvature_per_mm: float
    shell_mm: float
    depth_mm: float
    rail: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Couch":
        """Draw one of both kinds."""
        curved = rng.random() < 0.6
        return cls(
            gap_mm=float(rng.uniform(0, 12)),
            curvature_per_mm=float(rng.uniform(1 / 3000, 1 / 900)) if curved else 0.0,
            shell_mm=float(rng.uniform(2, 5)),
            depth_mm=float(rng.uniform(22, 50)),
            rail=bool(rng.random() < 0.4),
        )


@dataclass(frozen=True)
class Body:
    """What differs between trunks, in canonical mm."""

    scale: tuple[float, float, float]
    fat_mm: float
    breast_centre: tuple[float, float, float]
    breast_axes: tuple[float, float, float]
    gland_threshold: float
    septa: float
    couch: Couch

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Body":
        """Draw a trunk of an adult woman."""
        size = rng.normal(1.05, 0.04)
        scale = (size * rng.normal(1, 0.03), size * rng.normal(1, 0.04), rng.normal(1, 0.05))
        fat_mm = float(np.clip(rng.normal(22, 8), 8, 40))
        breast = float(np.clip(rng.normal(1, 0.15), 0.65, 1.35)) * (0.85 + fat_mm / 120)
        return cls(
            scale=(float(scale[0]), float(scale[1]), float(scale[2])),
            fat_mm=fat_mm,
            breast_centre=(rng.normal(82, 5), rng.normal(-88, 4) - fat_mm * 0.6, rng.normal(-58, 8)),
            breast_axes=(64 * breast, 46 * breast, 66 * breast),
            gland_threshold=float(rng.uniform(0.3, 1.2)),
            septa=float(rng.uniform(0.04, 0.16)),
            couch=Couch.draw(rng),
        )

    def cavity(self, z_mm: float) -> tuple[float, float, float]:
        """Half axes and centre (a, b, y) of the pleural cavity at a level."""
        return _at(z_mm, _CAVITY_A), _at(z_mm, _CAVITY_B), _at(z_mm, _CAVITY_Y)

    def spine_y(self, z_mm: float) -> float:
        """y of the middle of the vertebral bodies at a level."""
        _, b, y = self.cavity(z_mm)
        return y + b - 17

    def front_y(self, z_mm: float) -> float:
        """y of the inside of the anterior chest wall in the midline."""
        _, b, y = self.cavity(z_mm)
        return y - b

    def skin(self, z_mm: float) -> tuple[float, float, float]:
        """Half axes and centre (a, b, y) of the outer surface, without breasts."""
        return (
            _at(z_mm, _ENVELOPE_A) + self.fat_mm,
            _at(z_mm, _ENVELOPE_B) + self.fat_mm * 0.8,
            _at(z_mm, _ENVELOPE_Y),
        )


def paint_trunk(canvas: Canvas, body: Body, textures: NDArray[np.float32]) -> None:
    """Fill every plane of the canvas; textures [4, y, x] are smooth fields of unit variance."""
    x2, y2 = canvas.x_mm**2, canvas.y_mm**2
    for labels, z_mm in zip(canvas.labels, canvas.z_mm, strict=True):
        plane = _Plane(labels, float(z_mm), canvas.x_mm, canvas.y_mm, x2, y2)
        turn = plane.z_mm / 25  # two fields that turn into each other make a texture that is smooth along z too
        _paint_outside(plane, body)
        _paint_breast_gland(plane, body, np.cos(turn) * textures[2] + np.sin(turn) * textures[3])
        _paint_muscle(plane, body, np.cos(turn) * textures[0] + np.sin(turn) * textures[1])
        _paint_cavity(plane, body)


def paint_couch(labels: NDArray[np.uint8], line_mm: NDArray[np.float32], couch: Couch) -> None:
    """Lay a shell with a foam core under the patient, where labels [z, y, x] are air.

    `line_mm` holds the positions of rows and columns; the couch touches the lowest row of the body but for its gap.
    """
    lowest = line_mm[np.flatnonzero((labels != Label.AIR).any(axis=(0, 2)))[-1]]
    x, depth = np.abs(line_mm[None]), line_mm[:, None] - (lowest + couch.gap_mm)
    below = depth + couch.curvature_per_mm * line_mm[None] ** 2
    inside = (below > 0) & (below < couch.depth_mm) & (x < 215)
    shell = inside & ((below < couch.shell_mm) | (below > couch.depth_mm - couch.shell_mm))
    rail = (depth > couch.depth_mm + 12) & (depth < couch.depth_mm + 24) & (x < 60)
    for plane in labels:
        air = plane == Label.AIR
        plane[air & inside] = Label.COUCH_FOAM
        plane[air & shell] = Label.COUCH_SHELL
        if couch.rail:
            plane[air & rail] = Label.COUCH_RAIL


@dataclass(frozen=True)
class _Plane:
    """One plane of the canvas: labels, positions [y, x] in mm, and their squares."""

    labels: NDArray[np.uint8]
    z_mm: float
    x_mm: NDArray[np.float32]
    y_mm: NDArray[np.float32]
    x2: NDArray[np.float32]
    y2: NDArray[np.float32]

    def rounded(self, a: float, b: float, y0: float) -> NDArray[np.float32]:
        """Implicit function of an ellipse with fuller corners around (0, y0): below 1 inside."""
        u = self.x2 * np.float32(1 / a**2)
        v = (self.y2 - np.float32(2 * y0) * self.y_mm + np.float32(y0**2)) * np.float32(1 / b**2)
        return np.asarray(u + v - np.float32(0.35) * np.minimum(u, 1) * np.minimum(v, 1), dtype=np.float32)

    def breasts(self, body: Body, size: float) -> NDArray[np.float32]:
        """Implicit function of both breasts: below 1 inside an ellipsoid `size` times the breast."""
        x0, y0, z0 = body.breast_centre
        a, b, c = (axis * size for axis in body.breast_axes)
        rest = ((self.z_mm - z0) / c) ** 2
        value = ((np.abs(self.x_mm) - x0) / a) ** 2 + ((self.y_mm - y0) / b) ** 2 + rest
        return np.asarray(value, dtype=np.float32)


def _paint_outside(plane: _Plane, body: Body) -> None:
    trunk, breast = plane.rounded(*body.skin(plane.z_mm)), plane.breasts(body, 1.0)
    plane.labels[(trunk < 1) | (breast < 1)] = Label.SKIN
    plane.labels[(trunk < 0.965) | (breast < 0.93)] = Label.FAT


def _paint_breast_gland(plane: _Plane, body: Body, texture: NDArray[np.float32]) -> None:
    inner = plane.breasts(body, 0.72)
    # Gland is densest behind the nipple, in the middle of the ellipsoid.
    tissue = (inner < 1) & (texture > body.gland_threshold - 1.2 * (1 - inner)) & (plane.labels == Label.FAT)
    plane.labels[tissue & (np.abs(plane.x_mm) > 30)] = Label.GLAND


def _paint_muscle(plane: _Plane, body: Body, texture: NDArray[np.float32]) -> None:
    """Muscle inside the envelope, crossed by septa of fat where the texture passes zero."""
    z = plane.z_mm
    envelope = plane.rounded(_at(z, _ENVELOPE_A), _at(z, _ENVELOPE_B), _at(z, _ENVELOPE_Y))
    muscle = (envelope < 1) & (plane.labels == Label.FAT)
    plane.labels[muscle & (np.abs(texture) > body.septa)] = Label.MUSCLE


def _paint_cavity(plane: _Plane, body: Body) -> None:
    if plane.z_mm > _APEX_Z_MM:
        return
    a, b, y0 = body.cavity(plane.z_mm)
    wall = plane.rounded(a + _WALL_MM, b + _WALL_MM, y0) < 1
    plane.labels[wall & (plane.labels == Label.FAT)] = Label.MUSCLE
    cavity = plane.rounded(a, b, y0) < 1
    from_middle = ((plane.y_mm - 2) * np.float32(1 / 38)) ** 2
    half_width = _at(plane.z_mm, _MEDIASTINUM) * (0.3 + 0.7 / (1 + from_middle * from_middle))
    plane.labels[cavity] = Label.FAT
    plane.labels[cavity & (np.abs(plane.x_mm) > half_width)] = Label.LUNG


def _at(z_mm: float, table: NDArray[np.float64]) -> float:
    return float(np.interp(z_mm, _Z, table))
