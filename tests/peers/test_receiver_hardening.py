"""What the receiver does about strangers, crowds and broken clients; the figures are of stock pynetdicom 3.0.4."""

import io
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from node.errors import Permanent
from node.network import server, upper_layer
from node.network.server import PortInUse
from node.receive.receiver import Receiver
from tests.peers.raw_peer import ASSOCIATE_RJ, LIMIT_REACHED, NOT_RECOGNIZED, read_pdu

CT = "1.2.840.10008.5.1.4.1.1.2"


def associate(receiver: Any, *, calling: str = "SIMULATOR") -> Any:
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = 5
    contexts = [build_context("1.2.840.10008.1.1"), build_context(CT, [ExplicitVRLittleEndian])]
    return ae.associate("127.0.0.1", receiver.port, contexts=contexts, ae_title="SYNCECT")


def rejection(receiver: Any, *, called: bytes = b"SYNCECT") -> tuple[int, int, int] | None:
    """Result, source and reason of the answer to an association request; None where it is no A-ASSOCIATE-RJ.

    pynetdicom as the requestor takes a rejection that comes at once for an abort, see `test_requestor.py`.
    """
    with connect(receiver) as connection:
        connection.sendall(associate_rq(calling=b"SIMULATOR", called=called))
        kind, body = read_pdu(connection)
        return (body[1], body[2], body[3]) if kind == ASSOCIATE_RJ else None


def echo_takes_s(receiver: Any) -> float:
    begun = time.perf_counter()
    link = associate(receiver)
    assert link.is_established
    assert link.send_c_echo().Status == 0x0000
    link.release()
    return time.perf_counter() - begun


def connect(receiver: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", receiver.port), timeout=5)


def is_closed_by_peer(connection: socket.socket, within_s: float) -> bool:
    connection.settimeout(within_s)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize(
    ("peer", "accepted"),
    [
        ({"ae_title": "SIMULATOR", "host": "127.0.0.1"}, True),
        ({"ae_title": "SIMULATOR"}, True),
        ({"ae_title": "SIMULATOR", "host": "::ffff:127.0.0.1"}, True),
        ({"ae_title": "SIMULATOR", "host": "10.1.2.3"}, False),
        ({"ae_title": "simulator", "host": "127.0.0.1"}, False),
        ({"ae_title": "OTHER", "host": "127.0.0.1"}, False),
    ],
)
def test_only_listed_pairs_of_title_and_host_may_associate(
    start_receiver: Any, peer: dict[str, str], accepted: bool
) -> None:
    elsewhere = {"ae_title": "ELSEWHERE", "host": "10.9.9.9"}
    receiver = start_receiver(allowed_peers=[elsewhere, peer])
    assert rejection(receiver) == (None if accepted else NOT_RECOGNIZED)


def test_an_empty_list_accepts_everyone_and_says_so(start_receiver: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert echo_takes_s(start_receiver()) < 2
    assert sum("allowed_peers is empty" in line for line in caplog.messages) == 1


def test_a_wrong_called_title_is_rejected(start_receiver: Any) -> None:
    assert rejection(start_receiver(), called=b"ELSE") == (1, 1, 7)


def test_a_title_with_control_characters_cannot_forge_a_log_line(
    start_receiver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = start_receiver(allowed_peers=[{"ae_title": "SIMULATOR"}])
    request = associate_rq(calling=b"A\r\nERROR forged!")
    with connect(receiver) as connection:
        connection.sendall(request)
        assert is_closed_by_peer(connection, 5)
    receiver.stop()
    assert not any("\n" in line for line in caplog.messages)


def associate_rq(*, calling: bytes, called: bytes = b"SYNCECT", application: bytes = b"1.2.840.10008.3.1.1.1") -> bytes:
    application = b"\x10\0" + struct.pack(">H", len(application)) + application
    context = b"\x01\0\0\0\x30\0\0\x111.2.840.10008.1.1\x40\0\0\x111.2.840.10008.1.2"
    presentation = b"\x20\0" + struct.pack(">H", len(context)) + context
    user = b"\x51\0\0\x04\0\0\x40\0" + b"\x52\0\0\x051.2.3"
    body = struct.pack(">HH", 1, 0) + called.ljust(16) + calling.ljust(16) + bytes(32)
    body += application + presentation + b"\x50\0" + struct.pack(">H", len(user)) + user
    return b"\x01\0" + struct.pack(">L", len(body)) + body


def test_another_application_context_is_rejected(start_receiver: Any) -> None:
    with connect(start_receiver()) as connection:
        connection.sendall(associate_rq(calling=b"SIMULATOR", application=b"1.2.840.10008.3.1.1.2"))
        assert connection.recv(100) == b"\x03\0\0\0\0\4\0\1\1\2"  # permanent, by the user: PS3.8 table 9-21


def test_associations_above_the_limit_are_rejected_for_now(start_receiver: Any) -> None:
    receiver = start_receiver(max_associations=2)
    first, second = associate(receiver), associate(receiver)
    assert rejection(receiver) == LIMIT_REACHED
    first.release()
    second.release()
    receiver_is_free_again(receiver)


def receiver_is_free_again(receiver: Any) -> None:
    deadline = time.monotonic() + 5
    while not (link := associate(receiver)).is_established:
        assert time.monotonic() < deadline
    link.release()


def test_silent_connections_do_not_lock_out_a_peer(start_receiver: Any) -> None:
    """Stock: rejected for 28 s."""
    receiver = start_receiver(max_associations=10)
    silent = [connect(receiver) for _ in range(12)]
    assert echo_takes_s(receiver) < 2
    for connection in silent:
        connection.close()


def test_connections_of_one_host_are_bounded(start_receiver: Any) -> None:
    """Stock: one pair of threads for each."""
    receiver = start_receiver(max_associations=2)
    before = threading.active_count()
    silent = [connect(receiver) for _ in range(60)]
    gave_way = sum(is_closed_by_peer(connection, 0.2) for connection in silent[:10])
    assert gave_way == 10
    assert not any(is_closed_by_peer(connection, 0.01) for connection in silent[-10:])
    assert threading.active_count() - before <= 3 * (2 + server.SPARE_CONNECTIONS)
    for connection in silent:
        connection.close()


def test_a_port_scan_does_not_lock_out_a_peer(start_receiver: Any) -> None:
    """Stock: 303 threads, rejected for 30 s."""
    receiver = start_receiver(max_associations=4)
    for _ in range(200):
        connect(receiver).close()
    receiver_is_free_again(receiver)
    assert echo_takes_s(receiver) < 2


def test_an_announced_pdu_of_four_gigabytes_ends_the_connection(start_receiver: Any) -> None:
    """Stock: 448 MB buffered before any association."""
    receiver = start_receiver()
    with connect(receiver) as connection:
        connection.sendall(b"\x01\0\xff\xff\xff\xff" + bytes(4096))
        assert is_closed_by_peer(connection, 5)
    assert echo_takes_s(receiver) < 2


def test_a_data_pdu_above_the_agreed_length_ends_the_association(start_receiver: Any, store: Any) -> None:
    link = associate(start_receiver())
    link.dul.socket.socket.sendall(b"\x04\0" + struct.pack(">L", upper_layer.MAX_PDU_BYTES + 1) + bytes(1024))
    assert is_aborted_within(link, 5)


def is_aborted_within(link: Any, seconds: float) -> bool:
    link.join(seconds)
    return bool(link.is_aborted)


def test_a_request_that_drips_is_cut_off(start_receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock: one byte every ten seconds held its slot without end."""
    monkeypatch.setattr(server, "ACSE_TIMEOUT_S", 0.5)
    with connect(start_receiver()) as connection:
        connection.sendall(b"\x01\0\0")
        assert is_closed_by_peer(connection, 5)


@pytest.mark.parametrize("noise", [b"SSH-2.0-OpenSSH_9.2p1\r\n", b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\x01"])
def test_other_protocols_are_hung_up_on(start_receiver: Any, noise: bytes) -> None:
    receiver = start_receiver(max_associations=1)
    with connect(receiver) as connection:
        connection.sendall(noise)
        with suppress(OSError):  # the receiver has hung up already
            connection.shutdown(socket.SHUT_WR)
        assert is_closed_by_peer(connection, 5)
    receiver_is_free_again(receiver)


@pytest.mark.parametrize("garbage", [b"\x01\x03" + b"\xff" * 40, b"\x01\x03" + bytes(12), b"\x01\x01" + bytes(60_000)])
def test_a_command_set_of_garbage_ends_the_association_only(start_receiver: Any, garbage: bytes) -> None:
    receiver = start_receiver()
    link = associate(receiver)
    pdv = struct.pack(">L", len(garbage)) + garbage
    connection = link.dul.socket.socket  # pynetdicom forgets it when the peer closes
    for _ in range(20):  # a command set that never ends is bounded too
        try:
            connection.sendall(b"\x04\0" + struct.pack(">L", len(pdv)) + pdv)
        except OSError:
            break
    assert is_aborted_within(link, 5)
    assert echo_takes_s(receiver) < 2


@pytest.mark.parametrize("items", [b"\0\0", b"\0\0\0\1\1", b"\0\0\0\7\1\3abc", b"\xff\xff\xff\xff\1\3abc"])
def test_a_data_pdu_whose_lengths_do_not_add_up_ends_the_association_only(start_receiver: Any, items: bytes) -> None:
    receiver = start_receiver()
    link = associate(receiver)
    link.dul.socket.socket.sendall(b"\x04\0" + struct.pack(">L", len(items)) + items)
    assert is_aborted_within(link, 5)
    assert echo_takes_s(receiver) < 2


def test_a_command_inside_a_data_set_ends_the_association_and_leaves_nothing(
    start_receiver: Any, store: Any, make_ct: Any
) -> None:
    receiver = start_receiver()
    link = associate(receiver)
    (context,) = [c.context_id for c in link.accepted_contexts if c.abstract_syntax == CT]
    request = C_STORE()
    request.MessageID, request.Priority = 1, 0
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, make_ct().SOPInstanceUID
    request.DataSet = io.BytesIO(bytes(10_000))
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    command, *_, last = message.encode_msg(context, 1000)
    for part in (command, command, last):
        link.dul.send_pdu(part)
    assert is_aborted_within(link, 5)
    receiver.stop()
    assert store.received() == store.unfinished() == store.instances() == []


def command(field: int, *, data_set: bool) -> bytes:
    """A command set with what every C-STORE request has."""
    uid = CT.encode() + b"\0"
    elements = [(0x0002, uid), (0x0100, struct.pack("<H", field)), (0x0110, b"\1\0"), (0x0700, b"\0\0")]
    elements += [(0x0800, b"\0\0" if data_set else b"\1\1"), (0x1000, b"1.2.3\0")]
    return b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)


def p_data(context: int, control: int, value: bytes) -> bytes:
    item = struct.pack(">LBB", len(value) + 2, context, control) + value
    return b"\x04\0" + struct.pack(">L", len(item)) + item


@pytest.mark.parametrize(
    "pdu",
    [
        p_data(3, 3, command(0x0001, data_set=False)),  # a C-STORE of nothing
        p_data(3, 3, command(0x0020, data_set=True)),  # C-FIND
        p_data(1, 3, command(0x0001, data_set=True)),  # C-STORE where C-ECHO was agreed
        p_data(99, 3, command(0x0001, data_set=True)),  # nothing was agreed there
        p_data(3, 2, bytes(100)),  # a data set without a request
        associate_rq(calling=b"SIMULATOR"),
        b"\x06\0\0\0\0\4\0\0\0\0",  # the answer to a release that nobody asked for
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_was_not_agreed_ends_the_association_and_leaves_nothing(
    start_receiver: Any, store: Any, pdu: bytes
) -> None:
    receiver = start_receiver()
    link = associate(receiver)
    link.dul.socket.socket.sendall(pdu)
    assert is_aborted_within(link, 5)
    receiver.stop()
    assert store.received() == store.unfinished() == store.instances() == []


def test_a_peer_that_was_released_and_stays_holds_no_place(start_receiver: Any) -> None:
    receiver = start_receiver(max_associations=1)
    with connect(receiver) as connection:
        connection.sendall(associate_rq(calling=b"SIMULATOR"))
        assert connection.recv(4096)[0] == 0x02
        connection.sendall(b"\x05\0\0\0\0\4\0\0\0\0")
        assert connection.recv(10)[0] == 0x06
        assert echo_takes_s(receiver) < 2
        assert is_closed_by_peer(connection, 5)


def test_a_port_in_use_is_a_sentence_and_harms_nobody(start_receiver: Any, store: Any) -> None:
    first = start_receiver()
    (store.spool.incoming / "rx-of-the-first.part").write_bytes(b"half an image")
    second = Receiver(first._settings, store.spool, store.series, store.refusals, name="receiver-2", port=first.port)
    with pytest.raises(PortInUse, match=rf"127\.0\.0\.1 port {first.port}") as caught:
        second.start()
    assert isinstance(caught.value, Permanent)
    assert len(store.unfinished()) == 1
    assert echo_takes_s(first) < 2


def test_stop_lets_an_open_association_finish_and_then_aborts(start_receiver: Any, store: Any, make_ct: Any) -> None:
    receiver = start_receiver()
    patient, rude = associate(receiver), associate(receiver)
    assert rude.send_c_store(make_ct(instance=1)).Status == 0x0000
    assert patient.send_c_store(make_ct(instance=2)).Status == 0x0000
    stopping = threading.Thread(target=receiver.stop, args=(0.5,))
    stopping.start()
    assert patient.send_c_store(make_ct(instance=3)).Status == 0x0000
    patient.release()
    stopping.join(60)
    assert is_aborted_within(rude, 5)
    assert sorted(store.outcomes()) == ["ABORTED", "RELEASED"]
    assert len(store.instances()) == 3
