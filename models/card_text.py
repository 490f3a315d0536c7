"""The model card for people, CARD.md, is made from bundle.json alone, so that the two cannot differ."""

from collections.abc import Mapping
from typing import Any

from models.bundle import BundleCard

_COLUMNS = {
    "patients": "patients",
    "slices": "slices",
    "psnr_db": "PSNR [dB]",
    "ssim": "SSIM",
    "nmae": "NMAE",
    "blood_pool_bias_hu": "blood pool: bias [HU]",
    "blood_pool_mae_hu": "blood pool: MAE [HU]",
    "false_enhancement_mae_hu": "false enhancement: MAE [HU]",
    "slope": "predicted / true enhancement",
    "interslice_jump_hu": "inter-slice jump [HU]",
    "enhanced_error_hu": "error where the pair enhances [HU]",
    "quiet_error_hu": "error where the pair is quiet [HU]",
    "contrast_gain": "contrast gain over the pair's",
}
_KINDS = {"phantom": "invented patients (procedural phantom)", "dicom": "real patients (scans from DICOM files)"}
DETAIL_SECTION = "each region"
"""The section of `BundleCard.trust` that is too long for people."""
_BASELINES = (
    "`identity` returns the source unchanged.",
    "`mean_enhancement` adds what the cohort's training patients gain on average at the same brightness and place.",
)


def render_card(card: BundleCard) -> str:
    """Markdown text of a card."""
    low, high = card.hu_window
    sections = [
        f"# {card.name} {card.version}",
        card.intended_use or "No intended use was stated.",
        "## What it is",
        f"Method `{card.method}`, {_passes(card)}, prediction "
        f"`{card.prediction}`, images of {card.matrix} x {card.matrix}, HU from {low:g} to {high:g}. "
        f"Licence of the weights: {card.licence}.",
        "## What it was trained on",
        _bullets(card.training),
        _envelope(card),
        "## What was measured",
        _table(card) if card.metrics else "Nothing yet.",
        *(("## How far to trust it", _trust(card.trust)) if card.trust else ()),
        "## Limits",
        "\n".join(f"- {limit}" for limit in card.limits) or "None stated.",
    ]
    return "\n\n".join(sections) + "\n"


def _passes(card: BundleCard) -> str:
    steps = card.diffusion.get("num_timesteps")
    if steps is None:
        return "one pass of the generator"
    return "one reverse diffusion step" if steps == 1 else f"{steps} reverse diffusion steps"


def _bullets(values: Mapping[str, object]) -> str:
    lines = [f"- {key.replace('_', ' ')}: {_inline(value)}" for key, value in values.items()]
    return "\n".join(lines) or "Not stated."


def _inline(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return str(value)


def _envelope(card: BundleCard) -> str:
    e = card.envelope
    ranges = (
        ("pixels of", e.pixel_spacing_mm, "mm"),
        ("slices", e.slice_spacing_mm, "mm apart"),
        ("noise in soft tissue of", e.noise_hu, "HU"),
        ("patients of", e.age_years, "years"),
    )
    covered = [f"{before} {limits[0]:g} to {limits[1]:g} {after}" for before, limits, after in ranges if limits]
    unsaid = [words for words, value in (("noise", e.noise_hu), ("age", e.age_years)) if value is None]
    parts = f" BodyPartExamined may be {_parts(e.body_parts)}." if e.body_parts is not None else ""
    silent = f" The card says nothing of {' and '.join(unsaid)}." if unsaid else ""
    return (
        f"Envelope: {e.modality} of {e.body_part}, {', '.join(covered)}.{parts}{silent} "
        "Outside it nothing is known, and a result is held for a person."
    )


def _parts(names: tuple[str, ...]) -> str:
    return ", ".join(name or "absent" for name in names)


def _table(card: BundleCard) -> str:
    """How to read the figures, on whom they were measured, and one row for each model and cohort."""
    lines = [
        "Means over test patients: PSNR, SSIM and NMAE over slices, the rest over patients. PSNR, SSIM and NMAE: whole",
        "slice of 256 x 256, HU from -40 to 400 clipped, against the second scan with its own noise. `internal` and",
        "`external` (patients of the training hospital and of others) are held against a second scan in register,",
        "`..._misregistered` against the same scan as it was taken. Blood pool: chambers, aorta and pulmonary artery",
        "without their outer 2 pixels, in register against the second scan without noise. False enhancement: mean",
        "|prediction - source| after a 5 x 5 mean filter, body pixels whose true enhancement is under 5 HU. Jump: RMS",
        "step of the blood pool's mean error from slice to slice. The pair: second scan in register minus source, as",
        "5 x 5 means, over 40 HU (enhances) or under 10 HU in soft tissue (quiet); contrast gain: what the prediction",
        "brightens the one more than the other, over what the second scan does. What needs labels or a truth that real",
        "patients does not hold stays empty.",
        "",
        *(f"- {line}" for line in (_measured_on(card), *_BASELINES)),
        "",
        "| cohort | name | " + " | ".join(_COLUMNS.values()) + " |",
        "|---|---|" + "---|" * len(_COLUMNS),
    ]
    for row in card.metrics:
        figures = " | ".join(_cell(row.get(key)) for key in _COLUMNS)
        lines.append(f"| {row.get('cohort', '')} | {row.get('name', '')} | {figures} |")
    return "\n".join(lines)


def _trust(trust: Mapping[str, Any]) -> str:
    """What was judged without a second scan, one row a figure."""
    lines = [
        f"Measured on: {trust['measured_on']}",
        "Change: mean of result - source inside a circle, pixels of -40 to 200 HU. Vessels should light; masses,",
        "effusions, airless lung and false regions (muscle, contents of bowel) should not. RMS step: of the mean",
        "change from slice to slice along a vessel. Level: predicted enhancement of blood over the true, or the asked,",
        "one. Attacks: share of grossly wrong results that the gates of the node hold. Regions stand in bundle.json.",
        "",
        "| section | figure | value | aim |",
        "|---|---|---|---|",
    ]
    for row in trust["figures"]:
        if row["section"] != DETAIL_SECTION:
            lines.append(f"| {row['section']} | {row['figure']} | {_cell(row['value'])} | {row['aim']} |")
    return "\n".join(lines)


def _measured_on(card: BundleCard) -> str:
    cohorts = {(str(row["cohort_kind"]), str(row["cohort_digest"])) for row in card.metrics if "cohort_digest" in row}
    if not cohorts:
        return "Measured on a cohort that the card does not name."
    named = (f"{_KINDS.get(kind, kind)}, digest `{digest[:16]}`" for kind, digest in sorted(cohorts))
    return f"Measured on: {'; '.join(named)}."


def _cell(value: object) -> str:
    return "" if value is None else str(value)
