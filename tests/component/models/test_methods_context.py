"""A method of any kind may be shown neighbouring slices, and its bundle translates with them as it was trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models import BundleError, load_bundle
from models.bundle import read_card
from models.frame import Frame
from models.methods.method import Batch, Method, describe_bundle, make_method, write_method_bundle
from models.prediction import predicted_image

CONTEXT_MM = (-3.0, 3.0)
KINDS = [
    ("pix2pix", "tiny"),
    ("cyclegan", "tiny"),
    ("reggan", "tiny"),
    ("reggan", "tiny_cycle"),
    ("syndiff", "tiny"),
    ("syndiff_paired", "tiny"),
]
STACKED = {("cyclegan", "tiny"), ("reggan", "tiny_cycle"), ("syndiff", "tiny")}


pytestmark = pytest.mark.usefixtures("one_thread")


def batch_for(method: Method) -> Batch:
    """Random stacks; the target has its neighbours where the method asks for them."""
    random = torch.Generator().manual_seed(4)
    channels, matrix = 1 + len(CONTEXT_MM), method.config.matrix
    source = torch.rand(2, channels, matrix, matrix, generator=random) - 0.9
    target = source + 0.8 * torch.rand(source.shape, generator=random)
    return Batch(source, target if method.stacked else target[:, :1])


@pytest.fixture(params=KINDS, ids="-".join)
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    name, preset = request.param
    return name, preset


def test_it_trains_on_stacks_and_its_bundle_sees_the_neighbours_it_was_shown(
    kind: tuple[str, str], tmp_path: Path
) -> None:
    method = make_method(*kind, context_mm=CONTEXT_MM)
    assert method.stacked == (kind in STACKED)
    losses = method.training_step(batch_for(method), 0)
    assert all(np.isfinite(value) for value in losses.values())
    generator = method.inference.generator
    random = torch.Generator().manual_seed(1)
    for parameter in generator.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=random)
    card = write_method_bundle(method, tmp_path, describe_bundle("toy", "1"), half=False)
    assert card.context_mm == CONTEXT_MM
    loaded = load_bundle(tmp_path)
    hu = np.random.default_rng(2).uniform(0, 300, (4, 24, 20)).astype(np.float32)
    before = loaded.translate(hu, 7, spacing_mm=3.0)
    native = torch.from_numpy(hu)
    slices = Frame.of(card).to_model(native)[:, 0]
    stacks = torch.stack([slices, slices[[0, 0, 1, 2]], slices[[1, 2, 3, 3]]], dim=1)
    ours = Frame.of(card).to_native(method.inference.translate(stacks, 7) - stacks[:, :1], native)
    np.testing.assert_allclose(before, ours, atol=0.05)
    hu[0] += 90.0
    changed = np.abs(loaded.translate(hu, 7, spacing_mm=3.0) - before).max(axis=(1, 2)) > 0
    assert changed.tolist() == [True, True, False, False]


def test_without_neighbours_the_networks_are_those_of_the_preset(kind: tuple[str, str]) -> None:
    bare, told = make_method(*kind), make_method(*kind, context_mm=())
    assert bare.config == told.config
    assert bare.inference.blueprint.context_mm == ()


def test_the_residual_of_a_stack_is_added_to_each_slice_of_it() -> None:
    method = make_method("cyclegan", "tiny", prediction="residual", residual_scale=0.5)
    source, output = torch.full((1, 3, 2, 2), 0.1), torch.full((1, 3, 2, 2), 0.4)
    source[:, 1] = -0.3

    def value(image: Tensor, channel: int) -> float:
        return float(image[0, channel, 0, 0])

    whole, first = (predicted_image(method.config, part, source) for part in (output, output[:, :1]))  # type: ignore[arg-type]
    assert whole.shape == (1, 3, 2, 2)
    assert [value(whole, 0), value(whole, 1)] == pytest.approx([0.3, -0.1])
    assert torch.equal(first, whole[:, :1])


@pytest.mark.parametrize(
    ("name", "term"), [("cyclegan", "discriminator_target"), ("syndiff", "nondiffusive_real_target")]
)
def test_discriminators_judge_the_neighbours_too(name: str, term: str) -> None:
    """What a generator hides in a channel that no discriminator sees would close every cycle."""
    losses = []
    for shift in (0.0, 0.1):
        method = make_method(name, "tiny", context_mm=CONTEXT_MM)
        batch = batch_for(method)
        batch.target[:, 2] += shift
        losses.append(method.training_step(batch, 0)[term])
    assert losses[0] != losses[1]


def test_a_generator_that_does_not_fit_its_neighbours_is_refused(tmp_path: Path) -> None:
    method = make_method("pix2pix", "tiny", context_mm=CONTEXT_MM)
    write_method_bundle(method, tmp_path, describe_bundle("toy", "1"))
    text = (tmp_path / "bundle.json").read_text()
    assert read_card(tmp_path).network["in_channels"] == 3
    (tmp_path / "bundle.json").write_text(text.replace('"in_channels": 3', '"in_channels": 2'))
    with pytest.raises(BundleError, match="in_channels is 2, but context_mm asks for 3"):
        load_bundle(tmp_path)
    (tmp_path / "bundle.json").write_text(text.replace('"out_channels": 1', '"out_channels": 2'))
    with pytest.raises(BundleError, match="out_channels is 2; it must be 1 or 3"):
        load_bundle(tmp_path)
