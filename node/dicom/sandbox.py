"""All decoding of compressed pixels, in child processes that may do little and are killed when they take too much.

Decoders are libraries of others in C, C++ and Python, and an image is bytes of an unknown sender: it may crash a
decoder, take all memory or never end. Here that costs one image. A child is started at the first image, and serves for
`CALLS` images, so that it costs nothing for each slice; `sandboxed` says what it may do.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from node.errors import UnreadableInstance

SCRIPT: Final = Path(__file__).with_name("sandboxed.py")
CHILDREN: Final = 2
CALLS: Final = 1000
START_S: Final = 60.0
# A slice of 512 x 512 takes 5 to 100 ms and below 20 MB beside itself; one of 4096 x 4096 64 times as much.
CPU_S: Final = 2.0
CPU_S_PER_PIXEL: Final = 5e-6
WALL_FACTOR: Final = 10  # a busy machine stretches CPU time
SLOW_S: Final = 0.5  # no image of a scanner takes that long
MEMORY_BYTES: Final = 256 << 20
MEMORY_BYTES_PER_PIXEL: Final = 32
_TOO_SLOW_TOGETHER: Final = "and the slices before it together take too much time to be decoded"
_RETIRED_AFTER_CPU_S: Final = 300.0  # half of the child's hard limit
_MAX_LINE_BYTES: Final = 4096
_INHERITED: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT")


class DecoderStopped(UnreadableInstance):
    """One image took more time or memory to decode than it may, or ended the process in which it was decoded.

    `reason` is "time", "budget" (that of its series was used up), "memory" or "signal".
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class _ChildEnded(Exception):
    """The child is gone without an answer: by its data, or killed by somebody who wanted its memory."""


@dataclass
class _Budget:
    """Seconds that are left: `total_s` for all images, `slow_s` for those that fail or take more than `SLOW_S`."""

    total_s: float = inf
    slow_s: float = inf

    @property
    def left_s(self) -> float:
        return min(self.total_s, self.slow_s)

    def charge(self, seconds: float, *, failed: bool) -> None:
        self.total_s -= seconds
        self.slow_s -= seconds if failed or seconds > SLOW_S else 0.0


class Sandbox:
    """At most `CHILDREN` children at a time; more threads than that wait for their turn."""

    def __init__(self) -> None:
        self._turns = threading.BoundedSemaphore(CHILDREN)
        self._budget = _Budget()
        self._idle: list[_Child] = []
        self._lock = threading.Lock()

    @contextmanager
    def budget(self, *, total_s: float, slow_s: float = inf) -> Iterator[None]:
        """Bound what all images decoded in the block may take, in seconds; DecoderStopped where nothing is left.

        total_s: of all of them, in whatever thread of this process, whose work is one series at a time. slow_s: of
        those that fail or take more than `SLOW_S`, so that many images that are honest may take longer than one that
        is not. The start of a child does not count.
        """
        self._budget = _Budget(total_s, slow_s)
        try:
            yield
        finally:
            self._budget = _Budget()

    def decode(
        self, frame: bytes, syntax: str, plugin: str, *, rows: int, columns: int, bits_stored: int, signed: bool
    ) -> NDArray[np.uint16]:
        """Stored values [rows, columns] as 16 bit words, of one codestream; `plugin` is pydicom's name of the decoder.

        Raises DecoderStopped, and UnreadableInstance where the data is damaged, also where GDCM only warns of it. An
        image that ended a child gets a second one, as not every child that ends was ended by its data.
        """
        request = {
            "syntax": syntax,
            "plugin": plugin,
            "rows": rows,
            "columns": columns,
            "bits_stored": bits_stored,
            "pixel_representation": int(signed),
            "bytes": len(frame),
            "memory_bytes": MEMORY_BYTES + MEMORY_BYTES_PER_PIXEL * rows * columns,
            "cpu_s": CPU_S + CPU_S_PER_PIXEL * rows * columns,
        }
        with self._turns:
            try:
                answer = self._ask(request, frame)
            except _ChildEnded:
                answer = self._ask_again(request, frame)
        return np.frombuffer(answer, dtype="<u2").reshape(rows, columns).astype(np.uint16)

    def _ask_again(self, request: dict[str, Any], frame: bytes) -> bytes:
        try:
            return self._ask(request, frame)
        except _ChildEnded as ended:
            raise DecoderStopped(f"has pixel data that end the decoder ({ended})", "signal") from None

    def _ask(self, request: dict[str, Any], frame: bytes) -> bytes:
        budget = self._budget
        if budget.left_s <= 0:
            raise DecoderStopped(_TOO_SLOW_TOGETHER, "budget")
        child = self._take()
        try:
            answer = child.ask(request, frame, budget)
        except UnreadableInstance as error:
            self._give_back(child, keep=not isinstance(error, DecoderStopped))
            raise
        except BaseException:
            child.close()
            raise
        self._give_back(child, keep=True)
        return answer

    def _take(self) -> "_Child":
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.is_usable():
                    return child
                child.close()
        return _Child()

    def _give_back(self, child: "_Child", *, keep: bool) -> None:
        if not keep:
            child.close()
            return
        with self._lock:
            self._idle.append(child)

    def pids(self) -> list[int]:
        """The children that wait for an image."""
        with self._lock:
            return [child.pid for child in self._idle]

    def close(self) -> None:
        """End the children that wait."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.close()


class _Child:
    """One process; whoever asks it holds it alone."""

    def __init__(self) -> None:
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        # No pipe: whoever waits in one for a process that left the group of its child waits as long as that one lives.
        self._line, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(SCRIPT)],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                env={**environment, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # a Ctrl-C at the terminal is the parent's; `_end` ends all of it
            )
        self._requests, self._answers = self._line.makefile("wb"), self._line.makefile("rb")
        self._is_ready = False
        self._calls, self._cpu_s = 0, 0.0

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_usable(self) -> bool:
        """Whether it lives and is not worn out: a decoder may leak."""
        return self._process.poll() is None and self._calls < CALLS and self._cpu_s < _RETIRED_AFTER_CPU_S

    def ask(self, request: dict[str, Any], frame: bytes, budget: _Budget) -> bytes:
        """The pixels as bytes; raises UnreadableInstance, DecoderStopped and _ChildEnded."""
        if not self._is_ready:
            self._start()
        self._calls += 1
        wall_s, left_s = WALL_FACTOR * request["cpu_s"], budget.left_s
        begin_s = time.monotonic()
        with _Deadline(self._end, max(0.0, min(wall_s, left_s))) as deadline:
            answer, pixels = self._exchange(request, frame)
        budget.charge(time.monotonic() - begin_s, failed=not pixels)
        if not answer and deadline.passed and left_s < wall_s:
            raise DecoderStopped(_TOO_SLOW_TOGETHER, "budget")
        if not answer:
            self._raise_end(request, deadline.passed, wall_s)
        self._cpu_s = answer["cpu_s"]
        if answer["verdict"] == "memory":
            raise DecoderStopped(
                f"needs more than {request['memory_bytes'] >> 20} MiB to be decoded, which is too much for "
                f"{request['rows']} x {request['columns']} pixels",
                "memory",
            )
        if answer["verdict"]:
            raise UnreadableInstance(f"has pixel data that cannot be decoded ({answer['verdict']})")
        return pixels

    def _start(self) -> None:
        with _Deadline(self._end, START_S):
            self._is_ready = self._answers.readline() == b"ready\n"
        if not self._is_ready:
            raise _ChildEnded("it did not start")

    def _exchange(self, request: dict[str, Any], frame: bytes) -> tuple[dict[str, Any], bytes]:
        """The answer and its pixels; nothing where the child ended before it had answered in full."""
        expected = request["rows"] * request["columns"] * 2
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.write(frame)
            self._requests.flush()
            answer = json.loads(self._answers.readline(_MAX_LINE_BYTES) or b"{}")
            pixels = self._answers.read(expected) if answer and not answer["verdict"] else b""
        except (OSError, ValueError):  # the line to a child that ended
            return {}, b""
        complete = answer and (answer["verdict"] or len(pixels) == expected)
        return (answer, pixels) if complete else ({}, b"")

    def _raise_end(self, request: dict[str, Any], is_overdue: bool, wall_s: float) -> None:
        self._end()
        code = self._process.wait()
        if is_overdue or code == -signal.SIGXCPU:
            limit = f"{wall_s:.0f} s" if is_overdue else f"{request['cpu_s']:.0f} s of CPU time"
            raise DecoderStopped(f"takes more than {limit} to be decoded", "time")
        raise _ChildEnded(signal.Signals(-code).name if code < 0 else f"exit code {code}")

    def close(self) -> None:
        """End the process."""
        self._end()
        self._process.wait()
        for line in (self._requests, self._answers, self._line):
            with suppress(OSError):  # what was not written yet
                line.close()

    def _end(self) -> None:
        """Kill it and what a decoder started in it, and end the waiting also for what left its group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)


class _Deadline:
    """Calls `end` where a block takes longer than so many seconds; `passed` says that it did."""

    def __init__(self, end: Callable[[], None], seconds: float) -> None:
        self.passed = False
        self._end = end
        self._timer = threading.Timer(seconds, self._pass)
        self._timer.daemon = True

    def _pass(self) -> None:
        self.passed = True
        self._end()

    def __enter__(self) -> "_Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


SANDBOX: Final = Sandbox()
atexit.register(SANDBOX.close)
