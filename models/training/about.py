"""The words and figures of a trained bundle's card."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

import torch

from models.bundle import BundleCard, Envelope
from models.cohort import Cohort, CohortPatient
from models.methods.method import Method, describe_bundle
from models.noise import measure_noise_hu
from models.training.options import TARGETS, TrainOptions
from models.training.people import choose_people
from models.training.runfile import plain_model

# The phantom is the thorax of an adult; these are the words of BodyPartExamined for it, and "" for none.
PHANTOM_BODY_PARTS: Final = ("", "CHEST", "THORAX", "BREAST", "LUNG", "MEDIASTINUM", "HEART")
PHANTOM_AGE_YEARS: Final = (18.0, 120.0)
NOISE_MARGIN: Final = (0.5, 1.5)
"""How far beyond the noise that was trained on a scan may lie: what the demo bundle does there was measured."""
_MEASURED_PATIENTS: Final = 12


def describe_run(
    options: TrainOptions, method: Method, cohort: Cohort, *, epoch: int, step: int, figures: Mapping[str, float]
) -> BundleCard:
    """The card of a bundle that this run writes after this epoch and step; it claims nothing that was not measured.

    "processes" are those of this step; a run may have gone on with another number.
    """
    patients = choose_people(cohort, options).train
    phantom = cohort.kind == "phantom"
    limits = ["Not for clinical use before it was commissioned on the department's own patients."]
    if phantom:
        limits.insert(0, "Trained on a procedural phantom, whose anatomy is simpler than any patient's; no patient.")
    if options.blood_level_hu is not None:
        limits.insert(-1, "Blood is drawn at one level by convention: nobody may read a patient's perfusion from it.")
    virtual = sum(patient.has_virtual_source for patient in patients)
    if virtual:
        limits.append(f"{virtual} of {len(patients)} training patients have virtual non-contrast images as source.")
    if not method.paired:
        limits.append("Trained without comparing pairs: nothing held its values to the true ones.")
    return describe_bundle(
        options.name or options.method,
        "1",
        training=_lineage(method)
        | {
            "data": "procedural thorax phantom; no real patient" if phantom else "scans of patients, pseudonymous",
            "cohort_digest": cohort.digest,
            "patients": len(patients),
            "slices": sum(p.record.shape[0] for p in patients),
            **({"virtual_sources": virtual} if virtual else {}),
            "target": _target(options),
            **({"augmentation": asdict(options.augmentation)} if options.augmentation else {}),
            "preset": options.preset,
            "regime": asdict(method.config.regime),
            "settings": plain_model(method.config),
            **({"minutes": options.minutes} if options.minutes else {}),
            **({"fold": f"{options.fold} of {options.folds}, by patient"} if options.folds else {}),
            "epoch": epoch,
            "steps": step,
            "processes": method.parts.compute.place.processes,
            "selection": _selection(options),
            "validation": {key: round(value, 4) for key, value in figures.items()},
            "torch": torch.__version__,
        },
        envelope=_envelope(patients, phantom=phantom),
        blood_level_hu=options.blood_level_hu,
        intended_use="Research and comparison of methods. Not for clinical use.",
        licence="Apache-2.0" if phantom else "as the owner of the training data decides",
        limits=tuple(limits),
    )


def teacher_of(method: Method) -> BundleCard | None:
    """Card of the bundle that a student learns from."""
    card = getattr(method, "teacher_card", None)
    return card if isinstance(card, BundleCard) else None


def _lineage(method: Method) -> dict[str, object]:
    teacher = teacher_of(method)
    if teacher is None:
        return {}
    return {"teacher": {"name": teacher.name, "version": teacher.version, "digest": teacher.digest}}


def _target(options: TrainOptions) -> str:
    level = "" if options.blood_level_hu is None else f", blood at {options.blood_level_hu:g} HU in every patient"
    return TARGETS[options.target] + level


def _selection(options: TrainOptions) -> str:
    if options.without_validation:
        return "last epoch; nobody to validate on"
    return f"lowest NMAE on {'the patients of its fold' if options.folds else 'the split validation'}"


def _envelope(patients: Sequence[CohortPatient], *, phantom: bool) -> Envelope:
    """What was trained on: spacings outwards to the next 0.01 mm, noise with a margin; of age and header only what is
    known, which is nothing of patients whose cohort does not keep it.
    """
    spacings = [p.record.spacing_mm for p in patients]
    pixels = [s for _, rows, columns in spacings for s in (rows, columns)]
    slices = [s for s, _, _ in spacings]
    return Envelope(
        pixel_spacing_mm=_range(pixels),
        slice_spacing_mm=_range(slices),
        noise_hu=_noise_range(patients),
        age_years=PHANTOM_AGE_YEARS if phantom else None,
        body_parts=PHANTOM_BODY_PARTS if phantom else None,
    )


def _noise_range(patients: Sequence[CohortPatient]) -> tuple[float, float] | None:
    """Noise in the middle of some patients, HU, widened by NOISE_MARGIN; None where it could not be measured."""
    found = []
    for patient in patients[:: -(-len(patients) // _MEASURED_PATIENTS)]:
        middle = patient.record.shape[0] // 2
        if (noise := measure_noise_hu(patient.hu("ncct", slice(max(0, middle - 1), middle + 1)))) is not None:
            found.append(noise)
    if not found:
        return None
    low, high = NOISE_MARGIN
    return round(min(found) * low, 1), round(max(found) * high, 1)


def _range(values: list[float]) -> tuple[float, float]:
    return round(min(values) - 0.005, 2), round(max(values) + 0.005, 2)
