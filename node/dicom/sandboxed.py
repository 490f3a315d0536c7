"""The process in which compressed pixels are decoded: run as a script by `sandbox`, it imports nothing of this project.

It decodes until its parent closes the line between them, or dies: a line of JSON and the codestream in, a line of JSON
and the pixels out. What a decoder of somebody else may do here is limited before it sees a byte: memory and CPU time
for each image, files of 1 MiB, no core file. It has no network: where the system permits an own network namespace it
has an empty one (Linux with user namespaces), and everywhere the number of its descriptors is limited to those that are
open, so that neither a socket nor a file can be opened. Where it does not run as root it can start no process. It gets
no environment, and so no password of a database.
"""

import ctypes
import json
import logging
import os
import resource
import select
import signal
import sys
import tempfile
import threading
import warnings
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

CPU_HARD_LIMIT_S = 600
_FILE_BYTES = 1 << 20
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_DECODERS = ("gdcm", "jpeg_ls", "openjpeg")
_RLE = "1.2.840.10008.1.2.5"
_SINGLE_FRAME: dict[str, Any] = {
    "number_of_frames": 1,
    "samples_per_pixel": 1,
    "bits_allocated": 16,
    "photometric_interpretation": "MONOCHROME2",
    "pixel_keyword": "PixelData",
}


def _leave_the_network() -> None:
    """Enter an empty network namespace where that is permitted; only possible while the process has one thread."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _limit(kind: int, soft: int, hard: int) -> None:
    with suppress(ValueError, OSError):  # a system may lack one of them, or already set a lower one
        resource.setrlimit(kind, (soft, hard))


def _address_space_bytes() -> int:
    """What this process has mapped, mostly libraries; a system that does not tell gets a guess above it."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 30


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _end_with_parent(descriptor: int) -> None:
    """Kill this process when the parent hangs up, also while a decoder sleeps."""
    line = select.poll()
    line.register(descriptor, 0)  # POLLHUP is told without being asked for
    line.poll()
    os.kill(os.getpid(), signal.SIGKILL)


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Limit this process, say that it is ready, and answer until there are no more requests."""
    _leave_the_network()
    threading.Thread(target=_end_with_parent, args=(requests.fileno(),), daemon=True).start()
    for name in _DECODERS:
        with suppress(ImportError):
            import_module(name)
    with tempfile.TemporaryFile() as complaints:
        os.dup2(complaints.fileno(), 2)  # where libjpeg, inside GDCM, says what it only guessed
    mapped_bytes = _address_space_bytes()
    _limit(resource.RLIMIT_CORE, 0, 0)  # no image of a patient in a core file
    _limit(resource.RLIMIT_FSIZE, _FILE_BYTES, _FILE_BYTES)
    _limit(resource.RLIMIT_NOFILE, 3, 3)
    _limit(resource.RLIMIT_NPROC, 0, 0)
    answers.write(b"ready\n")
    answers.flush()
    while line := requests.readline():
        request = json.loads(line)
        frame = requests.read(request.pop("bytes"))
        limit_bytes, limit_s = mapped_bytes + request.pop("memory_bytes"), int(_cpu_s() + request.pop("cpu_s")) + 1
        _limit(resource.RLIMIT_AS, limit_bytes, resource.RLIM_INFINITY)
        _limit(resource.RLIMIT_CPU, min(limit_s, CPU_HARD_LIMIT_S), CPU_HARD_LIMIT_S)
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        verdict, pixels = _answer(frame, request)
        answer = {"verdict": verdict, "bytes": len(pixels), "cpu_s": _cpu_s()}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.write(pixels)
        answers.flush()


class _Damaged(Exception):
    """The data is damaged; the message is a clause."""


class _Caught(logging.Handler):
    """Keeps what a decoder raised: pydicom logs it, and raises a RuntimeError of its own that does not tell."""

    error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.error = record.exc_info[1]


def _answer(frame: bytes, request: dict[str, Any]) -> tuple[str, bytes]:
    """What is wrong, "" where nothing is, and the pixels."""
    log, caught = logging.getLogger("pydicom.pixels.decoders.base"), _Caught()
    log.addHandler(caught)
    log.propagate = False
    try:
        return "", _decode(frame, **request)
    except _Damaged as error:
        return str(error), b""
    except Exception as error:  # whatever a decoder raises, the data is at fault
        cause = caught.error or error
        return "memory" if isinstance(cause, MemoryError) else type(cause).__name__, b""
    finally:
        log.removeHandler(caught)


def _decode(frame: bytes, *, syntax: str, plugin: str, rows: int, columns: int, **options: Any) -> bytes:
    """The stored values of one image as 16 bit words, little endian."""
    image: dict[str, Any] = {**_SINGLE_FRAME, **options, "rows": rows, "columns": columns}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pixels, _ = get_decoder(UID(syntax)).as_array(
            encapsulate([frame], has_bot=False),
            raw=True,
            index=0,
            decoding_plugin=plugin,
            **image,
        )
    if syntax == _RLE and said:
        _refuse_expansion(frame, rows, columns)
    if plugin == "gdcm" and _is_damage(os.pread(2, 1 << 16, 0)):
        raise _Damaged("the data is damaged")
    if pixels.shape != (rows, columns) or pixels.dtype.itemsize != 2:
        raise _Damaged(f"it decodes to {' x '.join(map(str, pixels.shape))} values of {pixels.dtype.itemsize} bytes")
    return np.ascontiguousarray(pixels).view(np.uint16).astype("<u2", copy=False).tobytes()


def _refuse_expansion(frame: bytes, rows: int, columns: int) -> None:
    """Refuse an RLE segment that holds a row more than the image; encoders pad by a byte or two."""
    count, *offsets = (int.from_bytes(frame[k : k + 4], "little") for k in range(0, 64, 4))
    for start, end in pairwise([*offsets[:count], len(frame)]):
        size = _expanded_bytes(frame[start:end])
        if size >= rows * columns + columns:
            raise _Damaged(
                f"an RLE segment expands to {size} bytes, and {rows} x {columns} pixels have {rows * columns}"
            )


def _expanded_bytes(segment: bytes) -> int:
    """Size of a PackBits segment when it is expanded (PS3.5 annex G.3.1)."""
    position = size = 0
    while position < len(segment):
        head = segment[position]
        if head < 128:
            size, position = size + head + 1, position + head + 2
        elif head > 128:
            size, position = size + 257 - head, position + 2
        else:
            position += 1
    return size


def _is_damage(complaints: bytes) -> bool:
    """Whether libjpeg complained of more than a few bytes behind the last pixel, which some encoders leave."""
    lines = [line for line in complaints.splitlines() if line.strip()]
    return any(b"extraneous bytes before marker 0xd9" not in line for line in lines)


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "wb") as own_answers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a decoder prints is no answer
        serve(sys.stdin.buffer, own_answers)
