"""The child's side of `node.ops.supervisor`: it stops when it is told to, or left alone, and says what it works at."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict

from node.beats import Beat
from node.ops.supervisor import PREVIOUS_END, STANDARD_INPUT
from storage.errors import SchemaMismatch


def previous_end() -> str:
    """Why the supervisor killed the process that had this role before; "" where it did not."""
    return os.environ.get(PREVIOUS_END, "")


class Link:
    """Sends lines to the supervisor; never waits, so that a supervisor that is stopped stops nobody else."""

    def __init__(self) -> None:
        self._socket = socket.socket(fileno=os.dup(STANDARD_INPUT))

    def beats(self, beats: Sequence[Beat]) -> None:
        """Say what the process works at. Raises OSError."""
        self._send({"beats": [asdict(beat) for beat in beats]})

    @contextmanager
    def last_words(self) -> Iterator[None]:
        """Say by what error the block ended, in its own sentence, and whether no new start can mend it."""
        try:
            yield
        except Exception as error:
            words = " ".join(str(error).split()) or type(error).__name__
            with suppress(OSError):
                self._send({"end": words, "for_good": isinstance(error, SchemaMismatch)})
            raise

    def _send(self, said: object) -> None:
        self._socket.send(json.dumps(said).encode() + b"\n", socket.MSG_DONTWAIT)


def stop_event(*, supervised: bool) -> threading.Event:
    """An event set by SIGTERM, SIGINT and, for a supervised child, by the end of its supervisor.

    A handler runs between any two instructions of the main thread, which may hold the lock of the very event, or of the
    log, at that moment. So nothing is done in the handlers: the system's own part of Python writes a byte to a pipe,
    and a thread that reads the pipe sets the event.
    """
    event = threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _nothing)
    _watch(reader, event, to_the_end=False)
    if supervised:
        _watch(STANDARD_INPUT, event, to_the_end=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    return event


def _nothing(_number: int, _frame: object) -> None:
    """A handler has to be there for the byte to be written."""


def _watch(descriptor: int, event: threading.Event, *, to_the_end: bool) -> None:
    """Set the event when a byte comes, or only when the other end was closed."""

    def watch() -> None:
        with suppress(OSError):  # the supervisor was killed with lines of ours unread
            while os.read(descriptor, 1024) and to_the_end:
                pass
        event.set()

    threading.Thread(target=watch, daemon=True, name=f"stop-watch-{descriptor}").start()
