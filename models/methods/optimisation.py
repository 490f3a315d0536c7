"""How a method's networks are optimised: the settings of a run, and all that training changes, in one checkpoint."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.methods.accumulation import Paused, Shares
from models.methods.replay import ReplayPool
from models.together import ALL_PROCESSES, ALONE, Place, at, average_gradients, means

GENERATORS = "generators"

Decay = Literal["constant", "linear", "cosine"]

_LEAST = {"batch_size": 1, "accumulate": 1, "epochs": 1, "seed": 0, "warmup_steps": 0, "final_lr": 0}


@dataclass(frozen=True)
class Regime:
    """How a method is optimised, whatever its networks; the defaults are the study's: Adam 1e-4, batch 16, 100 epochs.

    `decay` of the learning rates: "constant"; "linear", constant for the first half of the epochs, then down to 0 in
    one stair an epoch (Pix2Pix, CycleGAN); "cosine", a half cosine from the start down to `final_lr` (SynDiff).
    `warmup_steps` is over how many steps of the optimisers the rates first rise, linearly, to that plan.
    `ema_decay` None keeps no moving average; `ema_young` lets a young average forget its first weights faster.
    `max_grad_norm` clips each optimiser's gradients. `seed` decides the first weights and all noise of training.
    `accumulate` divides each batch into so many parts that pass through the networks one after the other, for as much
    less memory; the weights move as one whole batch would move them, batch statistics and noise excepted.
    The first `crop_share` (0 to 1) of the epochs see random crops of `crop` x `crop` pixels in batches of `crop_batch`
    (None: `batch_size`), the others whole slices in batches of `batch_size`.
    """

    lr_generator: float = 1e-4
    lr_discriminator: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)
    batch_size: int = 16
    accumulate: int = 1
    epochs: int = 100
    decay: Decay = "constant"
    final_lr: float = 0.0
    ema_decay: float | None = None
    ema_young: bool = False
    max_grad_norm: float | None = None
    seed: int = 1
    warmup_steps: int = 0
    crop: int | None = None
    crop_share: float = 0.0
    crop_batch: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no run can follow, in words; raises ValueError."""
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("lr_generator", "lr_discriminator", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; it must be above 0")
        shares = {"crop_share": self.crop_share, "ema_decay": self.ema_decay or 0.0}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it must be from 0 to 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {self.betas}; both must be at least 0 and below 1")
        for name in ("crop", "crop_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1, or None")
        if self.crop_share and self.crop is None:
            raise ValueError(f"crop_share is {self.crop_share}; it needs the size of the crops in crop")

    def rate_at(self, rate: float, epoch: float, step: int) -> float:
        """Learning rate for one that starts at `rate`, at this epoch (with its fraction) and step, both from 0."""
        return self._planned(rate, epoch) * min(1.0, (step + 1) / max(self.warmup_steps, 1))

    def _planned(self, rate: float, epoch: float) -> float:
        if self.decay == "linear":
            constant = self.epochs // 2
            beyond = max(0, math.floor(epoch) + 1 - constant)
            return rate * max(0.0, 1 - beyond / (self.epochs - constant + 1))
        if self.decay == "cosine":
            share = min(epoch / self.epochs, 1.0)
            return self.final_lr + (rate - self.final_lr) * (1 + math.cos(math.pi * share)) / 2
        return rate

    def average_decay(self, updates: int) -> float:
        """Decay of the moving average at its `updates`-th update, counted from 1."""
        decay = self.ema_decay or 0.0
        return min(decay, (1 + updates) / (10 + updates)) if self.ema_young else decay


SMALL = Regime(
    lr_generator=1e-3,
    lr_discriminator=2e-4,
    batch_size=2,
    decay="cosine",
    final_lr=1e-5,
    ema_decay=0.99,
    ema_young=True,
)
"""Of the "small" presets: a few minutes on one CPU core with some 200 slices of 128 x 128. They predict a residual, as
so short a run would otherwise spend much of itself on learning to copy the source."""


class NotFinite(ArithmeticError):
    """A term of an objective is infinite or not a number."""


@dataclass(frozen=True)
class Compute:
    """Where and how steps are computed: device "cpu" or "cuda", precision "fp32" or "bf16", and by which processes."""

    device: str = "cpu"
    precision: str = "fp32"
    place: Place = ALONE

    def autocast(self) -> torch.autocast:
        """Context in which networks run at this precision."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16")


class Parts:
    """Networks, their optimisers, the moving averages of the generators, and the replay pools of a method.

    `groups` names the optimisers and the networks each one moves; the group "generators" has the regime's generator
    rate, all others its discriminator rate. There is no random state: a step's noise comes from (seed, step).
    """

    def __init__(
        self,
        regime: Regime,
        build: Callable[[], Mapping[str, nn.Module]],
        groups: Mapping[str, Sequence[str]],
        *,
        averaged: Sequence[str] = (),
        pools: Mapping[str, ReplayPool] | None = None,
    ) -> None:
        """Build the networks from the regime's seed; torch's global random stream is left as it was."""
        self.regime, self.groups = regime, dict(groups)
        self.compute = Compute()
        self.shares: Shares | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(regime.seed)
            self.networks = dict(build())
        self.optimisers = {
            group: torch.optim.Adam(self.parameters_of(group), lr=self._start_rate(group), betas=regime.betas)
            for group in groups
        }
        self.pools = dict(pools or {})
        self.updates = 0
        names = averaged if regime.ema_decay is not None else ()
        self.averages = {name: copy.deepcopy(self.networks[name]).requires_grad_(False).eval() for name in names}

    def parameters_of(self, group: str) -> list[nn.Parameter]:
        """All parameters that one optimiser moves."""
        return [p for name in self.groups[group] for p in self.networks[name].parameters()]

    def final(self, name: str) -> nn.Module:
        """The network to translate with: its moving average where one is kept."""
        return self.averages.get(name, self.networks[name])

    def to(self, device: str | torch.device) -> None:
        """Move networks and averages; call it before the first step, or before `load_state_dict`."""
        for network in (*self.networks.values(), *self.averages.values()):
            network.to(device)

    def set_rates(self, epoch: float, step: int) -> None:
        """Set every optimiser's learning rate for the step ahead: the epoch with its fraction, both counted from 0."""
        for group, optimiser in self.optimisers.items():
            for options in optimiser.param_groups:
                options["lr"] = self.regime.rate_at(self._start_rate(group), epoch, step)

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Surround one training step: its own random stream, its precision, moving averages at the end."""
        stream = () if self.shares is None else self.shares.stream
        with at(self.compute.place), seeded(self.regime.seed, ALL_PROCESSES, step, *stream), self.compute.autocast():
            yield
        if self.shares is None:
            self._update_averages()

    def descend(self, group: str, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """Move one group's networks down the sum of the terms; returns each term's value, weight included.

        Raises NotFinite before anything is changed: one such step would leave no weight usable. For a part of a batch
        (`shares`) the gradients only add up; raises Paused where the networks have to move before the part goes on.
        """
        shares = self.shares
        if shares is not None and shares.has_moved(group):
            return shares.values_of(group)
        with at(self.compute.place):
            values = means(terms)
        if broken := [name for name, value in values.items() if not math.isfinite(value)]:
            raise NotFinite(f"{broken[0]} is not finite")
        total = torch.stack([term.float() for term in terms.values()]).sum()
        with torch.autocast(total.device.type, enabled=False):
            if shares is None:
                self.optimisers[group].zero_grad(set_to_none=True)
                total.backward()  # type: ignore[no-untyped-call]
                self._move(group)
                return values
            if shares.begins(group):
                self.optimisers[group].zero_grad(set_to_none=True)
            (total / shares.count).backward()  # type: ignore[no-untyped-call]
        if shares.adds(group, values, last=group == GENERATORS):
            raise Paused
        return values

    def descend_in_parts(self, step: Callable[[int], dict[str, float]], count: int) -> dict[str, float]:
        """One training step whose batch passes in `count` parts, `step(number)` for each; the means of their terms."""
        self.shares = shares = Shares(count)
        try:
            while not (found := shares.one_pass(step)):
                self._move_all(shares)
            self._move_all(shares)
        finally:
            self.shares = None
        self._update_averages()
        return {name: sum(values[name] for values in found) / count for name in found[0]}

    def _move_all(self, shares: Shares) -> None:
        for group in shares.take_added():
            with torch.autocast(self.compute.device, enabled=False):
                self._move(group)

    def _move(self, group: str) -> None:
        """One step of a group's optimiser, by the gradients that its parameters hold."""
        parameters = self.parameters_of(group)
        with at(self.compute.place):
            average_gradients(parameters)
        if self.regime.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.regime.max_grad_norm)
        self.optimisers[group].step()

    @contextmanager
    def frozen(self, *groups: str) -> Iterator[None]:
        """Keep gradients out of these groups' parameters, but let them through to what the networks are shown."""
        parameters = [p for group in groups for p in self.parameters_of(group)]
        for parameter in parameters:
            parameter.requires_grad = False
        try:
            yield
        finally:
            for parameter in parameters:
                parameter.requires_grad = True

    def state_dict(self) -> dict[str, Any]:
        """All that training changes, as tensors and plain values (safe for `torch.load(weights_only=True)`)."""
        kinds = (("networks", self.networks), ("averages", self.averages), ("optimisers", self.optimisers))
        state: dict[str, Any] = {kind: {name: x.state_dict() for name, x in items.items()} for kind, items in kinds}
        return state | {
            "pools": {name: pool.state_dict() for name, pool in self.pools.items()},
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; the next steps are then those of the run that was saved."""
        for kind in ("networks", "averages", "optimisers", "pools"):
            items = getattr(self, kind)
            if set(items) != set(state[kind]):
                raise ValueError(f"the state has {kind} {sorted(state[kind])}; this method has {sorted(items)}")
            for name, item in items.items():
                item.load_state_dict(state[kind][name])
        self.updates = int(state["updates"])

    def _start_rate(self, group: str) -> float:
        return self.regime.lr_generator if group == GENERATORS else self.regime.lr_discriminator

    @torch.no_grad()
    def _update_averages(self) -> None:
        self.updates += 1
        # The shadow of the published code is created at the first step, from the weights after it.
        keep = self.regime.average_decay(self.updates) if self.updates > 1 else 0.0
        for name, average in self.averages.items():
            for mean, parameter in zip(average.parameters(), self.networks[name].parameters(), strict=True):
                mean.lerp_(parameter, 1 - keep)
            for held, buffer in zip(average.buffers(), self.networks[name].buffers(), strict=True):
                held.copy_(buffer)


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Run with torch's random streams, CPU and the current GPU, seeded from these numbers; restored afterwards."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1)))
        yield


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Run a network as it will be used: no gradients, no dropout, running statistics; its mode is restored."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(training)
