"""The kinds of fault of a whole node: each injects, holds for a moment and cures; a new one is one more function.

A fault is a generator of a bed: what stands before its `yield` injects while a scanner sends, what stands behind it
cures. After the cure every series must come to its end by itself.
"""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import create_engine, text

from tests.torture import tps as peer
from tests.torture.bed import Bed
from tests.torture.shim import NEEDS_INODE, NEEDS_SPACE, Kind

ENOSPC, EIO, EROFS = 28, 5, 30
Fault = Callable[[Bed], Iterator[None]]
_CHANGES = (Kind.OPEN, Kind.CREATE, Kind.WRITE, Kind.RENAME, Kind.LINK, Kind.UNLINK, Kind.MKDIR, Kind.RMDIR)


@dataclass(frozen=True)
class Kept:
    """One fault with its name in the table; `only` is the database on which alone it can happen, "" for both."""

    name: str
    fault: Fault
    only: str = ""
    hold_s: float = 1.5


def tps_that(answer: peer.Answer) -> Fault:
    """The TPS behaves like this for a while."""

    def fault(bed: Bed) -> Iterator[None]:
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


def database_locked(bed: Bed) -> Iterator[None]:
    """Another program holds a lock on the whole store."""
    engine = create_engine(bed.node.url)
    with engine.connect() as connection:
        if bed.cluster is None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(text("LOCK TABLE series, instance, job IN ACCESS EXCLUSIVE MODE"))
        yield
        connection.rollback()
    engine.dispose()


def database_restarted(bed: Bed) -> Iterator[None]:
    """The server of the database ends at once, and comes back."""
    assert bed.cluster is not None
    bed.cluster.stop()
    yield
    bed.cluster.start()


ROLES = ("receive", "work", "deliver")
FAULTS = (
    Kept("TPS is down", tps_down),
    Kept("TPS refuses", tps_that(peer.refuse)),
    Kept("TPS hangs", tps_that(peer.hang)),
    Kept("TPS breaks off", tps_that(peer.die)),
    Kept("TPS answers for another instance", tps_that(peer.answer_for_another)),
    Kept("TPS answers an unknown status", tps_that(peer.unknown_status)),
    *(Kept(f"{role} is stopped", stopped(role)) for role in ROLES),
    Kept("no space left", _disk(ENOSPC, NEEDS_SPACE)),
    Kept("no inodes left", _disk(ENOSPC, NEEDS_INODE)),
    Kept("read-only data folder", _disk(EROFS, _CHANGES)),
    Kept("one input/output error", one_error),
    Kept("port taken", port_taken),
    Kept("database locked", database_locked),
    Kept("database restarted", database_restarted, only="PostgreSQL"),
)
