"""Promises of training: it learns, it repeats, and what it writes can be loaded."""

from pathlib import Path

import numpy as np
import pytest

from models import load_bundle
from models.evaluate import MetricsRow, measure_patient, write_metrics
from models.frame import Frame
from models.networks.config import NcsnppConfig
from models.phantom import make_patient
from models.pool import SlicePool, make_pool
from models.train import TrainConfig, Trainer, paired_card, train

TINY = NcsnppConfig(
    image_size=16, nf=8, ch_mult=(1,), num_res_blocks=1, nz=4, z_emb_dim=8, n_mlp=1, attn_resolutions=()
)


def toy_pool() -> SlicePool:
    """Discs that get brighter, in air that does not."""
    y, x = np.mgrid[:16, :16]
    disc = (x - 8) ** 2 + (y - 8) ** 2 < 15
    source = np.where(disc, -4000, -8192).astype(np.int16)
    return SlicePool(np.stack([source] * 4), np.stack([np.where(disc, 0, source).astype(np.int16)] * 4))


def trainer(steps: int, **changes: object) -> Trainer:
    card = paired_card("toy", "1", TINY, patients=1, slices=4, target="enhanced_source")
    return Trainer(card, TINY, TrainConfig(steps=steps, warmup_steps=5, crop_batch=2, full_batch=2, **changes))  # type: ignore[arg-type]


def test_loss_falls_on_a_fixed_set() -> None:
    run, pool = trainer(25, lr=5e-3), toy_pool()
    losses = [run.train_step(pool, k / 25) for k in range(25)]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_the_same_seed_gives_the_same_losses_and_another_seed_others() -> None:
    pool = toy_pool()
    runs = [[run.train_step(pool, 0.0) for _ in range(3)] for run in (trainer(3), trainer(3), trainer(3, seed=2))]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_training_ends_in_a_bundle_that_loads(tmp_path: Path) -> None:
    card = train(trainer(4), toy_pool(), tmp_path / "toy")
    loaded = load_bundle(tmp_path / "toy")
    assert loaded.card == card
    assert card.training["steps"] == 4
    assert loaded.translate(np.full((1, 40, 40), 50, np.float32), 0).shape == (1, 40, 40)


def test_metrics_enter_the_card_and_leave_the_model_as_it_was(tmp_path: Path) -> None:
    card = train(trainer(1), toy_pool(), tmp_path)
    rows = [MetricsRow(name, "internal", 3, 30.123, 0.0111111, -5, 6, 1, 0.5) for name in ("identity", "toy")]
    measured = write_metrics(tmp_path, rows)
    assert measured.digest == card.digest
    assert [row["psnr_db"] for row in measured.metrics] == [30.12, 30.12]
    text = (tmp_path / "CARD.md").read_text()
    assert "| internal | identity | 3 | 30.12 | 0.01111 | -5 |" in text
    assert "Not for clinical use" in text


def test_pool_holds_both_scans_of_every_slice(tmp_path: Path) -> None:
    pool = make_pool(Frame((-40.0, 400.0), 32), patients=1, slices=2, first_seed=3)
    pool.save(tmp_path / "pool.npz")
    source, target = SlicePool.load(tmp_path / "pool.npz").batch(np.array([0, 1]))
    assert source.shape == target.shape == (2, 1, 32, 32)
    assert source.min() >= -1
    assert target.max() <= 1
    assert (target - source).max() > 0.05
    with pytest.raises(ValueError, match="allowed are"):
        make_pool(Frame((-40.0, 400.0), 32), patients=1, slices=1, first_seed=0, target="wish")


def test_metrics_of_truth_and_of_identity_are_what_they_must_be() -> None:
    patient = make_patient(2, slices=2, rows=128, spacing_mm=(5.0, 3.9, 3.9), centre_z_mm=-40)
    frame = Frame((-40.0, 400.0), 64)
    perfect = measure_patient(patient, np.clip(patient.cect_clean_hu, -40, 400), frame)
    identity = measure_patient(patient, np.clip(patient.ncct_hu, -40, 400), frame)
    assert perfect["blood_pool_mae_hu"] == 0
    assert perfect["psnr_db"] > identity["psnr_db"] + 3
    assert identity["false_enhancement_mae_hu"] == 0
    assert identity["blood_pool_bias_hu"] == pytest.approx(-patient.e_hu, rel=0.15)
    assert identity["slope"] == 0
