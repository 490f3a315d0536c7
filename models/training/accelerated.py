"""Where a run computes: device, precision and the other processes, by accelerate."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from models.methods.optimisation import Compute
from models.translator import Device, DeviceUnavailable, Precision

T = TypeVar("T")


class TrainingProcess:
    """One process of a run; started by `accelerate launch` it is one of several.

    Networks are not wrapped: a method moves several by several optimisers, which no wrapper knows. Every process has
    the same networks and averages its gradients with the others before each optimiser step, which is the same.
    """

    def __init__(self, device: Device, precision: Precision) -> None:
        """Settle what "auto" means here; raises DeviceUnavailable for "cuda" without a usable GPU."""
        # The other modules of this package serve where accelerate is not installed.
        from accelerate import Accelerator  # noqa: PLC0415

        usable = torch.cuda.is_available()
        if device == "cuda" and not usable:
            raise DeviceUnavailable("device is cuda, but torch finds no usable GPU on this machine")
        on_gpu = usable and device != "cpu"
        self.precision = {"auto": "bf16" if on_gpu else "fp32"}.get(precision, precision)
        self.device_type = "cuda" if on_gpu else "cpu"
        self._accelerator = Accelerator(cpu=not on_gpu)

    @property
    def rank(self) -> int:
        """Number of this process."""
        return int(self._accelerator.process_index)

    @property
    def processes(self) -> int:
        """Number of processes."""
        return int(self._accelerator.num_processes)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return torch.device(self._accelerator.device)

    @property
    def description(self) -> str:
        """Device, precision and number of processes, for people."""
        name = torch.cuda.get_device_name() if self.device_type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
        return f"{name}, {self.precision}, {self.processes} process{'es' if self.processes > 1 else ''}"

    @property
    def compute(self) -> Compute:
        """What a method's steps need to know of it."""
        average = self._average_gradients if self.processes > 1 else None
        return Compute(self.device_type, self.precision, self.rank, average)

    @torch.no_grad()
    def _average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace gradients by their mean over all processes, in one message."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        flat = self._accelerator.reduce(flat, reduction="mean")
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def agree(self, value: T) -> T:
        """The value of the first process, for all."""
        values = [value]
        if self.processes > 1:
            from accelerate.utils import broadcast_object_list  # noqa: PLC0415

            broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Until all processes are here."""
        self._accelerator.wait_for_everyone()
