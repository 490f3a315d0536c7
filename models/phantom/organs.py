"""Heart, great vessels, airways, nodes and upper abdomen.

All positions are canonical mm, moved a little from patient to patient; later paint covers earlier paint.
"""

import numpy as np

from models.phantom.body import Body
from models.phantom.canvas import Canvas, Points, rotation
from models.phantom.tissues import Label

_SOFT = (Label.FAT, Label.LUNG, Label.MUSCLE)
Place = tuple[float, float, float]


class _Jitter:
    """Moves and sizes of one patient's organs, drawn in a fixed order."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def near(self, place: Place, sd_mm: float = 2.0) -> Place:
        x, y, z = np.asarray(place) + self._rng.normal(0, sd_mm, 3)
        return float(x), float(y), float(z)

    def path(self, points: Points, sd_mm: float = 2.0) -> list[Place]:
        return [self.near(p, sd_mm) for p in points]

    def size(self, value: float, sd: float = 0.06) -> float:
        return float(value * np.clip(self._rng.normal(1, sd), 0.75, 1.3))

    def axes(self, values: Place, sd: float = 0.06) -> Place:
        factor = self.size(1.0, sd)
        return values[0] * factor, values[1] * self.size(factor, 0.03), values[2] * self.size(factor, 0.03)


def paint_organs(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    """Paint all soft organs in the order in which they cover each other."""
    jitter = _Jitter(rng)
    _paint_abdomen(canvas, jitter)
    _paint_heart(canvas, jitter, rng)
    _paint_great_vessels(canvas, body, jitter)
    _paint_airways(canvas, jitter)
    _paint_neck_and_arms(canvas, jitter)
    _paint_internal_mammary(canvas, body, jitter)
    _paint_nodes(canvas, body, rng)


def _paint_abdomen(canvas: Canvas, jitter: _Jitter) -> None:
    lungs_and_fat = (Label.LUNG, Label.FAT)
    left = jitter.near((55, 5, -178), 4)
    canvas.ellipsoid(left, (74, 78, 66), Label.FAT, only=lungs_and_fat)
    canvas.ellipsoid(jitter.near((88, 38, -168), 4), (24, 36, 46), Label.SPLEEN, only=lungs_and_fat)
    canvas.ellipsoid(jitter.near((52, -18, -172), 4), (36, 38, 44), Label.STOMACH, only=lungs_and_fat)
    liver = jitter.near((-48, 0, -176), 5)
    canvas.ellipsoid(liver, jitter.axes((98, 84, 82)), Label.LIVER, only=lungs_and_fat)
    x, y, z = liver
    for dx, dy in ((-50.0, -25.0), (-20.0, -45.0), (-55.0, 25.0)):
        vein = [(x + 28, y + 12, z + 60), (x + 28 + dx * 0.6, y + 12 + dy * 0.6, z + 40), (x + dx, y + dy, z)]
        canvas.tube(vein, [5, 4, 2.5], Label.HEPATIC_VEIN, only=(Label.LIVER,))


def _paint_heart(canvas: Canvas, jitter: _Jitter, rng: np.random.Generator) -> None:
    """Chambers in a common frame that turns with the patient's heart; walls are myocardium, between them lies fat."""
    x0, y0, z0 = jitter.near((20, -28, -60), 4)
    size = jitter.size(1.06, 0.07)

    def at(long: float, short: float, up: float) -> Place:
        """Place in the heart's frame: along the axis to the apex, across it to the back and left, and up."""
        place = np.asarray((long, short, up)) * size @ frame
        return x0 + float(place[0]), y0 + float(place[1]), z0 + float(place[2])

    # Rows of `frame`: to the apex (left, front, down), across (left, back), and up.
    yaw, tilt = np.deg2rad(rng.normal(-38, 5)), np.deg2rad(rng.normal(-28, 4))
    apex = np.array([np.cos(yaw) * np.cos(tilt), np.sin(yaw) * np.cos(tilt), np.sin(tilt)])
    across = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    frame = np.stack([apex, across, np.cross(apex, across)])

    def chamber(place: Place, semi_axes: Place, wall_mm: float, label: Label) -> None:
        wall = (semi_axes[0] + wall_mm, semi_axes[1] + wall_mm, semi_axes[2] + wall_mm)
        centre, scaled = at(*place), [tuple(v * size for v in axes_) for axes_ in (wall, semi_axes)]
        canvas.ellipsoid(centre, (scaled[0][0], scaled[0][1], scaled[0][2]), Label.MYOCARDIUM, axes=frame)
        canvas.ellipsoid(centre, (scaled[1][0], scaled[1][1], scaled[1][2]), label, axes=frame)

    canvas.ellipsoid(at(0, 0, 0), (66 * size, 46 * size, 50 * size), Label.FAT, axes=frame, only=_SOFT)
    lv = jitter.axes((37, 20, 21))
    chamber((-40, -22, 4), jitter.axes((22, 22, 28)), 2.0, Label.RIGHT_ATRIUM)
    chamber((-30, 20, 14), jitter.axes((18, 26, 20)), 2.0, Label.LEFT_ATRIUM)
    chamber((8, -18, 0), jitter.axes((42, 18, 33)), 3.0, Label.RIGHT_VENTRICLE)
    chamber((14, 13, -2), lv, jitter.size(9.5, 0.12), Label.LEFT_VENTRICLE)
    # Papillary muscles and the right ventricle's moderator band give the chambers their inner texture.
    for short in (5.0, 20.0):
        canvas.capsule(np.asarray(at(20, short, -8)), np.asarray(at(34, short, -8)), 3.5, 4.5, Label.MYOCARDIUM)
    canvas.capsule(np.asarray(at(20, -5, -10)), np.asarray(at(30, -30, -14)), 2.0, 2.0, Label.MYOCARDIUM)
    outflow = [at(-12, -24, 26), at(-22, -14, 42), (14, -32, -12)]
    canvas.tube(outflow, [15 * size, 13.5 * size, 12.5], Label.PULMONARY_ARTERY)
    root = [at(-20, 4, 4), at(-34, -4, 18), (-12, -22, -18)]
    canvas.tube(root, [12.0, 15.0, 14.5], Label.AORTA)
    base = at(-44, -24, 16)
    canvas.tube([base, (-27, -12, -30)], [10, 9], Label.SVC)
    left_atrium = at(-30, 20, 14)
    for x, y, z in ((-52, 14, -34), (-50, 18, -52), (58, 24, -30), (54, 28, -52)):
        canvas.tube([left_atrium, jitter.near((x, y, z))], [8, 6], Label.LUNG_VEIN, only=_SOFT)
    canvas.tube([at(-42, -20, -14), (-22, 14, -112), (-22, 18, -200)], [11, 12, 12], Label.IVC)


def _paint_great_vessels(canvas: Canvas, body: Body, jitter: _Jitter) -> None:
    arch = jitter.near((4, 0, 26), 3)
    radius = jitter.size(13.0, 0.1)
    descending = [(23.0, body.spine_y(z) - 14, z) for z in (6.0, -40.0, -90.0, -150.0, -220.0)]
    canvas.tube([(-12, -22, -18), (-13, -22, 4), (-9, -15, 22)], [14.5, 14.5, 13.5], Label.AORTA)
    canvas.tube([(-9, -15, 22), arch, (20, 20, 20), descending[0]], [13.5, radius, radius, 12.5], Label.AORTA)
    canvas.tube(jitter.path(descending, 1.0), [12.5, 12, 11.5, 11, 10.5], Label.AORTA)

    canvas.tube([(14, -32, -12), (16, -18, -4)], [12.5, 12.5], Label.PULMONARY_ARTERY)
    right = jitter.path([(16, -16, -6), (-8, -4, -10), (-36, 4, -14), (-52, 8, -26)])
    canvas.tube(right, [11, 10.5, 9.5, 8], Label.PULMONARY_ARTERY, only=(*_SOFT, Label.PULMONARY_ARTERY))
    left = jitter.path([(16, -16, -4), (28, 4, 2), (46, 20, -4), (52, 26, -22)])
    canvas.tube(left, [11, 10.5, 9.5, 7.5], Label.PULMONARY_ARTERY, only=(*_SOFT, Label.PULMONARY_ARTERY))

    canvas.tube([(-27, -12, -30), (-29, -15, 0), (-28, -20, 30)], [9, 9, 8.5], Label.SVC)
    azygos = [(-4.0, body.spine_y(z) - 19, z) for z in (-200.0, -100.0, -30.0, 6.0)]
    canvas.tube([*azygos, (-24, 10, 12), (-29, -12, 8)], [3, 3.5, 4, 4.5, 4.5, 4.5], Label.AZYGOS, only=_SOFT)
    left_vein = jitter.path([(-27, -21, 30), (0, -34, 42), (30, -30, 58), (42, -24, 72)])
    canvas.tube(left_vein, [8, 7, 6.5, 6.5], Label.BRACHIOCEPHALIC_VEIN, only=_SOFT)
    right_vein = jitter.path([(-28, -20, 30), (-34, -22, 50), (-42, -22, 70)])
    canvas.tube(right_vein, [8, 7.5, 6.5], Label.BRACHIOCEPHALIC_VEIN, only=_SOFT)


def _paint_airways(canvas: Canvas, jitter: _Jitter) -> None:
    trachea = [(1.0, 4.0, 150.0), (1.0, 8.0, 60.0), (0.0, 14.0, 2.0)]
    right, left = jitter.path([(-22, 16, -16), (-44, 16, -30)]), jitter.path([(24, 18, -20), (44, 24, -34)])
    branches = [
        (trachea, [8.5, 8.5, 9.0]),
        ([trachea[-1], *right], [7.5, 6.5, 5.0]),
        ([trachea[-1], *left], [7, 6, 4.5]),
    ]
    for points, radii in branches:
        canvas.tube(points, [r + 1.6 for r in radii], Label.AIRWAY_WALL)
    for points, radii in branches:
        canvas.tube(points, radii, Label.AIRWAY)
    oesophagus = jitter.path([(5, 22, 150), (7, 26, 60), (7, 32, 0), (12, 36, -60), (16, 34, -130)], 1.5)
    canvas.tube(oesophagus, [7] * 5, Label.OESOPHAGUS, only=_SOFT)


def _paint_neck_and_arms(canvas: Canvas, jitter: _Jitter) -> None:
    only = (*_SOFT, Label.GLAND)
    canvas.tube([(-6, -8, 30), (-20, -8, 58)], [6.5, 6.0], Label.SUBCLAVIAN_ARTERY)
    canvas.tube([(6, 2, 32), (14, -2, 60), (22, -4, 150)], [4, 3.5, 3.5], Label.CAROTID, only=only)
    canvas.tube([(-20, -8, 58), (-22, -6, 150)], [3.8, 3.5], Label.CAROTID, only=only)
    canvas.tube([(16, 12, 28), (25, 8, 62)], [5, 4.5], Label.SUBCLAVIAN_ARTERY)
    for side, start in ((-1, (-20.0, -8.0, 58.0)), (1, (25.0, 8.0, 62.0))):
        arm = [(side * 55, -4, 84), (side * 92, -14, 74), (side * 135, -12, 66), (side * 158, 2, 92)]
        canvas.tube([start, *jitter.path(arm)], [4.5, 4, 3.8, 3.3, 3], Label.SUBCLAVIAN_ARTERY, only=only)
        vein = [(42, -23, 71), (62, -28, 74), (96, -24, 62), (138, -20, 54), (160, -6, 80)]
        vein = [(side * x, y, z) for x, y, z in vein]
        canvas.tube(jitter.path(vein), [6, 5.5, 5, 4.2, 3.8], Label.SUBCLAVIAN_VEIN, only=only)
        lateral = [(side * 138, -14, 58), (side * 142, 0, 20), (side * 140, 8, -25)]
        canvas.tube(jitter.path(lateral), [2.2, 1.8, 1.3], Label.SUBCLAVIAN_VEIN, only=only)
        canvas.ellipsoid(jitter.near((side * 17.0, -2, 112)), (9, 10, 24), Label.THYROID, only=only)


def _paint_internal_mammary(canvas: Canvas, body: Body, jitter: _Jitter) -> None:
    for side in (-1, 1):
        offset = jitter.size(17.0, 0.1)
        for shift, radius in ((0.0, 1.5), (4.2, 1.7)):
            points = [(side * (offset + shift), body.front_y(z) - 1.0, z) for z in np.arange(-100.0, 56.0, 13.0)]
            canvas.tube(points, [radius] * len(points), Label.INTERNAL_MAMMARY)


def _paint_nodes(canvas: Canvas, body: Body, rng: np.random.Generator) -> None:
    stations: list[Place] = [(-16, 4, 22), (-18, 2, 10), (4, 16, -16), (30, 14, 8)]
    stations += [(-6, -32, 12), (44, 4, -28), (-44, 6, -40)]
    stations += [(side * 14.0, body.front_y(z) - 1, z) for side in (-1, 1) for z in (-20.0, 8.0)]
    axilla = [(132, -18, 48), (140, -4, 36), (136, 10, 22), (144, 4, 8), (130, -8, 12), (104, -20, 52), (70, -26, 88)]
    stations += [(side * x, y, z) for side in (-1, 1) for x, y, z in axilla]
    diseased = rng.random() < 0.5
    for x, y, z in stations:
        if rng.random() < 0.3:
            continue
        centre = (x + rng.normal(0, 4), y + rng.normal(0, 4), z + rng.normal(0, 4))
        short = float(rng.uniform(2.2, 4.8))
        metastatic = diseased and rng.random() < 0.25
        turned = rotation(rng.uniform(0, 180), rng.uniform(-30, 30))
        size = (short * (1.6 if metastatic else 1.0) * 1.5, short * (1.5 if metastatic else 1.0), short * 1.4)
        label = Label.METASTATIC_NODE if metastatic else Label.LYMPH_NODE
        canvas.ellipsoid(centre, size, label, axes=turned, only=(Label.FAT, Label.LUNG))
        if not metastatic and short > 3.3:
            hilum = (size[0] * 0.45, size[1] * 0.4, size[2] * 0.45)
            canvas.ellipsoid(centre, hilum, Label.NODE_HILUM, axes=turned, only=(label,))
