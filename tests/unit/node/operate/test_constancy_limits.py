"""The tolerances of constancy: one table, which the documents print as it stands."""

import math
from pathlib import Path

import pytest

from node.operate.constancy.limits import LIMITS, Reference, faults

PAGE = Path(__file__).parents[4] / "docs" / "physics" / "constancy.md"
GOOD = {
    "missing_slices": 0.0,
    "moved_slices": 0.0,
    "changed_outside_voxels": 0.0,
    "gain_hu": 5.0,
    "blood_enhancement_hu": 106.0,
    "false_enhancement_hu": 4.0,
    "muscle_change_hu": 10.0,
    "fat_change_hu": 4.0,
    "mae_hu": 12.0,
    "psnr_db": 28.0,
    "result_s": 5.0,
}
SAME = {"different_voxels": 0.0, "mean_difference_hu": 0.0, "largest_difference_hu": 0.0}


def test_the_page_prints_the_table() -> None:
    page = PAGE.read_text()
    for limit in LIMITS:
        assert f"| {limit.words} | `{limit.figure}` | {limit.tolerance} | {limit.why} |" in page


def test_a_first_run_has_no_baseline_and_a_second_has() -> None:
    assert faults(GOOD, None) == []
    assert faults(GOOD | SAME, Reference(GOOD, is_same=True)) == []
    assert len(faults(GOOD, Reference(GOOD, is_same=True))) == len(SAME), "what was not measured is a fault"
    assert len(faults({}, None)) == 4


@pytest.mark.parametrize(
    ("figure", "value", "words"),
    [
        ("moved_slices", 1.0, "slices at another place: 1; tolerance at most 0"),
        ("gain_hu", -0.1, "tolerance at least 0 HU"),
        ("gain_hu", math.nan, "nan HU"),
        ("blood_enhancement_hu", 107.1, "107.1 HU, the baseline has 106; tolerance within 1 HU of the baseline"),
        ("blood_enhancement_hu", 104.9, "104.9 HU"),
        ("mae_hu", 12.6, "12.6 HU"),
        ("psnr_db", 27.7, "27.7 dB"),
        ("largest_difference_hu", 11.0, "tolerance at most 10 HU"),
    ],
)
@pytest.mark.parametrize("is_same", [True, False])
def test_what_is_out_of_tolerance_in_any_environment(figure: str, value: float, words: str, *, is_same: bool) -> None:
    (fault,) = faults(GOOD | SAME | {figure: value}, Reference(GOOD, is_same=is_same))
    assert words in fault


@pytest.mark.parametrize(("figure", "value"), [("different_voxels", 1.0), ("result_s", 75.1)])
def test_what_is_out_of_tolerance_in_the_same_environment_only(figure: str, value: float) -> None:
    found = GOOD | SAME | {figure: value}
    assert len(faults(found, Reference(GOOD, is_same=True))) == 1
    assert faults(found, Reference(GOOD, is_same=False)) == []
    assert faults(GOOD | SAME | {"result_s": 74.9}, Reference(GOOD, is_same=True)) == []
