"""The kinds of fault of a whole node: each injects, holds for a moment and cures; a new one is one more function.

A fault is a generator of a bed: what stands before its `yield` injects while a scanner sends, what stands behind it
cures. After the cure every series must come to its end by itself.
"""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, text

from tests.peers.raw_peer import RawPeer
from tests.torture import tps as peer
from tests.torture.bed import Bed
from tests.torture.shim import NEEDS_INODE, NEEDS_SPACE, Kind

ENOSPC, EIO, EROFS = 28, 5, 30
Fault = Callable[[Bed], Iterator[None]]
_CHANGES = (Kind.OPEN, Kind.CREATE, Kind.WRITE, Kind.RENAME, Kind.LINK, Kind.UNLINK, Kind.MKDIR, Kind.RMDIR)


def _at_once(_bed: Bed) -> bool:
    return True


@dataclass(frozen=True)
class Kept:
    """One fault with its name in the table.

    only: the database on which alone it can happen, "" for both. is_met: whether the node has met the fault, which is
    not cured before. awaits: what the node lacks so far to survive it, "" where nothing; then it is not run.
    """

    name: str
    fault: Fault
    only: str = ""
    hold_s: float = 1.5
    is_met: Callable[[Bed], bool] = _at_once
    awaits: str = ""


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


def _file_of(bed: Bed, folder: str) -> Path:
    """A file of the newest series that has one in this part of the spool."""
    files = [path for path in (bed.spool / folder).glob("*/*.dcm") if not path.parent.name.startswith(".")]
    return max(files, key=lambda path: path.stat().st_mtime_ns)


def _spoilt(folder: str, spoil: Callable[[Path], object]) -> Fault:
    def fault(bed: Bed) -> Iterator[None]:
        scanner = bed.newest
        scanner.join(30.0)
        bed.await_(lambda: any((bed.spool / folder).glob("[!.]*/*.dcm")))
        spoil(_file_of(bed, folder))
        yield
        bed.push(scanner.scan)

    return fault


def overwrite(path: Path) -> None:
    """Damage the pixels at the end of a file."""
    data = path.read_bytes()
    path.write_bytes(data[:-64] + bytes(64))


def foreign_peer(bed: Bed) -> Iterator[None]:
    """Another peer sends other contents under a UID of the series that comes in."""
    scanner = bed.newest
    scanner.wait_for(1, 20.0)
    first = scanner.scan.slices[0]
    with suppress(OSError), RawPeer(bed.node.port, calling="FOREIGN") as peer_:
        peer_.store_status(first.uid.encode(), first.data[:-2] + b"\1\1")
    yield


def hangs_for_good(role: str) -> Fault:
    """A process hangs until the node itself ends it."""

    def fault(bed: Bed) -> Iterator[None]:
        if (pid := bed.pid(role)) is not None:
            os.kill(pid, signal.SIGSTOP)
        yield

    return fault


def _asked(bed: Bed) -> bool:
    return bed.tps.asked.is_set()


def _tried(bed: Bed) -> bool:
    return any(view.attempts for case in bed.cases() for view in case.deliveries if view.state == "PENDING")


def _fired(bed: Bed) -> bool:
    return bed.shim is not None and bed.shim.fired > 0


ROLES = ("receive", "complete", "work", "deliver")
_RESEND = "a job that failed for a file begins again when the file came again"
_HUNG = "the supervisor ends what makes no progress"
FAULTS = (
    Kept("TPS is down", tps_down, is_met=_tried),
    Kept("TPS refuses", tps_that(peer.refuse), is_met=_asked),
    Kept("TPS hangs", tps_that(peer.hang), is_met=_asked),
    Kept("TPS breaks off", tps_that(peer.die), is_met=_asked),
    Kept("TPS answers for another instance", tps_that(peer.answer_for_another), is_met=_asked),
    Kept("TPS answers an unknown status", tps_that(peer.unknown_status), is_met=_asked),
    *(Kept(f"{role} is stopped", stopped(role)) for role in ROLES),
    *(Kept(f"{role} is stopped for good", hangs_for_good(role), awaits=_HUNG) for role in ROLES),
    Kept("no space left", _disk(ENOSPC, NEEDS_SPACE), is_met=_fired),
    Kept("no inodes left", _disk(ENOSPC, NEEDS_INODE), is_met=_fired),
    Kept("read-only data folder", _disk(EROFS, _CHANGES), is_met=_fired),
    Kept("one input/output error", one_error, is_met=_fired),
    Kept("port taken", port_taken),
    Kept("database locked", database_locked),
    Kept("database restarted", database_restarted, only="PostgreSQL"),
    Kept("a source file is deleted", _spoilt("received", Path.unlink), awaits=_RESEND),
    Kept("a source file is damaged", _spoilt("received", overwrite), awaits=_RESEND),
    Kept("another peer sends into a series", foreign_peer),
)
