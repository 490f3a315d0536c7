"""A peer has a bounded number of answers, bytes and seconds, and an answer counts for the instance it names only."""

import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import CTImageStorage

from config.settings import DestinationSettings
from node.network import answers
from node.network.no_association import NoAssociation, Outcome
from node.network.query import count_instances, find_instances
from node.network.requestor import Timeouts
from node.send import courier as courier_module
from node.send.courier import Courier
from node.send.scu import SendReport, StorageScu
from storage.states import DeliveryState
from tests.peers.certificates import Certificates
from tests.peers.raw_peer import RawPeer, associate_rq
from tests.peers.scripted_peer import Peer, answer, answering, pdu, value

QUICK = Timeouts(connection_s=2, acse_s=2, dimse_s=2, send_s=0.5, answers_s=1.0)


@pytest.fixture
def peer() -> Iterator[Peer]:
    one = Peer()
    yield one
    one.close()


@pytest.fixture
def instance(make_ct: Any, tmp_path: Path) -> tuple[str, Path]:
    ds = make_ct(SOPInstanceUID="1.9.1")
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.9.1"
    ds.save_as(path := tmp_path / "1.dcm", enforce_file_format=True)
    return "1.9.1", path


def send(peer: Peer, *items: tuple[str, Path]) -> SendReport:
    return StorageScu(peer.destination, "SYNCECT", QUICK).send(items)


# -- which instance an answer is about ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "is_sent"), [(None, True), (b"", True), (b"1.9.1\0", True), (b"1.9.1 ", True), (b"1.9.2\0", False)]
)
def test_an_answer_that_names_another_instance_is_none(
    peer: Peer, instance: Any, named: bytes | None, is_sent: bool
) -> None:
    """It may leave the name out (PS3.7 table 9.1-1): it is the answer to the one message of its ID on the way."""
    peer.script = answering(pdu(value(0b11, answer(instance=named))))
    report = send(peer, instance)
    assert report.accepted == (("1.9.1",) if is_sent else ())
    if not is_sent:
        assert (report.outcome, "names another instance than it was sent" in report.reason) == (Outcome.TRANSIENT, True)


@pytest.mark.parametrize(
    "said",
    [
        pdu(value(0b11, answer(), context_id=3)),
        pdu(value(0b01, answer()[:10]), value(0b11, answer()[10:], context_id=3)),
    ],
    ids=["in another context", "begun in another context"],
)
def test_an_answer_in_another_context_than_its_request_is_none(peer: Peer, instance: Any, said: bytes) -> None:
    peer.script = answering(said)
    report = send(peer, instance)
    assert (report.accepted, "malformed" in report.reason) == ((), True)


# -- answers without an end --------------------------------------------------------------------------------------------


def found(uid: bytes, *, padding: int = 0) -> bytes:
    """A pending answer with an identifier, which has so many bytes of another element."""
    identifier = struct.pack("<HH2sH", 8, 0x18, b"UI", len(uid)) + uid
    identifier += struct.pack("<HH2sxxL", 0x20, 0x4000, b"UT", padding) + b" " * padding
    return pdu(value(0b11, answer(0xFF00, field=0x8020, data_set=1)), value(0b10, identifier))


def answering_for_ever(*, padding: int = 0, every_s: float = 0.0) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.read_message()
        try:
            for number in count(10):
                peer.send(found(b"1.9.%06d" % number, padding=padding))
                if peer.released.wait(every_s):
                    return
        except OSError:  # the node has ended the association
            return

    return script


@pytest.mark.parametrize("ask", [find_instances, count_instances])
def test_a_peer_that_answers_pending_for_ever_is_aborted_after_a_time(peer: Peer, ask: Any) -> None:
    peer.script = answering_for_ever(every_s=0.05)
    begun = time.monotonic()
    with pytest.raises(NoAssociation, match="did not come to the end of its answers within 1 s"):
        ask(peer.destination, "SYNCECT", "1.2", "1.8", QUICK)
    assert 1.0 <= time.monotonic() - begun < 15


def test_a_peer_that_gives_too_many_answers_is_aborted(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_ANSWERS", 200)
    peer.script = answering_for_ever()
    with pytest.raises(NoAssociation, match="gave more than 200 answers"):
        find_instances(peer.destination, "SYNCECT", "1.2", "1.8", Timeouts(answers_s=20))


def test_a_peer_that_gives_too_many_bytes_is_aborted(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_ANSWERS_BYTES", 1 << 20)
    peer.script = answering_for_ever(padding=15_000)
    with pytest.raises(NoAssociation, match="or 1 MiB to one request"):
        find_instances(peer.destination, "SYNCECT", "1.2", "1.8", Timeouts(answers_s=20))


def test_an_identifier_beyond_any_use_ends_the_query(peer: Peer) -> None:
    pieces = [value(0b11, answer(0xFF00, field=0x8020, data_set=1)), *(value(0b00, bytes(8000)) for _ in range(10))]
    peer.script = answering(b"".join(pdu(piece) for piece in pieces))
    with pytest.raises(NoAssociation, match="malformed"):
        find_instances(peer.destination, "SYNCECT", "1.2", "1.8", QUICK)


def test_a_message_that_nobody_asked_for_ends_the_association(peer: Peer, instance: Any) -> None:
    """An event report is no answer."""
    event_report = pdu(value(0b11, answer(field=0x0100)))
    peer.script = answering(event_report)
    assert "malformed" in send(peer, instance).reason


def test_answers_between_two_requests_are_bounded(peer: Peer, instance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_ANSWERS", 50)
    flooded = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_message()
        peer.connection.settimeout(0.5)
        try:
            while True:
                peer.send(pdu(value(0b11, answer())))
        except OSError:
            flooded.set()

    peer.script = script

    def items() -> Iterator[tuple[str, Path]]:
        yield instance
        assert flooded.wait(60)
        yield instance

    report = StorageScu(peer.destination, "SYNCECT", QUICK).send(items())
    assert report.accepted == ("1.9.1",)
    assert report.outcome is Outcome.TRANSIENT


# -- stopping ----------------------------------------------------------------------------------------------------------


def keeps_an_instance(peer: Peer) -> None:
    peer.read_message()
    peer.released.wait(30)


def drips_an_answer(peer: Peer) -> None:
    peer.read_message()
    peer.dribble(4)


def reads_nothing(peer: Peer) -> None:
    peer.released.wait(30)


def answers_no_release(peer: Peer) -> None:
    """It stores both instances of the delivery, and then answers nothing."""
    peer.answers_release = False
    for number in (1, 2):
        peer.read_message()
        peer.send(pdu(value(0b11, answer(message_id=number))))
    peer.released.wait(30)


class AssociatesNobody(Peer):
    """It takes the connection, like a process that was stopped by SIGSTOP, and answers nothing."""

    def _accept(self, request: bytes) -> bytes:
        self.released.wait(30)
        return b""


class DripsItsAcceptance(Peer):
    def _accept(self, request: bytes) -> bytes:
        self.dribble(2)
        return b""


SLOW = Timeouts(connection_s=30, acse_s=30, dimse_s=30, send_s=30, answers_s=60)


def stopping_takes_s(store: Any, destination: DestinationSettings, is_stuck: Callable[[], bool]) -> float:
    """Seconds from the stop to the end of a courier whose delivery is in the hand of a peer."""
    courier = Courier(
        store.outbox, store.spool, [destination], peers=store.peers, calling_ae="SYNCECT", name="c", timeouts=SLOW
    )
    stop = threading.Event()
    running = threading.Thread(target=courier.run, args=(stop,))
    running.start()
    pause = threading.Event()
    for _ in range(500):
        if store.delivery().state is DeliveryState.SENDING and is_stuck():
            break
        pause.wait(0.02)
    assert store.delivery().state is DeliveryState.SENDING
    begun = time.monotonic()
    stop.set()
    running.join(60)
    assert not running.is_alive()
    return time.monotonic() - begun


@pytest.mark.parametrize(
    ("kind", "script"),
    [
        (Peer, keeps_an_instance),
        (Peer, drips_an_answer),
        (Peer, reads_nothing),
        (Peer, answers_no_release),
        (AssociatesNobody, None),
        (DripsItsAcceptance, None),
    ],
    ids=[
        "keeps an instance",
        "drips an answer",
        "reads nothing",
        "answers no release",
        "associates nobody",
        "drips its acceptance",
    ],
)
def test_stopping_takes_at_most_the_grace_whatever_a_peer_does(
    store: Any, produce: Any, monkeypatch: pytest.MonkeyPatch, kind: type[Peer], script: Any
) -> None:
    monkeypatch.setattr(courier_module, "STOP_GRACE_S", 0.5)
    produce(2)
    peer = kind()
    if script is not None:
        peer.script = script
    try:
        assert stopping_takes_s(store, peer.destination, lambda: True) < 15
        # The next courier of this name takes up what was left.
        store.outbox.release_expired(store.delivery().updated_at, dead_courier="c")
        assert store.delivery().state is DeliveryState.PENDING
    finally:
        peer.close()


def test_stopping_takes_at_most_the_grace_in_a_tls_handshake(
    store: Any, produce: Any, monkeypatch: pytest.MonkeyPatch, certificates: Certificates
) -> None:
    monkeypatch.setattr(courier_module, "STOP_GRACE_S", 0.5)
    produce(2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        to = DestinationSettings(name="tps", ae_title="TPS", host="127.0.0.1", port=port, tls=certificates.settings())
        assert stopping_takes_s(store, to, lambda: True) < 15


def test_stopping_takes_at_most_the_grace_in_a_query_without_an_end(
    store: Any, produce: Any, now: Any, monkeypatch: pytest.MonkeyPatch, peer: Peer
) -> None:
    monkeypatch.setattr(courier_module, "STOP_GRACE_S", 0.5)
    produce(1)
    delivery = store.outbox.claim("c", "tps", 60, now)
    store.outbox.record_accepted(delivery.id, "c", delivery.missing[0].product_id, 0, lease_s=60, now=now)
    store.outbox.finish_sent(delivery.id, "c", "", now)
    asked = threading.Event()

    def script(peer: Peer) -> None:
        asked.set()
        answering_for_ever(every_s=0.02)(peer)

    peer.script = script
    destination = peer.destination.model_copy(update={"confirm": "find"})
    courier = Courier(store.outbox, store.spool, [destination], peers=store.peers, calling_ae="SYNCECT", name="c")
    stop = threading.Event()
    running = threading.Thread(target=courier.run, args=(stop,))
    running.start()
    assert asked.wait(60)
    begun = time.monotonic()
    stop.set()
    running.join(60)
    assert (running.is_alive(), time.monotonic() - begun < 15) == (False, True)


@pytest.mark.parametrize("kind", ["half a request", "half an instance", "nothing after the association"])
def test_the_receiver_stops_within_its_grace_whatever_a_peer_does(start_receiver: Any, kind: str) -> None:
    receiver = start_receiver()
    with _stuck(receiver.port, kind):
        begun = time.monotonic()
        receiver.stop(grace_s=0.3)
        assert time.monotonic() - begun < 4.5  # without this grace it would be the usual one, 5 s


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"], ids=["nothing", "a piece"])
def test_the_receiver_stops_within_its_grace_in_a_tls_handshake(
    start_receiver: Any, certificates: Certificates, sent: bytes
) -> None:
    receiver = start_receiver(tls=certificates.settings())
    with socket.create_connection(("127.0.0.1", receiver.port)) as connection:
        connection.sendall(sent)
        begun = time.monotonic()
        receiver.stop(grace_s=0.3)
        assert time.monotonic() - begun < 4.5  # without this grace it would be the usual one, 5 s


@contextmanager
def _stuck(port: int, kind: str) -> Iterator[None]:
    """A peer in the middle of something, which neither goes on nor ends."""
    if kind == "half a request":
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(associate_rq()[:40])
            yield
        return
    with RawPeer(port) as peer:
        if kind == "half an instance":
            peer.request_store()
            peer.send_data(bytes(1000), last=False)
            peer.connection.sendall(b"\x04")  # and half a PDU
        yield


@pytest.mark.parametrize("phase", ["before the association", "in the middle of an instance"])
def test_a_courier_ends_although_its_peer_was_stopped_by_a_signal(
    store: Any,
    produce: Any,
    peer_program: Any,
    free_port: int,
    tmp_path: Path,
    phase: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(courier_module, "STOP_GRACE_S", 0.5)
    produce(400 if phase != "before the association" else 2)
    (tmp_path / "tps").mkdir()
    command = [peer_program("/usr/bin/storescp"), "-od", str(tmp_path / "tps"), str(free_port)]
    with subprocess.Popen(command) as scp:
        try:
            to = DestinationSettings(name="tps", ae_title="TPS", host="127.0.0.1", port=free_port)
            _await_listener(free_port)
            if phase == "before the association":
                scp.send_signal(signal.SIGSTOP)

            def is_stuck() -> bool:
                if phase != "before the association" and store.statuses():
                    scp.send_signal(signal.SIGSTOP)
                    return True
                return phase == "before the association"

            assert stopping_takes_s(store, to, is_stuck) < 15
        finally:
            scp.kill()


def _await_listener(port: int) -> None:
    pause = threading.Event()
    for _ in range(250):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            pause.wait(0.02)
    pytest.fail("the peer does not listen")
