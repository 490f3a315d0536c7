"""Sending to peers that answer, fall silent, break off or talk nonsense: what counts as accepted, and how it ends."""

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
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dul import DULServiceProvider

from config.settings import DestinationSettings
from node.network import requestor
from node.network.answers import MAX_MESSAGE_BYTES, MAX_PDU_BYTES, Answers, BoundedSocket
from node.network.no_association import NoAssociation, Outcome
from node.network.query import find_instances
from node.network.requestor import Timeouts, associate
from node.send.scu import SendReport, StorageScu, contexts_for
from tests.peers.scripted_peer import (
    ABORT_BY_PROVIDER,
    ABORT_BY_USER,
    RELEASE_RP,
    RELEASE_RQ,
    STORED,
    Peer,
    answer,
    answering,
    elements,
    pdu,
    rejecting,
    value,
)

SOON_S = 6  # under load too; less than all that a peer or a sender here may wait for
QUICK = Timeouts(connection_s=20, acse_s=20, dimse_s=20, send_s=0.5)


@pytest.fixture
def peer() -> Iterator[Peer]:
    one = Peer()
    yield one
    one.close()


@pytest.fixture
def instance(make_ct: Any, tmp_path: Path) -> Callable[..., tuple[str, Path]]:
    """Write an instance of `rows` rows and as many columns."""

    def write(number: int = 1, rows: int = 64, name: str | None = None, **elements: Any) -> tuple[str, Path]:
        pixels = bytes(range(256)) * (rows * rows // 128)
        ds = make_ct(instance=number, Rows=rows, Columns=rows, PixelData=pixels, SOPInstanceUID=f"1.9.{number}")
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        for keyword, changed in elements.items():
            setattr(ds, keyword, changed)
        ds.save_as(path := tmp_path / (name or f"{number}.dcm"), enforce_file_format=True)
        return f"1.9.{number}", path

    return write


def send(peer: Peer, *items: tuple[str, Path], timeouts: Timeouts = QUICK) -> SendReport:
    """Send through the public sender, which leaves no thread behind."""
    before = set(threading.enumerate())
    report = StorageScu(peer.destination, "SYNCECT", timeouts).send(items)
    assert set(threading.enumerate()) <= before
    return report


# -- what goes out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_pdu_bytes", "largest"),
    [(0, MAX_PDU_BYTES), (5, MAX_PDU_BYTES), (4096, 4096), (4097, 4096), (1 << 30, MAX_PDU_BYTES)],
)
def test_an_instance_is_cut_to_what_the_peer_receives(
    peer: Peer, instance: Any, max_pdu_bytes: int, largest: int
) -> None:
    uid, path = instance(rows=400)
    peer.max_pdu_bytes = max_pdu_bytes
    peer.script = answering(STORED)
    assert send(peer, (uid, path)).accepted == (uid,)
    peer.wait()
    command, *fragments = peer.received
    data = b"".join(fragment[12:] for fragment in fragments)
    assert command[10:12] == b"\1\3"
    assert len(data) > 320_000
    assert path.read_bytes().endswith(b"\x08\x00\x05\x00CS" + data[6:])
    assert [fragment[11] for fragment in fragments] == [0] * (len(fragments) - 1) + [0b10]
    assert [len(fragment) - 6 for fragment in fragments[:-1]] == [largest] * (len(fragments) - 1)


# -- what comes back -----------------------------------------------------------------------------------------------


def test_an_answer_may_come_in_pieces(peer: Peer, instance: Any) -> None:
    whole = answer(0xB000)
    pieces = pdu(value(0b01, whole[:9]), value(0b01, whole[9:20])) + pdu(value(0b11, whole[20:]))

    def dribble(peer: Peer) -> None:
        peer.read_message()
        for position in range(len(pieces)):
            peer.send(pieces[position : position + 1])

    peer.script = dribble
    report = send(peer, instance())
    assert report.accepted == ("1.9.1",)
    assert "B000" in report.reason


def test_several_answers_may_share_a_pdu(peer: Peer) -> None:
    def found(uid: bytes) -> bytes:
        pending = value(0b11, answer(0xFF00, field=0x8020, data_set=1))
        identifier = struct.pack("<HH2sH", 8, 0x18, b"UI", len(uid)) + uid
        return pending + value(0b00, identifier[:7]) + value(0b10, identifier[7:])

    peer.script = answering(pdu(found(b"1.9.10"), found(b"1.9.20"), value(0b11, answer(field=0x8020))))
    assert find_instances(peer.destination, "SYNCECT", "1.2", "1.8") == {"1.9.10", "1.9.20"}


@pytest.mark.parametrize(
    "nonsense",
    [
        pdu(value(0b11, answer(message_id=2))),
        pdu(value(0b11, answer(field=0x8030))),
        pdu(value(0b11, answer(field=0x0001))),
        pdu(value(0b11, answer(field=0x7777))),
        pdu(value(0b11, elements((0x0100, 0x8001), (0x0120, 1), (0x0800, 0x0101)))),
        pdu(value(0b11, answer()[:-1])),
        pdu(value(0b10, b"a data set without a command")),
        pdu(value(0b11, b"")),
        pdu(value(0b11, answer(data_set=1)), value(0b11, answer())),
        pdu(b"\0\0\0\xff\1\3"),
        pdu(b"\0\0"),
        struct.pack(">BxL", 4, 0xFFFFFFFF),
        struct.pack(">BxL", 1, 4) + b"\0\0\0\0",
        b"HTTP/1",
    ],
)
def test_nonsense_is_no_answer_and_ends_the_association(peer: Peer, instance: Any, nonsense: bytes) -> None:
    peer.script = answering(nonsense)
    begun = time.monotonic()
    report = send(peer, instance(1), instance(2))
    assert time.monotonic() - begun < SOON_S
    assert (report.outcome, report.accepted) == (Outcome.TRANSIENT, ())
    assert "malformed" in report.reason
    peer.wait()
    assert peer.rest in (ABORT_BY_PROVIDER, ABORT_BY_USER)


def test_a_second_answer_does_not_count_for_the_next_instance(peer: Peer, instance: Any) -> None:
    peer.script = answering(STORED + STORED, b"")
    report = send(peer, instance(1), instance(2))
    assert report.accepted == ("1.9.1",)
    assert "malformed" in report.reason


def test_nonsense_inside_an_instance_ends_the_association(peer: Peer, instance: Any) -> None:
    def interrupt(peer: Peer) -> None:
        peer.read_pdu()
        peer.send(b"HTTP/1")

    peer.script = interrupt
    report = send(peer, instance(rows=2048))
    assert (report.outcome, report.accepted) == (Outcome.TRANSIENT, ())
    peer.wait()
    assert peer.rest.endswith(ABORT_BY_PROVIDER)


def test_an_endless_message_ends_the_association(peer: Peer, instance: Any) -> None:
    def flood(peer: Peer) -> None:
        peer.read_message()
        fragment = pdu(value(0b01, bytes(1 << 14)))
        for _ in range(MAX_MESSAGE_BYTES // (1 << 14) + 1):
            peer.send(fragment)

    peer.script = flood
    assert "malformed" in send(peer, instance()).reason


# -- how it may end ------------------------------------------------------------------------------------------------


def test_a_peer_that_falls_silent_is_aborted(peer: Peer, instance: Any) -> None:
    peer.script = Peer.read_message
    begun = time.monotonic()
    report = send(peer, instance(1), instance(2), timeouts=Timeouts(dimse_s=0.3))
    assert 0.3 <= time.monotonic() - begun < SOON_S
    assert (report.outcome, report.accepted) == (Outcome.TRANSIENT, ())
    assert "did not answer within 0 s" in report.reason
    peer.wait()
    assert peer.rest == ABORT_BY_USER


def test_a_peer_that_dribbles_does_not_hold_the_sender(peer: Peer, instance: Any) -> None:
    def dribble(peer: Peer) -> None:
        peer.read_message()
        peer.dribble(4)

    peer.script = dribble
    begun = time.monotonic()
    report = send(peer, instance(), timeouts=Timeouts(dimse_s=0.4, send_s=0.4))
    assert time.monotonic() - begun < SOON_S
    assert report.outcome is Outcome.TRANSIENT
    assert "did not answer" in report.reason
    peer.wait()


def test_a_peer_that_dribbles_its_acceptance_does_not_hold_the_sender(instance: Any) -> None:
    class Slow(Peer):
        def _accept(self, request: bytes) -> bytes:
            self.dribble(2)
            return b""

    peer = Slow()
    begun = time.monotonic()
    report = send(peer, instance(), timeouts=Timeouts(acse_s=0.4, send_s=0.4))
    peer.close()
    assert time.monotonic() - begun < SOON_S
    assert "did not answer the association request" in report.reason


def test_a_peer_that_stops_reading_does_not_hold_the_sender(peer: Peer, instance: Any) -> None:
    item = instance(rows=3072)
    peer.script = lambda peer: peer.released.wait(60)
    begun = time.monotonic()
    report = send(peer, item, timeouts=Timeouts(send_s=0.3))
    assert time.monotonic() - begun < SOON_S
    assert (report.outcome, report.accepted) == (Outcome.TRANSIENT, ())
    assert "does not take" in report.reason


@pytest.mark.parametrize("before", [b"", ABORT_BY_USER, ABORT_BY_PROVIDER, STORED[:-3]])
def test_a_peer_that_goes_away_is_noticed_at_once(peer: Peer, instance: Any, before: bytes) -> None:
    peer.script = answering(before, close=True)
    begun = time.monotonic()
    report = send(peer, instance(1), instance(2))
    assert time.monotonic() - begun < SOON_S
    assert (report.outcome, report.accepted) == (Outcome.TRANSIENT, ())
    assert "broke the association off" in report.reason


@pytest.mark.parametrize("after", [b"", ABORT_BY_USER])
def test_an_answer_counts_also_where_the_peer_breaks_off_after_it(peer: Peer, instance: Any, after: bytes) -> None:
    peer.script = answering(STORED + after, close=True)
    report = send(peer, instance(1), instance(2))
    assert (report.outcome, report.accepted) == (Outcome.TRANSIENT, ("1.9.1",))
    assert "broke the association off" in report.reason


@pytest.mark.parametrize(("before", "accepted"), [(b"", ()), (STORED, ("1.9.1",))])
def test_a_release_by_the_peer_is_answered(peer: Peer, instance: Any, before: bytes, accepted: tuple[str, ...]) -> None:
    peer.script = answering(before + RELEASE_RQ)
    begun = time.monotonic()
    report = send(peer, instance(1), instance(2))
    assert time.monotonic() - begun < SOON_S
    assert (report.outcome, report.accepted) == (Outcome.TRANSIENT, accepted)
    assert "broke the association off" in report.reason
    peer.wait()
    assert peer.rest.endswith(RELEASE_RP)


def test_a_release_by_the_peer_after_the_last_answer_is_answered(peer: Peer) -> None:
    peer.script = lambda peer: peer.send(RELEASE_RQ)
    with associate(peer.destination, "SYNCECT", contexts_for(), QUICK) as association:
        while association.dul.state_machine.current_state != "Sta8":
            time.sleep(0.001)
    peer.wait()
    assert peer.rest == RELEASE_RP


def test_an_association_is_released_after_the_last_answer(peer: Peer, instance: Any) -> None:
    def script(peer: Peer) -> None:
        answering(STORED)(peer)
        peer.received.append(peer.read_pdu())
        peer.send(RELEASE_RP)

    peer.script = script
    assert send(peer, instance()).outcome is Outcome.DONE
    peer.wait()
    assert peer.received[-1] == RELEASE_RQ
    assert peer.rest == b""


def test_both_sides_may_release_at_once(peer: Peer, instance: Any) -> None:
    def collide(peer: Peer) -> None:
        answering(STORED)(peer)
        peer.received.append(peer.read_pdu())
        peer.send(RELEASE_RQ)
        peer.received.append(peer.read_pdu())
        peer.send(RELEASE_RP)

    peer.script = collide
    assert send(peer, instance()).outcome is Outcome.DONE
    peer.wait()
    assert peer.received[-2:] == [RELEASE_RQ, RELEASE_RP]


def test_a_release_that_the_peer_does_not_answer_ends_in_an_abort(peer: Peer, instance: Any) -> None:
    peer.script, peer.answers_release = answering(STORED), False
    begun = time.monotonic()
    report = send(peer, instance(), timeouts=Timeouts(acse_s=0.2))
    assert time.monotonic() - begun < SOON_S
    assert (report.outcome, report.accepted) == (Outcome.DONE, ("1.9.1",))
    peer.wait()
    assert peer.rest == RELEASE_RQ + ABORT_BY_PROVIDER


def test_a_request_that_could_not_be_sent_whole_ends_in_an_abort(
    peer: Peer, instance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = DIMSEMessage.encode_msg

    def fail(self: Any, *arguments: Any) -> Iterator[Any]:
        yield next(encode(self, *arguments))
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(DIMSEMessage, "encode_msg", fail)
    report = send(peer, instance())
    assert report.reason == "the file of instance 1.9.1 cannot be read: Input/output error"
    peer.wait()
    assert peer.rest.endswith(ABORT_BY_USER)


def test_an_association_that_has_ended_is_not_used_again(peer: Peer, instance: Any) -> None:
    peer.script = Peer.read_message
    with associate(peer.destination, "SYNCECT", contexts_for(), Timeouts(dimse_s=0.2)) as association:
        for _ in range(2):
            with pytest.raises(NoAssociation, match="did not answer"):
                association.send_c_store(instance()[1])
    peer.wait()
    assert len(peer.received) == 2


def test_a_rejection_counts_also_where_the_connection_ends_before_the_requestor_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stock: an abort, in a tenth of all associations that a quick peer rejects."""

    class Late(threading.Event):
        """What the requesting thread waits in; it comes after the thread of the upper layer has ended."""

        def wait(self, timeout: float | None = None) -> bool:
            done = super().wait(timeout)
            upper_layer = next(one for one in threading.enumerate() if isinstance(one, DULServiceProvider))
            upper_layer.join(5)
            assert not upper_layer.is_alive()
            return done

    class LateSocket(BoundedSocket):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._ready = Late()

    monkeypatch.setattr(requestor, "BoundedSocket", LateSocket)
    with rejecting((1, 1, 3)) as port:
        destination = DestinationSettings(name="TPS", ae_title="TPS", host="127.0.0.1", port=port)
        with pytest.raises(NoAssociation, match="does not know our AE title") as caught:
            associate(destination, "SYNCECT", contexts_for(), QUICK).__enter__()
    assert caught.value.outcome is Outcome.MISCONFIGURED


# -- pynetdicom's reactor ------------------------------------------------------------------------------------------


class LateGate(threading.Event):
    """A checkpoint behind which the reactor is late, as a busy machine makes it."""

    def wait(self, timeout: float | None = None) -> bool:
        passed = super().wait(timeout)
        time.sleep(0.2)
        return passed


class OpenGate(LateGate):
    """pynetdicom's own: open at first, and after every answer."""

    def __init__(self) -> None:
        super().__init__()
        self.set()

    open = LateGate.set


class ParkingGate(LateGate, requestor._Parking):
    """Ours."""


@pytest.mark.parametrize(("gate", "statuses"), [(OpenGate, [0, None]), (ParkingGate, [0, 0, 0])])
def test_no_other_thread_takes_an_answer(
    make_tps: Any, instance: Any, monkeypatch: pytest.MonkeyPatch, gate: type, statuses: list[int | None]
) -> None:
    """Without the parking pynetdicom's `send_c_store` loses the second answer under this schedule.

    The reactor is late behind the gate that the sender has closed again meanwhile, and the sender is late to wait for
    its answer.
    """

    class LateQueue(queue.Queue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            time.sleep(0.4 if block else 0)
            return super().get(block, timeout)

    create = Answers.__init__

    def create_late(self: Any, association: Any, answers_s: float, **options: Any) -> None:
        create(self, association, answers_s, **options)
        self.msg_queue = LateQueue()

    monkeypatch.setattr(Answers, "__init__", create_late)
    monkeypatch.setattr(Answers, "get_msg", DIMSEServiceProvider.get_msg)
    monkeypatch.setattr(requestor, "_Parking", gate)
    answered: list[int | None] = []
    tps, (_, path) = make_tps(), instance()
    with associate(tps.destination(), "SYNCECT", contexts_for(), Timeouts(dimse_s=2)) as association:
        while association.is_established and len(answered) < 3:
            answered.append(association.send_c_store(path, msg_id=len(answered) + 1).get("Status"))
    assert answered == statuses
    assert len(tps.stored) == len(statuses)


def test_the_last_segment_does_not_wait_and_no_thread_is_left(make_tps: Any) -> None:
    tps, before = make_tps(), set(threading.enumerate())
    with associate(tps.destination(), "SYNCECT", contexts_for(), QUICK) as association:
        connection = association.dul.socket and association.dul.socket.socket
        assert connection
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert len(association.accepted_contexts) == 2
        left = {association, association.dul}
    assert not any(thread.is_alive() for thread in left)
    assert not left & set(threading.enumerate()) - before


# -- what is sent for what -----------------------------------------------------------------------------------------


def test_a_file_of_another_instance_is_not_sent(make_tps: Any, instance: Any) -> None:
    (first, first_path), (second, second_path) = instance(1), instance(2)
    tps = make_tps()
    report = StorageScu(tps.destination(), "SYNCECT", QUICK).send([(second, first_path), (first, second_path)])
    assert report.outcome is Outcome.PERMANENT
    assert report.reason == f"the file of instance {second} holds another instance"
    assert tps.stored == []


def test_a_data_set_of_another_instance_is_not_encoded_anew(make_tps: Any, instance: Any) -> None:
    uid, path = instance(1, SOPInstanceUID="1.9.77")
    tps = make_tps(syntaxes=["1.2.840.10008.1.2"])
    report = StorageScu(tps.destination(), "SYNCECT", QUICK).send([(uid, path)])
    assert report.outcome is Outcome.PERMANENT
    assert "holds another instance" in report.reason
    assert tps.stored == []


@pytest.mark.parametrize("noticed", [False, True])
def test_a_peer_that_accepts_and_aborts_at_once_is_tried_again(
    make_tps: Any, instance: Any, monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    """The abort may come while the association is negotiated, before its first use, or in use."""
    items, rude, start = [instance()], AE(ae_title="TPS"), Association.start

    def start_and_wait(self: Any) -> None:
        start(self)
        while noticed and self.is_requestor and self.dul.is_alive():
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
