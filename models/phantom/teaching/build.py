"""Who lies on the couch: size, sex, fat, posture and what was done to the breasts."""

from dataclasses import dataclass

import numpy as np

from models.phantom.body import Body, Couch

Place = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Breast:
    """One breast in canonical mm; `side` -1 is the patient's right. `implant` lies in it, after a mastectomy too."""

    side: int
    centre: Place
    axes: Place
    implant: bool


@dataclass(frozen=True, kw_only=True)
class Build(Body):
    """A trunk with its posture; lengths in canonical mm, angles in radians.

    `gravity` is 1 where the back lies on the couch and -1 where the front does. `arms_up` of the right and left arm.
    """

    gravity: int
    arms_up: tuple[bool, bool]
    breasts: tuple[Breast, ...]
    chest: tuple[float, float]
    angle: float
    offset_mm: tuple[float, float]
    kyphosis_mm: float
    scoliosis_mm: tuple[float, float]
    mediastinal_fat: float
    muscle: float
    skin_mm: float
    elbow_shift_mm: tuple[float, float]
    layers_mm: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Build":
        """Draw a thin or obese woman or man in one of the postures."""
        fat_mm = float(np.clip(5 + rng.gamma(1.6, 10), 5, 70))
        size = rng.uniform(0.87, 1.15)
        gravity = 1 if rng.random() < 0.85 else -1
        up = rng.random() < 0.8
        other = up if rng.random() < 0.96 else not up
        body = Body.draw(rng)
        return cls(
            scale=(
                float(size * rng.uniform(0.93, 1.07)),
                float(size * rng.uniform(0.9, 1.1)),
                float(rng.uniform(0.9, 1.1)),
            ),
            fat_mm=fat_mm,
            breast_centre=body.breast_centre,
            breast_axes=body.breast_axes,
            gland_threshold=float(rng.uniform(0.0, 1.6)),
            septa=float(rng.uniform(0.02, 0.15)),
            couch=Couch.draw(rng),
            gravity=gravity,
            arms_up=(up, other),
            breasts=_draw_breasts(rng, fat_mm, gravity),
            chest=(float(rng.uniform(0.93, 1.05)), float(rng.uniform(0.9, 1.12))),
            angle=float(np.deg2rad(np.clip(rng.normal(0, 3), -8, 8))),
            offset_mm=(float(np.clip(rng.normal(0, 14), -40, 40)), float(np.clip(rng.normal(0, 16), -40, 40))),
            kyphosis_mm=float(rng.uniform(0, 22)),
            scoliosis_mm=(float(rng.normal(0, 5)), float(rng.uniform(0, 2 * np.pi))),
            mediastinal_fat=float(rng.uniform(0.7, 1.45)),
            muscle=float(rng.uniform(0.55, 1.3)),
            skin_mm=float(rng.uniform(1.2, 3.0)),
            layers_mm=(float(rng.uniform(17, 27)), float(rng.uniform(30, 60))),
            elbow_shift_mm=(float(rng.uniform(-25, 30)), float(rng.uniform(-30, 30))),
        )

    def cavity(self, z_mm: float) -> Place:
        """Half axes and centre (a, b, y) of the pleural cavity at a level."""
        a, b, y = super().cavity(z_mm)
        return a * self.chest[0], b * self.chest[1], y

    def joint(self, side: int) -> Place:
        """Middle of the head of the humerus."""
        return (side * 166.0, 12.0, 98.0) if self.is_up(side) else (side * 168.0, 14.0, 84.0)

    def elbow(self, side: int) -> Place:
        """The far end of the humerus."""
        dx, dy = self.elbow_shift_mm
        return (side * (190.0 + dx), dy, 320.0) if self.is_up(side) else (side * (215.0 + dx), 20 + dy, -200.0)

    def is_up(self, side: int) -> bool:
        """Whether the arm of this side lies beside the head."""
        return self.arms_up[0 if side < 0 else 1]

    def bend_mm(self, z_mm: float) -> tuple[float, float]:
        """Shift (x, y) of the body's cross section at a level by a bent spine."""
        size, phase = self.scoliosis_mm
        return size * float(np.sin(z_mm / 95 + phase)), self.kyphosis_mm * ((z_mm + 40) / 150) ** 2 * -0.6


def _draw_breasts(rng: np.random.Generator, fat_mm: float, gravity: int) -> tuple[Breast, ...]:
    woman = rng.random() < 0.65
    size = float(rng.uniform(0.35, 1.35)) * (0.75 + min(fat_mm, 45) / 100) if woman else float(rng.uniform(0.1, 0.4))
    missing = int(rng.choice([-1, 1])) if woman and rng.random() < 0.12 else 0
    spread = float(rng.uniform(70, 98))
    z_mm = float(rng.uniform(-85, -35))
    found = []
    for side in (-1, 1):
        removed = side == missing
        implant = (removed and rng.random() < 0.5) or (woman and rng.random() < 0.04)
        own = size * float(rng.uniform(0.88, 1.1))
        if removed:
            own = 0.75 if implant else 0.0
        if own == 0.0:
            continue
        # The breast of a prone patient hangs: narrower and deeper.
        a, b = (66 * own, 46 * own) if gravity > 0 else (58 * own, 80 * own)
        place = (side * (spread if gravity > 0 else 78.0), -80.0 - fat_mm * 0.5, z_mm + float(rng.normal(0, 5)))
        found.append(Breast(side=side, centre=place, axes=(a, b, 66 * own), implant=implant))
    return tuple(found)
