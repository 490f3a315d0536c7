"""The slow form of NCSN++ that generator.py measures against; must not be used outside the bench.

Same architecture and weights as `models.networks.ncsnpp`, written the way the published code runs without compiled
extensions: eager, float32, NCHW, batch 1, embeddings in every call, modulation after a normalisation without affine
part, attention by two products and a softmax, resampling by inserted zeros, padding and a full convolution.
"""

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.ncsnpp import (
    GROUP_NORM_EPS,
    AdaptiveGroupNorm,
    Attention,
    FirDown,
    FirUp,
    Ncsnpp,
    PyramidDown,
    ResidualBlock,
)


class NaiveNcsnpp:
    """Runs the weights of a network (its memory format is left as it is) in the naive way."""

    def __init__(self, network: Ncsnpp) -> None:
        self.network = network
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.kernel = torch.outer(taps, taps).to(network.stem.weight.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """As `Ncsnpp.forward`, for networks without a patch stem."""
        network = self.network
        temb, zemb = network.embed_time(t), network.embed_latent(z)
        h = network.stem(images)
        pyramid, skips = images, [h]
        for level in cast("Iterable[Any]", network.encoder):
            for number, block in enumerate(level.blocks):
                h = self._block(block, h, temb, zemb)
                if level.attentions is not None:
                    h = self._attention(level.attentions[number], h)
                skips.append(h)
            if level.down is not None:
                h = self._block(level.down, h, temb, zemb)
                pyramid = h = (self._narrow(level.pyramid, pyramid) + h) / math.sqrt(2)
                skips.append(h)
        h = self._attention(network.middle_attention, self._block(network.middle_in, h, temb, zemb))
        h = self._block(network.middle_out, h, temb, zemb)
        for level in cast("Iterable[Any]", network.decoder):
            for block in level.blocks:
                h = self._block(block, torch.cat([h, skips.pop()], dim=1), temb, zemb)
            if level.attention is not None:
                h = self._attention(level.attention, h)
            if level.up is not None:
                h = self._block(level.up, h, temb, zemb)
        return torch.tanh(network.out_conv(F.silu(network.out_norm(h))))

    def _block(self, block: ResidualBlock, x: Tensor, temb: Tensor, zemb: Tensor) -> Tensor:
        h = F.silu(_modulated(block.norm_in, x, zemb))
        if isinstance(block.resample, FirUp):
            h, x = (self._resample(image, self.kernel * 4, up=2, pad=(2, 1)) for image in (h, x))
        elif isinstance(block.resample, FirDown):
            h, x = (self._resample(image, self.kernel, down=2, pad=(1, 1)) for image in (h, x))
        h = block.conv_in(h)
        h = h + block.time(temb)[:, :, None, None]
        h = block.conv_out(F.silu(_modulated(block.norm_out, h, zemb)))
        if block.shortcut is not None:
            x = block.shortcut(x)
        out: Tensor = (x + h) / math.sqrt(2)
        return out

    def _narrow(self, pyramid: PyramidDown, x: Tensor) -> Tensor:
        out: Tensor = pyramid.conv(self._resample(x, self.kernel, pad=(2, 2)))
        return out

    def _attention(self, attention: Attention, x: Tensor) -> Tensor:
        batch, channels, rows, columns = x.shape
        normed = attention.norm(x).permute(0, 2, 3, 1)
        query, key, value = (layer(normed) for layer in (attention.query, attention.key, attention.value))
        scores = torch.einsum("bhwc,bijc->bhwij", query, key) * channels**-0.5
        shares = torch.softmax(scores.reshape(batch, rows, columns, -1), dim=-1).reshape(scores.shape)
        seen = attention.out(torch.einsum("bhwij,bijc->bhwc", shares, value)).permute(0, 3, 1, 2)
        out: Tensor = (x + seen) / math.sqrt(2)
        return out

    @staticmethod
    def _resample(x: Tensor, kernel: Tensor, *, up: int = 1, down: int = 1, pad: tuple[int, int]) -> Tensor:
        """Insert zeros, pad both axes by (before, after), filter every channel, keep every `down`-th pixel."""
        batch, channels, rows, columns = x.shape
        planes = x.reshape(batch * channels, 1, rows, 1, columns, 1)
        planes = F.pad(planes, (0, up - 1, 0, 0, 0, up - 1)).reshape(batch * channels, 1, rows * up, columns * up)
        planes = F.pad(planes, (*pad, *pad))
        filtered = F.conv2d(planes, kernel.flip(0, 1)[None, None])[:, :, ::down, ::down]
        return filtered.reshape(batch, channels, *filtered.shape[2:])


def _modulated(norm: AdaptiveGroupNorm, x: Tensor, zemb: Tensor) -> Tensor:
    gamma, beta = norm.style(zemb)[:, :, None, None].chunk(2, dim=1)
    modulated: Tensor = gamma * F.group_norm(x, norm.groups, eps=GROUP_NORM_EPS) + beta
    return modulated


def enliven(network: nn.Module, seed: int) -> None:
    """Give every weight, and every bias of zero, a random value of ordinary size: fresh networks return nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                fan_in = math.prod(module.weight.shape[1:])
                module.weight.normal_(0, fan_in**-0.5, generator=generator)
                if module.bias is not None and not float(module.bias.abs().max()):
                    module.bias.normal_(0, 0.1, generator=generator)
