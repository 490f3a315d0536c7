"""A connection hands out whole PDUs, however they come, and waits for nobody for ever."""

import random
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from node.dicom.p_data import InvalidPdu
from node.receive.connection import Connection, Stopped, UnknownPdu, Wakeup

MAX_BYTES = 1000
WAIT_S = 5.0


class Pair:
    """A connection and the peer's end of it."""

    def __init__(self) -> None:
        self.peer, ours = socket.socketpair()
        self.ours = ours
        self.wakeup = Wakeup()
        self.connection = Connection(ours, self.wakeup, max_pdu_bytes=MAX_BYTES)

    def read(self, *, wait_s: float = WAIT_S, whole_s: float = WAIT_S) -> tuple[int, bytes] | None:
        received = self.connection.read_pdu(wait_s=wait_s, whole_s=whole_s)
        return None if received is None else (received[0], bytes(received[1]))


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.peer.close()
    made.ours.close()


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


@pytest.mark.parametrize("seed", range(5))
def test_pdus_arrive_whole_however_they_were_cut(pair: Pair, seed: int) -> None:
    chance = random.Random(seed)
    bodies = [chance.randbytes(chance.choice((0, 4, 200, MAX_BYTES - 7, MAX_BYTES))) for _ in range(60)]
    stream = b"".join(pdu(4, body) for body in bodies)

    def send() -> None:
        left = stream
        while left:
            cut = chance.choice((1, 5, 6, 7, 300, 1500, 4000))
            pair.peer.sendall(left[:cut])
            left = left[cut:]
        pair.peer.shutdown(socket.SHUT_WR)

    sending = threading.Thread(target=send)
    sending.start()
    assert [pair.read() for _ in bodies] == [(4, body) for body in bodies]
    assert pair.read() is None
    sending.join()


@pytest.mark.parametrize("stump", [b"", b"\4", pdu(4, b"abc")[:-1]])
def test_a_peer_that_closes_leaves_nothing(pair: Pair, stump: bytes) -> None:
    pair.peer.sendall(stump)
    pair.peer.close()
    assert pair.read() is None


def test_a_pdu_above_the_bound_is_not_read(pair: Pair) -> None:
    pair.peer.sendall(struct.pack(">BxL", 4, MAX_BYTES + 1))
    with pytest.raises(InvalidPdu):
        pair.read()


def test_another_protocol_is_told_from_its_first_bytes(pair: Pair) -> None:
    pair.peer.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(UnknownPdu):
        pair.read()


@pytest.mark.parametrize("begun", [b"", b"\4", pdu(4, b"abc")[:-1]])
def test_no_wait_is_endless(pair: Pair, begun: bytes) -> None:
    pair.peer.sendall(begun)
    with pytest.raises(TimeoutError):
        pair.read(wait_s=0.05, whole_s=0.05)


def test_a_drip_does_not_stretch_the_time_of_a_pdu(pair: Pair) -> None:
    ended = threading.Event()

    def drip() -> None:
        for byte in pdu(4, bytes(MAX_BYTES)):
            if ended.wait(0.02):
                return
            pair.peer.send(bytes((byte,)))

    dripping = threading.Thread(target=drip)
    dripping.start()
    with pytest.raises(TimeoutError):
        pair.read(whole_s=0.2)
    ended.set()
    dripping.join()


def test_a_wait_ends_when_the_receiver_stops(pair: Pair) -> None:
    stopping = threading.Timer(0.05, pair.wakeup.call)
    stopping.start()
    with pytest.raises(Stopped):
        pair.read()
    pair.peer.sendall(pdu(4, b"abc"))
    with pytest.raises(Stopped):
        pair.read()
