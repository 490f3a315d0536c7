"""Owns training of a SynDiff generator on paired phantom slices and the writing of its bundle; must not evaluate.

`syndiff_paired`: the diffusive generator conditioned on the real source, L1 between its estimate and x_0, on pairs in
register. Run as `python -m models.train --out DIR`; see --help.
"""

import argparse
import copy
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from models.bundle import BundleCard, Envelope, write_bundle
from models.card_text import render_card
from models.diffusion import DiffusionConfig, forward_pair, make_schedule
from models.frame import Frame
from models.networks.config import NcsnppConfig
from models.networks.ncsnpp import Ncsnpp
from models.pool import TARGETS, SlicePool, make_pool
from models.zoo.syndiff import estimate_x0

_LOG = logging.getLogger(__name__)

SMALL_NETWORK = NcsnppConfig(
    nf=16, ch_mult=(1, 2, 4, 6), num_res_blocks=1, nz=16, z_emb_dim=64, n_mlp=2, patch_size=2, attn_resolutions=(16,)
)


@dataclass(frozen=True)
class TrainConfig:
    """How a run goes; `minutes` ends it by the clock instead of by `steps`, at the price of exact repeatability.

    The first `crop_share` of the run sees random crops of 128 x 128 in batches of `crop_batch`, the rest whole slices
    in batches of `full_batch`. Pixels whose true enhancement exceeds 15 HU weigh 1 + `enhanced_weight` in the loss.
    """

    steps: int = 4000
    minutes: float | None = None
    crop_share: float = 0.6
    crop_batch: int = 8
    full_batch: int = 3
    lr: float = 1e-3
    final_lr: float = 1e-5
    warmup_steps: int = 100
    ema_decay: float = 0.998
    enhanced_weight: float = 0.5
    seed: int = 1
    save_every_s: float = 300.0


class Trainer:
    """One run: a network, its moving average, and the streams of random numbers, all from `config.seed`."""

    def __init__(self, card: BundleCard, network: NcsnppConfig, config: TrainConfig) -> None:
        """Build a fresh network from the seed; torch's global random stream is left as it was."""
        self.card, self.config = card, config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = Ncsnpp(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.step = 0
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=config.lr, betas=(0.9, 0.99))
        self._noise = torch.Generator().manual_seed(config.seed)
        self._picks = np.random.Generator(np.random.Philox(config.seed))
        self._schedule = make_schedule(DiffusionConfig.from_mapping(card.diffusion))

    def train_step(self, pool: SlicePool, progress: float) -> float:
        """Take one optimisation step at this share (0..1) of the run and return its loss."""
        source, target = self._draw_batch(pool, progress)
        for group in self._optimiser.param_groups:
            group["lr"] = self._learning_rate(progress)
        loss = self._loss(source, target)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimiser.step()
        self.step += 1
        self._update_average()
        return float(loss.detach())

    def weights(self) -> bytes:
        """The averaged network as safetensors in fp16."""
        state = self.average.state_dict()
        return save_safetensors({name: tensor.half().contiguous() for name, tensor in state.items()})

    def _loss(self, source: Tensor, target: Tensor) -> Tensor:
        count = len(source)
        t = torch.randint(0, self._schedule.num_timesteps, (count,), generator=self._noise)
        e_1, e_2 = (torch.randn(target.shape, generator=self._noise) for _ in range(2))
        _, x_next = forward_pair(self._schedule, target, t, e_1, e_2)
        z = torch.randn(count, self.network.config.nz, generator=self._noise)
        predicted = estimate_x0(self.network, self.card, x_next=x_next, source=source, t=t, z=z)
        low, high = self.card.hu_window
        enhanced = (target - source).abs() > 15 * 2 / (high - low)
        weight = 1 + self.config.enhanced_weight * enhanced
        return (weight * (predicted - target).abs()).mean()

    def _draw_batch(self, pool: SlicePool, progress: float) -> tuple[Tensor, Tensor]:
        crops = progress < self.config.crop_share
        count = self.config.crop_batch if crops else self.config.full_batch
        source, target = pool.batch(self._picks.integers(0, len(pool.source), count))
        if not crops:
            return source, target
        # Bodies lie in the middle; crops of the outer border would hold only air.
        side = min(128, source.shape[-1])
        border = (source.shape[-1] - side) // 8
        corners = self._picks.integers(border, source.shape[-1] - side - border + 1, (count, 2))
        pairs = [
            (s[:, r : r + side, c : c + side], t[:, r : r + side, c : c + side])
            for s, t, (r, c) in zip(source, target, corners, strict=True)
        ]
        return torch.stack([s for s, _ in pairs]), torch.stack([t for _, t in pairs])

    def _learning_rate(self, progress: float) -> float:
        """Linear warm-up by steps, then a half cosine over the run."""
        low, high = self.config.final_lr, self.config.lr
        cosine = low + (high - low) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
        return cosine * min(1.0, (self.step + 1) / self.config.warmup_steps)

    def _update_average(self) -> None:
        # A young average would remember the initial weights for too long.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)


def train(trainer: Trainer, pool: SlicePool, out: Path) -> BundleCard:
    """Run to the end, writing the bundle of the averaged weights now and then and at last; returns its card."""
    config, start = trainer.config, time.monotonic()
    last_save, smooth = start, float("nan")
    while (progress := _progress(trainer, start)) < 1:
        loss = trainer.train_step(pool, progress)
        smooth = loss if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss
        if trainer.step % 100 == 0:
            _LOG.info("step %d, %.0f %%, loss %.5f", trainer.step, progress * 100, smooth)
        if time.monotonic() - last_save > config.save_every_s:
            save_bundle(trainer, out)
            last_save = time.monotonic()
    return save_bundle(trainer, out)


def save_bundle(trainer: Trainer, out: Path) -> BundleCard:
    """Write the averaged network as a bundle; its card has no metrics until an evaluation adds them."""
    training = {**trainer.card.training, "steps": trainer.step, "settings": asdict(trainer.config)}
    card = replace(trainer.card, training=training)
    return write_bundle(out, card, trainer.weights(), text=render_card(card))


def _progress(trainer: Trainer, start: float) -> float:
    if trainer.config.minutes is None:
        return trainer.step / trainer.config.steps
    return (time.monotonic() - start) / (60 * trainer.config.minutes)


def paired_card(
    name: str, version: str, network: NcsnppConfig, *, patients: int, slices: int, target: str
) -> BundleCard:
    """Card of a phantom-trained `syndiff_paired` bundle before it has weights."""
    return BundleCard(
        name=name,
        version=version,
        method="syndiff_paired",
        network={"architecture": "ncsnpp", **network.to_mapping()},
        diffusion=DiffusionConfig().to_mapping(),
        weights_sha256="0" * 64,
        prediction="residual",
        residual_scale=2.0,
        matrix=network.image_size,
        training={
            "data": "procedural thorax phantom (models.phantom), hospital 'internal'; no real patient",
            "patients": patients,
            "slices": slices,
            "target": target,
            "registration": "none needed: pairs are in register",
            "adversarial_term": False,
        },
        envelope=Envelope(pixel_spacing_mm=(0.8, 1.17), slice_spacing_mm=(3.0, 5.0)),
        intended_use="Demonstration of the data path. Not for clinical use.",
        limits=("Trained on a phantom only.", "Trained without an adversarial term.", "Not for clinical use."),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, make or load the slice pool, train, write the bundle."""
    parser = argparse.ArgumentParser(prog="python -m models.train", description="Train syndiff_paired on the phantom.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle to write")
    parser.add_argument("--name", default="demo", help="name of the bundle")
    parser.add_argument("--version", default="1", help="version of the bundle")
    parser.add_argument("--pool", type=Path, action="append", help="slice pool to load, or to make; repeatable")
    parser.add_argument("--patients", type=int, default=150, help="phantom patients of a pool that is made")
    parser.add_argument("--slices", type=int, default=8, help="slices of each patient")
    parser.add_argument("--first-seed", type=int, default=100_000, help="seed of the first patient")
    parser.add_argument("--target", choices=TARGETS, default=TARGETS[0], help="what the generator learns to predict")
    parser.add_argument("--steps", type=int, default=4000, help="optimisation steps")
    parser.add_argument("--minutes", type=float, help="end by the clock instead (not exactly repeatable)")
    parser.add_argument("--lr", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights, noise and batches")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    pool = _load_or_make_pools(options)
    card = paired_card(
        options.name,
        options.version,
        SMALL_NETWORK,
        patients=len(pool.source) // options.slices,
        slices=len(pool.source),
        target=options.target,
    )
    config = TrainConfig(steps=options.steps, minutes=options.minutes, lr=options.lr, seed=options.seed)
    trainer = Trainer(card, SMALL_NETWORK, config)
    written = train(trainer, pool, options.out)
    _LOG.info("wrote %s after %d steps, digest %s", options.out, trainer.step, written.digest)


def _load_or_make_pools(options: argparse.Namespace) -> SlicePool:
    pools = []
    for i, file in enumerate(options.pool or [None]):
        if file is not None and file.exists():
            pools.append(SlicePool.load(file))
            continue
        pool = make_pool(
            Frame((-40.0, 400.0), SMALL_NETWORK.image_size),
            patients=options.patients,
            slices=options.slices,
            first_seed=options.first_seed + i * options.patients,
            target=options.target,
        )
        if file is not None:
            pool.save(file)
        pools.append(pool)
    sources, targets = [p.source for p in pools], [p.target for p in pools]
    return SlicePool(np.concatenate(sources), np.concatenate(targets))


if __name__ == "__main__":
    main()
