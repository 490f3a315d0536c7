"""The frozen configuration of NCSN++, readable without torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields


class ConfigError(ValueError):
    """A network configuration names an unknown key or a value that no network can be built from."""


@dataclass(frozen=True)
class NcsnppConfig:
    """Shape of an NCSN++ generator with AdaGN; the defaults are SynDiff's published README configuration.

    `nf` is the number of channels at full resolution, `ch_mult` its multiples per level (each level halves the matrix),
    `attn_resolutions` the matrix sizes that get self-attention (counted after the patch stem).
    `patch_size` is our own extension: the input is folded by pixel-unshuffle, and the output unfolded, so that a small
    network spends nothing at full resolution; 1 is the official network.
    """

    image_size: int = 256
    num_channels: int = 2
    nf: int = 64
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)
    nz: int = 100
    z_emb_dim: int = 256
    n_mlp: int = 3
    patch_size: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be built, in words."""
        for name in ("image_size", "num_channels", "nf", "num_res_blocks", "nz", "z_emb_dim", "n_mlp", "patch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least 1")
        for name in ("ch_mult", "attn_resolutions"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not all(isinstance(v, int) and v > 0 for v in values):
                raise ConfigError(f"{name} is {values!r}; it must be a list of whole numbers of at least 1")
        if not self.ch_mult:
            raise ConfigError("ch_mult is empty; a network needs at least one level")
        if self.image_size % self.size_multiple:
            raise ConfigError(f"image_size {self.image_size} is not a multiple of {self.size_multiple}")
        if self.nf % 4:
            raise ConfigError(f"nf is {self.nf}; it must be a multiple of 4, so that channels form groups")

    @property
    def size_multiple(self) -> int:
        """Rows and columns of every input must be a multiple of this."""
        return int(self.patch_size * 2 ** (len(self.ch_mult) - 1))

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> "NcsnppConfig":
        """Read a configuration from the `network` object of a bundle.json; raises ConfigError."""
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise ConfigError(f"unknown network keys {sorted(unknown)}; known are {sorted(known)}")
        plain = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**plain)  # type: ignore[arg-type]

    @classmethod
    def from_card(cls, network: Mapping[str, object]) -> "NcsnppConfig":
        """Read what `to_card` wrote; the caller checks "architecture". Raises ConfigError."""
        return cls.from_mapping({name: value for name, value in network.items() if name != "architecture"})

    def to_card(self) -> dict[str, object]:
        """The `network` object of a bundle.json."""
        return {"architecture": "ncsnpp", **self.to_mapping()}

    def to_mapping(self) -> dict[str, object]:
        """The configuration as plain JSON values, every key written out."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
