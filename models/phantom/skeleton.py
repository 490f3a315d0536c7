"""Spine, ribs, sternum, clavicles, scapulae and shoulders."""

import numpy as np

from models.phantom.body import Body
from models.phantom.canvas import Canvas, rotation
from models.phantom.tissues import Label

_SPINE_PERIOD_MM = 23.0


def paint_skeleton(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    """Paint all bones of the thorax over the trunk."""
    _paint_back_muscles(canvas, body)
    _paint_shoulders(canvas)
    paint_ribs(canvas, body, rng)
    paint_sternum(canvas, body)
    paint_spine(canvas, body, rng)


def _paint_back_muscles(canvas: Canvas, body: Body) -> None:
    levels = np.arange(-220.0, 151.0, 30.0)
    for side in (-1, 1):
        points = [(side * 30.0, body.spine_y(z) + 36, float(z)) for z in levels]
        canvas.tube(points, [18.0] * len(points), Label.MUSCLE, only=(Label.FAT,))


def paint_spine(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    """Paint vertebrae, discs and the spinal canal."""
    start = float(rng.uniform(0, _SPINE_PERIOD_MM))
    for z in np.arange(-225.0 + start, 150.0, _SPINE_PERIOD_MM):
        y = body.spine_y(float(z))
        x = float(rng.normal(0, 0.7))
        # A vertebral body is a stack of thin ellipses with a cortical rim; between two bodies lies the disc.
        canvas.tube([(x, y, z - 12), (x, y, z + 12)], [14.5, 14.5], Label.DISC)
        for shift in (-5.0, 5.0):
            canvas.tube([(x + shift, y, z - 8.5), (x + shift, y, z + 8.5)], [13.0, 13.0], Label.CORTICAL_BONE)
        for shift in (-5.0, 5.0):
            canvas.tube([(x + shift, y, z - 7.5), (x + shift, y, z + 7.5)], [11.4, 11.4], Label.VERTEBRA)
        _paint_arch(canvas, x, y, float(z))
    levels = np.arange(-220.0, 151.0, 20.0)
    canal = [(0.0, body.spine_y(float(z)) + 22, float(z)) for z in levels]
    canvas.tube(canal, [9.0] * len(canal), Label.SPINAL_CANAL)


def _paint_arch(canvas: Canvas, x: float, y: float, z: float) -> None:
    for side in (-1, 1):
        bones = (
            ((x + side * 11, y + 10, z + 2), (x + side * 13, y + 26, z), 4.0),
            ((x + side * 13, y + 26, z), (x + side * 34, y + 34, z + 3), 4.5),
            ((x + side * 13, y + 26, z), (x, y + 36, z - 3), 3.5),
        )
        for p, q, radius in bones:
            canvas.tube([p, q], [radius, radius], Label.CORTICAL_BONE)
            canvas.tube([p, q], [radius - 1.6] * 2, Label.RIB_MARROW)
    tip = [(x, y + 36, z - 3), (x, y + 52, z - 18)]
    canvas.tube(tip, [3.5, 3.0], Label.CORTICAL_BONE, only=(Label.FAT, Label.MUSCLE))


def paint_ribs(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    """Paint twelve pairs of ribs, which end in cartilage."""
    for rib in range(12):
        back_z = 88.0 - 22.0 * rib
        drop = 28.0 + 4.0 * rib
        for side in (-1, 1):
            paint_rib(canvas, body, back_z + float(rng.normal(0, 1.5)), drop, side, radius=5.2 + 0.1 * min(rib, 5))


def paint_rib(canvas: Canvas, body: Body, back_z: float, drop: float, side: int, *, radius: float) -> None:
    """Paint one rib from the spine at `back_z` to the front, `drop` mm lower; `side` is -1 on the right."""
    fractions = np.linspace(0, 1, 26)
    points = []
    for s in fractions:
        z = back_z - drop * s**1.3
        a, b, y = body.cavity(z)
        angle = np.pi * (0.09 + 0.83 * s)  # 0 is the spine, pi the sternum
        x_rib = side * (a + 6.5) * np.sin(angle)
        y_rib = y + (b + 6.5) * np.cos(angle)
        # The corners of the cavity are fuller than an ellipse; the rib follows them.
        bulge = 1 + 0.045 * np.sin(2 * angle) ** 2
        points.append((float(x_rib * bulge), float(y + (y_rib - y) * bulge), float(z)))
    bone = int(0.8 * len(points))
    canvas.tube(points[:bone], [radius] * bone, Label.CORTICAL_BONE)
    canvas.tube(points[:bone], [radius - 1.7] * bone, Label.RIB_MARROW)
    canvas.tube(points[bone - 1 :], [radius] * (len(points) - bone + 1), Label.CARTILAGE)


def paint_sternum(canvas: Canvas, body: Body) -> None:
    """Paint the breastbone with its manubrium."""
    for z in np.arange(-75.0, 50.0, 4.0):
        half_width = float(np.interp(z, [-75, -30, 15, 30, 50], [9, 17, 13, 24, 26]))
        y = body.front_y(float(z)) - 7
        centre = (0.0, y, float(z))
        canvas.ellipsoid(centre, (half_width, 6.5, 5.0), Label.CORTICAL_BONE)
    for z in np.arange(-72.0, 48.0, 4.0):
        half_width = float(np.interp(z, [-75, -30, 15, 30, 50], [9, 17, 13, 24, 26])) - 1.8
        canvas.ellipsoid((0.0, body.front_y(float(z)) - 7, float(z)), (half_width, 4.7, 4.5), Label.RIB_MARROW)


def _paint_shoulders(canvas: Canvas) -> None:
    for side in (-1, 1):
        canvas.ellipsoid((side * 132, -4, 34), (27, 38, 48), Label.FAT, only=(Label.MUSCLE,))
        canvas.ellipsoid((side * 84, -62, 30), (44, 5, 40), Label.FAT, axes=rotation(side * 28.0), only=(Label.MUSCLE,))
        blade = rotation(side * -40.0)
        canvas.ellipsoid((side * 110, 64, 28), (56, 17, 66), Label.MUSCLE, axes=blade, only=(Label.FAT,))
        canvas.ellipsoid((side * 110, 64, 28), (50, 3.6, 58), Label.CORTICAL_BONE, axes=blade)
        canvas.ellipsoid((side * 110, 64, 28), (46, 1.6, 54), Label.RIB_MARROW, axes=blade)
        for p, q, radius in (
            ((side * 150.0, 34.0, 76.0), (side * 76.0, 84.0, 66.0), 6.0),
            ((side * 14.0, -52.0, 60.0), (side * 70.0, -60.0, 76.0), 6.5),
            ((side * 70.0, -60.0, 76.0), (side * 142.0, -20.0, 98.0), 6.5),
            ((side * 176.0, 6.0, 98.0), (side * 176.0, 6.0, 99.0), 23.0),
            ((side * 176.0, 6.0, 98.0), (side * 215.0, 0.0, 170.0), 12.0),
        ):
            canvas.tube([p, q], [radius] * 2, Label.CORTICAL_BONE)
            canvas.tube([p, q], [radius - 2.2] * 2, Label.RIB_MARROW)
