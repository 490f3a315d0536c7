"""Owns the model card for people, CARD.md, made from bundle.json alone so that the two cannot differ."""

from collections.abc import Mapping

from models.bundle import BundleCard

_COLUMNS = {
    "psnr_db": "PSNR [dB]",
    "nmae": "NMAE",
    "blood_pool_bias_hu": "blood pool: bias [HU]",
    "blood_pool_mae_hu": "blood pool: MAE [HU]",
    "false_enhancement_mae_hu": "false enhancement: MAE [HU]",
    "slope": "predicted / true enhancement",
}


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
        "## Limits",
        "\n".join(f"- {limit}" for limit in card.limits) or "None stated.",
    ]
    return "\n\n".join(sections) + "\n"


def _passes(card: BundleCard) -> str:
    steps = card.diffusion.get("num_timesteps")
    return "one pass of the generator" if steps is None else f"{steps} reverse diffusion steps"


def _bullets(values: Mapping[str, object]) -> str:
    lines = [f"- {key.replace('_', ' ')}: {_inline(value)}" for key, value in values.items()]
    return "\n".join(lines) or "Not stated."


def _inline(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return str(value)


def _envelope(card: BundleCard) -> str:
    e = card.envelope
    pixels, slices = (f"{low:g} to {high:g} mm" for low, high in (e.pixel_spacing_mm, e.slice_spacing_mm))
    return (
        f"Envelope: {e.modality} of {e.body_part}, pixels of {pixels}, slices {slices} apart. "
        "Outside it nothing is known."
    )


def _table(card: BundleCard) -> str:
    """One row per model and cohort; the row `identity` is the non-contrast scan itself, returned unchanged."""
    lines = [
        "Means over unseen phantom patients. PSNR and NMAE: whole slice, window clipped, against the second scan with",
        "its own noise, in register. Blood pool: chambers, aorta and pulmonary artery without their outer 2 pixels,",
        "against the noise-free scan. False enhancement: mean |prediction - source| after a 5 x 5 mean filter, body",
        "pixels whose true enhancement is under 5 HU. `identity` returns the source unchanged.",
        "",
        "| cohort | name | patients | " + " | ".join(_COLUMNS.values()) + " |",
        "|---|---|---|" + "---|" * len(_COLUMNS),
    ]
    for row in card.metrics:
        figures = " | ".join(str(row.get(key, "")) for key in _COLUMNS)
        lines.append(f"| {row.get('cohort', '')} | {row.get('name', '')} | {row.get('patients', '')} | {figures} |")
    return "\n".join(lines)
