"""Why `node.network.dimse_guard` exists: stock pynetdicom shows the harm, the guarded provider does not.

A stock half that fails after an update of pynetdicom says that this part of the guard can go.
"""

import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from pynetdicom import _config
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider

from node.network import dimse_guard
from node.network.dimse_guard import DimseGuard
from tests.peers.measures import wait_until
from tests.peers.raw_peer import (
    ABORT,
    ABORT_PDU,
    COMMAND,
    CT,
    CT_CONTEXT,
    ECHO_CONTEXT,
    LAST,
    RELEASE,
    VERIFICATION,
    RawPeer,
    data_set,
    drip,
    encode_command,
    even,
    is_ended_by_receiver,
    p_data,
    read_pdu,
)
from tests.peers.scp_pair import Scp, both, hardened, stock

MR = "1.2.840.10008.5.1.4.1.1.4"
WHOLE = COMMAND | LAST


@pytest.fixture(autouse=True)
def thread_errors(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ended a thread; pytest would fail the test for it, and stock pynetdicom is expected to."""
    errors: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda error: errors.append(repr(error.exc_value)))
    return errors


def c_store(uid: bytes = b"1.2.3.4", *, with_data: bool = True, sop_class: str = CT) -> bytes:
    """The command set of a C-STORE request."""
    kind = b"\0\0" if with_data else b"\1\1"
    return encode_command(sop_class.encode(), 0x0001, 1, [(0x0700, b"\0\0"), (0x0800, kind), (0x1000, even(uid))])


C_ECHO = p_data(ECHO_CONTEXT, WHOLE, encode_command(VERIFICATION.encode(), 0x0030, 1, [(0x0800, b"\1\1")]))


def end(scp: Scp, *pdus: bytes) -> bool | None:
    """What the SCP does about these PDUs: True where it aborts, False where it answers, None for nothing at all."""
    with RawPeer(scp.port) as peer:
        peer.connection.sendall(b"".join(pdus))
        peer.connection.settimeout(0.4)
        try:
            return read_pdu(peer.connection)[0] == ABORT_PDU
        except TimeoutError:
            return None
        except ConnectionError:
            return True


# -- what is no DIMSE message ------------------------------------------------------------------------------------------


def test_a_command_set_without_an_end_is_not_collected() -> None:
    fragments = [p_data(CT_CONTEXT, COMMAND, bytes(10_000))] * 100
    with both() as (plain, guarded):
        assert end(plain, *fragments) is None
        assert end(guarded, *fragments) is True


def test_a_message_in_a_context_that_was_not_accepted_ends_the_association_at_its_command() -> None:
    with both() as (plain, guarded):
        assert end(plain, p_data(99, WHOLE, c_store()), p_data(99, 0, bytes(1000))) is None
        assert end(guarded, p_data(99, WHOLE, c_store()), p_data(99, 0, bytes(1000))) is True


def test_a_data_set_without_a_command_gets_into_no_instance() -> None:
    pdus = [p_data(CT_CONTEXT, 0, b"stray"), p_data(CT_CONTEXT, WHOLE, c_store()), p_data(CT_CONTEXT, LAST, b"own")]
    with both() as (plain, guarded):
        assert end(plain, *pdus) is False
        assert plain.stored == [("1.2.3.4", b"strayown")]
        assert end(guarded, *pdus) is True
        assert guarded.stored == []


def test_a_command_inside_a_data_set_does_not_rename_the_instance() -> None:
    pdus = [
        p_data(CT_CONTEXT, WHOLE, c_store(b"1.2.3.4")),
        p_data(CT_CONTEXT, 0, b"half "),
        p_data(CT_CONTEXT, WHOLE, c_store(b"1.2.3.5")),
        p_data(CT_CONTEXT, LAST, b"rest"),
    ]
    with both() as (plain, guarded):
        assert end(plain, *pdus) is False
        assert [data for _, data in plain.stored] == [b"half rest"]
        assert end(guarded, *pdus) is True
        assert guarded.stored == []


def test_a_c_store_without_a_data_set_is_no_success() -> None:
    """Stock: the handler gets an instance of no bytes and answers for it."""
    pdu = p_data(CT_CONTEXT, WHOLE, c_store(with_data=False))
    with both() as (plain, guarded):
        assert end(plain, pdu) is False
        assert plain.stored == [("1.2.3.4", b"")]
        assert end(guarded, pdu) is True
        assert guarded.stored == []


def test_a_service_does_not_run_in_a_context_of_another() -> None:
    pdus = [p_data(ECHO_CONTEXT, WHOLE, c_store()), p_data(ECHO_CONTEXT, LAST, b"own")]
    with both() as (plain, guarded):
        assert end(plain, *pdus) is False
        assert plain.stored == [("1.2.3.4", b"own")]
        assert end(guarded, *pdus) is True
        assert guarded.stored == []


def test_an_instance_of_another_sop_class_than_that_of_its_context_costs_one_status() -> None:
    pdus = [p_data(CT_CONTEXT, WHOLE, c_store(sop_class=MR)), p_data(CT_CONTEXT, LAST, b"own")]
    with both() as (plain, guarded):
        assert end(plain, *pdus) is False
        assert plain.stored == [("1.2.3.4", b"own")]
        assert end(guarded, *pdus) is False
        assert guarded.stored == []


@pytest.mark.parametrize("field", [0x0020, 0x0021, 0x0010, 0x0FFF, 0x8001], ids=lambda field: f"{field:04X}")
def test_another_message_than_a_c_store_request_ends_the_association_at_its_command(field: int) -> None:
    """C-FIND, C-MOVE, C-GET, C-CANCEL and a response; stock collects their data sets before it looks at them."""
    command = encode_command(CT.encode(), field, 1, [(0x0120, b"\1\0"), (0x0700, b"\0\0"), (0x0800, b"\0\0")])
    with both() as (plain, guarded):
        assert end(plain, p_data(CT_CONTEXT, WHOLE, command)) is None
        assert end(guarded, p_data(CT_CONTEXT, WHOLE, command)) is True


def test_a_malformed_command_set_is_answered_with_an_abort(thread_errors: list[str]) -> None:
    """Stock: the thread of the upper layer ends with an exception."""
    garbage = p_data(CT_CONTEXT, WHOLE, b"\xff" * 40)
    with stock() as plain, RawPeer(plain.port) as peer:
        peer.connection.sendall(garbage)
        assert is_ended_by_receiver(peer.connection, 5)
        wait_until(lambda: thread_errors != [])
    thread_errors.clear()
    with hardened() as guarded:
        with RawPeer(guarded.port) as peer:
            peer.connection.sendall(garbage)
            assert read_pdu(peer.connection)[0] == ABORT_PDU
        wait_until(lambda: guarded.ended == [(False, 0)])
    assert thread_errors == []


# -- UIDs --------------------------------------------------------------------------------------------------------------


def store_status(scp: Scp, uid: bytes) -> int | None:
    with RawPeer(scp.port, timeout_s=0.5) as peer, suppress(TimeoutError):
        return peer.store_status(uid, data_set(uid))
    return -1


def test_a_uid_that_is_none_costs_one_status_and_reaches_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock: it ends the association, or with the other value of its only switch comes through as it is."""
    with both() as (plain, guarded):
        assert store_status(plain, b"../../evil") == 0x0000
        assert plain.stored[0][0] == "../../evil"
        monkeypatch.setattr(_config, "ENFORCE_UID_CONFORMANCE", True)
        assert store_status(plain, b"../../evil") is None
        for enforce in (True, False):
            monkeypatch.setattr(_config, "ENFORCE_UID_CONFORMANCE", enforce)
            assert store_status(guarded, b"../../evil") == 0xC000
        assert guarded.stored == []


def test_an_empty_uid_is_not_left_unanswered() -> None:
    with both() as (plain, guarded):
        assert store_status(plain, b"") == -1
        assert store_status(guarded, b"") == 0xC000


# -- progress ----------------------------------------------------------------------------------------------------------


def test_a_release_inside_a_data_set_is_no_orderly_end() -> None:
    def give_up(scp: Scp) -> None:
        with RawPeer(scp.port) as peer:
            peer.request_store()
            peer.send_data(b"half", last=False)
            peer.connection.sendall(RELEASE)
            assert is_ended_by_receiver(peer.connection, 5)

    with both() as (plain, guarded):
        give_up(plain)
        wait_until(plain.is_idle)
        assert plain.associations[0].is_released
        assert "EVT_RELEASED" in {name for name, _ in plain.events}
        give_up(guarded)
        wait_until(lambda: guarded.ended == [(False, 0)])


def test_a_message_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimse_guard, "MESSAGE_TIMEOUT_S", 0.3)

    def is_cut_off(scp: Scp) -> bool:
        with RawPeer(scp.port) as peer:
            peer.request_store()
            return drip(peer.connection, [p_data(CT_CONTEXT, 0, b"\0")] * 10, every_s=0.1, for_s=5)

    with both(network_s=2.0) as (plain, guarded):
        assert not is_cut_off(plain)
        assert is_cut_off(guarded)


@pytest.mark.parametrize("pdu", [p_data(CT_CONTEXT, 0, b"\0"), b"\x04\0\0\0\0\0"], ids=["one byte", "no byte"])
def test_a_message_that_stops_after_a_quick_beginning_is_cut_off(pdu: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came quickly stays in memory, and counts against every other peer, as long as the association lives."""
    monkeypatch.setattr(dimse_guard, "MESSAGE_TIMEOUT_S", 0.3)
    with hardened(network_s=0.5) as guarded, RawPeer(guarded.port) as peer:
        peer.request_store()
        peer.send_data(bytes(500_000), last=False)
        assert drip(peer.connection, [pdu] * 15, every_s=0.1, for_s=5)


def test_requests_that_wait_for_no_answer_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are answered in the end; stock keeps in memory whatever comes before that."""

    def waiting(scp: Scp, count: int) -> int:
        go_on, storing = threading.Event(), threading.Event()

        def store() -> None:
            storing.set()
            go_on.wait(5)

        scp.on_store = store
        with RawPeer(scp.port) as peer:
            peer.request_store()
            peer.send_data(b"own")
            for _ in range(count):
                peer.connection.sendall(C_ECHO)
            messages = scp.associations[-1].dimse.msg_queue
            wait_until(storing.is_set)
            wait_until(lambda: messages.qsize() >= min(count, 3))
            time.sleep(0.3)
            most = messages.qsize()
            go_on.set()
            assert [peer.answer() for _ in range(count + 1)] == [0x0000] * (count + 1)
        return int(most)

    with both() as (plain, guarded):
        assert waiting(plain, 50) == 50
        assert waiting(guarded, 50) == 3


def test_a_megabyte_of_fragments_without_data_costs_little() -> None:
    """The headers alone of 170,000 fragments; as one fragment the same bytes cost four milliseconds."""
    item = struct.pack(">LBB", 2, CT_CONTEXT, 0)
    pdu = b"\x04\0" + struct.pack(">L", 17_000 * len(item)) + 17_000 * item
    with hardened() as guarded, RawPeer(guarded.port, timeout_s=30) as peer:
        begun = time.process_time()
        peer.request_store()
        with suppress(ConnectionError):  # the receiver may abort
            peer.connection.sendall(10 * pdu)
            peer.send_data(b"own")
            peer.answer()
        assert time.process_time() - begun < 0.2


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_an_idle_association_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock: both threads look a thousand times a second."""
    looks: Counter[str] = Counter()

    def count(owner: type, name: str, thread: str) -> None:
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **more: (looks.update([thread]), original(*args, **more))[1])

    def looks_in_half_a_second(scp: Scp) -> Counter[str]:
        with RawPeer(scp.port) as peer:
            assert peer.echo() == 0x0000
            looks.clear()
            time.sleep(0.5)
            return looks.copy()

    with both() as (plain, guarded):
        count(DULServiceProvider, "_process_recv_primitive", "upper layer")
        count(DIMSEServiceProvider, "get_msg", "association")
        count(DimseGuard, "get_msg", "association of ours")
        seen = looks_in_half_a_second(plain)
        assert min(seen["upper layer"], seen["association"]) > 50
        seen = looks_in_half_a_second(guarded)
        assert max(seen["upper layer"], seen["association of ours"]) <= 6


# -- bytes in flight ---------------------------------------------------------------------------------------------------


def _abort(peer: RawPeer) -> None:
    peer.connection.sendall(ABORT)


def _release(peer: RawPeer) -> None:
    peer.connection.sendall(RELEASE)


def _garbage(peer: RawPeer) -> None:
    peer.connection.sendall(b"GET / HTTP/1.1\r\n\r\n")


def _break(peer: RawPeer) -> None:
    peer.connection.close()


def _refused(peer: RawPeer) -> None:
    peer.send_data(bytes(1 << 21), last=False)


@pytest.mark.parametrize("leave", [_abort, _release, _garbage, _break, _refused])
def test_no_byte_is_in_flight_after_an_association_that_ends_inside_a_data_set(
    leave: Callable[[RawPeer], None],
) -> None:
    with hardened() as guarded:
        with RawPeer(guarded.port) as peer:
            peer.request_store()
            peer.send_data(bytes(100_000), last=False)
            wait_until(lambda: guarded.server.limits.in_flight._bytes == 100_000)
            leave(peer)
        wait_until(lambda: guarded.ended == [(False, 0)])
        assert guarded.server.limits.in_flight._bytes == 0


@pytest.mark.parametrize("uid", [b"1.2.3.4", b"no UID", b""])
def test_no_byte_is_in_flight_after_an_answer(uid: bytes) -> None:
    with hardened() as guarded, RawPeer(guarded.port) as peer:
        peer.store(uid, bytes(1000))
        assert guarded.server.limits.in_flight._bytes == 0


def test_no_byte_is_in_flight_after_a_handler_that_raises() -> None:
    def fail() -> None:
        raise OSError("no space left")

    with hardened() as guarded, RawPeer(guarded.port) as peer:
        guarded.on_store = fail
        assert peer.store(b"1.2.3.4", bytes(1000)) == 0xC211
        assert guarded.server.limits.in_flight._bytes == 0


def test_no_byte_is_in_flight_after_an_abort_while_instances_wait() -> None:
    go_on = threading.Event()
    with hardened() as guarded:
        guarded.on_store = lambda: go_on.wait(5)
        with RawPeer(guarded.port) as peer:
            for _ in range(3):
                peer.request_store()
                peer.send_data(bytes(1000))
            wait_until(lambda: guarded.server.limits.in_flight._bytes == 3000)
            peer.connection.sendall(ABORT)
        go_on.set()
        wait_until(lambda: guarded.ended == [(False, 0)])
        assert guarded.server.limits.in_flight._bytes == 0


@pytest.mark.parametrize(
    ("limit", "comment"),
    [
        ({"max_dataset_bytes": 500_000}, b"an instance above 0.5 MB is never taken"),
        ({"max_in_flight_bytes": 500_000}, b"the spool or the memory takes no more at this moment"),
    ],
)
def test_a_data_set_above_a_limit_costs_one_status(
    limit: dict[str, Any], comment: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dimse_guard, "ALWAYS_BYTES", 0)
    with stock() as plain, RawPeer(plain.port) as peer:
        assert peer.store(b"1.2.3.4", bytes(2_000_000)) == 0x0000
    with hardened(**limit) as guarded, RawPeer(guarded.port) as peer:
        peer.request_store()
        peer.send_data(bytes(2_000_000))
        _, body = read_pdu(peer.connection)
        assert struct.pack("<HHLH", 0, 0x0900, 2, 0xA700) in body
        assert comment in body
        assert peer.store(b"1.2.3.5", b"own") == 0x0000
        assert guarded.stored == [("1.2.3.5", b"own")]
        assert guarded.server.limits.in_flight._bytes == 0


def test_a_slice_is_taken_while_a_large_data_set_has_all_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimse_guard, "ALWAYS_BYTES", 100_000)
    with hardened(max_in_flight_bytes=500_000) as guarded, RawPeer(guarded.port) as large:
        large.request_store()
        large.send_data(bytes(450_000), last=False)
        wait_until(lambda: guarded.server.limits.in_flight._bytes == 450_000)
        with RawPeer(guarded.port) as peer:
            assert peer.store(b"1.2.3.4", bytes(90_000)) == 0x0000
            assert peer.store(b"1.2.3.5", bytes(200_000)) == 0xA700
