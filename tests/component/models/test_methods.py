"""Promises of every method, at a tiny size: it learns, it resumes exactly, and its bundle translates as it does."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models import load_bundle
from models.frame import Frame
from models.methods.method import (
    Batch,
    Method,
    describe_bundle,
    make_method,
    write_method_bundle,
)
from models.methods.syndiff import Syndiff
from models.registry import METHODS, WITHOUT_TEACHER

KINDS = [
    ("pix2pix", "tiny"),
    ("cyclegan", "tiny"),
    ("reggan", "tiny"),
    ("reggan", "tiny_cycle"),
    ("syndiff", "tiny"),
    ("syndiff_paired", "tiny"),
    ("syndiff_paired", "tiny_demo"),
]
STEPS, SAVED_AT = 6, 5
COMPARISONS = ("l1", "cycle", "identity", "smoothness")


pytestmark = pytest.mark.usefixtures("one_thread")


def fixed_batch(matrix: int) -> Batch:
    """A disc in air, darker in one contrast than in the other."""
    r, c = torch.meshgrid(torch.arange(matrix), torch.arange(matrix), indexing="ij")
    disc = ((r - matrix // 2) ** 2 + (c - matrix // 2) ** 2 < (0.45 * matrix) ** 2).float()
    noise = 0.05 * torch.randn(2, 1, matrix, matrix, generator=torch.Generator().manual_seed(0))
    source = -0.9 + 0.4 * disc + noise
    return Batch(source, source + 1.0 * disc)


def comparisons(losses: Mapping[str, float]) -> float:
    """What of the generators' objective compares images; the adversarial rest has no minimum to approach."""
    return sum(value for name, value in losses.items() if name.startswith(COMPARISONS))


@dataclass(frozen=True)
class Run:
    """A method after its steps, what each returned, and the checkpoint before the last of them."""

    preset: str
    method: Method
    batch: Batch
    losses: list[dict[str, float]]
    checkpoint: bytes


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def run(request: pytest.FixtureRequest) -> Run:
    method = make_method(*request.param)
    batch = fixed_batch(method.config.matrix)
    losses, saved = [], io.BytesIO()
    for step in range(STEPS):
        if step == SAVED_AT:
            torch.save(method.parts.state_dict(), saved)
        losses.append(method.training_step(batch, step))
    return Run(request.param[1], method, batch, losses, saved.getvalue())


def test_the_generators_objective_falls_on_a_fixed_batch(run: Run) -> None:
    values = [comparisons(losses) for losses in run.losses]
    assert np.mean(values[-2:]) < 0.9 * values[0]
    assert all(np.isfinite(list(losses.values())).all() for losses in run.losses)


def test_registration_starts_at_rest_and_moves(run: Run) -> None:
    displacements = [losses["displacement_px"] for losses in run.losses if "displacement_px" in losses]
    if getattr(run.method.config, "registration", None) is None:
        assert displacements == []
    else:
        assert displacements[0] < 1e-3
        assert displacements[-1] > 10 * displacements[0]


def test_gradients_of_time_discriminators_are_penalised_every_few_steps(run: Run) -> None:
    every = getattr(run.method.config, "r1_every", None) if run.preset != "tiny_demo" else None
    penalised = [any(name.startswith("r1") for name in losses) for losses in run.losses]
    assert penalised == [every is not None and step % every == 0 for step in range(STEPS)]


def test_a_resumed_run_goes_on_with_the_same_losses_and_ends_in_the_same_weights(run: Run) -> None:
    resumed = make_method(run.method.name, run.preset)
    resumed.parts.load_state_dict(torch.load(io.BytesIO(run.checkpoint), weights_only=True))
    again = [resumed.training_step(run.batch, step) for step in range(SAVED_AT, STEPS)]
    assert again == run.losses[SAVED_AT:]
    states = [method.inference.generator.state_dict().values() for method in (resumed, run.method)]
    pairs = zip(*states, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_its_bundle_loads_and_translates_as_it_does_alone_or_in_company(run: Run, tmp_path: Path) -> None:
    words = {"intended_use": "Tests only.", "training": {"steps": STEPS}}
    card = write_method_bundle(run.method, tmp_path, describe_bundle("toy", "1", **words), half=False)
    loaded = load_bundle(tmp_path)
    assert loaded.card == card
    assert (card.method, card.matrix) == (run.method.name, run.method.config.matrix)
    assert card.method in loaded.description
    hu = np.random.default_rng(2).normal(100, 150, (3, 24, 20)).astype(np.float32)
    predicted = loaded.translate(hu, 7)
    assert predicted.shape == hu.shape
    assert predicted.dtype == np.float32
    assert np.isfinite(predicted).all()
    assert np.abs(predicted - np.clip(hu, -40, 400)).max() > 5
    assert np.array_equal(loaded.translate(hu[[2, 0]], 7), predicted[[2, 0]])
    frame, native = Frame.of(card), torch.from_numpy(hu)
    source = frame.to_model(native)
    ours = frame.to_native(run.method.inference.translate(source, 7) - source, native)
    np.testing.assert_allclose(predicted, ours, atol=0.05)


def test_translating_leaves_a_method_in_training_as_it_was(run: Run) -> None:
    modes = [network.training for network in run.method.parts.networks.values()]
    predicted = run.method.inference.translate(run.batch.source, 3)
    assert predicted.shape == run.batch.source.shape
    assert not predicted.requires_grad
    assert [network.training for network in run.method.parts.networks.values()] == modes
    assert torch.equal(run.method.inference.translate(run.batch.source, 3), predicted)


def test_half_precision_halves_the_bundle_and_the_text_says_how_it_works(run: Run, tmp_path: Path) -> None:
    about = describe_bundle("toy", "1")
    for half in (False, True):
        write_method_bundle(run.method, tmp_path / str(half), about, half=half)
    sizes = [(tmp_path / str(half) / "weights.safetensors").stat().st_size for half in (False, True)]
    assert sizes[1] < 0.75 * sizes[0]
    text = (tmp_path / "True" / "CARD.md").read_text()
    assert ("4 reverse diffusion steps" if "syndiff" in run.method.name else "one pass of the generator") in text


def test_every_method_has_the_studys_and_its_own_settings() -> None:
    published = {"pix2pix": (2e-4, 200), "cyclegan": (2e-4, 200), "reggan": (1e-4, 80), "syndiff": (1.6e-4, 500)}
    for name in WITHOUT_TEACHER:
        assert {"paper", "published", "small", "tiny"} <= set(METHODS[name].presets)
    for name, (rate, epochs) in published.items():
        paper, own = (METHODS[name].presets[preset].regime for preset in ("paper", "published"))
        assert (paper.lr_generator, paper.lr_discriminator, paper.batch_size, paper.epochs) == (1e-4, 1e-4, 16, 100)
        assert (own.lr_generator, own.batch_size, own.epochs) == (rate, 1, epochs)


@pytest.mark.parametrize("name", WITHOUT_TEACHER)
def test_a_small_preset_trains_and_predicts_changes_at_its_small_matrix(name: str) -> None:
    method = make_method(name, "small", regime={"batch_size": 1})
    blueprint = method.inference.blueprint
    assert (method.config.matrix, blueprint.matrix, blueprint.prediction) == (128, 128, "residual")
    both = fixed_batch(128)
    batch = Batch(both.source[:1], both.target[:1])
    assert all(np.isfinite(value) for value in method.training_step(batch, 0).values())
    assert method.inference.translate(batch.source, 1).abs().max() <= 1


def test_the_demo_is_trained_on_crops_first() -> None:
    regime = make_method("syndiff_paired", "demo").config.regime
    assert (regime.warmup_steps, regime.batch_size) == (100, 3)
    assert (regime.crop, regime.crop_share, regime.crop_batch) == (128, 0.6, 8)


def test_settings_can_be_replaced_and_another_seed_gives_another_network() -> None:
    first, second = make_method("pix2pix", "tiny"), make_method("pix2pix", "tiny", regime={"seed": 2}, l1_weight=7.0)
    assert second.config == replace(first.config, regime=replace(first.config.regime, seed=2), l1_weight=7.0)  # type: ignore[type-var]
    x = fixed_batch(16).source
    assert not torch.equal(first.inference.translate(x, 0), second.inference.translate(x, 0))
    with pytest.raises(TypeError, match="wings"):
        make_method("pix2pix", "tiny", wings=2)


def test_syndiff_trains_its_guides_through_the_diffusive_terms() -> None:
    method, batch = make_method("syndiff", "tiny"), fixed_batch(16)
    assert isinstance(method, Syndiff)
    with torch.no_grad():  # a new generator ends in almost nothing, and so ignores its guide
        for module in method.parts.networks["diffusive_target"].modules():
            if isinstance(module, torch.nn.Conv2d) and module.weight.abs().max() < 1e-3:
                torch.nn.init.kaiming_normal_(module.weight)
    terms = method._generator_terms({"target": batch.target, "source": batch.source})
    guide: Tensor = terms["l1_target"]  # the target is denoised under the guidance of a made source
    gradients = torch.autograd.grad(guide, list(method.parts.networks["nondiffusive_source"].parameters()))
    assert max(float(g.abs().max()) for g in gradients) > 1e-6
