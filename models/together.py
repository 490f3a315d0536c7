"""What processes that train one model do as one: their noise, their statistics over a batch, and their means.

Every batch is divided evenly among the processes. What depends on the whole batch is calculated as one process would
that holds all of it, so that the number of processes changes a run only by the order in which sums are rounded. Random
numbers are drawn for the whole batch by every process, from the same stream, and each keeps those of its own images.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import ModelsError


class PeerLost(ModelsError):
    """Another process of this run has ended, or has not answered for too long."""


@dataclass(frozen=True)
class Place:
    """Which of how many processes this is; its images are the `rank`-th part of every batch."""

    rank: int = 0
    processes: int = 1

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.processes == 1


ALONE = Place()
ALL_PROCESSES = 0
"""Stands in a seed where each process once had its own number: all draw from one stream, and each keeps its part."""
_place: ContextVar[Place] = ContextVar("place", default=ALONE)


@contextmanager
def at(place: Place) -> Iterator[None]:
    """Take part in a step of all processes; outside of it every process is alone."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


def is_alone() -> bool:
    """Whether nothing of this step is done by another process."""
    return _place.get().alone


def processes() -> int:
    """How many processes share this step."""
    return _place.get().processes


def drawn(count: int, draw: Callable[[int], Tensor]) -> Tensor:
    """Random numbers for the `count` images of this process: its part of `draw(images of the whole batch)`."""
    return _own(draw(count * processes()), count)


def summed(x: Tensor) -> Tensor:
    """The sum of this tensor over all processes, in float32; gradients of any order flow through it."""
    if is_alone():
        return x.float()
    total: Tensor = _Sum.apply(x.float())  # type: ignore[no-untyped-call]
    return total


def of_whole_batch(x: Tensor, calculate: Callable[[Tensor], Tensor]) -> Tensor:
    """This process's part of `calculate(x of all processes)`, along the first axis; gradients flow to all of them."""
    place, count = _place.get(), len(x)
    if place.alone:
        return calculate(x)
    before, after = place.rank * count, (place.processes - 1 - place.rank) * count
    # A sum with zeros is exact and, unlike a gather, has a gradient of every order in all backends.
    spread = torch.cat([x.new_zeros((before, *x.shape[1:])), x, x.new_zeros((after, *x.shape[1:]))])
    return _own(calculate(summed(spread).to(x.dtype)), count)


def means(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Means of single numbers over all processes, equal in all of them."""
    place = _place.get()
    if place.alone:
        return {name: float(value.detach()) for name, value in values.items()}
    total = torch.stack([value.detach().float() for value in values.values()])
    talk(torch.distributed.all_reduce, total)
    return dict(zip(values, (total / place.processes).tolist(), strict=True))


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace gradients by their means over all processes, in one message."""
    place = _place.get()
    gradients = [p.grad for p in parameters if p.grad is not None]
    if place.alone or not gradients:
        return
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    talk(torch.distributed.all_reduce, flat)
    flat /= place.processes
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def talk(message: Callable[..., Any], *values: Any) -> Any:
    """Call a function that exchanges something with the other processes; raises PeerLost where they are gone."""
    try:
        return message(*values)
    except RuntimeError as error:
        raise PeerLost(
            "another process of this run ended or does not answer; what that process printed says why. "
            "Mend it, and go on with --resume."
        ) from error


def _own(whole: Tensor, count: int) -> Tensor:
    place = _place.get()
    return whole if place.alone else whole[place.rank * count : (place.rank + 1) * count]


class _Sum(torch.autograd.Function):
    """Every process's objective depends on the sum: what it gets back is the sum of all their gradients."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        total = x.detach().clone(memory_format=torch.contiguous_format)
        talk(torch.distributed.all_reduce, total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(gradient)  # type: ignore[no-untyped-call]
        return total
