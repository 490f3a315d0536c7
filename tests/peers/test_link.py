"""The data transfer of the sender against peers that answer, fall silent, break off or talk nonsense."""

import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association

from node.send.association import Outcome, Timeouts, associate
from node.send.command import Request, Service
from node.send.link import MAX_FRAGMENT_BYTES, MAX_MESSAGE_BYTES, Broken, Context, Link
from node.send.scu import StorageScu, _ct_contexts

QUICK = Timeouts(connection_s=2, acse_s=2, dimse_s=2, send_s=0.5)
CONTEXT = Context(3, CTImageStorage, ExplicitVRLittleEndian)
REQUEST = Request(Service.STORE, CTImageStorage, "1.2.3", message_id=7)
RELEASE_RQ, RELEASE_RP = b"\5\0\0\0\0\4\0\0\0\0", b"\6\0\0\0\0\4\0\0\0\0"
ABORT_BY_USER, ABORT_BY_PROVIDER = b"\7\0\0\0\0\4\0\0\0\0", b"\7\0\0\0\0\4\0\0\2\0"


def elements(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<HHLH", 0, tag, 2, value) for tag, value in pairs)


def answer(status: int = 0, *, field: int = 0x8001, message_id: int = 7, data_set: int = 0x0101) -> bytes:
    return elements((0x0100, field), (0x0120, message_id), (0x0800, data_set), (0x0900, status))


def value(control: int, data: bytes) -> bytes:
    """A presentation data value."""
    return struct.pack(">LBB", len(data) + 2, CONTEXT.id, control) + data


def pdu(*values: bytes) -> bytes:
    """A P-DATA-TF PDU."""
    body = b"".join(values)
    return struct.pack(">BxL", 4, len(body)) + body


class Peer:
    """The other end of a link, in a thread of its own; it reads `count` PDUs and then does as told."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(5)
        self.received: list[bytes] = []
        self._thread: threading.Thread | None = None

    def read_pdu(self) -> bytes:
        head = self._read(6)
        return head + self._read(struct.unpack(">L", head[2:])[0])

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count and (more := self.connection.recv(count - len(data))):
            data += more
        return data

    def act(self, steps: Callable[[], object]) -> None:
        self._thread = threading.Thread(target=steps)
        self._thread.start()

    def answer_with(self, data: bytes, *, then_close: bool = False, count: int = 1) -> None:
        def steps() -> None:
            self.received.extend(self.read_pdu() for _ in range(count))
            self.connection.sendall(data)
            if then_close:
                self.connection.close()

        self.act(steps)

    def rest(self) -> bytes:
        """What still comes until the end of the connection."""
        self.join()
        data = b""
        while more := self.connection.recv(1 << 16):
            data += more
        return data

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(5)


@pytest.fixture
def pair() -> Iterator[Callable[..., tuple[Link, Peer]]]:
    sockets: list[socket.socket] = []

    def make(**options: Any) -> tuple[Link, Peer]:
        ours, theirs = socket.socketpair()
        sockets.extend((ours, theirs))
        known: dict[str, Any] = {"max_pdu_bytes": 16384, "send_s": 0.2, "answer_s": 2.0, "release_s": 2.0}
        return Link(ours, [CONTEXT], **(known | options)), Peer(theirs)

    yield make
    for one in sockets:
        one.close()


# -- what goes out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_pdu_bytes", "largest"),
    [(0, MAX_FRAGMENT_BYTES + 6), (4096, 4096), (4097, 4096), (1 << 30, MAX_FRAGMENT_BYTES + 6)],
)
def test_a_message_is_cut_to_what_the_peer_receives(pair: Any, max_pdu_bytes: int, largest: int) -> None:
    link, peer = pair(max_pdu_bytes=max_pdu_bytes)
    data = bytes(range(256)) * 1200

    def read_all() -> None:
        while not peer.received or peer.received[-1][11] != 0b10:
            peer.received.append(peer.read_pdu())
        peer.connection.sendall(pdu(value(0b11, answer())))

    peer.act(read_all)
    assert link.ask(CONTEXT, REQUEST, data).status == 0
    command, *fragments = peer.received
    assert command[10:12] == b"\3\3"
    assert command[12:] == REQUEST.encoded()
    assert b"".join(fragment[12:] for fragment in fragments) == data
    assert [fragment[11] for fragment in fragments] == [0] * (len(fragments) - 1) + [0b10]
    assert [len(fragment) - 6 for fragment in fragments[:-1]] == [largest] * (len(fragments) - 1)


# -- what comes back -----------------------------------------------------------------------------------------------


def test_an_answer_may_come_in_pieces(pair: Any) -> None:
    link, peer = pair()
    whole = answer(0xB000)
    pieces = pdu(value(0b01, whole[:9]), value(0b01, whole[9:20])) + pdu(value(0b11, whole[20:]))

    def dribble() -> None:
        peer.read_pdu()
        for position in range(len(pieces)):
            peer.connection.sendall(pieces[position : position + 1])

    peer.act(dribble)
    assert link.ask(CONTEXT, REQUEST).status == 0xB000


def test_several_answers_may_share_a_pdu(pair: Any) -> None:
    link, peer = pair()
    find = Request(Service.FIND, CTImageStorage, message_id=7)
    pending = answer(0xFF00, field=0x8020, data_set=1)
    last = value(0b11, answer(0, field=0x8020))
    peer.answer_with(pdu(value(0b11, pending), value(0b00, b"ab"), value(0b10, b"cd"), last))
    assert link.ask(CONTEXT, find).data == b"abcd"
    assert link.next_answer(find).status == 0


@pytest.mark.parametrize(
    "nonsense",
    [
        pdu(value(0b11, answer(message_id=8))),
        pdu(value(0b11, answer(field=0x8030))),
        pdu(value(0b11, answer()[:-1])),
        pdu(value(0b10, b"a data set without a command")),
        pdu(value(0b11, answer(data_set=1)), value(0b11, answer())),
        pdu(b"\0\0\0\xff\3\3"),
        pdu(b"\0\0"),
        struct.pack(">BxL", 4, 0xFFFFFFFF),
        struct.pack(">BxL", 1, 4) + b"\0\0\0\0",
        b"HTTP/1",
    ],
)
def test_nonsense_aborts_the_association(pair: Any, nonsense: bytes) -> None:
    link, peer = pair()
    peer.answer_with(nonsense)
    with pytest.raises(Broken, match="malformed"):
        link.ask(CONTEXT, REQUEST)
    assert peer.rest() == ABORT_BY_PROVIDER
    with pytest.raises(Broken, match="broke the association off"):
        link.ask(CONTEXT, REQUEST)
    link.release()


def test_an_endless_message_ends_the_association(pair: Any) -> None:
    link, peer = pair()
    fragment = pdu(value(0b01, bytes(1 << 17)))

    def flood() -> None:
        peer.read_pdu()
        for _ in range(MAX_MESSAGE_BYTES // (1 << 17) + 1):
            peer.connection.sendall(fragment)

    peer.act(flood)
    with pytest.raises(Broken, match="malformed"):
        link.ask(CONTEXT, REQUEST)
    peer.join()


# -- how it may end ------------------------------------------------------------------------------------------------


def test_a_peer_that_falls_silent_is_aborted(pair: Any) -> None:
    link, peer = pair(answer_s=0.3)
    peer.act(peer.read_pdu)
    begun = time.monotonic()
    with pytest.raises(Broken, match="did not answer within 0 s"):
        link.ask(CONTEXT, REQUEST)
    assert 0.3 <= time.monotonic() - begun < 1.5
    assert peer.rest() == ABORT_BY_USER


def test_a_peer_that_dribbles_does_not_hold_the_sender(pair: Any) -> None:
    link, peer = pair(answer_s=0.4)
    done = threading.Event()

    def dribble() -> None:
        peer.read_pdu()
        peer.connection.sendall(struct.pack(">BxL", 4, 60000))
        while not done.wait(0.02):
            try:
                peer.connection.sendall(b"\0")
            except OSError:
                return

    peer.act(dribble)
    begun = time.monotonic()
    with pytest.raises(Broken, match="did not answer"):
        link.ask(CONTEXT, REQUEST)
    assert time.monotonic() - begun < 1.5
    done.set()
    peer.join()


def test_a_peer_that_stops_reading_does_not_hold_the_sender(pair: Any) -> None:
    link, peer = pair()
    begun = time.monotonic()
    with pytest.raises(Broken, match="does not take"):
        link.ask(CONTEXT, REQUEST, bytes(1 << 24))
    assert time.monotonic() - begun < 1.5
    assert peer.connection.recv(6) == pdu(value(0b11, REQUEST.encoded()))[:6]


@pytest.mark.parametrize("last_words", [b"", ABORT_BY_USER, ABORT_BY_PROVIDER, pdu(value(0b11, answer()))[:-3]])
def test_a_peer_that_goes_away_is_noticed_at_once(pair: Any, last_words: bytes) -> None:
    link, peer = pair()
    peer.answer_with(last_words, then_close=True)
    begun = time.monotonic()
    with pytest.raises(Broken, match="broke the association off"):
        link.ask(CONTEXT, REQUEST)
    assert time.monotonic() - begun < 1
    link.release()


def test_a_peer_that_releases_in_the_middle_is_let_go(pair: Any) -> None:
    link, peer = pair()
    peer.answer_with(RELEASE_RQ)
    with pytest.raises(Broken, match="broke the association off"):
        link.ask(CONTEXT, REQUEST)
    assert peer.rest() == RELEASE_RP


def test_a_release_waits_for_the_peer(pair: Any) -> None:
    link, peer = pair()
    peer.answer_with(pdu(value(0b11, answer())) + RELEASE_RP)
    link.release()
    assert peer.received == [RELEASE_RQ]
    assert peer.rest() == b""


def test_both_sides_may_release_at_once(pair: Any) -> None:
    link, peer = pair()

    def collide() -> None:
        peer.connection.sendall(RELEASE_RQ)
        peer.received.extend((peer.read_pdu(), peer.read_pdu()))
        peer.connection.sendall(RELEASE_RP)

    peer.act(collide)
    link.release()
    peer.join()
    assert peer.received == [RELEASE_RQ, RELEASE_RP]


def test_a_release_that_nobody_answers_ends_in_an_abort(pair: Any) -> None:
    link, peer = pair(release_s=0.2)
    link.release()
    assert peer.rest() == RELEASE_RQ + ABORT_BY_USER


# -- over a negotiated association ---------------------------------------------------------------------------------


def files(store: Any, uids: list[str]) -> list[tuple[str, Path]]:
    return list(zip(uids, sorted((store.spool.root / "derived").rglob("*.dcm")), strict=True))


def test_no_other_thread_takes_an_answer(
    store: Any, produce: Any, make_tps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pynetdicom's `send_c_store` loses the second answer under this schedule, and waits for its whole timeout.

    Its second thread is late behind the gate that the sender has closed again meanwhile, and the sender is late to
    wait for its answer.
    """

    class LateGate(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            passed = super().wait(timeout)
            time.sleep(0.2)
            return passed

    class LateQueue(queue.Queue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            time.sleep(0.4 if block else 0)
            return super().get(block, timeout)

    create = Association.__init__

    def create_late(self: Any, *arguments: Any) -> None:
        create(self, *arguments)
        if self.is_requestor:
            self._reactor_checkpoint, self.dimse.msg_queue = LateGate(), LateQueue()
            self._reactor_checkpoint.set()

    monkeypatch.setattr(Association, "__init__", create_late)
    uids, tps = produce(3), make_tps()
    report = StorageScu(tps.destination(), "SYNCECT", QUICK).send(files(store, uids))
    assert report.outcome is Outcome.DONE
    assert tps.stored == uids


def test_the_last_segment_does_not_wait_and_no_thread_is_left(make_tps: Any) -> None:
    tps, before = make_tps(), set(threading.enumerate())
    with associate(tps.destination(), "SYNCECT", _ct_contexts(), QUICK) as link:
        assert link._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not [one for one in set(threading.enumerate()) - before if "Requestor" in one.name]
        assert len(link.contexts) == 2


def test_a_file_of_another_instance_is_not_sent(store: Any, produce: Any, make_tps: Any) -> None:
    first, second = produce(2)
    tps = make_tps()
    swapped = files(store, [second, first])
    report = StorageScu(tps.destination(), "SYNCECT", QUICK).send(swapped)
    assert report.outcome is Outcome.PERMANENT
    assert report.reason == f"the file of instance {second} holds another instance"
    assert tps.stored == []


@pytest.mark.parametrize("noticed", [False, True])
def test_a_peer_that_accepts_and_aborts_at_once_is_tried_again(
    store: Any, produce: Any, make_tps: Any, monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    """The abort may be noticed while the association is negotiated, before or after it is taken over, or in use."""
    items, rude, start = files(store, produce(1)), AE(ae_title="TPS"), Association.start

    def start_and_wait(self: Any) -> None:
        start(self)
        while noticed and self.is_requestor and self.is_established:
            time.sleep(0.001)

    monkeypatch.setattr(Association, "start", start_and_wait)
    rude.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
    handlers: list[Any] = [(evt.EVT_ACCEPTED, lambda event: event.assoc.abort(block=False))]
    server: Any = rude.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        destination = make_tps(running=False).destination(port=server.server_address[1])
        for _ in range(10):
            report = StorageScu(destination, "SYNCECT", QUICK).send(items)
            assert (report.outcome, report.accepted) == (Outcome.TRANSIENT, ()), report.reason
    finally:
        server.shutdown()
