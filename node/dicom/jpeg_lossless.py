"""JPEG Lossless by GDCM, in a process of its own: on damaged data GDCM ends the process that it runs in.

The child is this file, run as a script. It inherits nothing but pipes, and ends with them.
"""

import atexit
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

SYNTAXES: Final = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
# A slice takes some 20 ms; what takes this long is damaged.
_TIMEOUT_S: Final = 60.0
_CHILD_BYTES: Final = 4 << 30
_SINGLE_FRAME: Final[dict[str, Any]] = {
    "number_of_frames": 1,
    "samples_per_pixel": 1,
    "bits_allocated": 16,
    "photometric_interpretation": "MONOCHROME2",
    "pixel_keyword": "PixelData",
}


class DecoderFailed(Exception):
    """The data is damaged; the message is one clause."""


class _ChildEnded(DecoderFailed):
    """The child is gone: by the data, by its time limit, or killed by somebody who wanted its memory."""


class Decoder:
    """One child at a time, started at the first slice and again after one that ended it; threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def decode(
        self, data: bytes, syntax: str, *, rows: int, columns: int, bits_stored: int, signed: bool
    ) -> NDArray[np.uint16]:
        """Stored values [rows, columns] as 16 bit words, of encapsulated single-frame pixel data.

        Raises DecoderFailed where the data is damaged, also where GDCM only warns of it, or takes longer than 60 s, or
        ends two children.
        """
        request = {
            "transfer_syntax_uid": syntax,
            "rows": rows,
            "columns": columns,
            "bits_stored": bits_stored,
            "pixel_representation": int(signed),
            "bytes": len(data),
        }
        with self._lock:
            try:
                answer = self._ask_twice(request, data, rows * columns * 2)
            except BaseException:
                self.close()
                raise
        return np.frombuffer(answer, dtype="<u2").reshape(rows, columns).astype(np.uint16)

    def _ask_twice(self, request: dict[str, Any], data: bytes, expected: int) -> bytes:
        try:
            return self._ask(request, data, expected)
        except _ChildEnded:  # not every child that ends was ended by its data
            self.close()
            return self._ask(request, data, expected)

    def _ask(self, request: dict[str, Any], data: bytes, expected: int) -> bytes:
        child = self._running()
        assert child.stdin
        assert child.stdout
        overdue = threading.Timer(_TIMEOUT_S, child.kill)
        overdue.start()
        verdict, answer = "", b""
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n" + data)
            child.stdin.flush()
            verdict = child.stdout.readline().decode().strip()
            answer = child.stdout.read(expected) if verdict == "decoded" else b""
        except OSError:  # the pipe of a child that ended
            pass
        finally:
            overdue.cancel()
        if verdict and verdict != "decoded":
            raise DecoderFailed(verdict)
        if len(answer) != expected:
            raise _ChildEnded("the decoder ended")
        return answer

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._child = subprocess.Popen(
                [sys.executable, "-I", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C at the terminal is the parent's
            )
        return self._child

    def close(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                try:
                    if pipe:
                        pipe.close()
                except OSError:  # what was not written yet
                    pass


DECODER: Final = Decoder()
atexit.register(DECODER.close)


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Decode until the parent closes the pipe: a line of JSON and the data in, a line and the pixels out."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no image of a patient in a core file
    resource.setrlimit(resource.RLIMIT_AS, (_CHILD_BYTES, _CHILD_BYTES))
    with tempfile.TemporaryFile() as complaints:
        os.dup2(complaints.fileno(), 2)  # where libjpeg, inside GDCM, says what it only guessed
        while line := requests.readline():
            request = json.loads(line)
            data = requests.read(request.pop("bytes"))
            os.ftruncate(2, 0)
            os.lseek(2, 0, os.SEEK_SET)
            decoder = get_decoder(UID(request.pop("transfer_syntax_uid")))
            try:
                pixels, _ = decoder.as_array(
                    data, raw=True, index=0, decoding_plugin="gdcm", **_SINGLE_FRAME, **request
                )
                verdict = "the data is damaged" if _is_damage(os.pread(2, 1 << 16, 0)) else "decoded"
            except Exception as error:  # whatever a decoder raises, the data is at fault
                verdict = type(error).__name__
            answers.write(verdict.encode() + b"\n")
            if verdict == "decoded":
                answers.write(np.ascontiguousarray(pixels).tobytes())
            answers.flush()


def _is_damage(complaints: bytes) -> bool:
    """Whether libjpeg complained of more than a few bytes behind the last pixel, which some encoders leave."""
    lines = [line for line in complaints.splitlines() if line.strip()]
    return any(b"extraneous bytes before marker 0xd9" not in line for line in lines)


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
