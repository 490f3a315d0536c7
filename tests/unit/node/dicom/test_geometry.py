"""describe_stack: which sets of planes are one lattice, and what is wrong with the others."""

from typing import Any

import numpy as np
import pytest

from node.dicom.geometry import Flaw, FlawKind, SlicePlane, Stack, describe_stack, is_transverse, slice_normal

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def planes(positions_mm: list[float], **changes: Any) -> list[SlicePlane]:
    values: dict[str, Any] = {"orientation": AXIAL, "pixel_spacing_mm": (1.0, 1.0), "rows": 4, "columns": 4} | changes
    return [SlicePlane(position_mm=(-10.0, -20.0, z), **values) for z in positions_mm]


def test_slices_are_sorted_along_the_normal_whatever_their_order() -> None:
    stack = describe_stack(planes([6.0, 0.0, 3.0, 9.0]))
    assert isinstance(stack, Stack)
    assert stack.order == (1, 2, 0, 3)
    assert stack.spacing_mm == pytest.approx(3.0)


def test_normal_points_down_for_a_mirrored_plane_and_order_follows_it() -> None:
    mirrored = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    assert slice_normal(mirrored) == pytest.approx([0, 0, -1])
    stack = describe_stack(planes([0.0, 3.0, 6.0], orientation=mirrored))
    assert isinstance(stack, Stack)
    assert stack.order == (2, 1, 0)


def test_an_oblique_stack_along_its_own_normal_is_regular() -> None:
    angle = np.radians(20)
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(np.sin(angle)))
    normal = slice_normal(orientation)
    oblique = [SlicePlane(tuple(normal * 3.0 * i), orientation, (1.0, 1.0), 4, 4) for i in range(5)]
    assert isinstance(describe_stack(oblique), Stack)
    assert not is_transverse(orientation)


@pytest.mark.parametrize(
    ("positions", "count", "near"),
    [
        ([0.0, 3.0, 9.0, 12.0], 1, 6.0),
        ([0.0, 3.0, 12.0, 15.0, 21.0], 3, 7.5),
        ([0.0, 0.625, 1.25, 2.5, 3.13], 1, 1.875),
    ],
)
def test_missing_slices_are_an_interior_gap(positions: list[float], count: int, near: float) -> None:
    flaw = describe_stack(planes(positions))
    assert isinstance(flaw, Flaw)
    assert (flaw.kind, flaw.count) == (FlawKind.INTERIOR_GAP, count)
    assert flaw.near_mm == pytest.approx(near)


@pytest.mark.parametrize(
    "positions",
    [[0.0, 3.0, 7.0, 10.0], [0.0, 2.0, 5.0, 7.0], [0.0, 1.0, 3.2, 4.0], [0.0, 0.5, 5.0, 5.5, 10.0, 10.5, 15.0, 15.5]],
)
def test_uneven_distances_are_irregular_not_a_gap(positions: list[float]) -> None:
    flaw = describe_stack(planes(positions))
    assert isinstance(flaw, Flaw)
    assert flaw.kind is FlawKind.IRREGULAR_SPACING


def test_positions_printed_with_two_decimals_are_regular() -> None:
    positions = [round(-312.345 + i * 1.333, 2) for i in range(60)]
    assert isinstance(describe_stack(planes(positions)), Stack)


def test_gap_among_positions_printed_with_one_decimal() -> None:
    positions = [round(i * 1.25, 1) for i in range(60) if i not in (20, 21)]
    flaw = describe_stack(planes(positions))
    assert isinstance(flaw, Flaw)
    assert flaw.kind in (FlawKind.INTERIOR_GAP, FlawKind.IRREGULAR_SPACING)


def test_two_slices_at_one_position() -> None:
    flaw = describe_stack(planes([0.0, 3.0, 3.0, 6.0]))
    assert isinstance(flaw, Flaw)
    assert (flaw.kind, flaw.near_mm) == (FlawKind.DUPLICATE_POSITION, 3.0)


def test_tilted_gantry_is_sheared_and_says_by_how_much() -> None:
    angle = np.radians(18.5)
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(angle)), float(-np.sin(angle)))
    flaw = describe_stack(planes([0.0, 2.5, 5.0, 7.5], orientation=orientation))
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
        ({"rows": 8}, FlawKind.MIXED_SIZE),
    ],
)
def test_slices_that_do_not_belong_together(change: dict[str, object], kind: FlawKind) -> None:
    flaw = describe_stack([*planes([0.0, 3.0, 6.0]), *planes([9.0], **change)])
    assert isinstance(flaw, Flaw)
    assert (flaw.kind, flaw.count) == (kind, 1)


def test_noise_of_a_reprinted_orientation_is_no_other_orientation() -> None:
    noisy = (1.0, 1e-6, 0.0, -1e-6, 1.0, 0.0)
    assert isinstance(describe_stack([*planes([0.0, 3.0]), *planes([6.0], orientation=noisy)]), Stack)


@pytest.mark.parametrize("orientation", [AXIAL, (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0), (1.0, 1e-5, 0.0, 0.0, 1.0, 0.0)])
def test_transverse(orientation: tuple[float, ...]) -> None:
    assert is_transverse(orientation)


def test_one_slice_and_none() -> None:
    assert describe_stack(planes([5.0])) == Stack((0,), 0.0)
    with pytest.raises(ValueError, match="at least one"):
        describe_stack([])
