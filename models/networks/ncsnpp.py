"""The NCSN++ generator of SynDiff.

The architecture is NCSN++ (Song et al., ICLR 2021, Apache-2.0 `score_sde_pytorch`): BigGAN residual blocks with FIR
resampling and a progressive input pyramid, here with group normalisation modulated by a latent z (StyleGAN-like AdaGN)
as denoising diffusion GANs use it (Xiao et al., ICLR 2022; SynDiff: Özbey et al., IEEE TMI 2023). Written from the
papers and a description of the layout. `ncsnpp_keys.py` maps official state dicts onto this tree.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.networks.config import NcsnppConfig
from models.networks.initialisation import uniform_fan_average
from models.networks.layers import group_count

_NEAR_ZERO = 1e-10  # layers that end a residual branch start at almost nothing, so a new network is an identity
GROUP_NORM_EPS = 1e-6


class Ncsnpp(nn.Module):
    """Predicts a denoised image from a noisy one, a conditioning image, a time step and a latent."""

    def __init__(self, config: NcsnppConfig) -> None:
        """Build the network with fresh weights; nothing random happens outside torch's default generator."""
        super().__init__()
        self.config = config
        nf, t_emb_dim, folded = config.nf, 4 * config.nf, config.num_channels * config.patch_size**2
        self.time_mlp = nn.ModuleList([nn.Linear(nf, t_emb_dim), nn.Linear(t_emb_dim, t_emb_dim)])
        latent_widths = [config.nz] + [config.z_emb_dim] * (config.n_mlp + 1)
        self.latent_mlp = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(latent_widths))
        self.stem = nn.Conv2d(folded, nf, 3, padding=1)

        encoder, skips, channels = _build_encoder(config, folded)
        self.encoder = nn.ModuleList(encoder)
        self.middle_in = ResidualBlock(channels, channels, config)
        self.middle_attention = Attention(channels)
        self.middle_out = ResidualBlock(channels, channels, config)
        decoder, channels = _build_decoder(config, skips, channels)
        self.decoder = nn.ModuleList(decoder)
        self.out_norm = nn.GroupNorm(group_count(channels), channels, eps=GROUP_NORM_EPS)
        self.out_conv = nn.Conv2d(channels, folded, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                uniform_fan_average(module, scale=1.0)
        for module in self.modules():
            if isinstance(module, (ResidualBlock, Attention, AdaptiveGroupNorm)):
                module.initialise_ends()
        uniform_fan_average(self.out_conv, scale=_NEAR_ZERO)

    def forward(self, images: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Return the estimate of x_0, in [-1, 1] by a final tanh; SynDiff uses channel 0 only.

        images [N, num_channels, H, W]: x_{t+1} and the conditioning image, both in [-1, 1] up to noise; H and W must be
        multiples of `config.size_multiple`. t [N] or [1]: integer time step. z [N, nz] or [1, nz]: standard normal
        latent; a leading 1 shares it across the batch. Returns [N, num_channels, H, W] float32.
        """
        images = F.pixel_unshuffle(images, self.config.patch_size)
        temb, zemb = self.embed_time(t), self.embed_latent(z)
        h = self.stem(images)
        pyramid, skips = images, [h]
        for encode in self.encoder:
            h, pyramid = encode(h, pyramid, skips, temb, zemb)
        h = self.middle_out(self.middle_attention(self.middle_in(h, temb, zemb)), temb, zemb)
        for decode in self.decoder:
            h = decode(h, skips, temb, zemb)
        with torch.autocast(h.device.type, enabled=False):
            out = torch.tanh(self.out_conv(F.silu(self.out_norm(h.float()))))
        return F.pixel_shuffle(out, self.config.patch_size)

    def embed_time(self, t: Tensor) -> Tensor:
        """Embedding of time steps t [N]: [N, 4 nf]."""
        # Every user of the embedding takes silu of it first, so it is applied once here.
        return F.silu(self.time_mlp[1](F.silu(self.time_mlp[0](sinusoid(t, self.config.nf)))))

    def embed_latent(self, z: Tensor) -> Tensor:
        """Embedding of latents z [N, nz]: [N, z_emb_dim]."""
        h = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for layer in self.latent_mlp:
            h = F.silu(layer(h))
        return h


class EncoderLevel(nn.Module):
    """Residual blocks at one matrix size and, except at the last level, the way down with the input pyramid."""

    def __init__(
        self, channels_in: int, channels: int, config: NcsnppConfig, *, pyramid: int, attend: bool, last: bool
    ) -> None:
        super().__init__()
        widths = [channels_in] + [channels] * config.num_res_blocks
        self.blocks = nn.ModuleList(ResidualBlock(a, b, config) for a, b in pairwise(widths))
        self.attentions = nn.ModuleList(Attention(channels) for _ in self.blocks) if attend else None
        self.down = None if last else ResidualBlock(channels, channels, config, resample="down")
        self.pyramid = None if last else PyramidDown(pyramid, channels)

    def forward(
        self, h: Tensor, pyramid: Tensor, skips: list[Tensor], temb: Tensor, zemb: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (features, input pyramid) for the next level; pushes what the decoder needs onto `skips`."""
        for i, block in enumerate(self.blocks):
            h = block(h, temb, zemb)
            if self.attentions is not None:
                h = self.attentions[i](h)
            skips.append(h)
        if self.down is not None and self.pyramid is not None:
            h = self.down(h, temb, zemb)
            pyramid = h = (self.pyramid(pyramid) + h) / math.sqrt(2)
            skips.append(h)
        return h, pyramid


class DecoderLevel(nn.Module):
    """Residual blocks on concatenated skips, attention once after them, and the way up except at full resolution."""

    def __init__(
        self, channels_in: int, channels: int, config: NcsnppConfig, *, skips: list[int], attend: bool, last: bool
    ) -> None:
        super().__init__()
        widths = [channels_in] + [channels] * (len(skips) - 1)
        self.blocks = nn.ModuleList(ResidualBlock(a + s, channels, config) for a, s in zip(widths, skips, strict=True))
        self.attention = Attention(channels) if attend else None
        self.up = None if last else ResidualBlock(channels, channels, config, resample="up")

    def forward(self, h: Tensor, skips: list[Tensor], temb: Tensor, zemb: Tensor) -> Tensor:
        """Pop the skips of this level and return features at twice the matrix (or the same at the last level)."""
        for block in self.blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), temb, zemb)
        if self.attention is not None:
            h = self.attention(h)
        return h if self.up is None else self.up(h, temb, zemb)


class ResidualBlock(nn.Module):
    """BigGAN residual block, with time as a bias and the latent through AdaGN; (shortcut + branch) / sqrt(2)."""

    def __init__(self, channels_in: int, channels: int, config: NcsnppConfig, *, resample: str | None = None) -> None:
        super().__init__()
        self.norm_in = AdaptiveGroupNorm(channels_in, config.z_emb_dim)
        self.conv_in = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.time = nn.Linear(4 * config.nf, channels)
        self.norm_out = AdaptiveGroupNorm(channels, config.z_emb_dim)
        self.conv_out = nn.Conv2d(channels, channels, 3, padding=1)
        changes = resample is not None or channels_in != channels
        self.shortcut = nn.Conv2d(channels_in, channels, 1) if changes else None
        self.resample = {"up": FirUp, "down": FirDown}[resample]() if resample else None

    def initialise_ends(self) -> None:
        """Start the residual branch at almost nothing."""
        uniform_fan_average(self.conv_out, scale=_NEAR_ZERO)

    def forward(self, x: Tensor, temb: Tensor, zemb: Tensor) -> Tensor:
        """x [N, channels_in, H, W] -> [N, channels, H', W'], resampled by 2 if the block resamples."""
        h = F.silu(self.norm_in(x, zemb))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.conv_in(h) + self.time(temb)[:, :, None, None]
        h = self.conv_out(F.silu(self.norm_out(h, zemb)))
        if self.shortcut is not None:
            x = self.shortcut(x)
        result: Tensor = (x + h) / math.sqrt(2)
        return result


class AdaptiveGroupNorm(nn.Module):
    """Group normalisation whose scale and shift are linear in the latent embedding."""

    def __init__(self, channels: int, z_emb_dim: int) -> None:
        super().__init__()
        self.groups = group_count(channels)
        self.style = nn.Linear(z_emb_dim, 2 * channels)

    def initialise_ends(self) -> None:
        """Start near a plain group normalisation: scale 1, shift 0."""
        channels = self.style.out_features // 2
        nn.init.ones_(self.style.bias[:channels])

    def forward(self, x: Tensor, zemb: Tensor) -> Tensor:
        """x [N, C, H, W] -> the same shape; a zemb of batch 1 is folded into the native affine parameters."""
        style: Tensor = self.style(zemb).to(x.dtype)
        scale, shift = style.chunk(2, dim=1)
        if zemb.shape[0] == 1:
            return F.group_norm(x, self.groups, scale[0], shift[0], eps=GROUP_NORM_EPS)
        return F.group_norm(x, self.groups, eps=GROUP_NORM_EPS) * scale[:, :, None, None] + shift[:, :, None, None]


class Attention(nn.Module):
    """Single-head self-attention over all positions; (x + attended) / sqrt(2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(group_count(channels), channels, eps=GROUP_NORM_EPS)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def initialise_ends(self) -> None:
        """Start as almost an identity."""
        for layer in (self.query, self.key, self.value):
            uniform_fan_average(layer, scale=0.1)
        uniform_fan_average(self.out, scale=_NEAR_ZERO)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] -> the same shape."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)[:, None]
        attended = F.scaled_dot_product_attention(self.query(tokens), self.key(tokens), self.value(tokens))
        out: Tensor = self.out(attended)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])
        return (x + out) / math.sqrt(2)


class PyramidDown(nn.Module):
    """Halves the input pyramid: FIR blur, then a learned convolution of stride 2."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("kernel", _fir_kernel(), persistent=False)
        self.conv = nn.Conv2d(channels_in, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C_in, H, W] -> [N, C, H/2, W/2]."""
        return self.conv(_depthwise(x, self.kernel, stride=1, padding=2))  # type: ignore[arg-type,no-any-return]


class FirDown(nn.Module):
    """Halves rows and columns with the [1, 3, 3, 1] filter, zeros outside."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", _fir_kernel(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] -> [N, C, H/2, W/2]."""
        return _depthwise(x, self.kernel, stride=2, padding=1)  # type: ignore[arg-type]


class FirUp(nn.Module):
    """Doubles rows and columns with the [1, 3, 3, 1] filter, zeros outside."""

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, H, W] -> [N, C, 2H, 2W]; the filter's two phases are those of bilinear interpolation."""
        padded = F.pad(x, (1, 1, 1, 1))
        return F.interpolate(padded, scale_factor=2, mode="bilinear", align_corners=False)[..., 2:-2, 2:-2]


def _build_encoder(config: NcsnppConfig, folded: int) -> tuple[list[EncoderLevel], list[int], int]:
    """Levels, the channels of every pushed skip in push order, and the channels that leave the encoder."""
    levels, skips, channels, pyramid = [], [config.nf], config.nf, folded
    for i, mult in enumerate(config.ch_mult):
        last, width = i == len(config.ch_mult) - 1, config.nf * mult
        levels.append(EncoderLevel(channels, width, config, pyramid=pyramid, attend=_attends(config, i), last=last))
        skips += [width] * (config.num_res_blocks + (not last))
        channels = pyramid = width
    return levels, skips, channels


def _build_decoder(config: NcsnppConfig, skips: list[int], channels: int) -> tuple[list[DecoderLevel], int]:
    """Levels from the coarsest to the finest, taking one skip more than the encoder has blocks, and their channels."""
    levels, stack = [], list(skips)
    for i, mult in reversed(list(enumerate(config.ch_mult))):
        width, taken = config.nf * mult, [stack.pop() for _ in range(config.num_res_blocks + 1)]
        levels.append(DecoderLevel(channels, width, config, skips=taken, attend=_attends(config, i), last=i == 0))
        channels = width
    return levels, channels


def _attends(config: NcsnppConfig, level: int) -> bool:
    return config.image_size // config.patch_size // 2**level in config.attn_resolutions


def _fir_kernel() -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return torch.outer(taps, taps)[None, None]


def _depthwise(x: Tensor, kernel: Tensor, *, stride: int, padding: int) -> Tensor:
    channels = x.shape[1]
    return F.conv2d(x, kernel.expand(channels, 1, 4, 4).to(x.dtype), stride=stride, padding=padding, groups=channels)


def sinusoid(t: Tensor, width: int) -> Tensor:
    """Sines, then cosines of integer times t [N] at width / 2 geometric rates from 1 to 1e-4; [N, width] float32."""
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32, device=t.device) * (-math.log(10000) / (half - 1)))
    angles = t.float()[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)
