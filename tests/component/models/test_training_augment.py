"""Slices held on the training device, and what is changed of them while they are shown."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.bundle import HU_WINDOW
from models.frame import Frame
from models.training.augment import OPEN_HU, HuBatch, augment
from models.training.augmentation import Augmentation
from models.training.resident import ResidentSlices, pack

M = 32


def thorax(slices: int = 4, rows: int = 64) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A body of 40 HU with a lung in it, and a vessel in the body that enhances by 100 HU."""
    line = np.arange(rows) - rows / 2
    radius = np.hypot(line[:, None], line[None])
    source = np.where(radius < 26, 40.0, -1000.0)
    source = np.where(np.hypot(line[:, None], line[None] + 8) < 9, -830.0, source)
    change = np.where(np.hypot(line[:, None], line[None] - 14) < 5, 100.0, 0.0)
    stack = np.repeat(source[None], slices, 0).astype(np.float32)
    return stack, stack + change.astype(np.float32)


def batch_of(count: int = 6) -> HuBatch:
    slices = ResidentSlices((-4.0, 4.0), "cpu")
    slices.add(pack(*thorax(), M), 4.0)
    source, opened, change, seen, depth = slices._arrays
    index = torch.arange(count) % 4
    places = seen[index]
    return HuBatch(source[places].float(), opened[places].float(), change[index][:, None].float(), depth[index])


def random(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_unchanged_slices_are_those_of_the_frame_to_half_precision() -> None:
    source, target = thorax()
    slices = ResidentSlices((), "cpu")
    slices.add(pack(source, target, M), 3.0)
    batch, frame = slices.batch([2, 0], None, (1,)), Frame(HU_WINDOW, M)
    for found, hu in ((batch.source, source), (batch.target, target)):
        torch.testing.assert_close(found, frame.to_model(torch.from_numpy(hu[[2, 0]])), atol=1e-3, rtol=0)


def test_neighbours_come_from_the_same_patient_and_patients_may_be_added() -> None:
    slices = ResidentSlices((4.0,), "cpu")
    for shift in (0.0, 50.0):
        source, target = thorax(3)
        slices.add(pack(source + np.float32(shift), target + np.float32(shift), M), 4.0)
    first = slices.batch([2, 3], None, (1,)).source
    assert len(slices) == 6
    assert torch.equal(first[0, 0], first[0, 1])
    slices.add(pack(*thorax(2), M), 4.0)
    assert len(slices) == 8
    assert torch.equal(slices.batch([2, 3], None, (1,)).source, first)


def test_a_target_may_come_with_its_neighbours_and_their_own_changes() -> None:
    slices, (source, target) = ResidentSlices((4.0, -4.0), "cpu", stacked=True), thorax(3)
    target = source + (target - source) * np.array([0.2, 0.5, 0.8], np.float32)[:, None, None]
    slices.add(pack(source, target, M), 4.0)
    batch, frame = slices.batch([1, 2], None, (1,)), Frame(HU_WINDOW, M)
    expected = frame.to_model(torch.from_numpy(target))[:, 0][torch.tensor([[1, 2, 0], [2, 2, 1]])]
    torch.testing.assert_close(batch.target, expected, atol=1e-3, rtol=0)
    changed = slices.batch([1, 2], Augmentation(lesions=2.0, rotate_deg=3.0), (1,))
    assert changed.target.shape == batch.target.shape
    assert not torch.equal(changed.target, batch.target)


def test_nothing_asked_for_changes_nothing() -> None:
    batch = batch_of()
    same = augment(batch, Augmentation(), random())
    torch.testing.assert_close(same.source, batch.source)
    assert torch.equal(same.change, batch.change)


def test_noise_has_its_sd_in_tissue_and_stays_out_of_the_change() -> None:
    batch = batch_of(40)
    noisy = augment(batch, Augmentation(noise_hu=(10.0, 10.0)), random())
    tissue = (batch.source == 40).all(dim=1, keepdim=True)
    found = (noisy.source - batch.source)[tissue.expand_as(batch.source)].std()
    assert 9 < found < 11
    assert torch.equal(noisy.change, batch.change)
    assert noisy.source.min() >= HU_WINDOW[0]
    air = batch.opened <= OPEN_HU[0]
    assert (noisy.source[air] - batch.source[air]).abs().max() == 0


def test_the_seed_decides() -> None:
    batch, how = batch_of(), Augmentation(noise_hu=(1.0, 9.0), rotate_deg=5.0, scale=(0.9, 1.1), lesions=1.0)
    first, again, other = (augment(batch, how, random(seed)).source for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_pasted_lesion_fills_lung_and_takes_the_enhancement_there_away() -> None:
    batch = batch_of(40)
    lit = replace(batch, change=torch.full_like(batch.change, 80.0))
    pasted = augment(lit, Augmentation(lesions=1.0), random())
    lung = (lit.opened[:, :1] < -150) & (lit.source[:, :1] <= HU_WINDOW[0])
    filled = (pasted.source[:, :1] > 0) & lung
    assert filled.flatten(1).any(1).float().mean() > 0.4
    assert pasted.change[filled].mean() < 30
    untouched = lit.opened[:, :1] >= -30
    assert torch.equal(pasted.source[:, :1][untouched], lit.source[:, :1][untouched])


def test_a_moved_patient_brings_in_air_and_keeps_source_and_change_together() -> None:
    batch = batch_of()
    moved = augment(batch, Augmentation(move_px=1.0, rotate_deg=20.0), random())
    assert (moved.source[:, :, ::31, ::31] == HU_WINDOW[0]).all()
    assert not torch.equal(moved.source, batch.source)
    vessel = moved.change > 60
    assert vessel.any()
    assert (moved.source[:, :1][vessel] > 20).all()


@pytest.mark.parametrize(
    "wrong",
    [{"noise_hu": (3.0, 1.0)}, {"scale": (-1.0, 1.0)}, {"shift_hu": -1.0}, {"noise_share": 2.0}, {"lesions": -1.0}],
)
def test_bounds_that_are_none_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Augmentation(**wrong)  # type: ignore[arg-type]
