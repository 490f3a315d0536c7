"""Bundles that see neighbouring slices, and bundles that draw blood at a level by convention."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models import BundleError, Translator, load_bundle
from models.bundle import BundleCard, read_card
from models.context import seen_slices
from models.methods.method import describe_bundle, write_method_bundle
from models.methods.syndiff_paired import PRESETS, SyndiffPaired

CONTEXT_MM = (-6.0, 3.0)


def bundle(path: Path, *, context_mm: tuple[float, ...] = CONTEXT_MM, level_hu: float | None = 100.0) -> Path:
    """A bundle with random weights that is far from leaving its source alone."""
    method = SyndiffPaired(replace(PRESETS["tiny"], context_mm=context_mm))
    random = torch.Generator().manual_seed(1)
    for parameter in method.inference.generator.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=random)
    words = {} if level_hu is None else {"blood_level_hu": level_hu}
    write_method_bundle(method, path, describe_bundle("tiny", "1", hu_window=(-40.0, 400.0), **words))
    return path


def slices(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(2).uniform(0, 80, (count, 40, 40)).astype(np.float32)


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    return load_bundle(bundle(tmp_path_factory.mktemp("seeing")))


def test_neighbours_are_chosen_by_distance_and_stay_inside_the_series() -> None:
    assert seen_slices(5, (-6.0, 3.0), 3.0).tolist() == [[0, 1, 2, 3, 4], [0, 0, 0, 1, 2], [1, 2, 3, 4, 4]]
    assert seen_slices(3, (-6.0, 3.0), 10.0).tolist() == [[0, 1, 2], [0, 0, 1], [1, 2, 2]]
    assert seen_slices(3, (), None).tolist() == [[0, 1, 2]]
    assert seen_slices(0, (3.0,), 1.0).shape == (2, 0)


@pytest.mark.parametrize("spacing_mm", [None, 0.0, -1.0, float("nan")])
def test_neighbours_need_the_distance_of_slices(spacing_mm: float | None) -> None:
    with pytest.raises(ValueError, match="distance"):
        seen_slices(3, (3.0,), spacing_mm)


def test_a_slice_changes_with_the_neighbours_it_sees_and_with_no_other(seeing: Translator) -> None:
    hu = slices(7)
    before = seeing.translate(hu, 5, spacing_mm=3.0)
    hu[1] += 100.0  # slice 1 is two below slice 3 and one above slice 0
    changed = np.abs(seeing.translate(hu, 5, spacing_mm=3.0) - before).max(axis=(1, 2)) > 0
    assert changed.tolist() == [True, True, False, True, False, False, False]


def test_the_batch_and_the_distance_decide_as_they_should(seeing: Translator) -> None:
    hu = slices(6)
    near, far = seeing.translate(hu, 5, spacing_mm=3.0), seeing.translate(hu, 5, spacing_mm=1.0)
    assert not np.array_equal(near, far)
    assert np.array_equal(seeing.translate(hu, 5, spacing_mm=3.0), near)
    with pytest.raises(ValueError, match="distance"):
        seeing.translate(hu, 5)


def test_the_difference_grows_with_the_level_asked_for(tmp_path: Path) -> None:
    path, hu = bundle(tmp_path, context_mm=()), slices(2)
    taught, half = load_bundle(path), load_bundle(path, blood_level_hu=50.0)
    assert (taught.level_hu, half.level_hu) == (100.0, 50.0)
    whole_hu, half_hu = (t.translate(hu, 3) - hu for t in (taught, half))
    inside = (hu + whole_hu > -39) & (hu + whole_hu < 399)
    assert np.abs(whole_hu).max() > 5
    np.testing.assert_allclose(half_hu[inside], whole_hu[inside] / 2, atol=1e-3)
    assert taught.arithmetic != half.arithmetic
    assert "blood at 50 HU" in half.description


@pytest.mark.parametrize("level_hu", [39.0, 201.0])
def test_a_level_outside_the_range_is_refused(tmp_path: Path, level_hu: float) -> None:
    path = bundle(tmp_path, context_mm=())
    with pytest.raises(BundleError, match="from 40 to 200"):
        load_bundle(path, blood_level_hu=level_hu)


def test_a_bundle_that_was_taught_no_level_takes_none(tmp_path: Path) -> None:
    path = bundle(tmp_path, context_mm=(), level_hu=None)
    assert load_bundle(path).level_hu is None
    with pytest.raises(BundleError, match="was taught no level"):
        load_bundle(path, blood_level_hu=100.0)


def test_what_a_bundle_sees_and_draws_is_part_of_its_identity(tmp_path: Path) -> None:
    card = read_card(bundle(tmp_path))
    assert (card.context_mm, card.blood_level_hu) == (CONTEXT_MM, 100.0)
    others = [replace(card, context_mm=()), replace(card, blood_level_hu=None), replace(card, blood_level_hu=90.0)]
    assert len({card.digest, *(other.digest for other in others)}) == 4


def test_an_older_card_keeps_its_identity() -> None:
    card = BundleCard("old", "1", method="syndiff", network={}, diffusion={}, weights_sha256="0" * 64)
    assert card.digest == "f1f1dd0e4931aac1b814cc39cc46af30f651ec800bdc2f5c67e1ca3136ad706b"


def test_a_network_that_does_not_fit_its_neighbours_is_refused(tmp_path: Path) -> None:
    path = bundle(tmp_path)
    text = (path / "bundle.json").read_text()
    (path / "bundle.json").write_text(text.replace('"context_mm": [\n    -6.0,\n    3.0\n  ]', '"context_mm": []'))
    with pytest.raises(BundleError, match="num_channels is 4"):
        load_bundle(path)
