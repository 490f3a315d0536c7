"""All decoding of compressed pixels, in child processes that may do little and are killed when they take too much.

Decoders are libraries of others in C, C++ and Python, and an image is bytes of an unknown sender: it may crash a
decoder, take all memory or never end. Here that costs one image. A child is started at the first image, and serves for
`CALLS` images, so that it costs nothing for each slice; `sandboxed` says what it may do.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

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
MEMORY_BYTES: Final = 256 << 20
MEMORY_BYTES_PER_PIXEL: Final = 32
_RETIRED_AFTER_CPU_S: Final = 300.0  # half of the child's hard limit
_PIPE_BYTES: Final = 1 << 20
_MAX_LINE_BYTES: Final = 4096
_INHERITED: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "SYSTEMROOT")


class DecoderStopped(UnreadableInstance):
    """One image took more time or memory to decode than it may, or ended the process in which it was decoded.

    `reason` is "time", "memory" or "signal".
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class _ChildEnded(Exception):
    """The child is gone without an answer: by its data, or killed by somebody who wanted its memory."""


class Sandbox:
    """At most `CHILDREN` children at a time; more threads than that wait for their turn."""

    def __init__(self) -> None:
        self._turns = threading.BoundedSemaphore(CHILDREN)
        self._idle: list[_Child] = []
        self._lock = threading.Lock()

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
        child = self._take()
        try:
            answer = child.ask(request, frame)
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
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**environment, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            pipesize=_PIPE_BYTES,
            start_new_session=True,  # a Ctrl-C at the terminal is the parent's; `_kill` ends all of it
        )
        self._is_ready = False
        self._calls, self._cpu_s = 0, 0.0

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_usable(self) -> bool:
        """Whether it lives and is not worn out: a decoder may leak."""
        return self._process.poll() is None and self._calls < CALLS and self._cpu_s < _RETIRED_AFTER_CPU_S

    def ask(self, request: dict[str, Any], frame: bytes) -> bytes:
        """The pixels as bytes; raises UnreadableInstance, DecoderStopped and _ChildEnded."""
        if not self._is_ready:
            self._start()
        self._calls += 1
        wall_s = WALL_FACTOR * request["cpu_s"]
        with _Deadline(self._process, wall_s) as deadline:
            answer, pixels = self._exchange(request, frame)
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
        with _Deadline(self._process, START_S):
            self._is_ready = _pipe(self._process.stdout).readline() == b"ready\n"
        if not self._is_ready:
            raise _ChildEnded("it did not start")

    def _exchange(self, request: dict[str, Any], frame: bytes) -> tuple[dict[str, Any], bytes]:
        """The answer and its pixels; nothing where the child ended before it had answered in full."""
        expected = request["rows"] * request["columns"] * 2
        requests, answers = _pipe(self._process.stdin), _pipe(self._process.stdout)
        try:
            requests.write(json.dumps(request).encode() + b"\n")
            requests.write(frame)
            requests.flush()
            answer = json.loads(answers.readline(_MAX_LINE_BYTES) or b"{}")
            pixels = answers.read(expected) if answer and not answer["verdict"] else b""
        except (OSError, ValueError):  # the pipe of a child that ended
            return {}, b""
        complete = answer and (answer["verdict"] or len(pixels) == expected)
        return (answer, pixels) if complete else ({}, b"")

    def _raise_end(self, request: dict[str, Any], is_overdue: bool, wall_s: float) -> None:
        _kill(self._process)
        code = self._process.wait()
        if is_overdue or code == -signal.SIGXCPU:
            limit = f"{wall_s:.0f} s" if is_overdue else f"{request['cpu_s']:.0f} s of CPU time"
            raise DecoderStopped(f"takes more than {limit} to be decoded", "time")
        raise _ChildEnded(signal.Signals(-code).name if code < 0 else f"exit code {code}")

    def close(self) -> None:
        """End the process."""
        _kill(self._process)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was not written yet
                _pipe(pipe).close()


class _Deadline:
    """Kills a process that a block waits for longer than so many seconds; `passed` says that it did."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self.passed = False
        self._process = process
        self._timer = threading.Timer(seconds, self._kill)
        self._timer.daemon = True

    def _kill(self) -> None:
        self.passed = True
        _kill(self._process)

    def __enter__(self) -> "_Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a child and what a decoder started in it, which would hold the pipe that is read."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


SANDBOX: Final = Sandbox()
atexit.register(SANDBOX.close)
