"""Skin, fat, muscles with fat between them, breasts, lungs and mediastinum, plane by plane."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.phantom.teaching.build import Breast, Build
from models.phantom.teaching.palette import Palette
from models.phantom.teaching.planes import Floats, PlanesCanvas
from models.phantom.tissues import Label

# Half axes and centre in mm of the muscular envelope without shoulders and arms.
_Z = np.array([-300, -220, -160, -60, 0, 40, 70, 95, 112, 130, 160, 230], float)
_HALF_WIDTH = np.array([136, 137, 139, 140, 143, 146, 138, 112, 78, 63, 58, 58], float)
_HALF_DEPTH = np.array([104, 105, 105, 103, 99, 93, 84, 74, 66, 61, 60, 64], float)
_MIDDLE_Y = np.array([2, 2, 2, 3, 6, 10, 15, 20, 22, 20, 14, 6], float)
_MEDIASTINUM_Z = np.array([-220, -160, -60, 0, 40, 70, 95, 112, 150], float)
_MEDIASTINUM = np.array([44, 40, 31, 30, 27, 24, 21, 20, 20], float)
_APEX_Z_MM = 112.0
_WALL_MM = 10.5


@dataclass(frozen=True)
class Plane:
    """Fields [y, x] of one plane: `skin` below 0 inside the body and `envelope` inside the muscles, `out` from the
    pleura outwards, all in mm, and `turn`: 0 at the sternum, 180 at the spine, in degrees."""

    labels: NDArray[np.uint8]
    z_mm: float
    x: Floats
    y: Floats
    envelope: Floats
    out: Floats
    turn: Floats


@dataclass(frozen=True)
class _Gland:
    """A breast with the codes of its gland and of what fills an implant, and how dense it is."""

    breast: Breast
    tissue: int
    filling: int


def paint_trunk(
    canvas: PlanesCanvas, build: Build, palette: Palette, textures: Floats, rng: np.random.Generator
) -> None:
    """Fill every plane; `textures` [6, y, x] are smooth fields of unit variance, the last two finer for the breast."""
    glands = [_draw_gland(breast, palette, rng) for breast in build.breasts]
    for index, z_mm in enumerate(canvas.z_mm):
        z = float(z_mm)
        x, y = canvas.x_planes[index], canvas.y_planes[index]
        out, turn = _chest(x, y, z, build)
        plane = Plane(canvas.labels[index], z, x, y, _envelope(x, y, z, build), out, turn)
        turned = [np.cos(z / 22) * textures[i] + np.sin(z / 22) * textures[i + 1] for i in (0, 2, 4)]
        _paint_outside(plane, build, glands, turned[0])
        for gland in glands:
            _paint_breast(plane, build, gland, turned[2])
        _paint_muscles(plane, build, turned[0], turned[1])
        _paint_cavity(plane, build)


def _ellipse_mm(x: Floats, y: Floats, a: float, b: float, y0: float) -> Floats:
    """About the distance in mm from an ellipse with fuller corners, below 0 inside."""
    dy = y - np.float32(y0)
    x2, y2 = x * x, dy * dy
    u, v = x2 * np.float32(1 / a**2), y2 * np.float32(1 / b**2)
    f = u + v - np.float32(0.35) * np.minimum(u, 1) * np.minimum(v, 1)
    return np.asarray(np.sqrt(x2 + y2) * (1 - 1 / np.sqrt(f + np.float32(1e-4))), dtype=np.float32)


def _chest(x: Floats, y: Floats, z: float, build: Build) -> tuple[Floats, Floats]:
    a, b, y0 = build.cavity(z)
    turn = np.degrees(np.arctan2(np.abs(x), y0 - y)).astype(np.float32)
    return _ellipse_mm(x, y, a, b, y0), turn


def _envelope(x: Floats, y: Floats, z: float, build: Build) -> Floats:
    """Distance in mm from the muscular envelope of trunk, shoulders and arms, below 0 inside."""
    wide, deep = build.chest
    a, b, y0 = (float(np.interp(z, _Z, table)) for table in (_HALF_WIDTH, _HALF_DEPTH, _MIDDLE_Y))
    body = _ellipse_mm(x, y, a * wide + 6 * (build.muscle - 0.8), b * deep + 8 * (build.muscle - 0.8), y0)
    if z < 100:  # the long muscles bulge beside the spine
        back = _ellipse_mm(x, y, 58 * build.muscle**0.5, 20 + 6 * build.muscle, build.spine_y(z) + 24)
        body = _joined(body, back, 10.0)
    for side in (-1, 1):
        for p, q, r_p, r_q in _shoulder(build, side):
            if min(p[2] - r_p, q[2] - r_q) > z or max(p[2] + r_p, q[2] + r_q) < z:
                continue
            body = _joined(body, _capsule_mm(x, y, z, p, q, r_p=r_p, r_q=r_q), 22.0)
    return body


def _shoulder(build: Build, side: int) -> list[tuple[NDArray[np.float64], NDArray[np.float64], float, float]]:
    joint, elbow = np.array(build.joint(side)), np.array(build.elbow(side))
    m = 0.75 + 0.25 * build.muscle
    blade = np.array([side * 118.0, 50, -40.0])
    front = (np.array([side * 24.0, -36, 62]), joint - [side * 26, 10, -2], 24 * m, 28 * m)
    if build.is_up(side):
        shoulder = (joint - [side * 14, -8, 10], joint, 50 * m, 50 * m)
        return [(blade, joint - [side * 26, -26, 34], 26 * m, 46 * m), front, shoulder, (joint, elbow, 50 * m, 38 * m)]
    deltoid = (np.array([side * 95.0, -20, 60]), joint, 36 * m, 42 * m)
    return [(blade, joint - [side * 34, -22, 30], 24 * m, 40 * m), front, deltoid, (joint, elbow, 47 * m, 36 * m)]


def _capsule_mm(
    x: Floats, y: Floats, z: float, p: NDArray[np.float64], q: NDArray[np.float64], *, r_p: float, r_q: float
) -> Floats:
    dx, dy, dz = (float(v) for v in q - p)
    px, py, pz = x - np.float32(p[0]), y - np.float32(p[1]), z - float(p[2])
    along = np.clip((px * dx + py * dy + pz * dz) * np.float32(1 / (dx * dx + dy * dy + dz * dz + 1e-6)), 0, 1)
    distance = np.sqrt((px - along * dx) ** 2 + (py - along * dy) ** 2 + (pz - along * dz) ** 2)
    return np.asarray(distance - (r_p + (r_q - r_p) * along), dtype=np.float32)


def _joined(one: Floats, other: Floats, round_mm: float) -> Floats:
    """The union of two bodies with a fillet between them."""
    share = np.clip(0.5 + (other - one) * np.float32(0.5 / round_mm), 0, 1)
    return np.asarray(other + (one - other) * share - round_mm * share * (1 - share), dtype=np.float32)


def _paint_outside(plane: Plane, build: Build, breasts: Sequence[_Gland], texture: Floats) -> None:
    # Fat is thinner on arms, at the neck, and over the breastbone and the spine.
    thin = float(np.interp(plane.z_mm, [-100, 60, 110, 150], [1.0, 0.75, 0.45, 0.4]))
    sides = np.float32(0.75) + np.float32(0.35) * np.sin(np.radians(plane.turn)) + np.float32(0.06) * texture
    skin = np.asarray(plane.envelope - build.fat_mm * thin * sides, dtype=np.float32)
    for gland in breasts:
        value = _breast_value(plane, gland.breast)
        if value is not None:
            axes = gland.breast.axes
            depth = (np.sqrt(value) - 1) * np.float32(0.5 * (axes[0] + axes[1]))
            skin = _joined(skin, np.asarray(depth, np.float32), 16.0)
    plane.labels[skin < 0] = Label.SKIN
    plane.labels[skin < -build.skin_mm] = Label.FAT


def _draw_gland(breast: Breast, palette: Palette, rng: np.random.Generator) -> _Gland:
    label = Label.SEROMA if rng.random() < 0.4 else Label.IMPLANT
    hu = float(rng.uniform(-5, 30) if rng.random() < 0.6 else rng.uniform(60, 140))  # fluid or silicone
    return _Gland(breast, palette.near(Label.GLAND, 6), palette.instance(label, hu))


def _breast_value(plane: Plane, breast: Breast) -> Floats | None:
    """Below 1 inside the breast; None where the plane does not meet it."""
    x0, y0, z0 = breast.centre
    a, b, c = breast.axes
    height = ((plane.z_mm - z0) / c) ** 2
    if height > 1.3:
        return None
    value = ((plane.x - np.float32(x0)) / a) ** 2 + ((plane.y - np.float32(y0)) / b) ** 2 + np.float32(height)
    return np.asarray(value, dtype=np.float32)


def _paint_breast(plane: Plane, build: Build, gland: _Gland, texture: Floats) -> None:
    value = _breast_value(plane, gland.breast)
    if value is None:
        return
    # Gland is densest behind the nipple, in the middle of the ellipsoid.
    dense = (value < 0.62) & (texture > build.gland_threshold - 1.3 * (0.62 - value)) & (plane.envelope > 4)
    plane.labels[dense & (plane.labels == Label.FAT)] = gland.tissue
    if gland.breast.implant:
        inside = (value < 0.4) & (plane.envelope > 2) & (plane.labels != Label.AIR)
        plane.labels[inside] = gland.filling


def _paint_muscles(plane: Plane, build: Build, first: Floats, second: Floats) -> None:
    """Muscles lie in layers around the ribs; thin planes of fat part them from each other and into bundles."""
    z = plane.z_mm
    inside = (plane.labels == Label.FAT) & (plane.envelope < np.float32(-1)) & (plane.out > 1.0)
    width = np.float32(0.3 + 6 * build.septa)
    layer = np.abs(plane.out - _WALL_MM) < width
    for from_ribs in build.layers_mm[: 2 if z < 50 else 1]:
        layer |= (np.abs(plane.out - from_ribs - np.float32(6) * first) < width) & (second > -0.3)
    # From front to back: pectoral, serratus, latissimus, back; the border between two is a plane of fat.
    for border in (62.0, 104.0, 148.0):
        layer |= (np.abs(plane.turn - border - 9 * second) < 0.4 + 5 * build.septa) & (plane.out > _WALL_MM)
    layer |= np.abs(second) < 0.3 * build.septa
    bare = (plane.turn < (9 if z < 72 else 0)) & (plane.out > 3)  # nothing but fat and skin before the breastbone
    if z < -70:  # below the shoulder blades the front has next to no muscle
        bare |= (plane.turn < 70) & (plane.out > _WALL_MM) & (plane.envelope > -3.5)
    muscle = inside & ~layer & ~bare
    if z > 105:
        muscle &= _neck(plane, second) | (np.abs(plane.x) > 75)
    plane.labels[muscle] = Label.MUSCLE


def _neck(plane: Plane, texture: Floats) -> NDArray[np.bool_]:
    """Muscles of the neck: a ring outside and a mass behind; vessels and organs lie in the fat between."""
    behind = plane.y > 30 + 5 * texture
    ring = (plane.envelope > -13) & (np.abs(plane.x) > 16)
    return np.asarray((behind | ring) & (np.abs(plane.y - 44 - 0.25 * np.abs(plane.x)) > 1.5))


def _paint_cavity(plane: Plane, build: Build) -> None:
    if plane.z_mm > _APEX_Z_MM:
        return
    wall = (plane.out < _WALL_MM - 2) & (plane.out > 1.2) & (plane.labels == Label.FAT) & (plane.envelope < 0)
    plane.labels[wall & (plane.turn > 7)] = Label.MUSCLE
    cavity = plane.out < 0
    from_middle = ((plane.y - 2) * np.float32(1 / 38)) ** 2
    half = float(np.interp(plane.z_mm, _MEDIASTINUM_Z, _MEDIASTINUM)) * build.mediastinal_fat
    half_width = half * (0.3 + 0.7 / (1 + from_middle * from_middle))
    plane.labels[plane.out < 1.2] = Label.FAT
    plane.labels[cavity & (np.abs(plane.x) > half_width)] = Label.LUNG
