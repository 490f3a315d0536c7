"""How a patient moves between two scans: rigid, smooth, breathing, heart, couch.

Figures: breast 4DCT vector 2.1 mm (1748-717X-8-111), heart 2.3 to 2.6 mm per axis even in breath hold (PMC4158740),
diaphragm 10 to 15 mm along the body in free breathing, rigid residual up to 2 mm and about half a degree.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from models.displacement import node_count
from models.phantom.tissues import Label

Field = NDArray[np.float32]

NODE_STEP_PX = 4
LARGEST_SI_MM = 16.0
"""Bound of the motion along the body, which is what a volume needs as a margin."""
_NO_BODY = (Label.AIR, Label.COUCH_SHELL, Label.COUCH_FOAM, Label.COUCH_RAIL)
_HEART = (Label.LEFT_VENTRICLE, Label.RIGHT_VENTRICLE, Label.LEFT_ATRIUM, Label.RIGHT_ATRIUM, Label.MYOCARDIUM)
# Breathing moves nothing above the first level and everything below the second, in mm from the carina.
_APEX_MM, _DOME_MM = 60.0, -110.0
_HEART_RADIUS_MM = 50.0
_BACK_MM = 15.0


@dataclass(frozen=True)
class Motion:
    """One patient's motion between the scans; (z, y, x) in mm, angle in degrees about the body's axis.

    `smooth_rms_mm`: RMS length in plane of a random field whose covariance falls to 1/e at `correlation_mm`.
    `breathing_mm`: along the body at the dome, positive if the second scan shows organs further down. `cardiac_mm`:
    radial, positive if the heart is larger in the second scan. `couch_mm`: of the couch and the back lying on it.
    """

    shift_mm: tuple[float, float, float]
    angle_deg: float
    smooth_rms_mm: float
    correlation_mm: float
    breathing_mm: float
    cardiac_mm: float
    couch_mm: tuple[float, float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Motion":
        """Draw one patient's motion."""
        shift = rng.normal(0, 0.6, 3)
        couch = rng.normal(0, 1.0, 3)
        return cls(
            shift_mm=(float(shift[0]), float(shift[1]), float(shift[2])),
            angle_deg=float(np.clip(rng.normal(0, 0.4), -1, 1)),
            smooth_rms_mm=float(rng.uniform(1, 3)),
            correlation_mm=float(rng.uniform(25, 40)),
            breathing_mm=float(np.clip(rng.normal(0, 6), -12, 12)),
            cardiac_mm=float(np.clip(rng.normal(0, 2), -4, 4)),
            couch_mm=(float(couch[0]), float(couch[1]), float(couch[2])),
        )


def draw_field(
    rng: np.random.Generator,
    motion: Motion,
    labels: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    centre_z_mm: float,
) -> Field:
    """Nodes float32 [3, z, n, m] of the field that moves the first scan of labels [z, y, x] onto the second.

    Nodes lie NODE_STEP_PX apart in plane and on every slice; components (z, y, x) in mm, pulling back (see
    models.displacement), rounded to half precision as a cohort stores them. `centre_z_mm`: level of the middle slice.
    """
    where = _places(labels.shape, spacing_mm, centre_z_mm)
    body = ~np.isin(labels[:, ::NODE_STEP_PX, ::NODE_STEP_PX], _NO_BODY)
    middle, extent = _body_box(body, spacing_mm[1] * NODE_STEP_PX, where)
    field = _rigid(motion, where, middle) + _smooth(rng, motion, where.shape[1:], spacing_mm)
    field[0] += _breathing(motion, where, middle, extent)
    field += _cardiac(motion, where, labels, spacing_mm)
    # The couch carries the back: from 15 mm above the lowest skin on, everything moves with it.
    lowest = middle[0] + extent[0]
    on_couch = np.clip((where[1] - (lowest - _BACK_MM)) / _BACK_MM, 0, 1)
    couch = np.asarray(motion.couch_mm, dtype=np.float32)[:, None, None, None]
    field = (1 - on_couch) * field + on_couch * couch
    field[0] = np.clip(field[0], -LARGEST_SI_MM, LARGEST_SI_MM)
    return np.asarray(field.astype(np.float16), dtype=np.float32)


def _places(shape: tuple[int, ...], spacing_mm: tuple[float, float, float], centre_z_mm: float) -> Field:
    """Positions [3, z, n, m] of the nodes in mm: z from the carina, y and x from the middle of the picture."""
    slices, rows, columns = shape
    z = (np.arange(slices) - (slices - 1) / 2) * spacing_mm[0] + centre_z_mm
    y, x = (
        (np.arange(node_count(n, NODE_STEP_PX)) * NODE_STEP_PX - (n - 1) / 2) * spacing_mm[1] for n in (rows, columns)
    )
    return np.stack(np.meshgrid(z, y, x, indexing="ij")).astype(np.float32)


def _body_box(body: NDArray[np.bool_], node_mm: float, where: Field) -> tuple[tuple[float, float], tuple[float, float]]:
    """Middle and half extent (y, x) in mm of the body over all slices."""
    sides = []
    for axis in (1, 2):
        hit = np.flatnonzero(body.any(axis=(0, 3 - axis)))
        first = float(where[axis].min())
        low, high = (hit[0], hit[-1]) if hit.size else (0, body.shape[axis] - 1)
        sides.append((first + node_mm * (low + high) / 2, max(node_mm * (high - low) / 2, node_mm)))
    return (sides[0][0], sides[1][0]), (sides[0][1], sides[1][1])


def _rigid(motion: Motion, where: Field, middle: tuple[float, float]) -> Field:
    angle = np.deg2rad(motion.angle_deg)
    y, x = where[1] - middle[0], where[2] - middle[1]
    turned = np.stack([np.zeros_like(y), (np.cos(angle) - 1) * y + np.sin(angle) * x, (np.cos(angle) - 1) * x])
    turned[2] -= np.sin(angle) * y
    return np.asarray(turned + np.asarray(motion.shift_mm)[:, None, None, None], dtype=np.float32)


def _smooth(
    rng: np.random.Generator, motion: Motion, shape: tuple[int, ...], spacing_mm: tuple[float, float, float]
) -> Field:
    """Gaussian random field in plane; white noise is filtered with a margin, so that borders are like the middle."""
    steps_mm = (spacing_mm[0], spacing_mm[1] * NODE_STEP_PX, spacing_mm[2] * NODE_STEP_PX)
    # White noise after a Gaussian of sigma s has the covariance exp(-r^2 / (4 s^2)).
    sigmas = [motion.correlation_mm / 2 / step for step in steps_mm]
    margins = [int(np.ceil(2 * sigma)) for sigma in sigmas]
    field = np.zeros((3, *shape), np.float32)
    for component in (1, 2):
        noise = rng.standard_normal([n + 2 * m for n, m in zip(shape, margins, strict=True)], dtype=np.float32)
        smooth = gaussian_filter(noise, sigmas, mode="reflect", truncate=2.5)
        inner = tuple(slice(m, m + n) for n, m in zip(shape, margins, strict=True))
        field[component] = smooth[inner]
    length = float(np.sqrt((field**2).sum(axis=0).mean()))
    return field * np.float32(motion.smooth_rms_mm / length)


def _breathing(motion: Motion, where: Field, middle: tuple[float, float], extent: tuple[float, float]) -> Field:
    """Component z: grows from the apex to the dome, whole inside the chest, almost nothing at its wall and back."""
    depth = np.clip((where[0] - _APEX_MM) / (_DOME_MM - _APEX_MM), 0, 1)
    grown = depth * depth * (3 - 2 * depth)
    squared = ((where[1] - middle[0]) / (0.7 * extent[0])) ** 2 + ((where[2] - middle[1]) / (0.75 * extent[1])) ** 2
    return np.asarray(motion.breathing_mm * grown * np.exp(-(squared**2)), dtype=np.float32)


def _cardiac(motion: Motion, where: Field, labels: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> Field:
    """Radial about the heart's middle, largest at its border; nothing where the volume shows no heart."""
    heart = np.argwhere(np.isin(labels, _HEART))
    if not len(heart):
        return np.zeros_like(where)
    first = where[:, 0, 0, 0]
    middle = first + heart.mean(axis=0) * np.asarray(spacing_mm)
    radial = (where - middle.astype(np.float32)[:, None, None, None]) / np.float32(_HEART_RADIUS_MM)
    squared = (radial**2).sum(axis=0)
    # r exp((1 - r^2) / 2) has its largest value, 1, at r = 1. A larger heart shows at p what lay nearer to the middle.
    return np.asarray(-motion.cardiac_mm * radial * np.exp((1 - squared) / 2), dtype=np.float32)
