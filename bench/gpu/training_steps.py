"""Whether one training step on the device has the losses and gradients of one on the CPU, for every method."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.gpu.report import Section
from bench.gpu.size import Size
from bench.gpu.tools import arithmetic, largest, relative_error
from bench.naive_ncsnpp import enliven
from models.diffusion import Draw, Schedule
from models.methods.method import Batch, Method, make_method
from models.methods.optimisation import Compute
from models.networks.registration import RegistrationNetwork
from models.registry import METHODS
from models.testing import write_tiny_bundle

WATCHED = ("displacement_px", "folded")
LIMITS = {"fp32": (1e-3, 5e-2), "bf16": (1e-1, 8e-1)}
"""Of losses and of gradients, relative, by precision."""
WHY = {
    "fp32": "two libraries on one CPU differ by 4e-5 in losses and 9e-3 in gradients, which see discriminators after a "
    "step of Adam: its size does not depend on the gradient's, so that rounding turns single weights' steps around",
    "bf16": "bfloat16 on a CPU costs 1.4e-2 in losses and 0.4 in gradients of live random networks; unrelated ones "
    "would differ by 1.4",
}


@dataclass(frozen=True)
class Step:
    """What a step returned, and the gradients that it left, one vector a network."""

    losses: Mapping[str, float]
    gradients: Mapping[str, Tensor]


def compare_training_steps(section: Section, device: str, size: Size, folder: Path) -> None:
    """Both precisions of the device against fp32 of the CPU; noise is drawn on the CPU for both."""
    teacher = folder / "teacher"
    write_tiny_bundle(teacher)
    for name, build in _kinds(size.trained, str(teacher)).items():
        if not section.has_time_for(f"training step of {name}", seconds=1):
            continue
        exact = _take_step(build(), "cpu", "fp32")
        for precision in ("fp32", "bf16"):
            found = _take_step(build(), device, precision)
            terms = [key for key in exact.losses if key not in WATCHED]
            losses = [_difference(found.losses[key], exact.losses[key]) for key in terms]
            gradients = [relative_error(found.gradients[key], exact.gradients[key]) for key in exact.gradients]
            for what, values, limit in zip(
                ("losses", "gradients"), (losses, gradients), LIMITS[precision], strict=True
            ):
                text = f"training step of {name}, {precision} on {device} against fp32 on cpu: {what}, relative"
                section.check(text, largest(values), limit, WHY[precision])


def _kinds(preset: str, teacher: str) -> dict[str, Callable[[], Method]]:
    """Every method; without dropout, which draws on the device."""
    pix2pix = METHODS["pix2pix"].presets[preset].generator
    kinds: dict[str, Callable[[], Method]] = {
        "pix2pix": partial(make_method, "pix2pix", preset, generator=replace(pix2pix, dropout=0.0)),
        "reggan with cycles": partial(make_method, "reggan", preset, cycle=True),
        "syndiff_student": partial(make_method, "syndiff_student", "tiny", teacher=teacher),
    }
    for name in ("cyclegan", "reggan", "syndiff", "syndiff_paired"):
        kinds[name] = partial(make_method, name, preset)
    return kinds


def _take_step(method: Method, device: str, precision: str) -> Step:
    """The first step, in which R1 acts, from live weights; registration starts at rest, as it always does."""
    parts = method.parts
    for network in parts.networks.values():
        if not isinstance(network, RegistrationNetwork):
            enliven(network, 1)
    parts.compute = Compute(device, precision)
    parts.to(device)
    batch = _batch(method.config.matrix).to(device)
    with drawn_on_cpu(), arithmetic():
        losses = method.training_step(batch, 0)
    return Step(losses, {name: _gradient(network) for name, network in parts.networks.items()})


def _gradient(network: nn.Module) -> Tensor:
    found = [p.grad for p in network.parameters() if p.grad is not None]
    return torch.cat([gradient.detach().float().cpu().flatten() for gradient in found])


def _batch(matrix: int) -> Batch:
    """Two discs in air, darker in one contrast than in the other, with noise."""
    line = torch.arange(matrix) - matrix / 2
    disc = (line[:, None] ** 2 + line[None] ** 2 < (0.4 * matrix) ** 2).float()
    source = -0.9 + 0.4 * disc + 0.05 * torch.randn(2, 1, matrix, matrix, generator=torch.Generator().manual_seed(0))
    return Batch(source, source + 0.8 * disc)


def _difference(found: float, expected: float) -> float:
    return abs(found - expected) / max(abs(expected), 1e-2)


@contextmanager
def drawn_on_cpu() -> Iterator[None]:
    """Let training draw its time steps and noise on the CPU wherever it computes: the generators differ by device."""
    original = Draw.__dict__["of"]
    draw_here = Draw.of

    def draw(cls: type[Draw], schedule: Schedule, x_0: Tensor, nz: int) -> Draw:
        drawn = draw_here(schedule, x_0.detach().cpu(), nz)
        return cls(**{field.name: getattr(drawn, field.name).to(x_0.device) for field in fields(cls)})

    Draw.of = classmethod(draw)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        Draw.of = original  # type: ignore[method-assign]
