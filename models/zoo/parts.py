"""Owns everything of a method that training changes, as one checkpointable whole; must not know an objective."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from models.zoo.regime import Regime
from models.zoo.replay import ReplayPool

GENERATORS = "generators"


class NotFinite(ArithmeticError):
    """A term of an objective is infinite or not a number."""


class Engine(Protocol):
    """What a training loop lends to a step: precision and the company of other processes."""

    @property
    def rank(self) -> int: ...
    def autocast(self) -> AbstractContextManager[Any]: ...
    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None: ...


class LocalEngine:
    """One process, float32."""

    rank = 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Leave the precision as it is."""
        return nullcontext()

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Nobody to average with."""


class Parts:
    """Networks, their optimisers, the moving averages of the generators, and the replay pools of a method.

    `groups` names the optimisers and the networks each one moves; the group "generators" has the regime's generator
    rate, all others its discriminator rate. There is no random state: a step's noise comes from (seed, rank, step).
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
        self.engine: Engine = LocalEngine()
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
        """Surround one training step: its own random stream, the engine's precision, moving averages at the end."""
        with seeded(self.regime.seed, self.engine.rank, step), self.engine.autocast():
            yield
        self._update_averages()

    def descend(self, group: str, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """Move one group's networks down the sum of the terms; returns each term's value, weight included.

        Raises NotFinite before anything is changed: one such step would leave no weight usable.
        """
        optimiser, parameters = self.optimisers[group], self.parameters_of(group)
        values = {name: float(term.detach()) for name, term in terms.items()}
        if broken := [name for name, value in values.items() if not math.isfinite(value)]:
            raise NotFinite(f"{broken[0]} is not finite")
        total = torch.stack([term.float() for term in terms.values()]).sum()
        with torch.autocast(total.device.type, enabled=False):
            optimiser.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            self.engine.average_gradients(parameters)
            if self.regime.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, self.regime.max_grad_norm)
            optimiser.step()
        return values

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
