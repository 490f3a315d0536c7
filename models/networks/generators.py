"""The single-pass generators that exist, and how a bundle's `network` object names them."""

from collections.abc import Mapping
from dataclasses import asdict, fields

from torch import nn

from models.networks.config import ConfigError
from models.networks.resnet import ResnetConfig, ResnetGenerator
from models.networks.unet import UnetConfig, UnetGenerator

GeneratorConfig = ResnetConfig | UnetConfig

_CONFIGS: Mapping[str, type[ResnetConfig] | type[UnetConfig]] = {"resnet": ResnetConfig, "unet": UnetConfig}


def build_generator(config: GeneratorConfig) -> nn.Module:
    """A generator [N, in_channels, H, W] -> [N, out_channels, H, W] with fresh weights."""
    return UnetGenerator(config) if isinstance(config, UnetConfig) else ResnetGenerator(config)


def describe_generator(config: GeneratorConfig) -> dict[str, object]:
    """The `network` object of a bundle.json, every key written out."""
    architecture = next(name for name, kind in _CONFIGS.items() if isinstance(config, kind))
    return {"architecture": architecture, **asdict(config)}


def read_generator(values: Mapping[str, object]) -> GeneratorConfig:
    """Read what `describe_generator` wrote; raises ConfigError."""
    kind = _CONFIGS.get(str(values.get("architecture")))
    if kind is None:
        known = ", ".join(_CONFIGS)
        raise ConfigError(f"architecture is {values.get('architecture')!r}; single-pass generators are {known}")
    plain = {name: value for name, value in values.items() if name != "architecture"}
    names = {field.name for field in fields(kind)}
    if unknown := set(plain) - names:
        raise ConfigError(f"unknown network keys {sorted(unknown)}; known are {sorted(names)}")
    return kind(**plain)  # type: ignore[arg-type]
