"""How fresh weights are drawn."""

import math

from torch import nn


def uniform_fan_average(layer: nn.Conv2d | nn.Linear, *, scale: float) -> None:
    """Uniform weights of variance scale / fan_average and zero bias (the DDPM initialiser)."""
    receptive = math.prod(layer.weight.shape[2:])
    fan_average = receptive * (layer.weight.shape[0] + layer.weight.shape[1]) / 2
    bound = math.sqrt(3 * scale / fan_average)
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def normal_gan(network: nn.Module) -> None:
    """N(0, 0.02) weights of convolutions, N(1, 0.02) scales of norms, zero biases (Pix2Pix, CycleGAN)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
