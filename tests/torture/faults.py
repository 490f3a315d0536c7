"""The kinds of fault of a whole node: each injects, holds for a moment and cures; a new one is one more function.

A fault is a generator of a bed: what stands before its `yield` injects while a scanner sends, what stands behind it
cures. After the cure every series must come to its end by itself.
"""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.slice.harness import short_limits
from tests.torture import outside, store_faults
from tests.torture import tps as peer
from tests.torture.bed import Bed, Fault
from tests.torture.shim import NEEDS_INODE, NEEDS_SPACE, Kind

ENOSPC, EIO, EROFS = 28, 5, 30
_CHANGES = (Kind.OPEN, Kind.CREATE, Kind.WRITE, Kind.RENAME, Kind.LINK, Kind.UNLINK, Kind.MKDIR, Kind.RMDIR)


def _at_once(_bed: Bed) -> bool:
    return True


@dataclass(frozen=True)
class Kept:
    """One fault with its name in the table.

    only: the database on which alone it can happen, "" for both. is_met: whether the node has met the fault, which is
    not cured before.
    """

    name: str
    fault: Fault
    only: str = ""
    hold_s: float = 1.5
    is_met: Callable[[Bed], bool] = _at_once


def tps_that(answer: peer.Answer) -> Fault:
    """The TPS behaves like this for a while."""

    def fault(bed: Bed) -> Iterator[None]:
        bed.tps.asked.clear()
        bed.tps.answer = answer
        yield
        bed.tps.answer = peer.accept
        bed.tps.released.set()

    return fault


def tps_down(bed: Bed) -> Iterator[None]:
    """Nobody listens at the TPS."""
    bed.tps.stop()
    yield
    bed.tps.start()


def stopped(role: str) -> Fault:
    """A process hangs, without an end."""

    def fault(bed: Bed) -> Iterator[None]:
        pid = bed.pid(role)
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
        yield
        if pid is not None and bed.pid(role) == pid:  # else the node ended the hung process by itself
            os.kill(pid, signal.SIGCONT)

    return fault


def _disk(error: int, kinds: tuple[Kind, ...]) -> Fault:
    def fault(bed: Bed) -> Iterator[None]:
        assert bed.shim is not None
        bed.shim.arm(1, error, sticky=True, kinds=kinds)
        yield
        bed.shim.disarm()

    return fault


def one_error(bed: Bed) -> Iterator[None]:
    """One call of one process fails."""
    assert bed.shim is not None
    bed.shim.arm(bed.rng.randrange(1, 200), EIO)
    yield
    bed.shim.disarm()


def port_taken(bed: Bed) -> Iterator[None]:
    """The receiver dies and another program has its port when it comes back."""
    bed.kill("receive")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", bed.node.port))
            other.listen()
        except OSError:
            pass  # the node was faster
        yield


def hang_for_good(bed: Bed) -> Iterator[None]:
    """All processes hang until the supervisor ends them, after the limits of a test instead of those of a night."""
    with bed.environment(**bed.changed(short_limits(idle_s=12.0, long_s=60.0))):
        bed.await_(lambda: all(bed.pid(role) is not None for role in ROLES))
        hung = {role: bed.pid(role) for role in ROLES}
        for pid in hung.values():
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
        yield
        bed.await_(lambda: not _still(bed, hung), 90.0)
        bed.require(not _still(bed, hung), f"{', '.join(_still(bed, hung))} hung and was not replaced")


def _still(bed: Bed, hung: dict[str, int | None]) -> list[str]:
    """The roles that no new process holds."""
    return [role for role, pid in hung.items() if bed.pid(role) in (None, pid)]


def serve_hangs(bed: Bed) -> Iterator[None]:
    """The supervisor hangs; its service manager ends it and starts another."""
    pid = bed.pid("serve")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    yield
    bed.kill("serve")


def _asked(bed: Bed) -> bool:
    return bed.tps.asked.is_set()


def _tried(bed: Bed) -> bool:
    return any(view.attempts for case in bed.cases() for view in case.deliveries if view.state == "PENDING")


def _fired(bed: Bed) -> bool:
    return bed.shim is not None and bed.shim.fired > 0


ROLES = ("receive", "complete", "work", "deliver")
FAULTS = (
    Kept("TPS is down", tps_down, is_met=_tried),
    Kept("TPS refuses", tps_that(peer.refuse), is_met=_asked),
    Kept("TPS hangs", tps_that(peer.hang), is_met=_asked),
    Kept("TPS hangs until it is given up", tps_that(peer.hang), is_met=_tried),
    Kept("TPS breaks off", tps_that(peer.die), is_met=_asked),
    Kept("TPS answers for another instance", tps_that(peer.answer_for_another), is_met=_asked),
    Kept("TPS answers an unknown status", tps_that(peer.unknown_status), is_met=_asked),
    *(Kept(f"{role} is stopped", stopped(role)) for role in (*ROLES, "serve")),
    Kept("all processes are stopped for good", hang_for_good),
    Kept("serve is stopped, killed and started", serve_hangs),
    Kept("no space left", _disk(ENOSPC, NEEDS_SPACE), is_met=_fired),
    Kept("no inodes left", _disk(ENOSPC, NEEDS_INODE), is_met=_fired),
    Kept("read-only data folder", _disk(EROFS, _CHANGES), is_met=_fired),
    Kept("one input/output error", one_error, is_met=_fired),
    Kept("port taken", port_taken),
    Kept("clock an hour back", outside.clock_jumps(-3600)),
    Kept("clock an hour forward", outside.clock_jumps(3600)),
    Kept("content that kills", outside.content_that_kills),
    Kept("another peer sends into a series", outside.foreign_peer),
    Kept("a source file is deleted", store_faults.source_file(Path.unlink)),
    Kept("a source file is damaged", store_faults.source_file(store_faults.overwrite)),
    Kept("a file of a result is deleted", store_faults.product_file(Path.unlink)),
    Kept("a file of a result is damaged", store_faults.product_file(store_faults.overwrite)),
    Kept("database locked", store_faults.locked),
    Kept("database stopped at once", store_faults.restarted, only="PostgreSQL"),
    Kept("database killed", store_faults.killed, only="PostgreSQL"),
    Kept("database away for a while", store_faults.moved_away),
    Kept("database deleted", store_faults.deleted),
    Kept("database replaced by an older copy", store_faults.replaced),
    Kept("database corrupted", store_faults.corrupted, only="SQLite"),
)
