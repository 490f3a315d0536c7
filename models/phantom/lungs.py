"""What lies inside the lungs: branching vessels and disease."""

import numpy as np
from numpy.typing import NDArray

from models.phantom.canvas import Canvas, rotation
from models.phantom.tissues import Label

_GENERATIONS = 9
_SMALLEST_MM = 0.6


def paint_lung_disease(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint masses, collapsed lung and effusions in some patients: soft tissue in lung that is no vessel."""
    for side in (-1.0, 1.0):
        for _ in range(int(rng.integers(0, 3)) if rng.random() < 0.4 else 0):
            place = (side * rng.uniform(40, 105), rng.uniform(-50, 55), rng.uniform(-80, 60))
            size = float(rng.uniform(4, 24))
            axes = (size, size * rng.uniform(0.7, 1), size * rng.uniform(0.7, 1))
            canvas.ellipsoid(place, axes, Label.LUNG_MASS, axes=rotation(rng.uniform(0, 180)), only=(Label.LUNG,))
        if rng.random() < 0.2:
            place = (side * rng.uniform(40, 60), rng.uniform(40, 62), rng.uniform(-90, 0))
            axes = (rng.uniform(15, 35), rng.uniform(10, 22), rng.uniform(20, 45))
            canvas.ellipsoid(place, axes, Label.ATELECTASIS, axes=rotation(side * -40), only=(Label.LUNG,))
        if rng.random() < 0.2:
            place = (side * 70.0, 92.0 - rng.uniform(0, 14), rng.uniform(-120, -60))
            axes = (rng.uniform(50, 75), rng.uniform(14, 30), rng.uniform(40, 80))
            canvas.ellipsoid(place, axes, Label.PLEURAL_EFFUSION, axes=rotation(side * -30), only=(Label.LUNG,))


def paint_lung_vessels(canvas: Canvas, rng: np.random.Generator) -> None:
    """Grow two arterial and two venous trees from the hila."""
    for side in (-1.0, 1.0):
        artery = np.array([side * 50, 14, -20.0])
        vein = np.array([side * 52, 20, -40.0])
        for hilum, label in ((artery, Label.LUNG_ARTERY), (vein, Label.LUNG_VEIN)):
            for start in _trunks(side):
                _grow(canvas, rng, hilum, start, label)


def _trunks(side: float) -> NDArray[np.float64]:
    directions = np.array([[0.5, -0.3, 0.8], [0.6, 0.5, 0.4], [0.7, -0.5, -0.2], [0.5, 0.5, -0.8]])
    return np.asarray(directions * [side, 1, 1] / np.linalg.norm(directions, axis=1, keepdims=True))


def _grow(
    canvas: Canvas, rng: np.random.Generator, hilum: NDArray[np.float64], direction: NDArray[np.float64], label: Label
) -> None:
    """Double the branches generation by generation; a branch turns away from its sister and keeps its own plane."""
    starts, directions, radii = hilum[None], direction[None], np.array([rng.uniform(3.6, 4.6)])
    for _ in range(_GENERATIONS):
        lengths = radii * rng.uniform(5.5, 9.5, len(radii)) + 3
        ends = starts + directions * lengths[:, None]
        tips = radii * 0.85
        for p, q, r_p, r_q in zip(starts, ends, radii, tips, strict=True):
            canvas.capsule(p, q, float(r_p), float(r_q), label, only=(Label.LUNG,))
        sideways = np.cross(directions, rng.normal(size=directions.shape))
        sideways /= np.linalg.norm(sideways, axis=1, keepdims=True)
        spread = rng.uniform(0.35, 0.75, len(radii))[:, None]
        both = np.concatenate([directions + spread * sideways, directions - spread * sideways])
        directions = both / np.linalg.norm(both, axis=1, keepdims=True)
        starts = np.concatenate([ends, ends])
        radii = np.concatenate([tips * rng.uniform(0.76, 0.95, len(tips)), tips * rng.uniform(0.62, 0.88, len(tips))])
        alive = radii > _SMALLEST_MM
        starts, directions, radii = starts[alive], directions[alive], radii[alive]
