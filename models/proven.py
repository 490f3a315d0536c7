"""Whether a bundle's card shows that its model is worth more than two rows that know no model."""

from collections.abc import Iterator, Mapping
from typing import Final

from models.bundle import BundleCard

Metrics = Mapping[str, object]

IDENTITY: Final = "identity"
MEAN_ENHANCEMENT: Final = "mean_enhancement"

# Whether more of it is better. What no change at all cannot get wrong, such as false enhancement, is not here.
_AGAINST_IDENTITY: Final = {"psnr_db": True, "ssim": True, "nmae": False, "blood_pool_mae_hu": False}


def why_unproven(card: BundleCard) -> str:
    """Why a card does not show that its model is better than no change and than a mean enhancement; "" where it does.

    The model's own rows are compared, in each cohort of its evaluation, with the two rows that were measured beside it:

    - `identity`: the model must be better by every measurement that both have of PSNR, SSIM, NMAE and the error of
      blood. A model that is worse by one of them does harm somewhere.
    - `mean_enhancement`: the model must be better by PSNR, or its contrast gain nearer to 1 where both have one. PSNR
      alone would be unfair: a mean over patients has the least squared error that a guess can have, and blurs every
      vessel; the contrast gain says whether what should light does, and what should not does not. A model that is
      better by neither adds nothing to what a table of means can do.

    A card that has no such rows is unmeasured, which counts as unproven.
    """
    return why_no_gain(card) or _why_only_a_mean(card)


def why_no_gain(card: BundleCard) -> str:
    """Why a card does not show that its model is better than no change at all; "" where it does."""
    compared, worse = 0, []
    for cohort, own, nothing in _pairs(card, IDENTITY):
        for metric, more_is_better in _AGAINST_IDENTITY.items():
            ours, theirs = _number(own, metric), _number(nothing, metric)
            if ours is not None and theirs is not None:
                compared += 1
                if not (ours > theirs if more_is_better else ours < theirs):
                    worse.append(f"{metric} {ours:g} against {theirs:g} (cohort {cohort})")
    if not compared:
        return "nobody measured whether it is better than no change at all; `syncect evaluate --write-card` does"
    return f"its card shows no gain over no change at all: {', '.join(worse)}" if worse else ""


def _why_only_a_mean(card: BundleCard) -> str:
    compared, worse = 0, []
    for cohort, own, mean in _pairs(card, MEAN_ENHANCEMENT):
        differences = dict(_advantages(own, mean))
        compared += bool(differences)
        if differences and not any(better for better in differences.values()):
            worse.append(f"{', '.join(differences)} (cohort {cohort})")
    if not compared:
        return "nobody measured whether it is better than a mean enhancement; `syncect evaluate --write-card` does"
    return f"its card shows no gain over a mean enhancement: {'; '.join(worse)}" if worse else ""


def _advantages(own: Metrics, mean: Metrics) -> Iterator[tuple[str, bool]]:
    """Each comparison in words, and whether the model is the better one."""
    ours, theirs = _number(own, "psnr_db"), _number(mean, "psnr_db")
    if ours is not None and theirs is not None:
        yield f"psnr_db {ours:g} against {theirs:g}", ours > theirs
    ours, theirs = _number(own, "contrast_gain"), _number(mean, "contrast_gain")
    if ours is not None and theirs is not None:
        yield f"contrast_gain {ours:g} against {theirs:g}", abs(ours - 1) < abs(theirs - 1)


def _pairs(card: BundleCard, name: str) -> Iterator[tuple[object, Metrics, Metrics]]:
    """Cohort, the model's row and the row `name`, for each cohort that has both."""
    rows = {(row.get("name"), row.get("cohort")): row for row in card.metrics}
    for (row_name, cohort), other in rows.items():
        own = rows.get((card.name, cohort))
        if row_name == name and own is not None:
            yield cohort, own, other


def _number(row: Metrics, key: str) -> float | None:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
