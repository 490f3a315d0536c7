"""The tissues of a teaching patient: HU, enhancement and grain of every code that is painted.

A code below 128 is a `Label`; one from 128 on is an instance of a label with HU of its own, such as one of many masses.
Enhancement is a fraction of e, the enhancement of blood; no vein carries undiluted contrast. Where nobody can tell from
a native scan what lights (airless lung, consolidation), the fraction is a convention: 0 to 0.2.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.phantom.tissues import Label

_FIRST_INSTANCE = 128
UNDECIDED = 255
"""Contents of the gut before it is decided what they are; never left in a finished volume."""


@dataclass(frozen=True)
class _Range:
    """Native HU and fraction of e between patients; SD of the grain of about 3 mm and of about 15 mm in HU."""

    hu: tuple[float, float]
    fraction: tuple[float, float] = (0.0, 0.0)
    fine_hu: float = 0.0
    coarse_hu: float = 0.0


_TISSUES = {
    Label.AIR: _Range((-1000, -1000)),
    Label.SKIN: _Range((5, 50), (0.0, 0.1)),
    Label.FAT: _Range((-118, -88), fine_hu=5, coarse_hu=4),
    Label.GLAND: _Range((5, 45), (0.0, 0.12), 6, 8),
    Label.LUNG: _Range((-890, -740), fine_hu=18, coarse_hu=16),
    Label.CORTICAL_BONE: _Range((450, 950), fine_hu=60, coarse_hu=30),
    Label.RIB_MARROW: _Range((60, 260), (0.0, 0.05), 35, 25),
    Label.VERTEBRA: _Range((70, 260), (0.0, 0.08), 20, 12),
    Label.DISC: _Range((60, 95), fine_hu=6),
    Label.CARTILAGE: _Range((70, 140), fine_hu=12, coarse_hu=15),
    Label.SPINAL_CANAL: _Range((15, 40), fine_hu=4),
    Label.LYMPH_NODE: _Range((20, 50), (0.3, 0.4)),
    Label.METASTATIC_NODE: _Range((35, 55), (0.3, 0.4)),
    Label.NODE_HILUM: _Range((-70, -20)),
    Label.LIVER: _Range((38, 70), (0.42, 0.48), 2, 2),
    Label.SPLEEN: _Range((40, 56), (0.57, 0.63), 1, 1),
    Label.KIDNEY: _Range((24, 40), (0.85, 0.95), 1, 1),
    Label.PANCREAS: _Range((25, 48), (0.45, 0.55), 10, 5),
    Label.ADRENAL: _Range((10, 38), (0.35, 0.5)),
    Label.OESOPHAGUS: _Range((28, 45), (0.1, 0.2)),
    Label.AIRWAY: _Range((-995, -980)),
    Label.AIRWAY_WALL: _Range((5, 40), (0.05, 0.15)),
    Label.THYROID: _Range((65, 125), (0.65, 0.75), 6, 5),
    Label.PLEURAL_EFFUSION: _Range((0, 24), fine_hu=1, coarse_hu=1),
    Label.PERICARDIAL_FLUID: _Range((0, 24)),
    Label.CONSOLIDATION: _Range((15, 50), (0.0, 0.2), 14, 14),
    Label.ATELECTASIS: _Range((22, 52), (0.0, 0.2), 5, 5),
    Label.GROUND_GLASS: _Range((-680, -350), (0.0, 0.02), 45, 70),
    Label.GUT_CONTENT: _Range((-5, 35), fine_hu=3, coarse_hu=3),
    Label.GUT_GAS: _Range((-1000, -960)),
    Label.GUT_WALL: _Range((25, 45), (0.25, 0.3)),
    Label.GALLBLADDER: _Range((-2, 22)),
    Label.PERICARDIUM: _Range((10, 40), (0.0, 0.1)),
    Label.CALCIFICATION: _Range((180, 900)),
    Label.METAL: _Range((2500, 3000)),
    Label.IMPLANT: _Range((-5, 120)),
    Label.SEROMA: _Range((0, 30)),
    Label.THYMUS: _Range((-85, 25), (0.0, 0.1), 12, 14),
    Label.COUCH_SHELL: _Range((-250, 100)),
    Label.COUCH_FOAM: _Range((-985, -880), fine_hu=6),
    Label.COUCH_RAIL: _Range((200, 900)),
}
_BLOOD = (
    Label.LEFT_VENTRICLE,
    Label.RIGHT_VENTRICLE,
    Label.LEFT_ATRIUM,
    Label.RIGHT_ATRIUM,
    Label.AORTA,
    Label.PULMONARY_ARTERY,
    Label.SVC,
    Label.BRACHIOCEPHALIC_VEIN,
    Label.SUBCLAVIAN_ARTERY,
    Label.SUBCLAVIAN_VEIN,
    Label.INTERNAL_MAMMARY,
    Label.LUNG_ARTERY,
    Label.LUNG_VEIN,
    Label.CAROTID,
    Label.JUGULAR,
    Label.AZYGOS,
    Label.HEPATIC_VEIN,
    Label.PORTAL_VEIN,
    Label.CORONARY,
)
_IVC_FRACTION = 0.85


class Palette:
    """Look-up tables over codes, [256]: native HU, enhancement as a fraction of e, grain, and the label of a code."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw one patient's tissues: e 40 to 200 HU, blood 30 to 58 HU, muscle 40 to 65 HU, each evenly."""
        self._rng = rng
        self.hu, self.fraction, self.fine_hu, self.coarse_hu = (np.zeros(256, np.float32) for _ in range(4))
        self.labels: NDArray[np.uint8] = np.arange(256, dtype=np.uint8)
        self._next = _FIRST_INSTANCE
        self.e_hu = float(rng.uniform(40, 200))
        self.blood_hu = float(rng.uniform(30, 58))
        self.muscle_hu = float(rng.uniform(40, 65))
        for label, tissue in _TISSUES.items():
            self._set(label, float(rng.uniform(*tissue.hu)), float(rng.uniform(*tissue.fraction)), tissue)
        if rng.random() < 0.25:  # a fatty liver
            self.hu[Label.LIVER] = rng.uniform(0, 40)
        grain = rng.uniform(0, 2), rng.uniform(0, 3)
        for label in _BLOOD:
            self.hu[label], self.fraction[label] = self.blood_hu, rng.uniform(0.97, 1.03)
            # Blood must not be known by its evenness either.
            self.fine_hu[label], self.coarse_hu[label] = grain
        self.hu[Label.IVC], self.fraction[Label.IVC] = self.blood_hu, _IVC_FRACTION
        self.hu[Label.MYOCARDIUM], self.fraction[Label.MYOCARDIUM] = self.blood_hu + rng.uniform(-4, 8), 0.5
        # Marbling by fat makes a muscle darker in streaks.
        marbling = float(rng.exponential(6))
        self._set(Label.MUSCLE, self.muscle_hu, float(rng.uniform(0.03, 0.1)), _Range((0, 0), fine_hu=3 + marbling))
        self.coarse_hu[Label.MUSCLE] = 2 + 0.4 * marbling

    def instance(
        self, label: Label, hu: float, fraction: float = 0.0, *, fine_hu: float = 0.0, coarse_hu: float = 0.0
    ) -> int:
        """A new code of a label with HU and enhancement of its own; the label's own code once all are taken."""
        if self._next == UNDECIDED:
            return int(label)
        code, self._next = self._next, self._next + 1
        self._set(code, hu, fraction, _Range((0, 0), (0, 0), fine_hu, coarse_hu))
        self.labels[code] = label
        return code

    def near(self, label: Label, sd_hu: float) -> int:
        """A new code of a label a little darker or brighter than its own."""
        fine, coarse = float(self.fine_hu[label]), float(self.coarse_hu[label])
        hu = float(self.hu[label]) + float(self._rng.normal(0, sd_hu))
        return self.instance(label, hu, float(self.fraction[label]), fine_hu=fine, coarse_hu=coarse)

    def _set(self, code: int, hu: float, fraction: float, tissue: _Range) -> None:
        self.hu[code], self.fraction[code] = hu, fraction
        self.fine_hu[code], self.coarse_hu[code] = tissue.fine_hu, tissue.coarse_hu
