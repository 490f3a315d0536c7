"""The folded form of a loaded NCSN++, for slices that share one latent; it computes faster than the plain network.

For one time step t and one latent z the network is a plain convolutional one: both enter by constants only. The other
savings are exact too: factors 1 / sqrt(2) and biases of shortcuts move into the convolutions before them, a shortcut is
taken before it is upsampled, and the resampling filter needs no inserted zeros.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.ncsnpp import (
    GROUP_NORM_EPS,
    AdaptiveGroupNorm,
    Attention,
    DecoderLevel,
    EncoderLevel,
    FirDown,
    FirUp,
    Ncsnpp,
    ResidualBlock,
)

# Enters the UIDs of derived series: to be raised with every change that may change the last bit of a result.
ENGINE_VERSION = 1

_ROOT_HALF = 1 / math.sqrt(2)

ModuleT = TypeVar("ModuleT", bound=nn.Module)


FoldedStep = Callable[[Tensor], Tensor]
"""One time step with one latent: images [N, num_channels, H, W] float32 -> the network's output, float32."""


class Engine:
    """The weights of a loaded network, laid out for inference; all steps folded from it share them."""

    def __init__(self, network: Ncsnpp, precision: str) -> None:
        """Take a network that will not change any more, on its device.

        precision "fp32" is the network's own arithmetic up to the order of sums; "bf16" computes everything but the
        last normalisation and convolution in bfloat16, accumulating in float32.
        """
        self._network = network
        self._weights = _Weights(torch.bfloat16 if precision == "bf16" else torch.float32)

    @torch.inference_mode()
    def fold(self, t: int, z: Tensor) -> FoldedStep:
        """Fold time step t and the latent z [1, nz] that all slices share; far cheaper than a step."""
        if len(z) != 1:
            raise ValueError(f"z has shape {tuple(z.shape)}; folding needs one latent for all slices, [1, nz]")
        network, weights = self._network, self._weights
        constants = _Constants(
            temb=network.embed_time(torch.full((1,), t, device=z.device)), zemb=network.embed_latent(z)
        )
        return _Step(
            patch_size=network.config.patch_size,
            dtype=weights.dtype,
            stem=weights.convolution(network.stem, bias=network.stem.bias),
            encoder=[_fold_encoder(level, weights, constants) for level in _all_of(network.encoder, EncoderLevel)],
            middle=[
                _Block.fold(network.middle_in, weights, constants),
                _Attention.fold(network.middle_attention, weights),
                _Block.fold(network.middle_out, weights, constants),
            ],
            decoder=[_fold_decoder(level, weights, constants) for level in _all_of(network.decoder, DecoderLevel)],
            out_norm=network.out_norm,
            out_conv=network.out_conv,
        )


@dataclass(frozen=True)
class _Constants:
    """The embeddings of one time step [1, 4 nf] and of one latent [1, z_emb_dim]."""

    temb: Tensor
    zemb: Tensor


class _Weights:
    """Weights in the engine's type and layout, each made once however many steps are folded."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._made: dict[tuple[nn.Module, float], Tensor] = {}

    def convolution(self, conv: nn.Conv2d, *, bias: Tensor | None, scale: float = 1.0) -> "_Convolution":
        """`conv` with its weights times `scale` and with the given bias, taken as it is."""
        if (conv, scale) not in self._made:
            # Scaled in float32: one rounding.
            scaled = conv.weight if scale == 1.0 else conv.weight * scale
            self._made[conv, scale] = scaled.to(self.dtype, memory_format=torch.channels_last)
        return _Convolution(
            self._made[conv, scale],
            None if bias is None else bias.to(self.dtype),
            stride=conv.stride[0],
            padding=int(conv.padding[0]),
        )

    def matrix(self, layer: nn.Module, weight: Tensor, *, scale: float = 1.0) -> Tensor:
        """`weight` [out, in] of `layer` times `scale`."""
        if (layer, scale) not in self._made:
            self._made[layer, scale] = (weight * scale).to(self.dtype)
        return self._made[layer, scale]

    def affine(self, values: Tensor) -> Tensor:
        """Scale or shift of a normalisation; a CPU takes float32 beside bfloat16 images, CUDA one type only."""
        return values.float() if values.device.type == "cpu" else values.to(self.dtype)


@dataclass(frozen=True)
class _Convolution:
    weight: Tensor
    bias: Tensor | None
    stride: int
    padding: int
    groups: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding, groups=self.groups)


@dataclass(frozen=True)
class _Norm:
    """Group normalisation with constant scale and shift [C]."""

    groups: int
    scale: Tensor
    shift: Tensor
    eps: float

    @classmethod
    def fold(cls, norm: AdaptiveGroupNorm, weights: _Weights, zemb: Tensor) -> "_Norm":
        scale, shift = norm.style(zemb)[0].chunk(2)
        return cls(norm.groups, weights.affine(scale), weights.affine(shift), GROUP_NORM_EPS)

    def __call__(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.groups, self.scale, self.shift, eps=self.eps)


@dataclass(frozen=True)
class _Block:
    """A residual block; what leaves it is the plain block's output times the factor it was folded with."""

    norm_in: _Norm
    conv_in: _Convolution
    norm_out: _Norm
    conv_out: _Convolution
    shortcut: Tensor | None
    down: _Convolution | None
    up: bool
    factor: float

    @classmethod
    def fold(
        cls, block: ResidualBlock, weights: _Weights, constants: _Constants, *, factor: float = _ROOT_HALF
    ) -> "_Block":
        """factor 1 / sqrt(2) is the plain block; another one is for a sum that is scaled afterwards."""
        bias_in = _bias(block.conv_in) + block.time(constants.temb)[0]
        bias_out, shortcut = _bias(block.conv_out), None
        if block.shortcut is not None:
            # Its bias joins conv_out's: before upsampling it would be lost where the filter sees zeros outside.
            bias_out = bias_out + _bias(block.shortcut)
            shortcut = weights.matrix(block.shortcut, block.shortcut.weight[:, :, 0, 0], scale=factor)
        return cls(
            norm_in=_Norm.fold(block.norm_in, weights, constants.zemb),
            conv_in=weights.convolution(block.conv_in, bias=bias_in),
            norm_out=_Norm.fold(block.norm_out, weights, constants.zemb),
            conv_out=weights.convolution(block.conv_out, bias=bias_out * factor, scale=factor),
            shortcut=shortcut,
            down=_fir_down(block, weights.dtype),
            up=isinstance(block.resample, FirUp),
            factor=factor,
        )

    def __call__(self, x: Tensor) -> Tensor:
        h = F.silu(self.norm_in(x), inplace=True)
        if self.down is not None:
            h, x = self.down(h), self.down(x)
        elif self.up:
            h = fir_up(h)
        h = self.conv_in(h)
        h = self.conv_out(F.silu(self.norm_out(h), inplace=True))
        if self.shortcut is None:
            return h.add_(x, alpha=self.factor)
        if self.up:
            return h.add_(fir_up(F.linear(x.permute(0, 2, 3, 1), self.shortcut).permute(0, 3, 1, 2)))
        # Both are channels-last already where the convolutions keep that layout; another backend need not.
        h, x = (image.contiguous(memory_format=torch.channels_last) for image in (h, x))
        _rows(h).addmm_(_rows(x), self.shortcut.t())
        return h


@dataclass(frozen=True)
class _Attention:
    """Single-head attention; query, key and value come from one product."""

    norm: nn.GroupNorm
    scale: Tensor
    shift: Tensor
    weight_in: Tensor
    bias_in: Tensor
    weight_out: Tensor
    bias_out: Tensor

    @classmethod
    def fold(cls, attention: Attention, weights: _Weights) -> "_Attention":
        parts = (attention.query, attention.key, attention.value)
        return cls(
            norm=attention.norm,
            scale=weights.affine(attention.norm.weight),
            shift=weights.affine(attention.norm.bias),
            weight_in=weights.matrix(attention, torch.cat([part.weight for part in parts])),
            bias_in=torch.cat([part.bias for part in parts]).to(weights.dtype),
            weight_out=weights.matrix(attention.out, attention.out.weight, scale=_ROOT_HALF),
            bias_out=(attention.out.bias * _ROOT_HALF).to(weights.dtype),
        )

    def __call__(self, x: Tensor) -> Tensor:
        normed = F.group_norm(x, self.norm.num_groups, self.scale, self.shift, eps=self.norm.eps)
        tokens = normed.permute(0, 2, 3, 1).flatten(1, 2)[:, None]
        query, key, value = F.linear(tokens, self.weight_in, self.bias_in).chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(query, key, value)
        out = F.linear(attended, self.weight_out, self.bias_out)
        return out.view(x.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2).add(x, alpha=_ROOT_HALF)


@dataclass(frozen=True)
class _Encoder:
    """One level: blocks, each followed by its attention if the level has any, then the way down with the pyramid."""

    stages: list[list[_Block | _Attention]]
    down: _Block | None
    pyramid: list[_Convolution]


@dataclass(frozen=True)
class _Decoder:
    """One level: blocks that take a skip each, then attention and the way up where the level has them."""

    blocks: list[_Block]
    after: list[_Block | _Attention]


@dataclass(frozen=True)
class _Step:
    patch_size: int
    dtype: torch.dtype
    stem: _Convolution
    encoder: list[_Encoder]
    middle: list[_Block | _Attention]
    decoder: list[_Decoder]
    out_norm: nn.GroupNorm
    out_conv: nn.Conv2d

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        pyramid = F.pixel_unshuffle(images, self.patch_size).to(self.dtype, memory_format=torch.channels_last)
        h = self.stem(pyramid)
        skips = [h]
        for level in self.encoder:
            for stage in level.stages:
                h = _through(stage, h)
                skips.append(h)
            if level.down is not None:
                pyramid = _through(level.pyramid, pyramid)
                h = pyramid = pyramid.add_(level.down(h))
                skips.append(h)
        h = _through(self.middle, h)
        for decode in self.decoder:
            for block in decode.blocks:
                h = block(torch.cat([h, skips.pop()], dim=1))
            h = _through(decode.after, h)
        out = torch.tanh(self.out_conv(F.silu(self.out_norm(h.float()), inplace=True)))
        return F.pixel_shuffle(out, self.patch_size)


def fir_up(x: Tensor) -> Tensor:
    """Double rows and columns with the [1, 3, 3, 1] filter, zeros outside: [N, C, H, W] -> [N, C, 2H, 2W].

    Its phases are those of bilinear interpolation, which repeats the outermost pixels; where the filter sees a zero in
    place of a repeated pixel, 3/4 remain of it.
    """
    out = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    rows, columns = out.shape[2:]
    for edge in (out[:, :, :: rows - 1], out[..., :: columns - 1]):
        edge.mul_(0.75)
    return out


def _through(stages: list[_Convolution] | list[_Block | _Attention], x: Tensor) -> Tensor:
    for stage in stages:
        x = stage(x)
    return x


def _fold_encoder(level: EncoderLevel, weights: _Weights, constants: _Constants) -> _Encoder:
    stages: list[list[_Block | _Attention]] = [
        [_Block.fold(block, weights, constants)] for block in _all_of(level.blocks, ResidualBlock)
    ]
    if level.attentions is not None:
        for stage, attention in zip(stages, _all_of(level.attentions, Attention), strict=True):
            stage.append(_Attention.fold(attention, weights))
    if level.down is None or level.pyramid is None:
        return _Encoder(stages, None, [])
    # The plain network adds pyramid and features and scales the sum; here both arrive scaled.
    down = _Block.fold(level.down, weights, constants, factor=_ROOT_HALF**2)
    conv = level.pyramid.conv
    blur = _depthwise(level.pyramid.kernel, conv.in_channels, weights.dtype, stride=1, padding=2)
    narrow = weights.convolution(conv, bias=_bias(conv) * _ROOT_HALF, scale=_ROOT_HALF)
    return _Encoder(stages, down, [blur, narrow])


def _fold_decoder(level: DecoderLevel, weights: _Weights, constants: _Constants) -> _Decoder:
    after: list[_Block | _Attention] = []
    if level.attention is not None:
        after.append(_Attention.fold(level.attention, weights))
    if level.up is not None:
        after.append(_Block.fold(level.up, weights, constants))
    return _Decoder([_Block.fold(block, weights, constants) for block in _all_of(level.blocks, ResidualBlock)], after)


def _fir_down(block: ResidualBlock, dtype: torch.dtype) -> _Convolution | None:
    if not isinstance(block.resample, FirDown):
        return None
    return _depthwise(block.resample.kernel, block.conv_in.in_channels, dtype, stride=2, padding=1)


def _depthwise(
    kernel: Tensor | nn.Module, channels: int, dtype: torch.dtype, *, stride: int, padding: int
) -> _Convolution:
    """The resampling filter [1, 1, 4, 4] on every channel; its taps are sums of powers of two, exact in bfloat16."""
    weight = cast(Tensor, kernel).to(dtype).expand(channels, 1, 4, 4).contiguous()
    return _Convolution(weight, None, stride=stride, padding=padding, groups=channels)


def _rows(x: Tensor) -> Tensor:
    """The pixels of channels-last images [N, C, H, W] as rows [N H W, C]; a view."""
    return x.permute(0, 2, 3, 1).view(-1, x.shape[1])


def _bias(conv: nn.Conv2d) -> Tensor:
    if conv.bias is None:
        return conv.weight.new_zeros(conv.out_channels)
    return conv.bias


def _all_of(modules: nn.ModuleList, kind: type[ModuleT]) -> list[ModuleT]:
    return [cast(ModuleT, module) for module in modules]
