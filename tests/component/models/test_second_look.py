"""The second look: views that undo themselves, no dependence on company, and a first look whose bits stay."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models import Translator, load_bundle
from models.testing import write_tiny_bundle
from models.views import VIEWS, through_view, warp


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    path = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(path)
    return load_bundle(path)


def slices(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(20, 60, (count, 40, 40)).astype(np.float32)


def smooth(count: int, side: int = 96) -> torch.Tensor:
    """A soft blob in the middle of images that are empty at their border."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    return torch.exp(-((x - 0.1) ** 2 + (y + 0.15) ** 2) / 0.08).expand(count, 1, side, side).clone()


def test_every_view_moves_an_image_and_its_inverse_moves_it_back() -> None:
    images, forth = smooth(len(VIEWS)), torch.stack([view.matrix() for view in VIEWS])
    moved = warp(images, forth)
    back = warp(moved, torch.linalg.inv(forth))
    for number, view in enumerate(VIEWS):
        assert float((moved[number] - images[number]).abs().max()) > 0.05, view
        assert float((back[number] - images[number]).abs().max()) < 0.005, view


def test_a_model_that_only_sees_brightness_answers_both_looks_alike() -> None:
    source = smooth(7) * 0.8 - 0.5
    through = through_view(lambda seen: seen[:, :1] + 0.3 * (seen[:, :1] + 0.5), source, range(7))
    assert float((through - 0.3 * (source + 0.5)).abs().max()) < 0.005


def test_a_model_that_goes_by_the_place_contradicts_itself() -> None:
    source = smooth(7) * 0.8 - 0.5
    place = torch.zeros_like(source)
    place[:, :, 20:50, 60:80] = 0.3
    through = through_view(lambda seen: seen[:, :1] + place, source, range(7))
    assert (float((through - place).abs().amax(dim=(1, 2, 3)).min())) > 0.2


def test_neighbours_are_moved_with_their_slice() -> None:
    source = torch.cat([0.8 * smooth(2), 0.4 * smooth(2)], dim=1)
    seen: list[torch.Tensor] = []

    def identity(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return images[:, :1]

    through_view(identity, source, [4, 5])
    assert torch.allclose(seen[0][:, 1], 0.5 * seen[0][:, 0], atol=1e-6)
    assert float((seen[0][0] - seen[0][1]).abs().max()) > 0.05  # two slices, two views


def test_second_look_differs_and_leaves_the_first_its_bits(translator: Translator) -> None:
    hu = slices(8)
    first = translator.translate(hu, 11)
    second = translator.second_look(hu, 11)
    assert second.shape == hu.shape
    assert second.dtype == np.float32
    assert second.min() >= -40
    assert second.max() <= 400
    assert (np.abs(second - first).max(axis=(1, 2)) > 1).all()
    assert np.array_equal(translator.translate(hu, 11), first)
    assert np.array_equal(translator.second_look(hu, 11), second)


def test_a_slice_depends_on_its_number_and_on_no_company(translator: Translator) -> None:
    hu = slices(8)
    together = translator.second_look(hu, 11)
    assert np.array_equal(translator.second_look(hu[:1], 11)[0], together[0])
    other = hu.copy()
    other[1:7] = 0.0
    assert np.array_equal(translator.second_look(other, 11)[7], together[7])  # 7 % 7: the view of slice 0
    assert not np.array_equal(translator.second_look(hu[[1]], 11)[0], together[1])


def test_slices_taken_together_meet_their_own_views(tmp_path: Path, translator: Translator) -> None:
    write_tiny_bundle(tmp_path)
    many = load_bundle(tmp_path)
    many.runtime.batch_size = 3  # type: ignore[attr-defined]  # as on a GPU
    hu = slices(8)
    hu[2] = -1000.0  # left out, so that batches do not begin at multiples of their size
    assert np.abs(many.second_look(hu, 11) - translator.second_look(hu, 11)).max() < 0.01
