"""Faults that come from outside the node: the clock, content that kills whoever reads it, and another peer."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydicom import dcmread

from tests.bombs import JPEG_2000, RLE, jpeg_2000, rle, rle_bomb, with_frame
from tests.peers.raw_peer import RawPeer
from tests.slice.test_content_that_kills import send
from tests.torture.bed import Bed, Fault

_BOUND_S = 60.0


def clock_jumps(seconds: int) -> Fault:
    """The system clock of all processes is set so far, and the node must go on as if nothing had happened."""

    def fault(bed: Bed) -> Iterator[None]:
        assert bed.shim is not None
        bed.shim.set_clock(seconds)
        yield
        bed.push()
        bed.require(bed.settle(_BOUND_S) < _BOUND_S, f"with the clock at {seconds:+d} s: {bed.unsettled()[:3]}")
        bed.shim.set_clock(0)

    return fault


def content_that_kills(bed: Bed) -> Iterator[None]:
    """Series that took gigabytes or endless time come beside a good one; each must end as FAILED.

    Nested headers are not among them: such a series waits for `give_up_s`, which is long here.
    """
    folder = bed.folder / "bombs" / str(bed.rng.random())
    for number, (frame, syntax) in enumerate(
        ((jpeg_2000(100, 4096, 4096), JPEG_2000), (jpeg_2000(16384, 32, 32), JPEG_2000), (rle(rle_bomb(2000)), RLE))
    ):
        _send_bomb(bed, with_frame(folder / str(number), frame, syntax, seed=f"{folder}-{number}"))
    yield


def _send_bomb(bed: Bed, paths: list[Path]) -> None:
    bed.ledger.expect(str(dcmread(paths[0]).SeriesInstanceUID), len(paths), frozenset({"FAILED"}))
    bed.require(send(bed.node.port, paths) == [0] * len(paths), "content that kills was not received")


def foreign_peer(bed: Bed) -> Iterator[None]:
    """Another peer sends other contents under a UID of the series that comes in."""
    scanner = bed.newest
    scanner.wait_for(1, 20.0)
    first = scanner.scan.slices[0]
    with suppress(OSError), RawPeer(bed.node.port, calling="FOREIGN") as peer_:
        peer_.store_status(first.uid.encode(), first.data[:-2] + b"\1\1")
    yield
