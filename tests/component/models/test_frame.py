"""Promises of the way between native slices and model images, with values worked out by hand."""

import numpy as np
import pytest
import torch

from models.frame import Frame

FRAME = Frame((-40.0, 400.0), 8)


def test_window_ends_become_minus_one_and_one() -> None:
    hu = torch.tensor([-2000.0, -40.0, 180.0, 400.0, 3000.0, 180.0, 180.0, 180.0]).repeat(8, 1)[None]
    assert FRAME.to_model(hu)[0, 0, 0].tolist() == [-1, -1, 0, 1, 1, 0, 0, 0]


def test_shrinking_by_a_whole_number_averages_areas_of_the_clipped_source() -> None:
    hu = torch.full((1, 16, 16), 180.0)
    hu[0, 0, :2] = torch.tensor([-1000.0, 400.0])  # clipped to -40 before the mean: (-40 + 400 + 180 + 180) / 4
    assert float(FRAME.to_model(hu)[0, 0, 0, 0]) == 0.0


def test_oblong_slices_keep_their_proportions_between_air() -> None:
    hu = torch.full((1, 8, 16), 400.0)
    model = FRAME.to_model(hu)[0, 0]
    assert (model[2:6] == 1).all()
    assert (model[:2] == -1).all()
    assert (model[6:] == -1).all()


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (13, 29), (40, 17), (7, 7)])
def test_zero_difference_changes_no_bit(rows: int, columns: int) -> None:
    hu = torch.from_numpy(np.random.default_rng(0).normal(0, 300, (2, rows, columns)).astype(np.float32))
    assert torch.equal(FRAME.to_native(torch.zeros(2, 1, 8, 8), hu), hu.clamp(-40, 400))


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (64, 40), (37, 64), (51, 51)])
def test_a_difference_lands_where_its_source_was(rows: int, columns: int) -> None:
    hu = torch.full((1, rows, columns), -1000.0)
    r, c = int(rows * 0.7), int(columns * 0.3)
    hu[0, r - 4 : r + 5, c - 4 : c + 5] = 100.0
    frame = Frame((-40.0, 400.0), 32)
    bright = (frame.to_model(hu) > -0.9).float() * 0.5
    raised = frame.to_native(bright, hu) - hu.clamp(-40, 400)
    assert float(raised[0, r, c]) == pytest.approx(110.0)
    weights = raised[0] / raised.sum()
    assert float((weights.sum(dim=1) * torch.arange(rows)).sum()) == pytest.approx(r, abs=0.8)
    assert float((weights.sum(dim=0) * torch.arange(columns)).sum()) == pytest.approx(c, abs=0.8)
