"""Heart, great vessels and neck; what lies between them; and where they lie, for disease that touches them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.phantom.canvas import rotation
from models.phantom.teaching.build import Build
from models.phantom.teaching.limbs import paint_node
from models.phantom.teaching.palette import Palette
from models.phantom.teaching.planes import Place, PlanesCanvas
from models.phantom.tissues import Label

_SOFT = (Label.FAT, Label.LUNG, Label.MUSCLE)
_NECK = (Label.FAT, Label.MUSCLE)
_CHAMBERS = (Label.LEFT_VENTRICLE, Label.RIGHT_VENTRICLE, Label.LEFT_ATRIUM, Label.RIGHT_ATRIUM)
_HEART = (Label.MYOCARDIUM, *_CHAMBERS)
Track = list[tuple[Place, float]]


@dataclass
class Landmarks:
    """Points with radii along the vessels and the heart's surface; the middle of the heart.

    `midline` is 0 where the descending aorta runs left of the spine and 1 where it runs in front of it.
    """

    touchable: dict[str, Track] = field(default_factory=dict)
    heart: Place = (20.0, -28.0, -60.0)
    heart_mm: float = 60.0
    midline: float = 0.0


class _Frame:
    """The heart's own axes: to the apex, across to the back and left, and up."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.middle = np.array([20.0, -26.0, -62.0]) + rng.normal(0, [7, 4, 8])
        self.size = float(rng.uniform(0.92, 1.35))
        yaw, tilt = np.deg2rad(rng.normal(-38, 9)), np.deg2rad(rng.normal(-26, 9))
        apex = np.array([np.cos(yaw) * np.cos(tilt), np.sin(yaw) * np.cos(tilt), np.sin(tilt)])
        across = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
        self.axes: NDArray[np.float64] = np.stack([apex, across, np.cross(apex, across)])

    def at(self, long: float, short: float, up: float) -> Place:
        x, y, z = self.middle + np.asarray((long, short, up)) * self.size @ self.axes
        return float(x), float(y), float(z)


def paint_heart_and_vessels(
    canvas: PlanesCanvas, build: Build, palette: Palette, rng: np.random.Generator
) -> Landmarks:
    """Paint in the order in which they cover each other; returns where they lie."""
    marks = Landmarks()
    frame = _Frame(rng)
    marks.heart = frame.at(0, 0, 0)
    marks.heart_mm = 58 * frame.size
    _paint_thymus(canvas, build, rng)
    _paint_chambers(canvas, frame, rng, marks)
    _paint_pulmonary(canvas, frame, rng, marks)
    _paint_veins(canvas, build, frame, rng, marks)
    _paint_aorta(canvas, build, frame, rng, marks)
    _paint_airways(canvas, palette, rng, marks)
    _paint_neck(canvas, palette, rng)
    _paint_internal_mammary(canvas, build, rng)
    _paint_mediastinal_nodes(canvas, palette, rng)
    return marks


def _near(rng: np.random.Generator, place: Sequence[float], sd_mm: float = 3.0) -> Place:
    x, y, z = np.asarray(place) + rng.normal(0, sd_mm, 3)
    return float(x), float(y), float(z)


def _paint_thymus(canvas: PlanesCanvas, build: Build, rng: np.random.Generator) -> None:
    if rng.random() < 0.5:
        return
    for side in (-1, 1):
        place = (side * rng.uniform(4, 14), build.front_y(20.0) + rng.uniform(10, 18), rng.uniform(0, 35))
        size = (rng.uniform(5, 14), rng.uniform(4, 9), rng.uniform(15, 30))
        canvas.ellipsoid(place, size, Label.THYMUS, axes=rotation(side * 30.0), only=(Label.FAT,))


def _paint_chambers(canvas: PlanesCanvas, frame: _Frame, rng: np.random.Generator, marks: Landmarks) -> None:
    s = frame.size
    fat_mm = float(rng.uniform(-3, 9))
    sac = ((64 + fat_mm) * s, (45 + fat_mm) * s, (49 + fat_mm) * s)
    fluid_mm = float(rng.uniform(3, 16)) if rng.random() < 0.18 else 0.0
    if fluid_mm:
        outer = (sac[0] + fluid_mm, sac[1] + fluid_mm, sac[2] + fluid_mm)
        canvas.ellipsoid(frame.at(0, 0, 0), outer, Label.PERICARDIAL_FLUID, axes=frame.axes, only=_SOFT)
    line_mm = float(rng.uniform(0.8, 2.0))
    rim = (sac[0] + line_mm, sac[1] + line_mm, sac[2] + line_mm)
    around = (rim[0] + 3, rim[1] + 3, rim[2] + 3)
    inside = (*_SOFT, Label.PERICARDIUM, Label.PERICARDIAL_FLUID)
    canvas.ellipsoid(frame.at(0, 0, 0), around, Label.FAT, axes=frame.axes, only=_SOFT)
    canvas.ellipsoid(frame.at(0, 0, 0), rim, Label.PERICARDIUM, axes=frame.axes, only=inside)
    canvas.ellipsoid(frame.at(0, 0, 0), sac, Label.FAT, axes=frame.axes, only=inside)
    thick = float(rng.uniform(7, 15))
    chambers: tuple[tuple[Place, Place, float, Label], ...] = (
        ((-38, -20, 2), (25, 23, 32), 2.0, Label.RIGHT_ATRIUM),
        ((-30, 20, 12), (20, 28, 24), 2.0, Label.LEFT_ATRIUM),
        ((8, -17, -2), (44, 20, 34), 3.0, Label.RIGHT_VENTRICLE),
        ((14, 12, -2), (38, 21, 23), thick, Label.LEFT_VENTRICLE),
    )
    for place, axes, wall, label in chambers:
        factor = float(rng.uniform(0.85, 1.18))
        a, b, c = (value * factor * s * float(rng.uniform(0.94, 1.06)) for value in axes)
        centre = frame.at(*_near(rng, place, 1.5))
        canvas.ellipsoid(
            centre,
            (a + wall, b + wall, c + wall),
            Label.MYOCARDIUM,
            axes=frame.axes,
            only=(*_SOFT, Label.MYOCARDIUM, Label.PERICARDIUM, Label.PERICARDIAL_FLUID),
        )
        canvas.ellipsoid(centre, (a, b, c), label, axes=frame.axes, only=_HEART)
        marks.touchable.setdefault("heart", []).append((centre, min(b, c) + wall))
    for _ in range(int(rng.integers(2, 5))):
        start = frame.at(*rng.uniform((10, 2, -14), (24, 22, 10)))
        end = frame.at(*rng.uniform((26, 2, -14), (38, 20, 10)))
        canvas.tube([start, end], [3.0, 4.0], Label.MYOCARDIUM, only=(Label.LEFT_VENTRICLE,))
    canvas.tube(
        [frame.at(20, -5, -10), frame.at(30, -30, -14)], [2.0, 2.0], Label.MYOCARDIUM, only=(Label.RIGHT_VENTRICLE,)
    )
    _paint_grooves(canvas, frame, rng)


def _paint_grooves(canvas: PlanesCanvas, frame: _Frame, rng: np.random.Generator) -> None:
    """Grooves of fat between atria and ventricles and between both ventricles, each with its coronary vessels."""
    ring = [frame.at(-16, 44 * np.cos(t), 44 * np.sin(t)) for t in np.linspace(0, 2 * np.pi, 13)]
    septum = [frame.at(-10, -2, 44), frame.at(15, -4, 44), frame.at(40, -3, 36), frame.at(62, 0, 14)]
    below = [frame.at(-12, 0, -44), frame.at(20, -2, -43), frame.at(52, 0, -26)]
    walls = (Label.MYOCARDIUM, Label.LEFT_ATRIUM, Label.RIGHT_ATRIUM, Label.RIGHT_VENTRICLE, *_SOFT, Label.PERICARDIUM)
    calcified = rng.random() < 0.35
    for points in (ring, septum, below):
        width = float(rng.uniform(3, 9))
        canvas.path(points, [width] * len(points), Label.FAT, only=walls)
        canvas.path(points, [float(rng.uniform(1.1, 2.2))] * len(points), Label.CORONARY, only=(Label.FAT,))
        if calcified:
            for index in rng.integers(0, len(points), 3):
                canvas.ellipsoid(points[int(index)], (2.5, 1.6, 2.0), Label.CALCIFICATION)


def _paint_pulmonary(canvas: PlanesCanvas, frame: _Frame, rng: np.random.Generator, marks: Landmarks) -> None:
    r = float(rng.uniform(9.5, 16))
    outflow = [frame.at(-8, -24, 24), (17, -34, -14), (17, -18, -4)]
    found = canvas.path(outflow, [15 * frame.size, r + 1.5, r], Label.PULMONARY_ARTERY)
    only = (*_SOFT, Label.PULMONARY_ARTERY)
    right = [(16, -16, -6), _near(rng, (-8, -3, -10), 2), _near(rng, (-36, 4, -14)), _near(rng, (-54, 10, -28))]
    left = [(16, -16, -4), _near(rng, (30, 4, 2), 2), _near(rng, (46, 20, -4)), _near(rng, (53, 26, -24))]
    for points in (right, left):
        found += canvas.path(points, [r * 0.85, r * 0.8, r * 0.72, r * 0.6], Label.PULMONARY_ARTERY, only=only)
    marks.touchable["pulmonary"] = found
    atrium = frame.at(-30, 20, 12)
    for place in ((-54, 14, -34), (-52, 18, -54), (58, 24, -30), (55, 28, -54)):
        end = _near(rng, place)
        canvas.path([atrium, end], [8.5, 5.5], Label.LUNG_VEIN, only=_SOFT)


def _paint_veins(canvas: PlanesCanvas, build: Build, frame: _Frame, rng: np.random.Generator, marks: Landmarks) -> None:
    r = float(rng.uniform(6.5, 12))
    top = _near(rng, (-28, -20, 32), 2)
    marks.touchable["svc"] = canvas.path(
        [frame.at(-44, -24, 16), _near(rng, (-27, -12, -28), 2), _near(rng, (-29, -15, 2), 2), top],
        [r + 1, r, r, r * 0.95],
        Label.SVC,
    )
    canvas.path(
        [frame.at(-42, -20, -14), (-22, 12, -116), (-22, 20, -190), (-22, 32, -300)], [11, 12, 11, 11], Label.IVC
    )
    y = build.spine_y
    azygos = [_near(rng, (-5.0, y(z) - 21, z), 1) for z in (-280.0, -200.0, -100.0, -30.0, 6.0)]
    arch = [(-22.0, 12.0, 14.0), (-28.0, -10.0, 10.0)]
    w = float(rng.uniform(0.7, 1.4))
    canvas.path([*azygos, *arch], [2.5 * w, 3 * w, 3.5 * w, 4 * w, 4.3 * w, 4.5 * w, 4.5 * w], Label.AZYGOS, only=_SOFT)
    hemi = [_near(rng, (17.0, y(z) - 10, z), 1) for z in (-250.0, -150.0, -60.0)]
    canvas.path([*hemi, (0.0, y(-50.0) - 18, -50.0)], [2.0, 2.0, 2.0, 2.0], Label.AZYGOS, only=_SOFT)
    left = [top, _near(rng, (0, -34, 42)), _near(rng, (30, -30, 58)), (40, -24, 70)]
    canvas.path(left, [r, r * 0.75, r * 0.75, r * 0.75], Label.BRACHIOCEPHALIC_VEIN, only=_SOFT)
    canvas.path(
        [top, _near(rng, (-34, -22, 52), 2), (-40, -24, 70)],
        [r, r * 0.8, r * 0.75],
        Label.BRACHIOCEPHALIC_VEIN,
        only=_SOFT,
    )


def _paint_aorta(canvas: PlanesCanvas, build: Build, frame: _Frame, rng: np.random.Generator, marks: Landmarks) -> None:
    """Root, arch and descending aorta: straight or tortuous, sometimes widened, sometimes calcified."""
    r = float(rng.uniform(10.0, 16.5))
    ascending = r * float(rng.uniform(1.05, 1.35))
    curl = float(rng.exponential(4))
    y = build.spine_y
    own = rng.spawn(1)[0]
    m = marks.midline = float(own.uniform(0.2, 1.1)) if own.random() < 0.5 else 0.0
    down = [
        (
            23 - 21 * m * w + rng.normal(0, 3) + curl * np.sin(z / 40),
            y(z) - 15 - 13 * m * w + rng.normal(0, 2) + 0.6 * curl * np.cos(z / 33),
            z,
        )
        for z, w in ((-2.0, 0.15), (-40.0, 0.7), (-90.0, 1.0), (-150.0, 1.0))
    ]
    below = [(14.0 - curl - 10 * m, y(-200.0) - 22 - 6 * m, -200.0), (4.0, y(-300.0) - 26, -300.0)]
    height = float(rng.normal(25, 6))
    first = [frame.at(-20, 3, 2), frame.at(-36, -5, 16), _near(rng, (-13, -23, -18), 2), _near(rng, (-13, -22, 4), 2)]
    arch = [
        _near(rng, (-8, -15, height - 3), 2),
        _near(rng, (5, 0, height + 4), 2),
        _near(rng, (20, 20, height - 4), 2),
    ]
    points = [*first, *arch, *down, *below]
    radii = [
        ascending * 0.85,
        ascending,
        ascending,
        ascending,
        r * 1.1,
        r * 1.05,
        r,
        r,
        r * 0.97,
        r * 0.93,
        r * 0.88,
        r * 0.8,
        r * 0.75,
    ]
    if rng.random() < 0.2:  # an aneurysm
        at = int(rng.integers(2, len(points) - 2))
        for shift, share in ((-1, 1.2), (0, 1.55), (1, 1.2)):
            radii[at + shift] = min(radii[at + shift] * share, 22.5)
    track = canvas.path(points, radii, Label.AORTA)
    marks.touchable["aorta"] = track
    if rng.random() < 0.55:
        _calcify(canvas, track, rng)


def _calcify(canvas: PlanesCanvas, track: Track, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(2, 24))):
        place, radius = track[int(rng.integers(len(track)))]
        angle = float(rng.uniform(0, 2 * np.pi))
        spot = (place[0] + radius * np.cos(angle), place[1] + radius * np.sin(angle), place[2])
        size = (float(rng.uniform(0.8, 5)), float(rng.uniform(0.7, 1.6)), float(rng.uniform(1, 4)))
        canvas.ellipsoid(spot, size, Label.CALCIFICATION, axes=rotation(90 + np.degrees(angle)))


def _paint_airways(canvas: PlanesCanvas, palette: Palette, rng: np.random.Generator, marks: Landmarks) -> None:
    r = float(rng.uniform(6.5, 10))
    trachea = [(1.0, -16.0, 240.0), (1.0, -4.0, 150.0), _near(rng, (1.0, 6.0, 60.0), 2), (0.0, 14.0, 2.0)]
    right, left = (
        [_near(rng, p, 2) for p in ((-22, 16, -16), (-46, 16, -32))],
        [_near(rng, p, 2) for p in ((24, 18, -20), (46, 24, -36))],
    )
    branches = [
        (trachea, [r, r, r, r * 1.1]),
        ([trachea[-1], *right], [r * 0.85, r * 0.75, r * 0.5]),
        ([trachea[-1], *left], [r * 0.8, r * 0.7, r * 0.5]),
    ]
    for points, radii in branches:
        canvas.path(points, [w + 1.5 for w in radii], Label.AIRWAY_WALL)
    for points, radii in branches:
        canvas.path(points, radii, Label.AIRWAY)
    # An aorta in front of the spine pushes the oesophagus forwards.
    low = 36 - 11 * marks.midline
    gullet: list[Place] = [
        _near(rng, p, 2)
        for p in ((5, 8, 230), (5, 14, 150), (7, 24, 60), (7, 32, 0), (12, low, -60), (16, low - 6, -125))
    ]
    gullet.append((34.0, 12.0, -160.0))
    size = float(rng.uniform(4.5, 9))
    canvas.path(gullet, [size] * 7, Label.OESOPHAGUS, only=_SOFT)
    inner = rng.random()
    if inner < 0.6:
        code = Label.GUT_GAS if inner < 0.35 else palette.near(Label.GUT_CONTENT, 8)
        from_, to = sorted(int(i) for i in rng.integers(0, 6, 2))
        canvas.path(gullet[from_ : to + 2], [size * 0.5] * (to + 2 - from_), code, only=(Label.OESOPHAGUS,))


def _paint_neck(canvas: PlanesCanvas, palette: Palette, rng: np.random.Generator) -> None:
    only = (*_NECK, Label.LUNG)
    common = rng.random() < 0.25  # the left carotid leaves the brachiocephalic trunk
    trunk = [(-7, -8, 28), _near(rng, (-20, -9, 58), 2)]
    canvas.path(trunk, [7.0, 6.0], Label.SUBCLAVIAN_ARTERY, only=only)
    canvas.path(
        [(-5, -8, 34) if common else (6, 2, 30), _near(rng, (14, -2, 62)), _near(rng, (24, -2, 150)), (30, 0, 240)],
        [4.2] * 4,
        Label.CAROTID,
        only=only,
    )
    canvas.path([trunk[1], _near(rng, (-24, -2, 150)), (-30, 0, 240)], [4.2] * 3, Label.CAROTID, only=only)
    canvas.path([(16, 14, 26), (25, 8, 62)], [5.2, 5.0], Label.SUBCLAVIAN_ARTERY, only=only)
    rare = rng.spawn(1)[0]
    if rare.random() < 0.06:  # the right subclavian artery comes last from the arch and passes behind the gullet
        stray = [(20.0, 24.0, 20.0), _near(rare, (2, 41, 34), 2), _near(rare, (-24, 22, 54), 2), (-44.0, -2.0, 82.0)]
        canvas.path(stray, [6.0, 5.0, 4.5, 4.2], Label.SUBCLAVIAN_ARTERY, only=only)
    for side in (-1, 1):
        size = float(rng.uniform(3, 8))
        jugular = [
            (side * 39.0, -23.0, 70.0),
            _near(rng, (side * 36, -12, 105)),
            _near(rng, (side * 38, -8, 150)),
            (side * 42.0, 0.0, 240.0),
        ]
        canvas.path(jugular, [6.5, size, size, size], Label.JUGULAR, only=only)
        outer = [(side * 46.0, -30.0, 80.0), _near(rng, (side * 50, -24, 130)), _near(rng, (side * 55, -10, 200))]
        canvas.path(outer, [1.8] * 3, Label.JUGULAR, only=_NECK)
        spinal = [(side * 40.0, 6.0, 82.0), (side * 26.0, 24.0, 115.0), (side * 26.0, 22.0, 240.0)]
        canvas.path(spinal, [1.8] * 3, Label.CAROTID, only=_NECK)
        lobe = (float(rng.uniform(6, 14)), float(rng.uniform(8, 14)), float(rng.uniform(16, 32)))
        canvas.ellipsoid(_near(rng, (side * 17.0, -5, 112), 2), lobe, Label.THYROID, only=_NECK)
        if rng.random() < 0.25:  # a nodule, which lights less
            code = palette.instance(Label.THYROID, float(rng.uniform(20, 60)), 0.4)
            canvas.ellipsoid(_near(rng, (side * 17.0, -5, 110), 4), (5, 5, 7), code, only=(Label.THYROID,))
        for _ in range(6):
            place = (side * rng.normal(44, 7), rng.normal(2, 10), rng.uniform(90, 200))
            paint_node(canvas, place, palette, rng, sick=False)
        strap = [(side * 12.0, -54.0, 66.0), (side * 30.0, -34.0, 120.0), (side * 56.0, 6.0, 230.0)]
        canvas.path(strap, [6.0, 9.0, 10.0], Label.MUSCLE, only=(Label.FAT,))
        scalene = [(side * 46.0, 8.0, 84.0), (side * 33.0, 18.0, 125.0), (side * 28.0, 20.0, 230.0)]
        canvas.path(scalene, [7.0, 9.0, 9.0], Label.MUSCLE, only=(Label.FAT,))
    canvas.ellipsoid((0, -16, 105), (14, 4, 7), Label.THYROID, only=_NECK)
    canvas.path([(0, -24, 150), (0, -26, 175)], [17, 17], Label.CARTILAGE, only=_NECK)


def _paint_internal_mammary(canvas: PlanesCanvas, build: Build, rng: np.random.Generator) -> None:
    levels = np.arange(-110.0, 60.0, 24.0)
    for side in (-1, 1):
        offset = float(rng.uniform(13, 21))
        for shift, radius in (
            (0.0, float(rng.uniform(0.8, 1.4))),
            (float(rng.uniform(3.5, 5)), float(rng.uniform(0.8, 1.5))),
        ):
            points = [
                (side * (offset + shift), _inner_wall_y(build, offset + shift, float(z)) - 0.5, float(z))
                for z in levels
            ]
            canvas.path(points, [radius] * len(points), Label.INTERNAL_MAMMARY)


def _inner_wall_y(build: Build, x_mm: float, z_mm: float) -> float:
    a, b, y = build.cavity(z_mm)
    return y - b * float(np.sqrt(max(0.0, 1 - (x_mm / a) ** 2)))


def _paint_mediastinal_nodes(canvas: PlanesCanvas, palette: Palette, rng: np.random.Generator) -> None:
    stations = [
        (-16, 4, 22),
        (-18, 2, 10),
        (4, 16, -18),
        (30, 14, 10),
        (-6, -32, 12),
        (44, 4, -28),
        (-44, 6, -40),
        (10, -28, 30),
        (12, 30, -80),
    ]
    sick = rng.random() < 0.25
    for place in stations:
        if rng.random() < 0.6:
            paint_node(canvas, _near(rng, place, 5), palette, rng, sick=sick)
