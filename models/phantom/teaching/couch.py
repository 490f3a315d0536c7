"""What lies under the patient: a diagnostic or a flat top, foam, a wedge, a vacuum bag."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.phantom.body import Couch, paint_couch
from models.phantom.teaching.build import Build
from models.phantom.tissues import Label


@dataclass(frozen=True)
class Support:
    """What lies on the side to which gravity points; `slope` of a wedge along z, `thick_mm` of a bag."""

    kind: str
    slope: float
    thick_mm: float
    couch: Couch
    gravity: int

    @classmethod
    def draw(cls, rng: np.random.Generator, build: Build) -> "Support":
        """Draw one of them, or nothing where the view ends above the couch."""
        kind = str(rng.choice(["bag", "wedge", "flat", "couch", "none"], p=[0.17, 0.15, 0.3, 0.33, 0.05]))
        couch = replace(build.couch, curvature_per_mm=0.0) if kind == "flat" else build.couch
        return cls(kind, float(rng.uniform(0.05, 0.2)), float(rng.uniform(15, 60)), couch, build.gravity)

    def paint(self, labels: NDArray[np.uint8], line_mm: NDArray[np.float32], z_mm: NDArray[np.float32]) -> None:
        """Paint where labels [z, y, x] are air; `line_mm` holds the positions of rows and of columns."""
        turned = labels if self.gravity > 0 else labels[:, ::-1]
        line_mm = line_mm if self.gravity > 0 else -line_mm[::-1]
        if self.kind == "bag":
            _paint_bag(turned, line_mm, self.thick_mm)
        elif self.kind == "wedge":
            _paint_wedge(turned, line_mm, z_mm, self.slope)
        elif self.kind != "none":
            paint_couch(turned, line_mm, self.couch)


def _lowest(body: NDArray[np.bool_], line_mm: NDArray[np.float32]) -> float:
    rows = np.flatnonzero(body.any(axis=(0, 2)))
    return float(line_mm[rows[-1]]) if rows.size else 0.0


def _paint_wedge(
    labels: NDArray[np.uint8], line_mm: NDArray[np.float32], z_mm: NDArray[np.float32], slope: float
) -> None:
    """A breast board: foam that is thicker towards the head, on a carbon plate."""
    lowest = _lowest(labels != Label.AIR, line_mm)
    depth, across = line_mm[:, None] - lowest, np.abs(line_mm[None]) < 220
    for plane, z in zip(labels, z_mm, strict=True):
        under = 12 + slope * (float(z) - float(z_mm[0]))
        air = plane == Label.AIR
        plane[air & across & (depth > 1) & (depth < under)] = Label.COUCH_FOAM
        plane[air & across & ((np.abs(depth - under) < 1.5) | (np.abs(depth - 1) < 1.2))] = Label.COUCH_SHELL


def _paint_bag(labels: NDArray[np.uint8], line_mm: NDArray[np.float32], thick_mm: float) -> None:
    """A vacuum bag: beads that follow the back and rise beside it."""
    body = labels != Label.AIR
    lowest = _lowest(body, line_mm)
    y, x = line_mm[:, None], np.abs(line_mm[None])
    step = float(line_mm[1] - line_mm[0])
    for plane, there in zip(labels, body, strict=True):
        columns = np.flatnonzero(there.any(axis=0))
        if not columns.size:
            continue
        half = max(abs(float(line_mm[columns[0]])), abs(float(line_mm[columns[-1]])))
        bag = (y < lowest + thick_mm * 0.6) & (y > lowest - thick_mm - 20) & (x < half + thick_mm)
        above = np.cumsum(there[::-1], axis=0)[::-1] > 0  # body lies below: in front of the patient, no bag
        plane[(plane == Label.AIR) & bag & ~above] = Label.COUCH_FOAM
        edge = np.abs(y - lowest - thick_mm * 0.6) < max(step, 1.5)
        plane[(plane == Label.AIR) & edge & (x < half + thick_mm)] = Label.COUCH_SHELL
