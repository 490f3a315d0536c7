"""Diaphragm and upper abdomen: liver, spleen, kidneys, pancreas, and a gut that is full of anything."""

from collections.abc import Sequence

import numpy as np

from models.phantom.canvas import rotation, smooth_field
from models.phantom.teaching.build import Build
from models.phantom.teaching.palette import UNDECIDED, Palette
from models.phantom.teaching.planes import Place, PlanesCanvas
from models.phantom.tissues import Label

_HIGHEST_MM = -70.0


def paint_abdomen(canvas: PlanesCanvas, build: Build, palette: Palette, rng: np.random.Generator) -> None:
    """Paint what lies below the diaphragm; draws nothing where the volume does not reach so far down."""
    if canvas.z_mm[0] > _HIGHEST_MM:
        return
    fat = palette.near(Label.FAT, 5)
    right_mm = float(rng.uniform(-125, -80))
    _paint_diaphragm(canvas, build, fat, (right_mm, right_mm - float(rng.uniform(0, 28))))
    _paint_solid(canvas, build, palette, rng, fat=fat, top_mm=right_mm)
    _paint_gut(canvas, build, palette, rng, fat)
    _paint_visceral(canvas, build, rng.spawn(1)[0], fat)


def _paint_diaphragm(canvas: PlanesCanvas, build: Build, fat: int, tops_mm: tuple[float, float]) -> None:
    """Below two domes the chest is filled with abdominal fat under a thin sheet of muscle."""
    for index, z_mm in enumerate(canvas.z_mm):
        if z_mm > max(tops_mm):
            continue
        labels, x, y = canvas.labels[index], canvas.x_planes[index], canvas.y_planes[index]
        lung = labels == Label.LUNG
        domes = []
        for side, top in zip((-1, 1), tops_mm, strict=True):
            # The dome is flat under the heart and falls steeply to the sides and to the back.
            across = side * x - 58
            across = across * np.where(across < 0, np.float32(1 / 95), np.float32(1 / 62))
            out = across**2 + ((y + 22) / np.float32(92)) ** 2
            domes.append(top - np.float32(46) * out - np.float32(14) * out * out)
        left = np.clip(x * np.float32(1 / 80) + np.float32(0.5), 0, 1)
        depth = (1 - left) * domes[0] + left * domes[1] - z_mm
        labels[lung & (depth > 0)] = Label.MUSCLE
        labels[lung & (depth > 3.5)] = fat
        round_ = (x / np.float32(66)) ** 2 + ((y + 30) / np.float32(78)) ** 2 < 1
        middle = (labels == Label.FAT) & round_ & (depth > 2)
        a, b, y0 = build.cavity(float(z_mm))
        inside = (x / a) ** 2 + ((y - y0) / b) ** 2 < 1
        labels[middle & inside] = fat


def _near(rng: np.random.Generator, place: Sequence[float], sd_mm: float = 5.0) -> Place:
    x, y, z = np.asarray(place) + rng.normal(0, sd_mm, 3)
    return float(x), float(y), float(z)


def _paint_solid(
    canvas: PlanesCanvas, build: Build, palette: Palette, rng: np.random.Generator, *, fat: int, top_mm: float
) -> None:
    only = (fat,)
    for side in (-1, 1):
        middle = _near(rng, (side * 62, 52, -255 if side < 0 else -240))
        axes = rotation(side * 30.0 + float(rng.normal(0, 8)), side * 12.0)
        canvas.ellipsoid(middle, (28, 24, 52), Label.KIDNEY, axes=axes, only=only)
        medulla = palette.near(Label.KIDNEY, 2)
        palette.fraction[medulla] = 0.75
        canvas.ellipsoid(middle, (20, 16, 42), medulla, axes=axes, only=(Label.KIDNEY,))
        canvas.ellipsoid(
            (middle[0] - side * 8, middle[1] - 3, middle[2]), (17, 10, 26), fat, axes=axes, only=(Label.KIDNEY, medulla)
        )
        if rng.random() < 0.2:
            cyst = palette.instance(Label.SEROMA, float(rng.uniform(-2, 20)))
            canvas.ellipsoid(_near(rng, middle, 18), (14, 14, 14), cyst, only=(*only, Label.KIDNEY))
        gland = (side * 32.0, 40.0, -200.0)
        for turn in (20.0, -30.0):
            canvas.ellipsoid(gland, (12, 2.5, 14), Label.ADRENAL, axes=rotation(side * turn + 60), only=only)
        crus = [(side * 15.0, build.spine_y(z) - 14, z) for z in (-150.0, -200.0, -300.0)]
        canvas.path(crus, [4.0, 6.0, 9.0], Label.MUSCLE, only=(fat, Label.FAT))
    canvas.ellipsoid(
        _near(rng, (102, 44, -185)),
        (26, rng.uniform(30, 46), rng.uniform(38, 60)),
        Label.SPLEEN,
        axes=rotation(-25.0),
        only=only,
    )
    gland_size = float(rng.uniform(7, 13))
    canvas.path(
        [_near(rng, p, 4) for p in ((-30, -18, -240), (0, -22, -222), (35, -2, -212), (75, 25, -200))],
        [gland_size * 1.5, gland_size, gland_size, gland_size * 0.8],
        Label.PANCREAS,
        only=only,
    )
    _paint_liver(canvas, palette, rng, fat, top_mm)


def _paint_liver(canvas: PlanesCanvas, palette: Palette, rng: np.random.Generator, fat: int, top_mm: float) -> None:
    only = (fat, Label.KIDNEY)
    x, y, z = _near(rng, (-60, -2, top_mm - 88), 4)
    canvas.ellipsoid((x, y, z), (98, 96, 90), Label.LIVER, only=(fat,))
    reach = float(rng.uniform(45, 105))
    canvas.ellipsoid((-12.0, -46.0, top_mm - 72), (reach, 38, 50), Label.LIVER, axes=rotation(-12.0), only=only)
    hollow = (-20.0, 30.0, z - 70)
    canvas.ellipsoid(hollow, (45, 38, 60), fat, axes=rotation(20.0), only=(Label.LIVER,))
    top = (-24.0, 12.0, top_mm - 18)
    for dx, dy, dz in ((-62, 20, -60), (-48, -38, -50), (2, -55, -40), (-85, -5, -70)):
        middle = (top[0] + dx * 0.5, top[1] + dy * 0.5, top[2] + dz * 0.35)
        canvas.path(
            [top, middle, (top[0] + dx, top[1] + dy, top[2] + dz)], [5.5, 4, 2], Label.HEPATIC_VEIN, only=(Label.LIVER,)
        )
    hilum = (-28.0, -8.0, top_mm - 88)
    canvas.path([(0.0, 0.0, top_mm - 125), hilum], [7, 7], Label.PORTAL_VEIN, only=(fat, Label.PANCREAS, Label.LIVER))
    for dx, dy, dz in ((-50, 25, 5), (-45, -30, 10), (20, -45, 18), (-70, 0, -25)):
        canvas.path(
            [
                hilum,
                (hilum[0] + dx * 0.6, hilum[1] + dy * 0.6, hilum[2] + dz),
                (hilum[0] + dx, hilum[1] + dy, hilum[2] + dz * 1.2),
            ],
            [6, 4, 2],
            Label.PORTAL_VEIN,
            only=(Label.LIVER,),
        )
    canvas.path(
        [(10.0, 8.0, top_mm - 118), (55.0, 25.0, -205), (90.0, 35.0, -195)],
        [4.5, 4.0, 3.5],
        Label.PORTAL_VEIN,
        only=(fat, Label.PANCREAS),
    )
    if rng.random() < 0.7:
        canvas.ellipsoid(_near(rng, (-55, -40, top_mm - 125)), (16, 20, 30), Label.GALLBLADDER, only=(fat, Label.LIVER))
    for _ in range(int(rng.integers(0, 3))):
        spot = palette.instance(Label.SEROMA, float(rng.uniform(0, 25)))
        size = float(rng.uniform(3, 15))
        canvas.ellipsoid(_near(rng, (-70, 0, top_mm - 70), 22), (size, size, size), spot, only=(Label.LIVER,))


def _paint_visceral(canvas: PlanesCanvas, build: Build, rng: np.random.Generator, fat: int) -> None:
    """Branches of the aorta, veins of the kidneys and small vessels in the fat between the bowels."""
    only = (fat, Label.FAT)
    front = build.spine_y(-220.0) - 24
    for z, reach in ((-205.0, 30.0), (-222.0, 40.0)):  # to liver and spleen, and to the bowel
        trunk = [
            (10.0, front + 4, z),
            (8.0, front - 12, z - 4),
            _near(rng, (6, front - 12 - 0.3 * reach, z - reach), 4),
        ]
        canvas.path(trunk, [4.0, 3.5, 2.5], Label.PORTAL_VEIN, only=only)
    for side in (-1, 1):
        kidney = _near(rng, (side * 48, 46, -246), 4)
        for start, radius in (((-22.0, 22.0, -238.0), 4.0), ((6.0, front + 6, -236.0), 2.5)):
            canvas.path([start, (side * 24.0, 28.0, -240.0), kidney], [radius] * 3, Label.PORTAL_VEIN, only=only)
    for _ in range(int(rng.integers(8, 26))):
        first = np.asarray(_near(rng, (15, -25, -250), 30))
        ways = np.cumsum(rng.normal(0, 9, (3, 3)), axis=0)
        points = [(float(x), float(y), float(z)) for x, y, z in first + ways]
        canvas.path(points, [float(rng.uniform(0.7, 1.8))] * 3, Label.PORTAL_VEIN, only=(fat,))


def _paint_gut(canvas: PlanesCanvas, build: Build, palette: Palette, rng: np.random.Generator, fat: int) -> None:
    """Stomach and bowel: a thin wall that lights around contents that do not."""
    size = float(rng.uniform(0.55, 1.7))
    top = float(rng.uniform(-175, -140))
    own = rng.spawn(1)[0]
    full = own.random() < 0.45
    if full:  # a large meal: from the spleen to the right of the spine
        size = float(own.uniform(1.3, 2.2))
    stomach = [
        ((62.0, 18.0, top), (30 * size, 34 * size, 34.0)),
        ((66.0, -15.0, top - 32), (28 * size, 34 * size, 40.0)),
        ((42.0, -42.0, top - 62), (34 * size, 24 * size, 30.0)),
        ((0.0, -48.0, top - 75), (32.0, 18 * size, 20.0)),
    ]
    if full:
        stomach += [
            ((78.0, 30.0, top - 12), (24 * size, 26 * size, 40.0)),
            ((-30.0, -50.0, top - 84), (26.0, 16 * size, 22.0)),
        ]
    parts = [(_near(rng, p, 4), a) for p, a in stomach]
    _paint_hollow(canvas, build, palette, rng, parts=parts, only=(fat, Label.LIVER))
    for x, y, z, count in (
        (95, -30, -185, 3),
        (-70, -50, -250, 3),
        (20, -62, -260, 4),
        (60, -20, -270, 3),
        (0, -20, -275, 3),
    ):
        start = np.asarray(_near(rng, (x, y, z), 8))
        r = float(rng.uniform(9, 22))
        loops = [
            (_near(rng, (start + rng.normal(0, 16, 3) * [1, 0.7, 1]).tolist(), 2), (r, r * 0.9, r))
            for _ in range(count)
        ]
        _paint_hollow(canvas, build, palette, rng, parts=loops, only=(fat,))


def _paint_hollow(
    canvas: PlanesCanvas,
    build: Build,
    palette: Palette,
    rng: np.random.Generator,
    *,
    parts: Sequence[tuple[Place, Place]],
    only: Sequence[int],
) -> None:
    wall = float(rng.uniform(1.5, 4.0))
    for place, (a, b, c) in parts:
        canvas.ellipsoid(place, (a, b, c), Label.GUT_WALL, only=only)
    for place, (a, b, c) in parts:
        inner = (max(a - wall, 1), max(b - wall, 1), max(c - wall, 1))
        canvas.ellipsoid(place, inner, UNDECIDED, only=(Label.GUT_WALL,))
    places, sizes = np.array([p for p, _ in parts]), np.array([a for _, a in parts])
    box = canvas.box((places - sizes).min(axis=0), (places + sizes).max(axis=0))
    if box is None:
        return
    block = canvas.labels[box]
    inside = block == UNDECIDED
    if not inside.any():
        return
    block[inside] = _contents(canvas, palette, rng, box)[inside]
    # Gas rises: against gravity.
    height = -build.gravity * canvas.y_planes[box]
    if rng.random() < 0.75:
        levels = height[inside]
        level = levels.min() + (levels.max() - levels.min()) * float(rng.uniform(0.15, 1.0))
        block[inside & (height > level)] = Label.GUT_GAS


def _contents(
    canvas: PlanesCanvas, palette: Palette, rng: np.random.Generator, box: tuple[slice, slice, slice]
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Codes of fluid, or of food: crumbs of fat, water, dense bits and gas in a field [z, y, x]."""
    shape = canvas.labels[box].shape
    fluid = palette.instance(
        Label.GUT_CONTENT, float(rng.uniform(-5, 60)), fine_hu=3, coarse_hu=float(rng.uniform(0, 10))
    )
    codes = np.full(shape, fluid, np.uint8)
    if rng.random() < 0.35:
        return codes
    pixel = float(abs(canvas.x_planes[0, 0, 1] - canvas.x_planes[0, 0, 0]))
    step = float(canvas.z_mm[1] - canvas.z_mm[0]) if len(canvas.z_mm) > 1 else 2.0
    crumbs = smooth_field(rng, shape, (step, pixel, pixel), float(rng.uniform(4, 12)))
    for low, hu in ((0.7, rng.uniform(40, 90)), (-9.0, rng.uniform(-60, 0))):
        code = palette.instance(Label.GUT_CONTENT, float(hu), fine_hu=10, coarse_hu=8)
        codes[crumbs > low if low > 0 else crumbs < -0.9] = code
    codes[crumbs < -float(rng.uniform(1.3, 2.6))] = Label.GUT_GAS
    return codes
