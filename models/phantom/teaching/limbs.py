"""Bones of shoulder and arm, the fat of the armpit, the vessels and nodes that run through it."""

import numpy as np

from models.phantom.canvas import rotation
from models.phantom.skeleton import paint_rib
from models.phantom.teaching.build import Build
from models.phantom.teaching.palette import Palette
from models.phantom.teaching.planes import Place, PlanesCanvas
from models.phantom.tissues import Label

_SOFT = (Label.FAT, Label.MUSCLE)


def paint_limbs(canvas: PlanesCanvas, build: Build, palette: Palette, rng: np.random.Generator) -> None:
    """Paint both shoulders and arms, their vessels last."""
    for side in (-1, 1):
        _paint_armpit(canvas, build, side, rng)
        _paint_bones(canvas, build, side, rng)
        _paint_vessels(canvas, build, side, rng)
        _paint_nodes(canvas, side, build, palette, rng)


def paint_back_muscles(canvas: PlanesCanvas, build: Build, rng: np.random.Generator) -> None:
    """The long muscles beside the spine and those around both shoulder blades."""
    levels = np.arange(-300.0, 211.0, 30.0)
    m = build.muscle**0.5
    for side in (-1, 1):
        for x, back, radius in ((20.0, 31.0, 13.0 * m), (38.0, 31.0, 15.0 * m)):
            points = [(side * x, build.spine_y(z) + back, float(z)) for z in levels]
            canvas.tube(points, [radius] * len(points), Label.MUSCLE, only=(Label.FAT,))
        blade = rotation(side * (-42.0 if build.is_up(side) else -30.0))
        middle = (side * 116.0, 58.0, 30.0) if build.is_up(side) else (side * 102.0, 72.0, 20.0)
        canvas.ellipsoid(middle, (54 * m, 19 * m, 64), Label.MUSCLE, axes=blade, only=(Label.FAT,))


def paint_cage(canvas: PlanesCanvas, build: Build, rng: np.random.Generator) -> None:
    """Twelve pairs of ribs that fall to the front more steeply the lower they are."""
    steep = float(rng.uniform(0.8, 1.3))
    for rib in range(12):
        for side in (-1, 1):
            back_z = 100.0 - 22.5 * rib + float(rng.normal(0, 1.5))
            drop = steep * (34.0 + 6.0 * rib)
            paint_rib(canvas, build, back_z, drop, side, radius=5.0 + 0.1 * min(rib, 5))


def _near(rng: np.random.Generator, place: Place, sd_mm: float = 3.0) -> Place:
    x, y, z = np.asarray(place) + rng.normal(0, sd_mm, 3)
    return float(x), float(y), float(z)


def _paint_armpit(canvas: PlanesCanvas, build: Build, side: int, rng: np.random.Generator) -> None:
    size = float(rng.uniform(0.75, 1.3))
    up = 14.0 if build.is_up(side) else 0.0
    _paint_pad(canvas, rng, (side * 128.0, -8.0, 32.0 + up), (16.0 * size, 20.0 * size, 34.0))
    # Above the collar bone, where the vessels leave the chest, and between neck and shoulder.
    _paint_pad(canvas, rng, (side * 64.0, -10.0, 92.0), (24.0 * size, 15.0, 14.0 * size))
    _paint_pad(canvas, rng, (side * 78.0, 26.0, 106.0), (34.0, 9.0 * size, 12.0))
    canvas.ellipsoid(
        (side * 110, -28, 52), (38, 9 * size, 24), Label.FAT, axes=rotation(side * 20.0), only=(Label.MUSCLE,)
    )
    # Fat between the shoulder blade's muscles and the ribs, and under the deltoid.
    canvas.ellipsoid(
        (side * 112, 38, 20), (44, 3.0 * size, 50), Label.FAT, axes=rotation(side * -48.0), only=(Label.MUSCLE,)
    )
    x, y, z = build.joint(side)
    canvas.ellipsoid(
        (x, y - 24, z - 10), (26, 3 * size, 30), Label.FAT, axes=rotation(side * 25.0), only=(Label.MUSCLE,)
    )
    canvas.ellipsoid(
        (x, y + 27, z - 10), (28, 3 * size, 30), Label.FAT, axes=rotation(side * -20.0), only=(Label.MUSCLE,)
    )


def _paint_pad(canvas: PlanesCanvas, rng: np.random.Generator, middle: Place, axes: Place) -> None:
    """A pad of fat of no even shape between muscles, up to about 1.4 times the axes."""
    for _ in range(7):
        x, y, z = np.asarray(middle) + rng.normal(0, 0.45, 3) * axes
        a, b, c = np.asarray(axes) * rng.uniform(0.35, 0.95, 3)
        turned = rotation(float(rng.uniform(-35, 35)))
        canvas.ellipsoid((float(x), float(y), float(z)), (a, b, c), Label.FAT, axes=turned, only=(Label.MUSCLE,))


def _paint_bones(canvas: PlanesCanvas, build: Build, side: int, rng: np.random.Generator) -> None:
    joint, elbow = build.joint(side), build.elbow(side)
    up = build.is_up(side)
    blade = rotation(side * (-42.0 if up else -30.0) + float(rng.normal(0, 5)), float(rng.normal(0, 6)))
    middle = _near(rng, (side * 118.0, 58.0, 34.0) if up else (side * 102.0, 74.0, 20.0), 3)
    canvas.ellipsoid(middle, (50, 4.2, 62), Label.CORTICAL_BONE, axes=blade, only=_SOFT)
    canvas.ellipsoid(middle, (46, 1.8, 56), Label.RIB_MARROW, axes=blade, only=(Label.CORTICAL_BONE,))
    glenoid = (joint[0] - side * 27.0, joint[1] + 9, joint[2] - 10)
    edge = np.asarray(middle) + blade[0] * 44 * side
    spine = (middle[0] - side * 8, middle[1] + 13, middle[2] + 44)
    acromion = (joint[0] + side * 2, joint[1] + 22, joint[2] + 26)
    coracoid = (joint[0] - side * 20, joint[1] - 24, joint[2] + 4)
    collar = [
        (side * 14.0, -50.0, 60.0),
        (side * 62.0, -46.0, 80.0),
        (joint[0] - side * 26, joint[1] - 8, joint[2] + 22),
    ]
    bones: list[tuple[list[Place], float]] = [
        ([(float(edge[0]), float(edge[1]), middle[2] + 30), glenoid], 9.0),
        ([spine, acromion], 6.0),
        ([glenoid, coracoid], 6.0),
        (collar, 6.5),
    ]
    for points, radius in bones:
        canvas.path(points, [radius] * len(points), Label.CORTICAL_BONE, only=_SOFT)
        canvas.path(points, [radius - 2.2] * len(points), Label.RIB_MARROW, only=(Label.CORTICAL_BONE,))
    canvas.tube([joint, joint], [23, 23], Label.CORTICAL_BONE, only=_SOFT)
    canvas.tube([joint, joint], [21, 21], Label.RIB_MARROW, only=(Label.CORTICAL_BONE,))
    canvas.tube([joint, elbow], [13.0, 11], Label.CORTICAL_BONE, only=_SOFT)
    canvas.tube([joint, elbow], [9.5, 6.5], Label.RIB_MARROW, only=(Label.CORTICAL_BONE,))


def _paint_vessels(canvas: PlanesCanvas, build: Build, side: int, rng: np.random.Generator) -> None:
    """Subclavian, axillary and brachial artery and vein, from the first rib along the arm."""
    joint, elbow = build.joint(side), build.elbow(side)
    along = [np.asarray(joint) + share * (np.asarray(elbow) - joint) for share in (0.18, 0.45, 0.95)]
    inner = [(float(p[0]) - side * 31, float(p[1]) - 6, float(p[2])) for p in along]
    armpit: list[Place] = [(side * 92, -16, 74), (side * 120, -12, 64 if build.is_up(side) else 44)]
    if build.is_up(side):
        armpit.append((side * 134, -8, 84))
    artery = [_near(rng, p, 2.5) for p in [(side * 52, -6, 86), *armpit, *inner]]
    vein = [_near(rng, (x - side * 1, y - 10, z - 5), 2.5) for x, y, z in [(side * 46, -26, 76), *armpit, *inner]]
    start: Place = (-20.0, -8.0, 58.0) if side < 0 else (25.0, 8.0, 62.0)
    size = float(rng.uniform(0.8, 1.25))
    count = len(artery)
    canvas.path(
        [start, *artery],
        np.linspace(5.0 * size, 2.4 * size, count + 1).tolist(),
        Label.SUBCLAVIAN_ARTERY,
        only=(*_SOFT, Label.LUNG),
    )
    canvas.path(
        [(side * 38.0, -22.0, 70.0), *vein],
        np.linspace(6.8 * size, 2.8 * size, count + 1).tolist(),
        Label.SUBCLAVIAN_VEIN,
        only=_SOFT,
    )
    for depth, radius in (
        (-14.0, 1.5),
        (8.0, 1.7),
        (20.0, 1.3),
    ):  # lateral thoracic, thoracodorsal, a vein under the skin
        x, y, z = armpit[1]
        down = [(x, y, z), _near(rng, (side * 136.0, depth, 12), 4), _near(rng, (side * 141.0, depth * 1.6, -45), 4)]
        canvas.path(down, [radius * size * 1.2, radius * size, 0.8], Label.SUBCLAVIAN_VEIN, only=_SOFT)
    for _ in range(4):  # nerves run along the vessels and do not light
        nerve = [_near(rng, (x + side * 2, y + 7, z + 4), 4) for x, y, z in [(side * 52, -2, 90), *armpit, *inner]]
        canvas.path(nerve, [float(rng.uniform(0.8, 2.0))] * count, Label.MUSCLE, only=(Label.FAT,))
    cephalic = [_near(rng, (x, y - 34, z), 4) for x, y, z in (build.joint(side), along[1].tolist(), along[2].tolist())]
    canvas.path([vein[1], *cephalic], [2.2] * 4, Label.SUBCLAVIAN_VEIN, only=_SOFT)


def _paint_nodes(canvas: PlanesCanvas, side: int, build: Build, palette: Palette, rng: np.random.Generator) -> None:
    sick = rng.random() < 0.2
    for _ in range(int(rng.integers(4, 13))):
        place = (side * rng.normal(128, 8), rng.normal(-8, 13), rng.normal(36, 20) + (10 if build.is_up(side) else 0))
        paint_node(canvas, place, palette, rng, sick=sick)


def paint_node(canvas: PlanesCanvas, place: Place, palette: Palette, rng: np.random.Generator, *, sick: bool) -> None:
    """A lymph node in fat, with a fatty hilum where it is healthy and large enough."""
    short = float(rng.uniform(1.6, 5.0)) * (1.8 if sick and rng.random() < 0.4 else 1.0)
    axes = rotation(float(rng.uniform(0, 180)), float(rng.uniform(-40, 40)))
    size = (short * float(rng.uniform(1.2, 2.0)), short, short * float(rng.uniform(1.0, 1.7)))
    label = Label.METASTATIC_NODE if sick else Label.LYMPH_NODE
    canvas.ellipsoid(place, size, label, axes=axes, only=(Label.FAT,))
    if rng.random() < 0.05:
        canvas.ellipsoid(
            place, (size[0] * 0.5, short * 0.6, short * 0.6), Label.CALCIFICATION, axes=axes, only=(label,)
        )
    elif not sick and short > 3.0:
        canvas.ellipsoid(
            place, (size[0] * 0.5, size[1] * 0.45, size[2] * 0.5), Label.NODE_HILUM, axes=axes, only=(label,)
        )
