"""SynDiff, unpaired and as published.

Özbey et al., IEEE TMI 42(12), 2023. For each contrast there are a diffusive generator G_theta, which denoises it under
the guidance of the other contrast; a non-diffusive generator G_phi, which translates the other contrast into it and so
makes that guidance; and a discriminator of each, D_theta and D_phi. The diffusive generator is given real sources only
when it translates.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from models.diffusion import DiffusionConfig, Draw, make_schedule
from models.losses import l1, logistic_fake, logistic_real, logistic_with_r1
from models.methods.inference import ReverseDiffusion
from models.methods.method import Batch
from models.methods.optimisation import GENERATORS, SMALL, Parts, Regime
from models.networks.config import NcsnppConfig
from models.networks.discriminators import PatchGan, PatchGanConfig, TimeDiscriminator, TimeDiscriminatorConfig
from models.networks.generators import GeneratorConfig, build_generator
from models.networks.ncsnpp import Ncsnpp
from models.networks.resnet import ResnetConfig
from models.networks.unet import UnetConfig
from models.prediction import predicted_image

_OTHER = MappingProxyType({"target": "source", "source": "target"})


@dataclass(frozen=True, kw_only=True)
class SyndiffConfig:
    """Networks, one shape for both contrasts, regime, schedule and weights beside the adversarial terms of 1.

    R1 acts on the time-conditional discriminators at every `r1_every`-th step, from step 0, with the weight
    r1_gamma / 2. `prediction` is how both kinds of generators change what they are shown of the other contrast.

    With `context_mm`, see `models.bundle.BundleCard`, the non-diffusive generators translate stacks, a slice and its
    neighbours, into stacks, and their discriminators judge whole stacks, as in `models.methods.cyclegan`. The diffusive
    generators denoise the slice alone under the guidance of a stack. Their channels follow, whatever they say.
    """

    regime: Regime
    network: NcsnppConfig
    nondiffusive: GeneratorConfig
    time_discriminator: TimeDiscriminatorConfig
    discriminator: PatchGanConfig
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    r1_gamma: float = 1.0
    r1_every: int = 10
    prediction: str = "image"
    residual_scale: float = 1.0
    context_mm: tuple[float, ...] = ()
    cycle_weight: float = 0.5
    l1_weight: float = 0.5

    @property
    def matrix(self) -> int:
        """M of the M x M model images."""
        return self.network.image_size


PUBLISHED_REGIME = Regime(
    lr_generator=1.6e-4,
    lr_discriminator=1e-4,
    betas=(0.5, 0.9),
    batch_size=1,
    epochs=500,
    decay="cosine",
    final_lr=1e-5,
    ema_decay=0.999,
)
_PAPER = SyndiffConfig(
    regime=Regime(betas=(0.5, 0.9), ema_decay=0.999),
    network=NcsnppConfig(),
    nondiffusive=ResnetConfig(blocks=6),
    time_discriminator=TimeDiscriminatorConfig(),
    discriminator=PatchGanConfig(),
)

# Guidance that is not yet an image teaches the diffusive generators to correct what no real source has; hence the
# non-diffusive generators start near the copy.
_SMALL = SyndiffConfig(
    regime=replace(SMALL, lr_discriminator=1e-3, betas=(0.5, 0.9), batch_size=1, epochs=3, max_grad_norm=1.0),
    network=NcsnppConfig(
        image_size=128, nf=16, ch_mult=(1, 2, 4), num_res_blocks=1, nz=16, z_emb_dim=32, n_mlp=2, patch_size=4
    ),
    nondiffusive=UnetConfig(downs=5, base_channels=8, norm="group", dropout=0.0),
    time_discriminator=TimeDiscriminatorConfig(widths=(4, 8, 16, 32, 32), t_emb_dim=32),
    discriminator=PatchGanConfig(base_channels=16, norm="group"),
    prediction="residual",
)
TINY = SyndiffConfig(
    regime=Regime(
        lr_generator=1e-2,
        lr_discriminator=1e-3,
        betas=(0.5, 0.9),
        batch_size=2,
        epochs=2,
        ema_decay=0.99,
        ema_young=True,
    ),
    network=NcsnppConfig(
        image_size=16, nf=8, ch_mult=(1,), num_res_blocks=1, nz=4, z_emb_dim=8, n_mlp=1, attn_resolutions=()
    ),
    nondiffusive=ResnetConfig(blocks=1, base_channels=8),
    time_discriminator=TimeDiscriminatorConfig(widths=(8, 16), t_emb_dim=8),
    discriminator=PatchGanConfig(base_channels=8, strided_layers=2),
    r1_every=5,
)

PRESETS: Mapping[str, SyndiffConfig] = MappingProxyType(
    {
        "paper": _PAPER,
        "published": replace(_PAPER, regime=PUBLISHED_REGIME),
        "small": _SMALL,
        "tiny": TINY,
    }
)


class Syndiff:
    """Fulfils `models.methods.method.Method`. Networks are named after the contrast they make or discriminate."""

    name = "syndiff"
    paired = False
    stacked = True

    def __init__(self, config: SyndiffConfig) -> None:
        """Build the eight networks from the regime's seed."""
        if config.context_mm:
            channels = 1 + len(config.context_mm)
            config = replace(
                config,
                network=replace(config.network, num_channels=1 + channels),
                nondiffusive=replace(config.nondiffusive, in_channels=channels, out_channels=channels),
                discriminator=replace(config.discriminator, in_channels=channels),
            )

        def networks() -> dict[str, nn.Module]:
            built: dict[str, nn.Module] = {}
            for contrast in _OTHER:
                built |= {
                    f"diffusive_{contrast}": Ncsnpp(config.network),
                    f"nondiffusive_{contrast}": build_generator(config.nondiffusive),
                    f"discriminator_diffusive_{contrast}": TimeDiscriminator(config.time_discriminator),
                    f"discriminator_nondiffusive_{contrast}": PatchGan(config.discriminator),
                }
            return built

        generators = [f"{kind}_{contrast}" for kind in ("diffusive", "nondiffusive") for contrast in _OTHER]
        self.config = config
        self.schedule = make_schedule(config.diffusion)
        self.parts = Parts(
            config.regime,
            networks,
            {
                GENERATORS: generators,
                "diffusive_discriminators": [f"discriminator_diffusive_{contrast}" for contrast in _OTHER],
                "nondiffusive_discriminators": [f"discriminator_nondiffusive_{contrast}" for contrast in _OTHER],
            },
            averaged=generators,
        )
        self.inference = ReverseDiffusion(config, self.parts, "diffusive_target", self.schedule)

    def training_step(self, batch: Batch, step: int) -> dict[str, float]:
        """Diffusive discriminators, non-diffusive ones, then all generators on fresh noise; see `Method`."""
        parts, images = self.parts, {"target": batch.target, "source": batch.source}
        with parts.step(step):
            with torch.no_grad():
                translated = {contrast: self._translate(contrast, images[_OTHER[contrast]]) for contrast in _OTHER}
            terms = self._diffusive_discriminator_terms(images, translated, step)
            losses = parts.descend("diffusive_discriminators", terms)
            terms = self._nondiffusive_discriminator_terms(images, translated)
            losses |= parts.descend("nondiffusive_discriminators", terms)
            with parts.frozen("diffusive_discriminators", "nondiffusive_discriminators"):
                return losses | parts.descend(GENERATORS, self._generator_terms(images))

    def _diffusive_discriminator_terms(
        self, images: Mapping[str, Tensor], translated: Mapping[str, Tensor], step: int
    ) -> dict[str, Tensor]:
        """L of D_theta: logistic terms of real and fake x_t given x_{t+1}, and R1 at the real one."""
        gamma = self.config.r1_gamma if step % self.config.r1_every == 0 else None
        terms: dict[str, Tensor] = {}
        for contrast, real in images.items():
            draw = Draw.of(self.schedule, real[:, :1], self.config.network.nz)
            with torch.no_grad():
                fake = draw.sample_x_t(self.schedule, self._estimate_x0(contrast, draw, translated[_OTHER[contrast]]))
            discriminator = partial(draw.logits, self.parts.networks[f"discriminator_diffusive_{contrast}"])
            names = (f"diffusive_real_{contrast}", f"diffusive_fake_{contrast}", f"r1_{contrast}")
            terms |= logistic_with_r1(discriminator, draw.x_t, fake, gamma=gamma, names=names)
        return terms

    def _nondiffusive_discriminator_terms(
        self, images: Mapping[str, Tensor], translated: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """L of D_phi: logistic terms of real and translated images."""
        terms = {}
        for contrast, real in images.items():
            discriminator = self.parts.networks[f"discriminator_nondiffusive_{contrast}"]
            terms[f"nondiffusive_real_{contrast}"] = logistic_real(discriminator(real))
            terms[f"nondiffusive_fake_{contrast}"] = logistic_fake(discriminator(translated[contrast]))
        return terms

    def _generator_terms(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """L of G_theta and G_phi; gradients of the diffusive terms flow through the guidance into G_phi.

        The L1 of the diffusive generator is taken at its one-step estimate of x_0, as in the published code; the paper
        takes it at the end of the reverse diffusion.
        """
        config, networks = self.config, self.parts.networks
        translated = {contrast: self._translate(contrast, images[_OTHER[contrast]]) for contrast in _OTHER}
        terms: dict[str, Tensor] = {}
        for contrast, real in images.items():
            draw = Draw.of(self.schedule, real[:, :1], config.network.nz)
            estimate = self._estimate_x0(contrast, draw, translated[_OTHER[contrast]])
            fake = draw.sample_x_t(self.schedule, estimate)
            cycled = self._translate(contrast, translated[_OTHER[contrast]])
            terms |= {
                f"adversarial_diffusive_{contrast}": logistic_real(
                    draw.logits(networks[f"discriminator_diffusive_{contrast}"], fake)
                ),
                f"adversarial_nondiffusive_{contrast}": logistic_real(
                    networks[f"discriminator_nondiffusive_{contrast}"](translated[contrast])
                ),
                f"cycle_{contrast}": config.cycle_weight * l1(cycled, real),
                f"l1_{contrast}": config.l1_weight * l1(estimate, real[:, :1]),
            }
        return terms

    def _translate(self, contrast: str, other: Tensor) -> Tensor:
        """G_phi: the other contrast translated into this one."""
        return predicted_image(self.config, self.parts.networks[f"nondiffusive_{contrast}"](other), other)

    def _estimate_x0(self, contrast: str, draw: Draw, guidance: Tensor) -> Tensor:
        """G_theta: x_0 of this contrast from x_{t+1} under the guidance of the other contrast."""
        return draw.estimate_x0(self.parts.networks[f"diffusive_{contrast}"], self.config, guidance)


def build(config: SyndiffConfig) -> Syndiff:
    """A fresh method."""
    return Syndiff(config)
