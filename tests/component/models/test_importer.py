"""Promises of the importer: official numbers from an official checkpoint, and every other file refused in words."""

import argparse
import io
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_safetensors

import models
from models.bundle import BundleError
from models.importer import FolderTaken, import_syndiff, parameter_count, read_network_file
from models.networks.config import NcsnppConfig
from models.networks.ncsnpp import Ncsnpp
from models.networks.ncsnpp_shapes import infer_config
from models.translators.syndiff import SyndiffTranslator
from tests.official_checkpoint import TINY, official_state


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def do_import(folder: Path, data: bytes, *, out: str = "bundle", **options: Any) -> models.BundleCard:
    file = folder / "gen_diffusive_2_10.pth"
    file.write_bytes(data)
    given: dict[str, Any] = {"name": "x", "version": "1", "image_size": 32} | options
    return import_syndiff(file, folder / out, **given)


def test_an_imported_checkpoint_gives_the_official_outputs_and_sample(parity: Path, tmp_path: Path) -> None:
    arrays = np.load(parity / "syndiff_tiny.npz")
    card = import_syndiff(parity / "gen_diffusive_2_10.pth", tmp_path, name="x", version="1", image_size=32)
    assert parameter_count(card) == json.loads((parity / "syndiff_tiny.json").read_text())["params"]
    translator = models.load_bundle(tmp_path)
    assert isinstance(translator, SyndiffTranslator)
    outputs: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        if isinstance(module, Ncsnpp):
            outputs.append(output)

    with torch.nn.modules.module.register_module_forward_hook(keep):
        sample = translator.sample(*(arrays[name] for name in ("source", "x_T", "z", "posterior_noise")))

    assert np.abs(arrays["sample"]).std() > 0.1  # live weights: a wrong network could not hide
    assert np.abs(sample - arrays["sample"]).max() <= 1e-4
    assert np.abs(torch.stack(outputs).numpy() - arrays["generator_outputs"]).max() <= 1e-4


def test_a_configuration_file_with_official_names_gives_the_same_bundle_as_inferring(
    parity: Path, tmp_path: Path
) -> None:
    file = parity / "gen_diffusive_2_10.pth"
    config, diffusion = read_network_file(parity / "syndiff_tiny.json")
    inferred = import_syndiff(file, tmp_path / "a", name="x", version="1", image_size=32)
    assert import_syndiff(file, tmp_path / "b", name="x", version="1", config=config, diffusion=diffusion) == inferred


def test_the_published_network_is_recognised_by_its_shapes() -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in official_state(NcsnppConfig(), device="meta").items()}
    assert (len(shapes), sum(math.prod(shape) for shape in shapes.values())) == (548, 39_725_250)
    assert shapes["all_modules.20.NIN_0.W"] == (256, 256)
    assert infer_config(shapes, image_size=256) == NcsnppConfig()
    assert infer_config(shapes, image_size=512) == NcsnppConfig(image_size=512, attn_resolutions=(32,))


@pytest.mark.parametrize(
    "changes",
    [
        {"ch_mult": (1,), "attn_resolutions": ()},
        {"ch_mult": (1,), "attn_resolutions": (32,)},
        {"ch_mult": (2, 1, 3), "attn_resolutions": (32, 8)},
        {"attn_resolutions": (16,), "num_res_blocks": 3},
        {"n_mlp": 5, "nz": 7, "z_emb_dim": 16},
    ],
)
def test_any_other_network_is_recognised_by_its_shapes(changes: dict[str, Any]) -> None:
    config = replace(TINY, **changes)
    shapes = {key: tuple(tensor.shape) for key, tensor in official_state(config, device="meta").items()}
    assert infer_config(shapes, image_size=32) == config


def test_wrappers_and_repetition_change_no_byte_of_the_weights_and_no_digit_of_the_digest(tmp_path: Path) -> None:
    prefixes = ("", "module.", "module.module.", "module.")
    cards = [
        do_import(tmp_path, saved(official_state(prefix=prefix)), out=str(number))
        for number, prefix in enumerate(prefixes)
    ]
    assert len({card.digest for card in cards}) == 1
    again = do_import(tmp_path, saved(official_state(prefix="module.")), out="again")
    for name in ("bundle.json", "CARD.md", "weights.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()
    assert again == cards[3]


def test_weights_are_kept_in_float32(tmp_path: Path) -> None:
    half = {key: tensor.half() for key, tensor in official_state().items()}
    do_import(tmp_path, saved(half))
    stored = load_safetensors((tmp_path / "bundle" / "weights.safetensors").read_bytes())
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    assert torch.equal(stored["stem.weight"], half["all_modules.2.weight"].float())


def test_the_card_says_what_is_not_known(tmp_path: Path) -> None:
    card = do_import(tmp_path, saved(official_state()), hu_window=(-100, 300))
    text = (tmp_path / "bundle" / "CARD.md").read_text()
    assert (card.method, card.prediction, card.hu_window, card.matrix) == ("syndiff", "image", (-100, 300), 32)
    assert "Apache" not in text
    for words in ("not known", "non-commercial", "data: not stated in the checkpoint", "until commissioned"):
        assert words in text
    assert card.metrics == ()


def test_a_checkpoint_of_several_networks_is_refused(tmp_path: Path) -> None:
    content = {"epoch": 10, "gen_diffusive_1_dict": official_state(), "optimizer": {}}
    with pytest.raises(BundleError, match=r"not the diffusive generator of SynDiff.*epoch.*Take gen_diffusive_1"):
        do_import(tmp_path, saved(content))
    with pytest.raises(BundleError, match=r"Python objects.*content\.pth holds"):
        do_import(tmp_path, saved(content | {"args": argparse.Namespace(nz=4)}))
    assert not (tmp_path / "bundle").exists()


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "it ran"

    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return Path.touch, (marker,)

    pickle.loads(pickle.dumps(Trap()))
    assert marker.exists()
    marker.unlink()
    for data in (saved({"module.all_modules.0.weight": Trap()}), pickle.dumps(Trap())):
        with pytest.raises(BundleError, match="cannot be imported"):
            do_import(tmp_path, data)
    assert not marker.exists()


def changed(**changes: object) -> bytes:
    """A checkpoint with tensors replaced, or left out where the change is None."""
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return saved({key: value for key, value in (official_state() | named).items() if value is not None})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: b"", "no PyTorch checkpoint, or it is cut short"),
        (lambda: b"P" * 5000, "no PyTorch checkpoint"),
        (lambda: pickle.dumps({"a": 1}), "no PyTorch checkpoint"),
        (lambda: saved(official_state())[:-100], "cut short"),
        (lambda: saved([torch.zeros(1)]), "no tensors by name"),
        (lambda: saved({}), "no tensors by name"),
        (
            lambda: saved({"module.module.model.1.weight": torch.zeros(64, 1, 7, 7)}),
            r"not the diffusive.*no all_modules\.0\.weight, but model\.1\.weight",
        ),
        (lambda: changed(all_modules__2__weight=torch.zeros(8, 2)), r"all_modules\.2\.weight has 2 dimensions, not 4"),
        (lambda: changed(all_modules__2__weight=torch.zeros(8, 3, 3, 3)), "takes 3 images at once, not 2"),
        (lambda: changed(all_modules__0__weight=torch.zeros(9, 8)), r"all_modules\.0\.weight has the shape \(9, 8\)"),
        (lambda: changed(all_modules__1__bias=None), r"all_modules\.1\.bias is missing"),
        (lambda: changed(z_transform__1__weight=None), r"z_transform\.1\.weight is missing"),
        (lambda: changed(all_modules__3__Conv_9__bias=torch.zeros(1)), r"Conv_9\.bias is there"),
        (lambda: changed(all_modules__3__Conv_2__bias=torch.zeros(8)), r"Conv_2\.bias is there"),
        (lambda: changed(all_modules__2__bias=torch.full((8,), torch.nan)), r"all_modules\.2\.bias.*not finite"),
        (lambda: changed(all_modules__2__bias=torch.zeros(8, dtype=torch.int64)), "no table of floating-point"),
        (lambda: changed(all_modules__4__Conv_0__weight=None), r"all_modules\.4 is incomplete, missing or no layer"),
        (lambda: changed(all_modules__99__W=torch.zeros(8)), r"all_modules\.19 is incomplete, missing or no layer"),
    ],
)
def test_what_is_no_whole_generator_is_refused_in_words(tmp_path: Path, make: Callable[[], bytes], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        do_import(tmp_path, make())
    assert not (tmp_path / "bundle").exists()


def test_a_matrix_that_the_network_cannot_halve_and_a_bad_card_are_refused_before_writing(tmp_path: Path) -> None:
    options: tuple[tuple[dict[str, Any], str], ...] = (
        ({"image_size": 31}, "image_size 31 is not a multiple of 2"),
        ({"hu_window": (400, -40)}, "the lower first"),
        ({"name": ""}, "name is ''"),
    )
    for option, words in options:
        with pytest.raises(BundleError, match=words):
            do_import(tmp_path, saved(official_state()), **option)
    assert not (tmp_path / "bundle").exists()


def test_a_file_that_is_not_there_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read: No such file"):
        import_syndiff(tmp_path / "none.pth", tmp_path / "bundle", name="x", version="1")


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    do_import(tmp_path, saved(official_state()))  # an empty folder is welcome
    before = (tmp_path / "bundle" / "bundle.json").read_bytes()
    for out in ("bundle", "gen_diffusive_2_10.pth", "."):
        with pytest.raises(FolderTaken, match="not overwritten"):
            do_import(tmp_path, saved(official_state(replace(TINY, nf=16))), out=out)
    assert (tmp_path / "bundle" / "bundle.json").read_bytes() == before


def test_a_given_configuration_that_does_not_fit_names_the_first_tensor(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"all_modules\.5\.GroupNorm_0\.style\.weight is missing"):
        do_import(tmp_path, saved(official_state()), config=replace(TINY, num_res_blocks=2))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"fir": false}', "fir is False; only True"),
        ('{"fir_kernel": [1, 2, 1]}', "fir_kernel is"),
        ('{"config": {"resblock_type": "ddpm"}}', "resblock_type is 'ddpm'"),
        ('{"wings": 2}', r"unknown network keys \['wings'\]"),
        ('{"nf": 7}', "nf is 7"),
        ('{"num_timesteps": 0}', "num_timesteps is 0"),
        ("[1]", "one JSON object"),
        ('{"config": 3}', "one JSON object"),
        ("{", "is no JSON"),
    ],
)
def test_a_configuration_file_that_cannot_be_followed_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "network.json"
    file.write_text(text)
    with pytest.raises(BundleError, match=words):
        read_network_file(file)


def test_a_configuration_file_reads_our_names_as_well_as_the_official_ones(tmp_path: Path) -> None:
    file = tmp_path / "network.json"
    file.write_text('{"num_channels_dae": 32, "num_timesteps": 8, "dropout": 0.1}')
    official = read_network_file(file)
    file.write_text('{"nf": 32, "num_timesteps": 8}')
    assert read_network_file(file) == official
    assert (official[0].nf, official[1].num_timesteps) == (32, 8)
