"""What can happen to a device: it runs out of memory, reports an error, or another of its kind stands beside it."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from models.translator import DeviceFault

_MARKS: Final = ("CUDA", "cuDNN", "CUBLAS", "DefaultCPUAllocator", "HIP error")
_LONGEST_TEXT: Final = 200
_used: Final = {"gpu": 0}  # torch remembers it for each thread only


@contextmanager
def device_faults() -> Iterator[None]:
    """Raise DeviceFault, in one line, for what a device reports while the block runs; other errors stay themselves."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        _release(error)
        raise DeviceFault(f"the device ran out of memory: {_line(error)}") from error
    except RuntimeError as error:
        if not isinstance(error, torch.AcceleratorError) and not any(mark in str(error) for mark in _MARKS):
            raise
        raise DeviceFault(f"the device reported an error: {_line(error)}") from error


def use_gpu(number: int) -> None:
    """Let this process use the GPU of this number, from 0, wherever it asks for one; without a GPU nothing happens."""
    if torch.cuda.is_available():
        torch.cuda.set_device(number)
        _used["gpu"] = number


def count_alike() -> int:
    """How many GPUs of this machine are of the kind of the first one; 0 without a GPU."""
    if not torch.cuda.is_available():
        return 0
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    # They have to follow the first, so that the number of tries is the number of the GPU.
    return next((number for number, name in enumerate(names) if name != names[0]), len(names))


def memory() -> tuple[int, int] | None:
    """Bytes in use and in total of the GPU that this process works with; None where it has begun with none."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # asking would begin with one
        return None
    free, total = torch.cuda.mem_get_info(_used["gpu"])
    return total - free, total


def _release(error: BaseException) -> None:
    """Let go of what the frames that failed hold, or the next try has no more memory than this one.

    An exception keeps its frames, and they keep their tensors; from Python 3.12 on, an exception that passed a context
    manager of a generator is part of a cycle, which stays until the garbage collector happens to run.
    """
    traceback.clear_frames(error.__traceback__)


def _line(error: BaseException) -> str:
    """The first line of what torch says; the others are advice for programmers."""
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    return first[:_LONGEST_TEXT]
