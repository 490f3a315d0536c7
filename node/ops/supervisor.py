"""Runs receiver, worker and courier as separate processes, restarts one that died, stops all of them cleanly.

A child watches its standard input: when the supervisor is killed the pipe closes, and the child stops by itself.
"""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

log = logging.getLogger(__name__)

GRACE_S = 30.0  # a worker finishes its slice, a courier its instance; then SIGKILL, which the leases survive
RESTART_DELAYS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STABLE_AFTER_S = 60.0  # a child that lived this long starts over with the shortest delay
STANDARD_INPUT = 0  # a file descriptor
USAGE_ERROR = 2  # a child with this exit code was configured wrongly; restarting it would not help


@dataclass
class _Child:
    role: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    failures: int = 0


class Supervisor:
    """`run()` blocks until `stop` is set or a child reports a usage error; returns the exit code of the node."""

    def __init__(self, commands: dict[str, Sequence[str]]) -> None:
        self._children = [_Child(role, command) for role, command in commands.items()]

    def run(self, stop: threading.Event) -> int:
        """Start the children and look after them."""
        try:
            while not stop.is_set():
                for child in self._children:
                    code = self._look_after(child)
                    if code == USAGE_ERROR:
                        log.error("%s cannot run with these settings; stopping the node", child.role)
                        return USAGE_ERROR
                stop.wait(0.1)
            return 0
        finally:
            self._stop_all()

    def _look_after(self, child: _Child) -> int | None:
        """Start or restart a child where it is due; returns the exit code of one that just ended."""
        now = time.monotonic()
        if child.process is None:
            if now >= child.restart_at:
                with _without_interrupt():
                    child.process = subprocess.Popen(child.command, stdin=subprocess.PIPE)
                child.started_at = now
                log.info("started %s, pid %d", child.role, child.process.pid)
            return None
        code = child.process.poll()
        if code is None:
            return None
        child.failures = 1 if now - child.started_at > STABLE_AFTER_S else child.failures + 1
        delay_s = RESTART_DELAYS_S[min(child.failures, len(RESTART_DELAYS_S)) - 1]
        log.error("%s, pid %d, ended with code %d; restart in %g s", child.role, child.process.pid, code, delay_s)
        _close_stdin(child.process)
        child.process, child.restart_at = None, now + delay_s
        return code

    def _stop_all(self) -> None:
        living = [child for child in self._children if child.process is not None]
        for child in living:
            assert child.process is not None
            child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        for child in living:
            assert child.process is not None
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("%s did not stop within %g s; killing it", child.role, GRACE_S)
                child.process.kill()
                child.process.wait()
            _close_stdin(child.process)


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


@contextmanager
def _without_interrupt() -> Iterator[None]:
    """Start children that Ctrl-C reaches only when `stop_event` lets it: a starting Python answers with a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
        while os.read(descriptor, 1024) and to_the_end:
            pass
        event.set()

    threading.Thread(target=watch, daemon=True, name=f"stop-watch-{descriptor}").start()
