"""Runs the roles of a node as separate processes, starts again what died or hangs, and stops all of them cleanly.

It does not give up: whatever a child ended with, and whatever keeps it from starting, is tried again after a pause.
Only a child that says that no new start can mend it, as when a newer version has changed the database, ends them all.

A child's standard input is one end of a pair of sockets. When the supervisor is killed its end closes, and the child
stops by itself. Through the same pair the child sends its beats (`node.beats`) and, at its end, the reason: both come
through when no file can be written.
"""

import json
import logging
import os
import random
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from node.beats import IDLE_LIMIT_S, LONG_LIMIT_S, Beat, Beating, Numbers, no_beat, overdue
from node.ops.processes import STARTER, Waiting

log = logging.getLogger(__name__)

T = TypeVar("T")

GRACE_S = 30.0  # a worker finishes its slice, a courier its instance; then SIGKILL, which the leases survive
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
STABLE_AFTER_S = 60.0  # a child that lived this long starts over with the shortest delay
STANDARD_INPUT = 0  # a file descriptor
PREVIOUS_END = "SYNCECT_PREVIOUS_END"  # of the environment: tells a child why its predecessor was killed
_TURN_S = 0.1
_ASLEEP_S = 5.0  # a turn that took so long: the supervisor itself was stopped, and saw nothing meanwhile
_RECEIVE_BYTES = 65536


def delay_s(failures: int, rng: random.Random) -> float:
    """Seconds before the next try after `failures` failures in a row: 0.5 s doubled up to 30 s, times 0.5 to 1."""
    whole = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(failures - 1, 30))
    return whole * rng.uniform(0.5, 1.0)


@dataclass
class _Child:
    role: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    link: socket.socket | None = None
    started_s: float = 0.0
    restart_s: float = 0.0
    failures: int = 0
    unread: bytes = b""
    beats: tuple[Beat, ...] = ()
    last_words: str = ""
    ended_for_good: bool = False
    killed_for: str = ""
    waiting: Waiting | None = None
    down_since: str = field(default="")

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The process; only where there is one."""
        assert self.process is not None
        return self.process


class Supervisor:
    """`run()` blocks until `stop` is set; it survives whatever becomes of the children.

    beat: gets the supervisor's own beats. show: gets the roles that wait for their next start. before_start: is called
    with a role before each start of it. start_limit_s: seconds within which a new child sends its first beat.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        beat: Beating = no_beat,
        numbers: Numbers | None = None,
        show: Callable[[Sequence[Waiting]], None] = lambda _roles: None,
        before_start: Callable[[str], None] = lambda _role: None,
        start_limit_s: float = LONG_LIMIT_S,
    ) -> None:
        self._children = [_Child(role, command) for role, command in commands.items()]
        self._beat, self._show, self._before_start, self._start_limit_s = beat, show, before_start, start_limit_s
        self._numbers = numbers or Numbers()
        self._awake_since_s = self._turned_s = time.monotonic()
        self._rng = random.Random()
        self._name = uuid.uuid4().hex

    def run(self, stop: threading.Event) -> str:
        """Start the children and look after them; returns why a child ended for good, or ""."""
        try:
            while not stop.is_set():
                self._turn()
                if over := next((child.last_words for child in self._children if child.ended_for_good), ""):
                    return over
                for child in self._children:
                    try:
                        self._look_after(child)
                    except Exception:  # one child must not end the others, whatever the machine lacks now
                        log.exception(
                            "%s could not be looked after; the next turn tries again",
                            child.role,
                            extra={"event": "process_not_looked_after", "child": child.role},
                        )
                stop.wait(_TURN_S)
            return ""
        finally:
            self._stop_all()

    def _turn(self) -> None:
        """Beat, and notice when it slept: then it heard nobody, and no child is to blame for that."""
        now_s = time.monotonic()
        if now_s - self._turned_s > _ASLEEP_S:
            self._awake_since_s = now_s
        self._turned_s = now_s
        self._beat("", "looking after the others", 0, 0, IDLE_LIMIT_S)

    def _look_after(self, child: _Child) -> None:
        now_s = time.monotonic()
        if child.process is None:
            if now_s >= child.restart_s:
                self._start(child)
            return
        _listen(child)
        code = child.process.poll()
        if code is not None:
            self._ended(child, code)
            return
        if child.waiting is not None and (child.beats or now_s - child.started_s > STABLE_AFTER_S):
            child.waiting = None
            self._tell()
        self._kill_if_hung(child, now_s)

    # -- one child ---------------------------------------------------------------------------------------------

    def _start(self, child: _Child) -> None:
        try:
            self._before_start(child.role)
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    with _without_interrupt():
                        child.process = subprocess.Popen(
                            child.command, stdin=theirs.fileno(), env=self._environment(child)
                        )
                except BaseException:
                    ours.close()
                    raise
        except OSError as error:  # no process, no descriptor, no memory
            self._wait(child, f"it cannot be started: {error.strerror or error}")
            return
        child.link, child.started_s = ours, time.monotonic()
        child.unread, child.beats, child.last_words, child.killed_for = b"", (), "", ""
        log.info(
            "started %s, pid %d",
            child.role,
            child.process.pid,
            extra={"event": "process_started", "child": child.role},
        )

    def _environment(self, child: _Child) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if name != PREVIOUS_END}
        told = {PREVIOUS_END: child.killed_for} if child.killed_for else {}
        return {**environment, STARTER: self._name, **told}

    def _ended(self, child: _Child, code: int) -> None:
        self._numbers.add("ends", of=child.role)
        _listen(child)  # its last words may have come between the last turn and its end
        pid, lived_s = child.running.pid, time.monotonic() - child.started_s
        if lived_s > STABLE_AFTER_S:
            child.failures = 0
        _close(child)
        child.process = None
        self._wait(child, child.killed_for or child.last_words or f"it ended with code {code}", pid)

    def _wait(self, child: _Child, reason: str, pid: int | None = None) -> None:
        """Try again later, and keep why where readers find it."""
        child.failures += 1
        pause_s = delay_s(child.failures, self._rng)
        child.restart_s = time.monotonic() + pause_s
        now = datetime.now(UTC)
        since = child.waiting.since if child.waiting is not None else now.isoformat(timespec="seconds")
        next_try = (now + timedelta(seconds=pause_s)).isoformat(timespec="seconds")
        child.waiting = Waiting(child.role, since, next_try, reason)
        who = child.role if pid is None else f"{child.role}, pid {pid},"
        log.error(
            "%s does not run: %s; next try in %.1f s",
            who,
            reason,
            pause_s,
            extra={"event": "process_down", "child": child.role},
        )
        self._tell()

    def _tell(self) -> None:
        self._show([child.waiting for child in self._children if child.waiting is not None])

    def _kill_if_hung(self, child: _Child, now_s: float) -> None:
        if child.killed_for:
            return
        if not child.beats:
            born_s = max(child.started_s, self._awake_since_s)
            if now_s - born_s > self._start_limit_s:
                self._kill(child, f"it did not begin its work within {self._start_limit_s:.0f} s")
            return
        if (late := overdue(child.beats, now_s, self._awake_since_s)) is not None:
            silent_s = late.silent_s(now_s)
            self._kill(
                child, f"it made no progress for {silent_s:.0f} s at {late.work} (limit {late.limit_s:.0f} s); killed"
            )

    @staticmethod
    def _kill(child: _Child, reason: str) -> None:
        child.killed_for = reason
        log.error(
            "%s, pid %d: %s",
            child.role,
            child.running.pid,
            reason,
            extra={"event": "process_killed", "child": child.role},
        )
        child.running.kill()

    # -- all children ------------------------------------------------------------------------------------------

    def _stop_all(self) -> None:
        living = [child for child in self._children if child.process is not None]
        for child in living:
            child.running.send_signal(signal.SIGTERM)
        deadline_s = time.monotonic() + GRACE_S
        for child in living:
            try:
                child.running.wait(max(0.1, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning(
                    "%s did not stop within %g s; killing it",
                    child.role,
                    GRACE_S,
                    extra={"event": "process_killed", "child": child.role},
                )
                child.running.kill()
                child.running.wait()
            _close(child)


def keep_trying(
    what: Callable[[], T],
    stop: threading.Event,
    *,
    transient: tuple[type[Exception], ...],
    show: Callable[[Sequence[Waiting]], None] = lambda _roles: None,
) -> T | None:
    """Do something that a transient fault may forbid now, again and again; None when `stop` was set first.

    Raises whatever is not `transient`.
    """
    rng, failures, since = random.Random(), 0, datetime.now(UTC).isoformat(timespec="seconds")
    while not stop.is_set():
        try:
            result = what()
        except transient as error:
            failures += 1
            pause_s, reason = delay_s(failures, rng), _words(error)
            log.error(
                "the node cannot start: %s; next try in %.1f s", reason, pause_s, extra={"event": "node_cannot_start"}
            )
            next_try = (datetime.now(UTC) + timedelta(seconds=pause_s)).isoformat(timespec="seconds")
            show([Waiting("serve", since, next_try, reason)])
            stop.wait(pause_s)
            continue
        show([])
        return result
    return None


def _words(error: Exception) -> str:
    """An error as a clause of one line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _listen(child: _Child) -> None:
    """Take what a child has sent: lines of JSON, its beats or its last words; a line that is none is passed over."""
    assert child.link is not None
    with suppress(OSError):
        while received := child.link.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT):
            *lines, child.unread = (child.unread + received).split(b"\n")
            for line in lines:
                _understand(child, line)


def _understand(child: _Child, line: bytes) -> None:
    with suppress(ValueError, TypeError, KeyError):
        said = json.loads(line)
        if "end" in said:
            child.last_words, child.ended_for_good = str(said["end"]), bool(said.get("for_good"))
        else:
            child.beats = tuple(Beat(**beat) for beat in said["beats"])


def _close(child: _Child) -> None:
    if child.link is not None:
        child.link.close()
        child.link = None


@contextmanager
def _without_interrupt() -> Iterator[None]:
    """Start children that Ctrl-C reaches only when `stop_event` lets it: a starting Python answers with a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
