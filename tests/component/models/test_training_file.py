"""Promises of the file of a run: every knob is in it, and every mistake in it is one sentence."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from models.networks.resnet import ResnetConfig
from models.networks.unet import UnetConfig
from models.registry import METHODS
from models.training import TrainingError, TrainOptions, read_options, render
from models.training.runfile import resolve


def options(method: str, preset: str) -> TrainOptions:
    return TrainOptions(method, preset=preset, teacher="/teacher" if METHODS[method].needs_teacher else None)


@pytest.mark.parametrize(("method", "preset"), [(method, p) for method, row in METHODS.items() for p in row.presets])
def test_a_written_file_is_read_as_the_same_run(method: str, preset: str, tmp_path: Path) -> None:
    text = render(options(method, preset))
    (tmp_path / "run.toml").write_text(text)
    again = read_options(tmp_path / "run.toml", {})
    assert resolve(again) == resolve(options(method, preset))
    assert render(again) == text


def test_a_written_file_says_what_each_key_may_be() -> None:
    lines = render(options("reggan", "small")).splitlines()
    plain = [line for line in lines if " = " in line and not line.startswith(("#", "architecture"))]
    assert len(plain) > 40
    assert not [line for line in plain if "  # " not in line]
    assert any(line.startswith("decay = ") and "one of constant, linear, cosine" in line for line in plain)
    assert sum(line.startswith("# ") for line in lines) > 20


def test_the_command_line_counts_more_than_the_file_which_counts_more_than_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'method = "pix2pix"\npreset = "tiny"\npatience = 3\n[regime]\nepochs = 7\nseed = 5\nema_decay = "none"\n'
        '[model]\nl1_weight = 7\n[model.generator]\narchitecture = "unet"\ndropout = 0\n'
    )
    found = read_options(file, {"patience": 4, "regime": {"seed": 6}})
    config: Any = resolve(found)
    assert (found.patience, config.regime.epochs, config.regime.seed, config.regime.ema_decay) == (4, 7, 6, None)
    assert (config.l1_weight, config.generator) == (7.0, UnetConfig(downs=4, base_channels=8, dropout=0.0))
    other: Any = resolve(read_options(file, {"model": {"generator": {"architecture": "resnet", "blocks": 2}}}))
    assert other.generator == ResnetConfig(blocks=2)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, ("method is missing", "allowed are pix2pix, cyclegan")),
        ({"method": "regan"}, ("method is 'regan'", "allowed are pix2pix")),
        ({"preset": "huge"}, ("pix2pix has no preset huge, it has paper",)),
        ({"presets": "tiny"}, ("presets is no known key", "Did you mean preset?")),
        ({"regime": {"epoch": 3}}, ("regime.epoch is no known key", "Did you mean epochs?", "ema_decay")),
        ({"regime": {"epochs": "3"}}, ("regime.epochs is '3'; allowed is a whole number",)),
        ({"regime": {"epochs": 0}}, ("regime.epochs is 0; it must be at least 1",)),
        ({"regime": {"epochs": True}}, ("regime.epochs is True; allowed is a whole number",)),
        ({"regime": {"accumulate": 0}}, ("regime.accumulate is 0; it must be at least 1",)),
        ({"regime": {"lr_generator": 0}}, ("regime.lr_generator is 0.0; it must be above 0",)),
        ({"regime": {"decay": "fast"}}, ("regime.decay is 'fast'", "one of constant, linear, cosine")),
        ({"regime": {"betas": [0.5]}}, ("regime.betas is [0.5]; allowed is a list of 2 numbers",)),
        ({"regime": 3}, ("regime is 3; allowed is a table",)),
        ({"model": {"regime": {}}}, ("model.regime is no known key",)),
        ({"model": {"generator": {"dropuot": 1}}}, ("model.generator.dropuot", "Did you mean dropout?")),
        ({"model": {"generator": {"architecture": "vit"}}}, ("model.generator.architecture is 'vit'", "resnet, unet")),
        ({"model": {"generator": {"downs": 0}}}, ("model.generator.downs is 0; it must be a whole number",)),
        ({"minutes": -1}, ("minutes is -1.0; it must be above 0",)),
        ({"folds": 1}, ("folds must be 0 or at least 2",)),
        ({"target": "wish"}, ("target is 'wish'; allowed are cect",)),
        ({"method": "syndiff_student"}, ("needs a teacher",)),
    ],
)
def test_a_mistake_names_the_key_the_value_what_is_allowed_and_what_was_meant(
    values: Mapping[str, object], said: tuple[str, ...]
) -> None:
    with pytest.raises(TrainingError) as mistake:
        read_options(None, {"method": "pix2pix", **values} if values else {})
    assert not [words for words in said if words not in str(mistake.value)], mistake.value


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read: No such file"):
        read_options(tmp_path / "none.toml", {})
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(TrainingError, match=r"bad\.toml is not valid TOML"):
        read_options(tmp_path / "bad.toml", {})
    (tmp_path / "unknown.toml").write_text('method = "pix2pix"\nepochs = 3\n')
    with pytest.raises(TrainingError, match=r"unknown.toml: epochs is no known key"):
        read_options(tmp_path / "unknown.toml", {})


def test_a_written_file_is_plain_toml() -> None:
    values = tomllib.loads(render(TrainOptions("syndiff_paired", preset="demo", minutes=90)))
    assert values["minutes"] == 90
    assert values["model"]["registration"] == "none"
    assert values["model"]["network"]["ch_mult"] == [1, 2, 4, 6]
