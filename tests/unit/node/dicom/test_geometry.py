"""describe_stack: which sets of planes are one lattice, and what is wrong with the others."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from node.dicom.geometry import Flaw, FlawKind, SlicePlane, Stack, describe_stack, slice_normal, why_not_transverse
from node.dicom.lattice import POSITION_TOLERANCE_MM

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def describe(of: list[SlicePlane]) -> Stack | Flaw:
    return describe_stack(of, POSITION_TOLERANCE_MM)


def planes(positions_mm: list[float], **changes: Any) -> list[SlicePlane]:
    values: dict[str, Any] = {"orientation": AXIAL, "pixel_spacing_mm": (1.0, 1.0), "rows": 4, "columns": 4} | changes
    return [SlicePlane(position_mm=(-10.0, -20.0, z), **values) for z in positions_mm]


def test_slices_are_sorted_along_the_normal_whatever_their_order() -> None:
    stack = describe(planes([6.0, 0.0, 3.0, 9.0]))
    assert isinstance(stack, Stack)
    assert stack.order == (1, 2, 0, 3)
    assert stack.spacing_mm == pytest.approx(3.0)


def test_normal_points_down_for_a_mirrored_plane_and_order_follows_it() -> None:
    mirrored = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    assert slice_normal(mirrored) == pytest.approx([0, 0, -1])
    stack = describe(planes([0.0, 3.0, 6.0], orientation=mirrored))
    assert isinstance(stack, Stack)
    assert stack.order == (2, 1, 0)


def test_an_oblique_stack_along_its_own_normal_is_regular() -> None:
    angle = np.radians(20)
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))
    normal = slice_normal(orientation)
    oblique = [SlicePlane(tuple(normal * 3.0 * i), orientation, (1.0, 1.0), 4, 4) for i in range(5)]
    assert isinstance(describe(oblique), Stack)
    assert why_not_transverse(orientation)


@pytest.mark.parametrize(
    ("positions", "count", "near"),
    [
        ([0.0, 3.0, 9.0, 12.0], 1, 6.0),
        ([0.0, 3.0, 12.0, 15.0, 21.0], 3, 7.5),
        ([0.0, 0.625, 1.25, 2.5, 3.13], 1, 1.875),
    ],
)
def test_missing_slices_are_an_interior_gap(positions: list[float], count: int, near: float) -> None:
    flaw = describe(planes(positions))
    assert isinstance(flaw, Flaw)
    assert (flaw.kind, flaw.count) == (FlawKind.INTERIOR_GAP, count)
    assert np.mean(flaw.between_mm) == pytest.approx(near)


@pytest.mark.parametrize(
    "positions",
    [[0.0, 3.0, 7.0, 10.0], [0.0, 2.0, 5.0, 7.0], [0.0, 1.0, 3.2, 4.0], [0.0, 0.5, 5.0, 5.5, 10.0, 10.5, 15.0, 15.5]],
)
def test_uneven_distances_are_irregular_not_a_gap(positions: list[float]) -> None:
    flaw = describe(planes(positions))
    assert isinstance(flaw, Flaw)
    assert flaw.kind is FlawKind.IRREGULAR_SPACING


def test_positions_printed_with_two_decimals_are_regular() -> None:
    positions = [round(-312.345 + i * 1.333, 2) for i in range(60)]
    assert isinstance(describe(planes(positions)), Stack)


def test_gap_among_positions_printed_with_one_decimal() -> None:
    positions = [round(i * 1.25, 1) for i in range(60) if i not in (20, 21)]
    flaw = describe(planes(positions))
    assert isinstance(flaw, Flaw)
    assert flaw.kind in (FlawKind.INTERIOR_GAP, FlawKind.IRREGULAR_SPACING)


def test_two_slices_at_one_position() -> None:
    flaw = describe(planes([0.0, 3.0, 3.0, 6.0]))
    assert isinstance(flaw, Flaw)
    assert (flaw.kind, flaw.between_mm) == (FlawKind.DUPLICATE_POSITION, (3.0, 3.0))


def test_tilted_gantry_is_sheared_and_says_by_how_much() -> None:
    angle = np.radians(18.5)
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(-np.sin(angle)))
    flaw = describe(planes([0.0, 2.5, 5.0, 7.5], orientation=orientation))
    assert isinstance(flaw, Flaw)
    assert flaw.kind is FlawKind.SHEARED
    assert flaw.size == pytest.approx(18.5)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"orientation": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)}, FlawKind.MIXED_ORIENTATION),
        ({"orientation": (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)}, FlawKind.INVALID_PLANE),
        ({"pixel_spacing_mm": (1.0, 1.001)}, FlawKind.MIXED_PIXEL_SPACING),
        ({"pixel_spacing_mm": (0.0, 1.0)}, FlawKind.INVALID_PLANE),
        ({"pixel_spacing_mm": (1e-30, 1e-30)}, FlawKind.INVALID_PLANE),
        ({"pixel_spacing_mm": (1.0, 1e30)}, FlawKind.INVALID_PLANE),
        ({"rows": 8}, FlawKind.MIXED_SIZE),
    ],
)
def test_slices_that_do_not_belong_together(change: dict[str, object], kind: FlawKind) -> None:
    flaw = describe([*planes([0.0, 3.0, 6.0]), *planes([9.0], **change)])
    assert isinstance(flaw, Flaw)
    assert (flaw.kind, flaw.count) == (kind, 1)


def test_noise_of_a_reprinted_orientation_is_no_other_orientation() -> None:
    noisy = (1.0, 1e-6, 0.0, -1e-6, 1.0, 0.0)
    assert isinstance(describe([*planes([0.0, 3.0]), *planes([6.0], orientation=noisy)]), Stack)


@pytest.mark.parametrize(
    "orientation",
    [AXIAL, (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0), (1.0, 1e-5, 0.0, 0.0, 1.0, 0.0), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0)],
)
def test_transverse(orientation: tuple[float, ...]) -> None:
    assert why_not_transverse(orientation) == ""


C5, S5 = float(np.cos(np.radians(5))), float(np.sin(np.radians(5)))


@pytest.mark.parametrize(
    ("orientation", "said"),
    [
        ((1.0, 0.0, 0.0, 0.0, C5, S5), "their normal is 5.0 degrees off the patient's head-feet axis"),
        ((C5, S5, 0.0, -S5, C5, 0.0), "their rows are 5.0 degrees off the patient's left-right or front-back axis"),
        ((-S5, C5, 0.0, C5, S5, 0.0), "their rows are 5.0 degrees off the patient's left-right or front-back axis"),
        ((0.0, 1.0, 0.0, 0.0, 0.0, -1.0), "their normal is 90.0 degrees off the patient's head-feet axis"),
        ((0.9999, 0.005, 0.0, -0.005, 0.9999, 0.0), "their rows are 0.8 degrees"),
        ((0.6, 0.8, 0.0, -0.8, 0.6, 0.0), "their rows are 36.9 degrees"),
    ],
)
def test_what_is_not_transverse_is_measured(orientation: tuple[float, ...], said: str) -> None:
    assert why_not_transverse(orientation).startswith(said)


@pytest.mark.parametrize(("angle_deg", "said"), [(0.3, "0.3"), (5.0, "5"), (180.0, "180")])
def test_orientations_that_differ_are_measured(angle_deg: float, said: str) -> None:
    c, s = float(np.cos(np.radians(angle_deg))), float(np.sin(np.radians(angle_deg)))
    of = planes([0.0, 3.0, 6.0])
    of[1] = replace(of[1], orientation=(c, s, 0.0, -s, c, 0.0))
    flaw = describe(of)
    assert isinstance(flaw, Flaw)
    assert flaw.reason == f"the images do not all have the same orientation (they differ by up to {said} degrees)"


def test_one_slice_and_none() -> None:
    assert describe(planes([5.0])) == Stack((0,), 0.0)
    with pytest.raises(ValueError, match="at least one"):
        describe([])


@pytest.mark.parametrize(
    "positions",
    [
        [round(-100 + 1.25 * i, 1) for i in range(60)],
        [round(-100 + 0.625 * i, 1) for i in range(60)],
        [round(-7.03 + 0.8 * i, 1) for i in range(200)],
        [round(i * 10 / 3, 1) for i in range(40)],
        [float(round(2.5 * i)) + (0.1 if i % 2 else 0.0) for i in range(0, 12, 2)],
        [-0.3 - 2.5 * k for k in range(5, -1, -1)] + [2.3 + 2.5 * k for k in range(6)],
        [3.0 * k + (0.1 if k > 90 else 0.0) for k in range(100)],
        [0.0, 3.0, 6.0, 9.14, 12.0, 15.0],
    ],
)
def test_rounding_and_one_step_off_by_a_tenth_are_regular(positions: list[float]) -> None:
    assert isinstance(describe(planes(positions)), Stack)


def steps_to_positions(*steps_mm: float) -> list[float]:
    return [float(z) for z in np.cumsum([-300.0, *steps_mm])]


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([6] * 3 + [3] * 8 + [6] * 4, "changes from 6.00 mm to 3.00 mm between z = -282.0 and z = -279.0 mm"),
        ([3] * 20 + [6] * 5, "changes from 3.00 mm to 6.00 mm between z = -240.0 and z = -234.0 mm"),
        ([5] * 6 + [3] * 9, "changes from 5.00 mm to 3.00 mm between z = -270.0 and z = -267.0 mm"),
        ([3] * 6 + [5] * 6 + [3] * 6, "changes from 3.00 mm to 5.00 mm between z = -282.0 and z = -277.0 mm"),
        ([6] * 3 + [3] * 3 + [1] * 9 + [3] * 3, "changes from 6.00 mm to 3.00 mm between z = -282.0 and z = -279.0 mm"),
        ([2.5, 2.5, 2.5, 2.5, 1.2, 1.3, 1.2, 1.3, 1.2, 1.3], "changes from 2.50 mm to 1.25 mm between z = -290.0"),
    ],
)
def test_a_change_of_spacing_is_no_gap_and_says_where(steps: list[float], says: str) -> None:
    flaw = describe(planes(steps_to_positions(*steps)))
    assert isinstance(flaw, Flaw)
    assert flaw.kind is FlawKind.CHANGED_SPACING
    assert says in flaw.reason


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ([10], "1 image is missing inside the series, the first between z = 27.0 and z = 33.0 mm"),
        ([10, 11, 12], "3 images are missing inside the series, the first between z = 27.0 and z = 39.0 mm"),
        (range(3, 39, 4), "9 images are missing"),
        (range(11, 29, 2), "9 images are missing"),
        ([1], "1 image is missing"),
        ([1, 3], "2 images are missing"),
        ([36, 38], "2 images are missing"),
        ([5, 20, 21, 22, 23, 33], "6 images are missing"),
    ],
)
def test_slices_that_got_lost_are_a_gap_and_no_change_of_spacing(missing: Iterable[int], says: str) -> None:
    flaw = describe(planes([3.0 * k for k in range(40) if k not in set(missing)]))
    assert isinstance(flaw, Flaw)
    assert flaw.kind is FlawKind.INTERIOR_GAP
    assert says in flaw.reason


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([2.5] * 7 + [0.25] + [7.5] * 5, "between z = -282.25 and z = -274.75 mm, elsewhere mostly 2.50 mm"),
        ([3.0] * 5 + [3.5] + [3.0] * 5, "irregular: 3.50 mm between z = -285.0 and z = -281.5 mm"),
        ([3.0, 3.0, 4.1, 3.0, 3.0], "irregular: 4.10 mm between z = -294.0 and z = -289.9 mm"),
        ([0.4, 0.6, 0.4, 0.6, 0.7, 0.4], "irregular"),
    ],
)
def test_an_irregular_step_is_named_with_its_two_positions(steps: list[float], says: str) -> None:
    flaw = describe(planes(steps_to_positions(*steps)))
    assert isinstance(flaw, Flaw)
    assert flaw.kind is FlawKind.IRREGULAR_SPACING
    assert says in flaw.reason


def test_positions_of_a_feet_first_stack_are_told_as_the_patients_z() -> None:
    flaw = describe(planes([0.0, 3.0, 9.0, 12.0], orientation=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)))
    assert isinstance(flaw, Flaw)
    assert flaw.between_mm == (9.0, 3.0)


@pytest.mark.parametrize("other", [0.8418, 0.8419, 0.841796, 0.84185])
def test_pixel_spacing_printed_with_other_digits_is_one_spacing(other: float) -> None:
    exact, printed = (0.841796875, 0.841796875), (other, other)
    assert isinstance(
        describe([*planes([0.0], pixel_spacing_mm=exact), *planes([3.0], pixel_spacing_mm=printed)]), Stack
    )


@pytest.mark.parametrize("other", [0.842, 0.8398, 0.9765625])
def test_another_pixel_spacing_is_told_with_both_figures(other: float) -> None:
    flaw = describe(
        [*planes([0.0], pixel_spacing_mm=(0.8418, 0.8418)), *planes([3.0], pixel_spacing_mm=(0.8418, other))]
    )
    assert isinstance(flaw, Flaw)
    assert f"(0.8418 and {other:g} mm)" in flaw.reason


def moved(x_mm: Sequence[float]) -> list[SlicePlane]:
    return [
        replace(plane, position_mm=(x, -20.0, plane.position_mm[2]))
        for plane, x in zip(planes([2.5 * k for k in range(len(x_mm))]), x_mm, strict=True)
    ]


@pytest.mark.parametrize(
    ("x_mm", "size", "between"),
    [
        ([0.0] * 6 + [15.0] * 6, 15.0, (12.5, 15.0)),
        ([0.0] * 6 + [0.5] + [0.0] * 6, 0.5, (12.5, 15.0)),
        ([0.0, 2.0, 2.0, 2.0, 2.0], 2.0, (0.0, 2.5)),
        ([0.0, 0.1, 0.2, 0.3, 9.0, 9.1], 8.7, (7.5, 10.0)),
    ],
)
def test_a_sideways_shift_is_measured_where_it_happens(
    x_mm: list[float], size: float, between: tuple[float, float]
) -> None:
    flaw = describe(moved(x_mm))
    assert isinstance(flaw, Flaw)
    assert (flaw.kind, flaw.between_mm) == (FlawKind.SHIFTED, between)
    assert flaw.size == pytest.approx(size)
    assert "tilt" not in flaw.reason


def test_an_even_shear_is_told_in_mm_and_degrees() -> None:
    flaw = describe(moved([0.25 * k for k in range(9)]))
    assert isinstance(flaw, Flaw)
    assert flaw.kind is FlawKind.SHEARED
    assert flaw.reason == "the images are shifted sideways evenly, by 2.0 mm over 20.0 mm of the stack (5.7 degrees)"
