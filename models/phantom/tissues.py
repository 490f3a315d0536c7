"""The tissues of the phantom, their HU and their enhancement.

HU are at 120 kV; enhancement is the venous phase 60 to 75 s after injection, as a fraction of one number per patient:
e, the enhancement of the blood pool in HU, which nothing in the non-contrast scan tells.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Label(IntEnum):
    """Values of the label map."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    GLAND = 4
    LUNG = 5
    CORTICAL_BONE = 6
    RIB_MARROW = 7
    VERTEBRA = 8
    DISC = 9
    CARTILAGE = 10
    SPINAL_CANAL = 11
    MYOCARDIUM = 12
    LEFT_VENTRICLE = 13
    RIGHT_VENTRICLE = 14
    LEFT_ATRIUM = 15
    RIGHT_ATRIUM = 16
    AORTA = 17
    PULMONARY_ARTERY = 18
    SVC = 19
    BRACHIOCEPHALIC_VEIN = 20
    IVC = 21
    SUBCLAVIAN_ARTERY = 22
    SUBCLAVIAN_VEIN = 23
    INTERNAL_MAMMARY = 24
    LUNG_ARTERY = 25
    LUNG_VEIN = 26
    CAROTID = 27
    LYMPH_NODE = 28
    METASTATIC_NODE = 29
    NODE_HILUM = 30
    LIVER = 31
    SPLEEN = 32
    STOMACH = 33
    OESOPHAGUS = 34
    AIRWAY = 35
    AIRWAY_WALL = 36
    THYROID = 37
    COUCH_SHELL = 38
    COUCH_FOAM = 39
    AZYGOS = 40
    HEPATIC_VEIN = 41
    LUNG_MASS = 42
    ATELECTASIS = 43
    PLEURAL_EFFUSION = 44
    COUCH_RAIL = 45
    # Painted by the teaching anatomy only.
    PERICARDIAL_FLUID = 46
    CONSOLIDATION = 47
    GROUND_GLASS = 48
    GUT_CONTENT = 49
    GUT_GAS = 50
    GUT_WALL = 51
    KIDNEY = 52
    PANCREAS = 53
    ADRENAL = 54
    GALLBLADDER = 55
    JUGULAR = 56
    PORTAL_VEIN = 57
    CORONARY = 58
    PERICARDIUM = 59
    CALCIFICATION = 60
    METAL = 61
    IMPLANT = 62
    SEROMA = 63
    THYMUS = 64


BLOOD_POOL = (
    Label.LEFT_VENTRICLE,
    Label.RIGHT_VENTRICLE,
    Label.LEFT_ATRIUM,
    Label.RIGHT_ATRIUM,
    Label.AORTA,
    Label.PULMONARY_ARTERY,
)
"""Large vessels and chambers whose enhancement is e up to a few per cent."""


@dataclass(frozen=True)
class Hospital:
    """How a site injects and scans: enhancement e ~ N(mean, SD) clipped to 60..190 HU, noise and sharpness.

    `noise_sd_hu` is the mean over patients, who differ by 10 per cent with their size.
    """

    e_mean_hu: float
    e_sd_hu: float
    noise_sd_hu: float
    noise_f0_per_mm: float
    psf_sigma_mm: float


HOSPITALS = {
    "internal": Hospital(e_mean_hu=115, e_sd_hu=25, noise_sd_hu=12, noise_f0_per_mm=0.28, psf_sigma_mm=0.6),
    "external": Hospital(e_mean_hu=95, e_sd_hu=25, noise_sd_hu=12, noise_f0_per_mm=0.28, psf_sigma_mm=0.6),
}


@dataclass(frozen=True)
class _Tissue:
    """Native HU (mean, SD between patients) and enhancement = fraction * e + offset_hu."""

    hu: float
    sd_hu: float
    fraction: float = 0.0
    offset_hu: float = 0.0


_BLOOD_HU = 42.0  # drawn once per patient, since all blood of a person has one haematocrit
_TISSUES = {
    Label.AIR: _Tissue(-1000, 0),
    Label.SKIN: _Tissue(25, 8, 0.15),
    Label.FAT: _Tissue(-100, 8, 0.0, 1.5),
    Label.MUSCLE: _Tissue(52, 5, 0.12),
    Label.GLAND: _Tissue(30, 12, 0.12),
    Label.LUNG: _Tissue(-830, 35, 0.0, 12),
    Label.CORTICAL_BONE: _Tissue(800, 120),
    Label.RIB_MARROW: _Tissue(220, 40, 0.0, 5),
    Label.VERTEBRA: _Tissue(150, 35, 0.0, 12),
    Label.DISC: _Tissue(75, 8, 0.0, 3),
    Label.CARTILAGE: _Tissue(105, 15, 0.0, 2),
    Label.SPINAL_CANAL: _Tissue(25, 4, 0.0, 3),
    Label.MYOCARDIUM: _Tissue(46, 3, 0.5),
    Label.LYMPH_NODE: _Tissue(38, 6, 0.4),
    Label.METASTATIC_NODE: _Tissue(47, 3, 0.5),
    Label.NODE_HILUM: _Tissue(-30, 10, 0.05),
    Label.LIVER: _Tissue(58, 7, 0.45),
    Label.SPLEEN: _Tissue(48, 5, 0.6),
    Label.STOMACH: _Tissue(30, 8, 0.15),
    Label.OESOPHAGUS: _Tissue(40, 5, 0.3),
    Label.AIRWAY: _Tissue(-990, 0),
    Label.AIRWAY_WALL: _Tissue(15, 8, 0.2),
    Label.THYROID: _Tissue(105, 15, 0.75),
    Label.LUNG_MASS: _Tissue(38, 6, 0.3),
    Label.ATELECTASIS: _Tissue(42, 6, 0.6),
    Label.PLEURAL_EFFUSION: _Tissue(10, 5),
    Label.COUCH_SHELL: _Tissue(-40, 110),
    Label.COUCH_RAIL: _Tissue(600, 200),
    Label.COUCH_FOAM: _Tissue(-950, 8),
}
_BLOOD_FRACTIONS = {
    Label.LEFT_VENTRICLE: 1.0,
    Label.RIGHT_VENTRICLE: 0.98,
    Label.LEFT_ATRIUM: 1.0,
    Label.RIGHT_ATRIUM: 0.97,
    Label.AORTA: 1.05,
    Label.PULMONARY_ARTERY: 0.95,
    Label.SVC: 1.0,
    Label.BRACHIOCEPHALIC_VEIN: 1.0,
    Label.IVC: 0.7,
    Label.SUBCLAVIAN_ARTERY: 1.0,
    Label.SUBCLAVIAN_VEIN: 0.9,
    Label.INTERNAL_MAMMARY: 0.95,
    Label.LUNG_ARTERY: 0.95,
    Label.LUNG_VEIN: 1.0,
    Label.CAROTID: 1.0,
    Label.AZYGOS: 0.85,
    Label.HEPATIC_VEIN: 0.9,
}


@dataclass(frozen=True)
class PatientTissues:
    """Look-up tables over label values, float32 [256]: native HU and enhancement; the patient's e and noise."""

    hu: NDArray[np.float32]
    enhancement_hu: NDArray[np.float32]
    e_hu: float
    noise_sd_hu: float


def draw_tissues(rng: np.random.Generator, hospital: Hospital) -> PatientTissues:
    """Draw one patient's HU and enhancement."""
    e_hu = float(np.clip(rng.normal(hospital.e_mean_hu, hospital.e_sd_hu), 60, 190))
    hu, enhancement_hu = np.zeros(256, np.float32), np.zeros(256, np.float32)
    for label, tissue in _TISSUES.items():
        hu[label] = rng.normal(tissue.hu, tissue.sd_hu) if tissue.sd_hu else tissue.hu
        enhancement_hu[label] = tissue.fraction * e_hu * rng.normal(1, 0.1) + tissue.offset_hu
    blood_hu = float(np.clip(rng.normal(_BLOOD_HU, 4), 34, 50))
    for label, fraction in _BLOOD_FRACTIONS.items():
        hu[label] = blood_hu
        enhancement_hu[label] = fraction * e_hu * rng.normal(1, 0.03)
    # The side of the injection still carries undiluted contrast.
    enhancement_hu[Label.SVC] *= rng.uniform(1.0, 1.5)
    enhancement_hu[Label.BRACHIOCEPHALIC_VEIN] *= rng.uniform(1.0, 1.7)
    noise_sd_hu = hospital.noise_sd_hu * float(np.clip(rng.normal(1, 0.1), 0.8, 1.25))
    return PatientTissues(hu, enhancement_hu, e_hu, noise_sd_hu)
