"""Turn: every transverse orientation is brought to one, and back to the last bit."""

from itertools import product

import numpy as np
import pytest

from node.dicom.orientation import Turn

X, Y = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
ALL_EIGHT = [
    tuple(a * value for value in row) + tuple(b * value for value in column)
    for (row, column), a, b in product([(X, Y), (Y, X)], (1, -1), (1, -1))
]
SHAPE, SPACING_MM = (3, 4, 5), (3.0, 1.5, 0.75)


def as_scanned(orientation: tuple[float, ...]) -> tuple[np.ndarray, tuple[float, float, float]]:
    """A volume whose every pixel holds its place in the patient, as slices of this orientation, and its spacing.

    100 z + 10 y + x, where z counts to the head, y to the back and x to the left.
    """
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    axes = [np.cross(row, column), column, row]  # of z, y, x of the volume, in x, y, z of the patient
    patient = np.array([SHAPE[2], SHAPE[1], SHAPE[0]])
    shape = [int(abs(axis) @ patient) for axis in axes]
    starts = sum((axis < 0) * (patient - 1) for axis in axes)
    places = starts + sum(index[..., None] * axis for index, axis in zip(np.indices(shape), axes, strict=True))
    spacing = tuple(float(abs(axis) @ np.array(SPACING_MM[::-1])) for axis in axes)
    return (places @ np.array([1, 10, 100])).astype(np.float32), (spacing[0], spacing[1], spacing[2])


REFERENCE = as_scanned((*X, *Y))[0]


def test_there_are_eight_orientations() -> None:
    assert len(set(ALL_EIGHT)) == 8
    assert REFERENCE.shape == SHAPE
    assert REFERENCE[1, 2, 3] == 123


@pytest.mark.parametrize("orientation", ALL_EIGHT)
def test_the_network_sees_one_orientation_and_the_result_is_turned_back_exactly(orientation: tuple[float, ...]) -> None:
    scanned, spacing_mm = as_scanned(orientation)
    turn = Turn.of(orientation)
    seen = turn.forth(scanned)
    np.testing.assert_array_equal(seen, REFERENCE)
    assert seen.flags.c_contiguous
    assert turn.spacing_of(spacing_mm) == SPACING_MM
    back = turn.back(seen)
    np.testing.assert_array_equal(back, scanned)
    assert back.flags.c_contiguous


def test_orientations_as_scanners_print_them() -> None:
    assert Turn.of((0.9999999, 1e-6, 0.0, -1e-6, 1.0, -0.0)) == Turn.of((*X, *Y))
    assert Turn.of((-1.0, -2e-10, 0.0, 0.0, 1.0, 1e-4)) == Turn(False, (True, False, True))


@pytest.mark.parametrize(
    "orientation", [(0.0, 1.0, 0.0, 0.0, 0.0, -1.0), (1.0, 0.0, 0.0, 0.0, 0.0, -1.0), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0)]
)
def test_other_planes_are_refused(orientation: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="not transverse"):
        Turn.of(orientation)
