"""Where a run computes: device, precision and the other processes, by accelerate."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Final, TypeVar

import torch

from models.errors import ModelsError
from models.methods.optimisation import Compute
from models.together import Place, talk
from models.training.options import TrainingError
from models.translator import Device, DeviceUnavailable, Precision

T = TypeVar("T")

PATIENCE: Final = timedelta(minutes=30)
"""So long processes wait for each other, as at the start until the last host has its cohort. One whose process ended is
noticed at once; only a host that fell silent, by a loss of power or of its network, is waited for so long."""


class OfOneProcess(TrainingError):
    """What kept one process from going on, and not all alike: others do not know of it."""


class EndedByFirst(ModelsError):
    """The first process ended the run; it has said why."""


def is_spokesman() -> bool:
    """Whether this process says what all processes of its host would say; a process alone is one."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def is_first() -> bool:
    """Whether this process writes the run and shows its progress; known before the processes have met."""
    return os.environ.get("RANK", "0") == "0"


class TrainingProcess:
    """One process of a run; started by `accelerate launch` or torchrun it is one of several.

    Networks are not wrapped: a method moves several by several optimisers, which no wrapper knows. Every process has
    the same networks and averages its gradients with the others before each optimiser step, which is the same. See
    `models.together` for what depends on a whole batch.
    """

    def __init__(self, device: Device, precision: Precision) -> None:
        """Settle what "auto" means here, and meet the other processes.

        Raises DeviceUnavailable for "cuda" without a usable GPU, TrainingError where the processes do not meet.
        """
        # The other modules of this package serve where accelerate is not installed.
        from accelerate import Accelerator, InitProcessGroupKwargs  # noqa: PLC0415

        usable = torch.cuda.is_available()
        if device == "cuda" and not usable:
            raise DeviceUnavailable("device is cuda, but torch finds no usable GPU on this machine")
        on_gpu = usable and device != "cpu"
        self.precision = {"auto": "bf16" if on_gpu else "fp32"}.get(precision, precision)
        self.device_type = "cuda" if on_gpu else "cpu"
        patience = InitProcessGroupKwargs(timeout=PATIENCE)
        try:
            self._accelerator = Accelerator(cpu=not on_gpu, kwargs_handlers=[patience])
        except torch.distributed.DistError as error:
            place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise TrainingError(f"the processes of this run did not meet at {place}: {_first_line(error)}.") from error

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
        return Compute(self.device_type, self.precision, Place(self.rank, self.processes))

    def by_first(self, work: Callable[[], T]) -> T:
        """Let the first process do this alone; all get what it returned, and all end where it fails.

        Raises there what `work` raises, and EndedByFirst in the others.
        """
        if self.processes == 1:
            return work()
        if self.rank > 0:
            value, failure = self._broadcast(None)
            if failure is not None:
                raise EndedByFirst(f"the first process of this run ended: {failure}")
            return value  # type: ignore[return-value]
        try:
            done = work()
        except Exception as error:
            self._broadcast((None, _first_line(error)))
            raise
        self._broadcast((done, None))
        return done

    def agree(self, value: T) -> T:
        """The value of the first process, for all."""
        return self.by_first(lambda: value)

    def wait(self) -> None:
        """Until all processes are here; raises PeerLost."""
        if self.processes > 1:
            talk(torch.distributed.barrier)

    @staticmethod
    def _broadcast(outcome: tuple[object, str | None] | None) -> tuple[object, str | None]:
        message = [outcome]
        talk(torch.distributed.broadcast_object_list, message)
        assert message[0] is not None
        return message[0]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
