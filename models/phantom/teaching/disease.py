"""What a planner meets beside health: masses that touch vessels, effusions, airless and dense lung, metal.

None of it lights by more than 0.2 of the blood's enhancement. For airless lung and consolidation that is a convention,
since a native scan does not tell; a model must not invent it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.phantom.canvas import rotation
from models.phantom.teaching.build import Build
from models.phantom.teaching.heart import Landmarks
from models.phantom.teaching.palette import Palette
from models.phantom.teaching.planes import Place, PlanesCanvas
from models.phantom.tissues import Label

AERATED = (Label.LUNG, Label.GROUND_GLASS)
_UNDER_SKIN = (Label.FAT, Label.MUSCLE)
_MASS_OVER = (
    Label.LUNG,
    Label.FAT,
    Label.GROUND_GLASS,
    Label.CONSOLIDATION,
    Label.LYMPH_NODE,
    Label.THYMUS,
    Label.ATELECTASIS,
)


def paint_dense_lung(
    canvas: PlanesCanvas, build: Build, palette: Palette, rng: np.random.Generator, texture: NDArray[np.float32]
) -> None:
    """Ground glass, consolidation, bands of airless lung and a collapsed lobe; `texture` [2, y, x]."""
    for side in (-1, 1):
        if rng.random() < 0.22:
            place = (side * rng.uniform(50, 95), rng.uniform(-45, 55), _level(rng, canvas, -140, 80))
            glass, size = palette.near(Label.GROUND_GLASS, 60), float(rng.uniform(20, 60))
            _patch(canvas, rng, place, code=glass, size=size, texture=texture)
        if rng.random() < 0.18:
            place = (side * rng.uniform(55, 100), rng.uniform(-40, 60), _level(rng, canvas, -140, 70))
            dense, size = palette.near(Label.CONSOLIDATION, 8), float(rng.uniform(12, 45))
            _patch(canvas, rng, place, code=dense, size=size, texture=texture)
        if rng.random() < 0.18:
            place = (side * rng.uniform(35, 60), rng.uniform(15, 60), _level(rng, canvas, -110, 10))
            axes = (rng.uniform(10, 38), rng.uniform(8, 24), rng.uniform(20, 55))
            code = palette.near(Label.ATELECTASIS, 6)
            canvas.ellipsoid(
                place, axes, code, axes=rotation(side * rng.uniform(-60, 20), rng.uniform(-25, 25)), only=AERATED
            )


def _level(rng: np.random.Generator, canvas: PlanesCanvas, low_mm: float, high_mm: float) -> float:
    """A level between two, where the volume shows it if it shows any of them."""
    low, high = max(low_mm, float(canvas.z_mm[0]) - 5), min(high_mm, float(canvas.z_mm[-1]) + 5)
    return float(rng.uniform(low, high) if low < high else rng.uniform(low_mm, high_mm))


def _patch(
    canvas: PlanesCanvas,
    rng: np.random.Generator,
    place: Place,
    *,
    code: int,
    size: float,
    texture: NDArray[np.float32],
) -> None:
    """An ellipsoid with a ragged border in aerated lung."""
    axes = np.array([size, size * rng.uniform(0.5, 1), size * rng.uniform(0.5, 1.1)])
    where = canvas.box(np.asarray(place) - axes * 1.4, np.asarray(place) + axes * 1.4)
    if where is None:
        return
    x, y, z = canvas._relative(where, place)
    ragged = texture[0][where[1], where[2]] * np.cos(z / 12) + texture[1][where[1], where[2]] * np.sin(z / 12)
    inside = (x / axes[0]) ** 2 + (y / axes[1]) ** 2 + (z / axes[2]) ** 2 < 1 + 0.45 * ragged
    canvas._fill(where, inside, code, AERATED)


def paint_effusions(canvas: PlanesCanvas, build: Build, palette: Palette, rng: np.random.Generator) -> None:
    """Fluid in the lowest part of a chest by gravity, from a thin line to half of it, with airless lung above."""
    for side in (-1, 1):
        drawn = rng.random() < 0.17
        level, slope = float(rng.uniform(-35, 84)), float(rng.uniform(-0.12, 0.02))
        band = float(rng.uniform(0, 26)) if rng.random() < 0.7 else 0.0
        thin = float(rng.uniform(0, 5)) if rng.random() < 0.2 else 0.0
        fluid, airless = palette.near(Label.PLEURAL_EFFUSION, 6), palette.near(Label.ATELECTASIS, 6)
        top = float(rng.uniform(-70, 90))
        if drawn or thin:
            limits = (level if drawn else 1e3, band if drawn else thin, top)
            _pour(canvas, build, side, limits, slope=slope, codes=(fluid, airless))


def _pour(
    canvas: PlanesCanvas, build: Build, side: int, limits: Place, *, slope: float, codes: tuple[int, int]
) -> None:
    level, band, top = limits
    for index, z_mm in enumerate(canvas.z_mm):
        z = float(z_mm)
        if z > 112:
            continue
        labels, x, y = canvas.labels[index], canvas.x_planes[index], canvas.y_planes[index]
        a, b, y0 = build.cavity(z)
        lung = np.isin(labels, (Label.LUNG, Label.GROUND_GLASS)) & (x * side > 0)
        deep = build.gravity * (y - y0)
        # Depth below the pleura in mm; fluid climbs along it.
        rim = (1 - np.sqrt((x / a) ** 2 + ((y - y0) / b) ** 2)) * np.float32(0.5 * (a + b))
        climbed = deep + 22 * np.exp(-np.maximum(rim, 0) * np.float32(1 / 6)) * (deep > -25)
        surface = level + slope * (z + 100) + max(0.0, z - top) * 0.8
        if level > 500:  # no fluid: a band of airless lung on the lowest pleura
            labels[lung & (rim < band) & (deep > 0.45 * b)] = codes[1]
            continue
        labels[lung & (climbed > surface - band) & (deep > surface - band - 14)] = codes[1]
        labels[lung & (climbed > surface)] = codes[0]


def paint_masses(
    canvas: PlanesCanvas, build: Build, palette: Palette, rng: np.random.Generator, marks: Landmarks
) -> None:
    """Nought to five masses: in the lung, on the pleura, at the hilum, in the mediastinum touching a vessel."""
    for _ in range(int(rng.choice([0, 1, 1, 2, 3, 4]))):
        radius = float(np.exp(rng.uniform(np.log(2.5), np.log(45))))
        kind = rng.random()
        if kind < 0.5:
            radius = max(radius, 6.0)
            place = _beside(rng, marks, radius, canvas)
        elif kind < 0.68:
            place = _on_pleura(build, rng, _level(rng, canvas, -120, 95))
        else:
            place = (
                float(rng.choice([-1, 1]) * rng.uniform(40, 105)),
                float(rng.uniform(-55, 60)),
                _level(rng, canvas, -120, 85),
            )
        _paint_mass(canvas, palette, rng, place, radius)


def _beside(rng: np.random.Generator, marks: Landmarks, radius: float, canvas: PlanesCanvas) -> Place:
    """A place where a mass touches a vessel or the heart, or grows half around it."""
    track = marks.touchable[str(rng.choice(["aorta", "aorta", "aorta", "pulmonary", "svc", "heart"]))]
    low, high = float(canvas.z_mm[0]), float(canvas.z_mm[-1])
    seen = [item for item in track if max(low, -130) < item[0][2] < high] or track
    (x, y, z), r = seen[int(rng.integers(len(seen)))]
    angle = float(rng.uniform(0, 2 * np.pi))
    away = r + radius * float(rng.uniform(0.0, 0.95))
    return x + away * float(np.cos(angle)), y + away * float(np.sin(angle)), z + float(rng.normal(0, 5))


def _on_pleura(build: Build, rng: np.random.Generator, z: float) -> Place:
    a, b, y0 = build.cavity(z)
    turn = float(rng.uniform(0.15, 0.9) * np.pi)
    return float(rng.choice([-1, 1])) * a * float(np.sin(turn)), y0 - b * float(np.cos(turn)), z


def _paint_mass(canvas: PlanesCanvas, palette: Palette, rng: np.random.Generator, place: Place, radius: float) -> None:
    code = palette.instance(
        Label.LUNG_MASS,
        float(rng.uniform(12, 60)),
        float(rng.uniform(0, 0.15)),
        fine_hu=float(rng.uniform(0, 4)),
        coarse_hu=float(rng.uniform(0, 9)),
    )
    axes = (radius, radius * float(rng.uniform(0.65, 1)), radius * float(rng.uniform(0.65, 1.2)))
    canvas.ellipsoid(
        place, axes, code, axes=rotation(float(rng.uniform(0, 180)), float(rng.uniform(-40, 40))), only=_MASS_OVER
    )
    shape = rng.random()
    if shape > 0.35:  # lobulated
        for _ in range(int(rng.integers(3, 8))):
            shift = rng.normal(size=3)
            lobe = np.asarray(place) + shift / np.linalg.norm(shift) * radius * rng.uniform(0.5, 0.9)
            r = radius * float(rng.uniform(0.35, 0.65))
            canvas.ellipsoid((float(lobe[0]), float(lobe[1]), float(lobe[2])), (r, r * 0.9, r), code, only=_MASS_OVER)
    if shape > 0.65:  # spiculated, in lung only
        for _ in range(int(rng.integers(8, 26))):
            way = rng.normal(size=3)
            tip = np.asarray(place) + way / np.linalg.norm(way) * (radius * rng.uniform(1.1, 1.6) + 4)
            canvas.capsule(np.asarray(place), tip, min(radius * 0.3, 4.0), 0.5, code, only=AERATED)
    if radius > 12 and rng.random() < 0.15:
        canvas.ellipsoid(place, (radius * 0.35, radius * 0.3, radius * 0.35), Label.GUT_GAS, only=(code,))
    elif radius > 10 and rng.random() < 0.3:  # a dead middle, which is darker
        dead = palette.instance(Label.LUNG_MASS, float(rng.uniform(5, 25)), 0.0)
        canvas.ellipsoid(place, (axes[0] * 0.5, axes[1] * 0.55, axes[2] * 0.5), dead, only=(code,))


def paint_breast_findings(canvas: PlanesCanvas, build: Build, palette: Palette, rng: np.random.Generator) -> None:
    """What surgery leaves in a breast: fluid, clips; and lumps, which a native scan does not tell from gland."""
    for breast in build.breasts:
        if breast.implant or rng.random() > 0.3:
            continue
        (x, y, z), (a, b, c) = breast.centre, breast.axes
        place = (
            x + float(rng.uniform(-0.5, 0.5)) * a,
            y - float(rng.uniform(0, 0.45)) * b,
            z + float(rng.uniform(-0.5, 0.5)) * c,
        )
        code = palette.instance(Label.SEROMA, float(rng.uniform(0, 45)), float(rng.uniform(0, 0.12)), fine_hu=2)
        size = float(rng.uniform(3, 0.4 * a + 3))
        over = (Label.FAT, *(int(v) for v in np.flatnonzero(palette.labels == Label.GLAND)))
        axes = (size, size * float(rng.uniform(0.6, 1)), size * float(rng.uniform(0.6, 1)))
        canvas.ellipsoid(place, axes, code, axes=rotation(float(rng.uniform(0, 180))), only=over)
        for _ in range(int(rng.integers(0, 5))):
            clip = np.asarray(place) + rng.normal(0, size * 0.7, 3)
            canvas.ellipsoid(
                (float(clip[0]), float(clip[1]), float(clip[2])),
                (1.2, 1.2, 2.0),
                Label.CALCIFICATION,
                only=(*over, code),
            )


def paint_devices(canvas: PlanesCanvas, build: Build, rng: np.random.Generator, marks: Landmarks) -> list[Place]:
    """A pacemaker with its wires or a port with its catheter in some patients; returns where metal casts streaks."""
    if rng.random() > 0.12:
        return []
    side = int(rng.choice([-1, 1]))
    box = (side * 82.0, build.front_y(45.0) - 18.0, 48.0)
    heart = marks.heart
    wire: Sequence[Place] = [box, (side * 70.0, -26.0, 76.0), (-28.0, -20.0, 32.0), (-28.0, -14.0, -10.0), heart]
    if rng.random() < 0.5:
        canvas.ellipsoid(box, (24, 5, 22), Label.METAL, axes=rotation(side * 25.0), only=_UNDER_SKIN)
        canvas.path(wire, [1.2] * 5, Label.METAL)
        return [box, (-28.0, -15.0, 0.0), heart]
    canvas.ellipsoid(box, (13, 6, 12), Label.CALCIFICATION, axes=rotation(side * 25.0), only=_UNDER_SKIN)
    canvas.path(wire[:4], [1.3] * 4, Label.CALCIFICATION)
    return []
