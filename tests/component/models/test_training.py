"""Promises of the training loop: it learns, repeats, goes on after any stop, and ends in its best bundle."""

import errno
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from models import load_bundle
from models.cohort import Cohort, CohortWriter, open_cohort
from models.frame import Frame
from models.methods.method import Batch
from models.methods.optimisation import Regime
from models.registry import WITHOUT_TEACHER
from models.training import Diverged, OfOneProcess, TrainingError, UnreadableSlice, train
from models.training.about import PHANTOM_AGE_YEARS, PHANTOM_BODY_PARTS
from models.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from models.training.loop import Silent
from models.training.slices import BatchPlan, SliceSet, read_batches
from tests.component.models.training_cohort import PullsThePlug, lines, options


@pytest.mark.parametrize("method", WITHOUT_TEACHER)
def test_a_run_that_stopped_goes_on_with_the_losses_and_the_bundle_it_would_have_had(
    method: str, cohort: Cohort, tmp_path: Path
) -> None:
    whole = train(cohort, tmp_path / "whole", options(method))
    with pytest.raises(KeyboardInterrupt):
        train(cohort, tmp_path / "cut", options(method, checkpoint_every=2), observer=PullsThePlug(6))
    assert len(lines(tmp_path / "cut")) == 6  # more than the checkpoint knows
    resumed = train(cohort, tmp_path / "cut", options(method, checkpoint_every=2), resume=True)
    for file in ("losses.jsonl", "validations.jsonl"):
        assert lines(tmp_path / "cut", file) == lines(tmp_path / "whole", file)
    assert [line["step"] for line in lines(tmp_path / "cut")] == list(range(1, 10))
    assert resumed.card.weights_sha256 == whole.card.weights_sha256
    assert resumed.best == whole.best


def test_a_finished_run_has_nothing_left_to_do(cohort: Cohort, tmp_path: Path) -> None:
    first = train(cohort, tmp_path, options())
    again = train(cohort, tmp_path, options(), resume=True)
    assert again == first
    assert len(lines(tmp_path)) == 9


def test_it_learns_and_its_bundle_does_what_the_validation_saw(cohort: Cohort, tmp_path: Path) -> None:
    result = train(cohort, tmp_path, options(target="enhanced_source", regime={"epochs": 12}))
    assert result.best is not None
    assert result.best.figures["psnr_gain_db"] > 1
    patient = cohort.split("internal")[0]
    ncct, truth = patient.hu("ncct"), patient.hu("ncct") + patient.hu("enhancement")
    predicted = load_bundle(result.bundle).translate(ncct, 0)
    changed = truth != ncct
    assert np.abs(predicted - truth)[changed].mean() < 0.8 * np.abs(ncct - truth)[changed].mean()


def test_the_card_says_what_the_bundle_was_trained_on_and_how_it_was_chosen(cohort: Cohort, tmp_path: Path) -> None:
    result = train(cohort, tmp_path, options(name="ours"))
    card = load_bundle(result.bundle).card
    assert card == result.card
    assert (card.name, card.method) == ("ours", "syndiff_paired")
    told = card.training
    assert (told["cohort_digest"], told["patients"], told["slices"]) == (cohort.digest, 3, 6)
    assert result.best is not None
    assert told["epoch"] == result.best.epoch
    assert told["validation"] == {key: round(value, 4) for key, value in result.best.figures.items()}
    assert card.envelope.pixel_spacing_mm == pytest.approx((1.25, 1.5), abs=0.0101)
    assert card.envelope.slice_spacing_mm == pytest.approx((5, 5), abs=0.0101)
    assert (card.envelope.age_years, card.envelope.body_parts) == (PHANTOM_AGE_YEARS, PHANTOM_BODY_PARTS)
    assert any("phantom" in limit for limit in card.limits)


def test_the_bundle_is_of_the_best_epoch_and_patience_ends_a_run(cohort: Cohort, tmp_path: Path) -> None:
    # A rate this high destroys what the first steps left, so that the first epoch stays the best.
    wild = {"epochs": 20, "lr_generator": 0.5, "max_grad_norm": None, "ema_decay": None}
    result = train(cohort, tmp_path, options("pix2pix", regime=wild, patience=2))
    figures = [line["nmae"] for line in lines(tmp_path, "validations.jsonl")]
    assert result.stopped_early
    assert result.best is not None
    assert result.best.figures["nmae"] == min(figures)
    assert result.best.epoch == figures.index(min(figures)) + 1
    assert len(figures) == result.best.epoch + 2
    assert result.card.training["epoch"] == result.best.epoch


def test_without_validation_patients_the_last_epoch_counts(cohort: Cohort, tmp_path: Path) -> None:
    writer = CohortWriter(tmp_path / "cohort", kind="phantom", provenance={})
    for patient in cohort.split("train"):
        writer.add(patient.record, {"ncct": patient.hu("ncct"), "cect": patient.hu("cect")})
    alone = writer.close()
    with pytest.raises(TrainingError, match=r"no patient in the split validation.*--without-validation"):
        train(alone, tmp_path / "run", options())
    result = train(alone, tmp_path / "run", options(without_validation=True))
    assert result.best is None
    assert (result.card.training["epoch"], result.card.training["validation"]) == (3, {})


def test_half_precision_arithmetic_trains(cohort: Cohort, tmp_path: Path) -> None:
    result = train(cohort, tmp_path, options(precision="bf16", regime={"epochs": 1}))
    assert json.loads((tmp_path / "run.json").read_text())["arithmetic"] == "cpu, bf16"
    assert lines(tmp_path)[0] != lines(train(cohort, tmp_path / "fp32", options(regime={"epochs": 1})).bundle.parent)[0]
    assert result.steps == 3


def test_another_seed_is_another_run(cohort: Cohort, tmp_path: Path) -> None:
    runs = [train(cohort, tmp_path / str(seed), options(regime={"epochs": 1, "seed": seed})) for seed in (1, 2)]
    assert runs[0].card.weights_sha256 != runs[1].card.weights_sha256


def test_a_run_is_neither_overwritten_nor_continued_under_other_settings(cohort: Cohort, tmp_path: Path) -> None:
    train(cohort, tmp_path / "run", options(regime={"epochs": 1}))
    with pytest.raises(TrainingError, match="already holds a run"):
        train(cohort, tmp_path / "run", options(regime={"epochs": 1}))
    with pytest.raises(TrainingError, match=r"was begun with regime\.epochs 1, not 2: not"):
        train(cohort, tmp_path / "run", options(regime={"epochs": 2}), resume=True)
    with pytest.raises(TrainingError, match="no run to go on with"):
        train(cohort, tmp_path / "other", options(), resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match="not empty"):
        train(cohort, tmp_path / "full", options())
    (tmp_path / "run" / "checkpoint-0.pt").write_bytes(b"half of a file")
    with pytest.raises(TrainingError, match="cannot be read"):
        train(cohort, tmp_path / "run", options(regime={"epochs": 1}), resume=True)


def test_two_trainings_never_share_a_folder(cohort: Cohort, tmp_path: Path) -> None:
    told = []

    class BeginsAgain(Silent):
        def stepped(self, epoch: int, step: int, losses: Mapping[str, float]) -> None:
            with pytest.raises(TrainingError) as refused:
                train(cohort, tmp_path, options(regime={"epochs": 1}), resume=True)
            told.append(str(refused.value))

    train(cohort, tmp_path, options(regime={"epochs": 1}), observer=BeginsAgain())
    assert set(told) == {f"another process trains in {tmp_path}; wait for its end or stop it, or name another folder."}
    assert [line["step"] for line in lines(tmp_path)] == [*range(1, 1 + len(told))]


def test_a_full_disk_is_told_with_the_file_and_keeps_the_checkpoint_before_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint(1, None, {}))
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        patch("models.training.checkpoint.torch.save", side_effect=full),
        pytest.raises(OSError, match="space") as told,
    ):
        save_checkpoint(tmp_path, Checkpoint(2, None, {}))
    assert told.value.filename == str(tmp_path / "checkpoint-0.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-0.pt"]
    assert (found := load_checkpoint(tmp_path)) is not None
    assert found.step == 1


def test_a_slice_that_another_process_cannot_read_is_told_in_one_sentence(cohort: Cohort, tmp_path: Path) -> None:
    shutil.copytree(cohort.path, tmp_path / "cohort")
    train_patients = open_cohort(tmp_path / "cohort").split("train")
    slices = SliceSet(train_patients, Frame((-1024.0, 1500.0), 32), "cect")
    lost = tmp_path / "cohort" / "patients" / train_patients[1].id / "cect.npy"
    lost.unlink()
    plan = BatchPlan(len(slices), Regime(batch_size=2), paired=True)
    for workers in (0, 1):
        with pytest.raises(UnreadableSlice) as told:
            list(read_batches(slices, plan, 0, 0, workers=workers))
        assert str(told.value).startswith(f"{lost} cannot be read: ")
        assert "\n" not in str(told.value)
    with (
        patch.object(SliceSet, "__getitem__", lambda *_: os._exit(1)),
        pytest.raises(OfOneProcess, match=r"a process that reads slices ended.*fewer workers"),
    ):
        list(read_batches(slices, plan, 0, 0, workers=1))


def test_losses_that_left_the_numbers_end_the_run(cohort: Cohort, tmp_path: Path) -> None:
    lost = {"epochs": 30, "lr_generator": 1e30, "max_grad_norm": None}
    with pytest.raises(Diverged, match="not finite"):
        train(cohort, tmp_path, options("reggan", regime=lost))


def test_what_a_cohort_lacks_is_named(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no cect_registered"):
        train(cohort, tmp_path / "a", options(target="cect_registered"))
    with pytest.raises(TrainingError, match="batch of 7 needs"):
        train(cohort, tmp_path / "b", options(regime={"batch_size": 7}))
    with pytest.raises(TrainingError, match="target is 'wish'"):
        options(target="wish")


def test_an_epoch_shows_every_slice_once_and_processes_share_each_batch() -> None:
    regime = Regime(batch_size=4, epochs=2, seed=5)
    alone = BatchPlan(10, regime, paired=True)
    shares = [BatchPlan(10, regime, True, process, 2).batches(1) for process in (0, 1)]
    assert alone.steps_in(0) == 2
    assert [a + b for a, b in zip(*shares, strict=True)] == alone.batches(1)
    in_parts = [BatchPlan(10, replace(regime, accumulate=2), True, process, 2).own_places(1) for process in (0, 1)]
    assert in_parts == [[0, 2], [1, 3]]
    seen = [i for batch in BatchPlan(8, regime, True).batches(0) for i, _ in batch]
    assert sorted(seen) == list(range(8))
    assert all(i == j for batch in alone.batches(0) for i, j in batch)
    assert alone.batches(0) != alone.batches(1)
    assert any(i != j for batch in BatchPlan(10, regime, paired=False).batches(0) for i, j in batch)
    with pytest.raises(TrainingError, match="divided among 3"):
        BatchPlan(10, regime, True, 0, 3)


def test_crops_come_first_at_the_same_place_of_both_images() -> None:
    plan = BatchPlan(8, Regime(batch_size=2, epochs=4, crop=8, crop_share=0.5, crop_batch=4), paired=True)
    assert [plan.steps_in(epoch) for epoch in range(4)] == [2, 2, 4, 4]
    assert plan.total_steps == 12
    assert [plan.position(step) for step in (0, 3, 4, 11, 12)] == [(0, 0), (1, 1), (2, 0), (3, 3), (4, 0)]
    images = torch.rand(4, 1, 32, 32)
    cut = plan.crop(Batch(images, images + 1), 1, 0)
    assert cut.source.shape == (4, 1, 8, 8)
    assert torch.equal(cut.source + 1, cut.target)
    assert not torch.equal(cut.source, plan.crop(Batch(images, images), 1, 1).source)
    assert plan.crop(Batch(images, images), 2, 0).source is images


def test_slices_are_read_as_the_bundle_will_see_them(cohort: Cohort) -> None:
    slices = SliceSet(cohort.split("train"), Frame((-40.0, 400.0), 16), "enhanced_source")
    source, target = slices[3, 3]
    assert source.shape == (1, 16, 16)
    middle = (cohort.split("train")[1].hu("ncct")[1, 16, 16] + 40) / 220 - 1
    assert float(source[0, 8, 8]) == pytest.approx(middle)
    assert float(target[0, 8, 8] - source[0, 8, 8]) == pytest.approx(90 / 220)
    assert len(slices.spread(4).source) == 4
    assert len(slices.spread(100).source) == len(slices) == 6
