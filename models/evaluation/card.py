"""The figures that an evaluation leaves in a bundle's card; what makes pixels stays as it is."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from models.bundle import BundleCard, read_card, read_weights, write_bundle
from models.card_text import render_card
from models.cohort import Cohort
from models.evaluation.summary import Row
from models.metrics.registered import FIGURES

_BASELINES = ("identity", "mean_enhancement")
_DIGITS = {"ssim": 4, "nmae": 5, "slope": 3, "contrast_gain": 3}


def write_metrics(path: Path, rows: Iterable[Row], cohort: Cohort) -> BundleCard:
    """Replace the metrics of the bundle folder `path`, and its text, by rows of an evaluation on `cohort`.

    Kept are the rows of both baselines, of the bundle, which the card calls by its own name, and, where it was measured
    too, of the teacher that it was distilled from; each says on which kind of cohort, by which digest, it was measured.
    Weights and digest stay as they are. Returns the new card; raises BundleError for a damaged bundle, ValueError where
    no row is the bundle's.
    """
    card = read_card(path)
    weights = read_weights(path, card)
    # Bundles that share a name are told apart by their digests in a report.
    own = {name: card.name for name in _report_names(card.name, card.digest)}
    names = {name: name for name in _BASELINES} | _teacher_names(card) | own
    chosen = [row for row in rows if row.name in names]
    if not any(row.name in own for row in chosen):
        raise ValueError(f"the evaluation has no row of {card.name}")
    metrics = tuple(_card_row(names[row.name], row, cohort) for row in chosen)
    measured = replace(card, metrics=metrics)
    return write_bundle(path, measured, weights, text=render_card(measured))


def write_trust(
    path: Path,
    measured_on: str,
    sections: Mapping[str, Mapping[str, float]],
    aim_of: Callable[[str], object | None],
) -> BundleCard:
    """Put figures of trust, by section and name, into the card of the bundle folder `path`, and into its text.

    measured_on: one sentence for people. aim_of: the aim of a figure, which prints itself, or None. What was there of
    an earlier run is replaced; weights, digest and metrics stay as they are. Raises BundleError for a damaged bundle.
    """
    card = read_card(path)
    figures = [
        {"section": section, "figure": name, "value": _rounded("", value), "aim": _text_of(aim_of(name))}
        for section, found in sections.items()
        for name, value in found.items()
    ]
    trusted = replace(card, trust={"measured_on": measured_on, "figures": figures})
    return write_bundle(path, trusted, read_weights(path, card), text=render_card(trusted))


def _text_of(aim: object | None) -> str:
    return "" if aim is None else str(aim)


def _teacher_names(card: BundleCard) -> dict[str, str]:
    """What a report may call the bundle that this one was distilled from."""
    teacher = card.training.get("teacher")
    if not isinstance(teacher, Mapping):
        return {}
    name = str(teacher["name"])
    return {known: f"{name} (teacher)" for known in _report_names(name, str(teacher["digest"]))}


def _report_names(name: str, digest: str) -> list[str]:
    return [known for known in (name, f"{name}@{digest[:8]}") if known not in _BASELINES]


def _card_row(name: str, row: Row, cohort: Cohort) -> dict[str, object]:
    blood = row.structures.get("blood_pool")
    figures = {
        **{key: row.means[key] for key in ("psnr_db", "ssim", "nmae")},
        "blood_pool_bias_hu": math.nan if blood is None else blood.bias_hu,
        "blood_pool_mae_hu": math.nan if blood is None else blood.mae_hu,
        **{key: row.means[key] for key in ("false_enhancement_mae_hu", "slope", "interslice_jump_hu", *FIGURES)},
    }
    return {
        "name": name,
        "cohort": row.cohort,
        "cohort_kind": cohort.kind,
        "cohort_digest": cohort.digest,
        "patients": row.patients,
        "slices": row.slices,
        **{key: _rounded(key, value) for key, value in figures.items()},
    }


def _rounded(key: str, value: float) -> float | None:
    """As many digits as mean something; None for what is not defined for these data."""
    return round(value, _DIGITS.get(key, 2)) if math.isfinite(value) else None
