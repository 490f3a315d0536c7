"""A bundle has to be better than no change, and than a mean over patients; its own card says whether it is."""

from dataclasses import replace

import pytest

from models.bundle import BundleCard
from models.proven import why_unproven

GOOD = {"psnr_db": 34.0, "ssim": 0.97, "nmae": 0.005, "blood_pool_mae_hu": 40.0, "contrast_gain": 1.1}
IDENTITY = {"psnr_db": 29.0, "ssim": 0.96, "nmae": 0.008, "blood_pool_mae_hu": 108.0, "contrast_gain": 0.0}
MEAN = {"psnr_db": 34.5, "ssim": 0.98, "nmae": 0.005, "blood_pool_mae_hu": 43.0, "contrast_gain": 0.84}


def card(own=GOOD, identity=IDENTITY, mean=MEAN, cohort="internal") -> BundleCard:
    rows = {"mine": own, "identity": identity, "mean_enhancement": mean}
    metrics = tuple({"name": name, "cohort": cohort, **row} for name, row in rows.items() if row is not None)
    return BundleCard("mine", "1", "pix2pix", {"a": 1}, {"a": 1}, "0" * 64, metrics=metrics)


def test_a_bundle_that_shows_vessels_better_than_a_mean_is_proven_also_with_less_psnr() -> None:
    assert why_unproven(card()) == ""


def test_without_a_contrast_gain_psnr_decides() -> None:
    own, mean = ({key: row[key] for key in row if key != "contrast_gain"} for row in (GOOD, MEAN))
    assert why_unproven(card(own, mean=mean)) == (
        "its card shows no gain over a mean enhancement: psnr_db 34 against 34.5 (cohort internal)"
    )
    assert why_unproven(card({**own, "psnr_db": 34.6}, mean=mean)) == ""


@pytest.mark.parametrize("gain", [0.83, 1.17, 0.0])
def test_worse_than_a_mean_in_pixels_and_in_contrast_is_unproven(gain: float) -> None:
    assert "no gain over a mean enhancement: psnr_db 34 against 34.5, contrast_gain" in why_unproven(
        card({**GOOD, "contrast_gain": gain})
    )


@pytest.mark.parametrize(
    ("metric", "value"), [("psnr_db", 28.0), ("ssim", 0.96), ("nmae", 0.009), ("blood_pool_mae_hu", 109.0)]
)
def test_harm_by_one_measurement_is_unproven(metric: str, value: float) -> None:
    why = why_unproven(card({**GOOD, metric: value}))
    assert why.startswith(f"its card shows no gain over no change at all: {metric} {value:g} against")


@pytest.mark.parametrize("lacking", ["own", "identity", "mean"])
def test_what_was_not_measured_is_unproven(lacking: str) -> None:
    assert why_unproven(card(**{lacking: None})).startswith("nobody measured whether it is better than")


def test_each_cohort_counts() -> None:
    bad = card({**GOOD, "ssim": 0.5}, cohort="external")
    both = replace(bad, metrics=card().metrics + bad.metrics)
    assert why_unproven(both).endswith("ssim 0.5 against 0.96 (cohort external)")
