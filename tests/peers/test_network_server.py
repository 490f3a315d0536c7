"""Why each override of `node.network.server` exists: stock pynetdicom shows the harm, the receiver's server does not.

A stock half that fails after an update of pynetdicom says that the override can go.
"""

import io
import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest
from pynetdicom import transport
from pynetdicom.pdu_items import PresentationContextItemRQ
from pynetdicom.transport import ThreadedAssociationServer

from node.network import dimse_guard, server, upper_layer
from node.network.renewal import receiver_tls
from node.network.server import HardenedServer, Rejection
from node.network.tls import client_context, server_context
from node.network.upper_layer import PlainSocket, WaitingDul
from tests.peers import endings
from tests.peers.certificates import Certificates
from tests.peers.endings import Ending
from tests.peers.key_update import is_answered_after_a_key_update
from tests.peers.measures import wait_until
from tests.peers.raw_peer import (
    ABORT_PDU,
    ASSOCIATE_RJ,
    CT,
    CT_CONTEXT,
    EXPLICIT,
    LIMIT_REACHED,
    RawPeer,
    Rejected,
    associate_rq,
    connect,
    drip,
    flood,
    is_ended_by_receiver,
    p_data,
    read_pdu,
)
from tests.peers.scp_pair import Scp, both, gives_up_sending, hardened, release_takes_s, stock

MORE_THAN_THE_KERNEL_KEEPS = 16 << 20


@pytest.fixture(autouse=True)
def thread_errors(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ended a thread; pytest would fail the test for it, and stock pynetdicom is expected to."""
    errors: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda error: errors.append(repr(error.exc_value)))
    return errors


# -- PduStream ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("associated", [False, True], ids=["before an association", "in an association"])
def test_a_pdu_of_four_gigabytes_is_not_read(associated: bool) -> None:
    def taken_bytes(scp: Scp) -> int:
        with RawPeer(scp.port).connection if associated else connect(scp.port) as connection:
            connection.sendall((b"\x04\0" if associated else b"\x01\0") + b"\xff\xff\xff\xff")
            return flood(connection, bytes(1 << 16), MORE_THAN_THE_KERNEL_KEEPS)

    with both(acse_s=0.3) as (plain, guarded):
        assert taken_bytes(plain) == MORE_THAN_THE_KERNEL_KEEPS
        assert taken_bytes(guarded) < MORE_THAN_THE_KERNEL_KEEPS


def test_a_pdu_that_never_becomes_whole_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upper_layer, "PDU_TIMEOUT_S", 0.3)

    def is_cut_off(scp: Scp) -> bool:
        with RawPeer(scp.port) as peer:
            peer.connection.sendall(p_data(CT_CONTEXT, 0, bytes(1000))[:100])
            return drip(peer.connection, [b"\0"] * 10, every_s=0.1, for_s=5)

    with both(network_s=0.3) as (plain, guarded):
        assert not is_cut_off(plain)
        assert is_cut_off(guarded)


def test_a_peer_that_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upper_layer, "SEND_TIMEOUT_S", 0.2)

    ours, peer = socket.socketpair()
    with peer:
        assert not gives_up_sending(ours)
    ours, peer = socket.socketpair()
    with peer:
        assert gives_up_sending(PlainSocket(fileno=ours.detach()))


# -- the request before the association --------------------------------------------------------------------------------


def test_a_silent_connection_is_no_association() -> None:
    """Stock: two threads for each, of which one waits for the request."""

    def associations(scp: Scp) -> int:
        with ExitStack() as crowd:
            for _ in range(3):
                crowd.enter_context(connect(scp.port))
            wait_until(lambda: scp.has(3) and (scp.is_stock or len(scp.server._connections) == 3))
            time.sleep(0.1)
            return len(scp.associations)

    with both(acse_s=0.3) as (plain, guarded):
        assert associations(plain) == 3
        assert associations(guarded) == 0


def test_a_port_scan_leaves_nothing_behind() -> None:
    """Stock: every connection stays an association until the time for its request is over."""

    def stay(scp: Scp) -> int:
        for _ in range(5):
            connect(scp.port).close()
        wait_until(lambda: scp.has(5))
        time.sleep(0.2)
        return len(scp.server.active_associations)

    with both(acse_s=1.0) as (plain, guarded):
        assert stay(plain) == 5
        assert stay(guarded) == 0
        wait_until(lambda: guarded.server._connections == {})


def test_presentation_contexts_of_a_stranger_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode = PresentationContextItemRQ.decode

    def counting(item: PresentationContextItemRQ, data: bytes) -> None:
        decoded.append(1)
        decode(item, data)

    monkeypatch.setattr(PresentationContextItemRQ, "decode", counting)
    request = associate_rq(calling="STRANGER", contexts=[(CT, (EXPLICIT,))] * 128)

    def decoded_for_a_stranger(scp: Scp) -> int:
        decoded.clear()
        with connect(scp.port) as connection:
            connection.sendall(request)
            assert read_pdu(connection)[0] == ASSOCIATE_RJ
        return len(decoded)

    with stock() as plain:
        plain.server.ae.require_calling_aet = ["SIMULATOR"]
        assert decoded_for_a_stranger(plain) == 128
    with hardened(admit=lambda called, calling, host, certificate: Rejection(1, 1, 3)) as guarded:
        assert decoded_for_a_stranger(guarded) == 0


@pytest.mark.parametrize(
    "noise",
    [b"SSH-2.", b"\x01\0\0\0\0\1\0", b"\x01\0\0\0\0\x44" + bytes(68)],
    ids=["another protocol", "a request of one byte", "titles of NULs"],
)
def test_what_is_no_association_request_is_answered_with_an_abort_and_logged_in_no_traceback(
    noise: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with hardened() as guarded, connect(guarded.port) as connection:
        connection.sendall(noise)
        assert read_pdu(connection)[0] == ABORT_PDU
    assert not any(record.exc_info for record in caplog.records)


# -- _UserQueue --------------------------------------------------------------------------------------------------------


def test_a_release_is_answered_while_the_thread_of_the_association_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimse_guard, "_LOOK_UP_S", 5.0)
    with hardened() as guarded:
        assert release_takes_s(guarded) < 1
    monkeypatch.setattr(dimse_guard, "_LOOK_UP_S", 1.0)
    monkeypatch.setattr(upper_layer, "_UserQueue", lambda association: queue.Queue())
    with hardened() as plain:
        assert release_takes_s(plain) > 0.5


# -- the end of an association -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    endings.ALL,
    ids=lambda end: end.__name__,
)
def test_the_end_of_an_association_is_told_once_and_in_time_when_nothing_of_it_runs(
    end: Ending, monkeypatch: pytest.MonkeyPatch, thread_errors: list[str]
) -> None:
    monkeypatch.setattr(upper_layer, "PDU_TIMEOUT_S", 1.5)
    with hardened(acse_s=1.5) as guarded:
        begun = time.perf_counter()
        end(guarded.port)
        wait_until(lambda: guarded.ended != [] and guarded.server._connections == {})
        took_s = time.perf_counter() - begun
        assert guarded.ended == [(end in (endings.release, endings.release_and_half_a_pdu), 0)]
        assert guarded.server.running == set()
    assert thread_errors == []
    assert took_s < 1


@pytest.mark.parametrize(
    ("end", "is_told"),
    [
        (endings.release, True),
        (endings.abort, True),
        (endings.broken_inside_a_data_set, True),
        (endings.malformed_request, False),
        (endings.unwanted, False),
    ],
)
def test_stock_tells_the_end_of_an_association_too_early_or_not_at_all(end: Ending, is_told: bool) -> None:
    with stock(acse_s=0.5) as plain:
        end(plain.port)
        wait_until(lambda: plain.associations != [] and plain.is_idle())
        assert all(alive > 0 for _, alive in plain.events)
        assert bool({name for name, _ in plain.events} & {"EVT_RELEASED", "EVT_ABORTED"}) is is_told


def test_an_association_inside_a_pdu_is_aborted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop, or a place for somebody else, must not wait for the rest of a PDU."""
    monkeypatch.setattr(upper_layer, "PDU_TIMEOUT_S", 1.5)
    with hardened() as guarded, RawPeer(guarded.port) as peer:
        peer.connection.sendall(b"\x04\0\0")
        time.sleep(0.1)  # until it is read
        guarded.server.abort_all()
        assert guarded.server.wait_until_idle(1)


def test_an_association_without_a_thread_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    with hardened() as guarded:
        monkeypatch.setattr(WaitingDul, "start", _no_thread)
        with pytest.raises(ConnectionError):
            RawPeer(guarded.port)
        wait_until(lambda: guarded.server._connections == {})
        assert guarded.ended == [(False, 0)]
        assert guarded.server.running == set()


def _no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


# -- connections -------------------------------------------------------------------------------------------------------


def test_a_silent_tls_client_stops_no_other(certificates: Certificates) -> None:
    def shakes_hands(scp: Scp) -> bool:
        with connect(scp.port), connect(scp.port, timeout_s=1) as connection:
            try:
                client_context(certificates.settings()).wrap_socket(connection, server_hostname="127.0.0.1").close()
            except TimeoutError:
                return False
            return True

    with stock(ssl_context=server_context(certificates.settings())) as plain:
        assert not shakes_hands(plain)
    with hardened(tls=receiver_tls(certificates.settings())) as guarded:
        assert shakes_hands(guarded)


def test_an_answer_does_not_wait_for_the_peer_after_a_key_update(certificates: Certificates) -> None:
    """A TLS record without data makes the connection readable, and then there is nothing to read."""
    handling = threading.Event()

    def handle() -> None:
        handling.set()
        time.sleep(0.5)

    with hardened(tls=receiver_tls(certificates.settings())) as guarded:
        guarded.on_store = handle
        assert is_answered_after_a_key_update(guarded.port, certificates, handling, 2)


def test_12_silent_connections_keep_nobody_out() -> None:
    def answer(scp: Scp) -> tuple[int, int, int] | None:
        with ExitStack() as crowd:
            for number in range(12):
                crowd.enter_context(connect(scp.port))
                wait_until(partial(scp.has, number + 1))
            try:
                RawPeer(scp.port).connection.close()
            except Rejected as rejected:
                return rejected.reason
            return None

    with both(acse_s=1.0) as (plain, guarded):
        assert answer(plain) == LIMIT_REACHED
        assert answer(guarded) is None


def test_the_oldest_connection_of_a_host_that_asked_for_nothing_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SPARE_CONNECTIONS", 1)
    with hardened(max_associations=2) as guarded, RawPeer(guarded.port) as peer, ExitStack() as crowd:
        silent = [crowd.enter_context(connect(guarded.port)) for _ in range(3)]
        assert is_ended_by_receiver(silent[0], 2)
        assert not is_ended_by_receiver(silent[1], 0.1)
        assert peer.echo() == 0x0000


def test_a_host_full_of_associations_gets_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SPARE_CONNECTIONS", 1)
    with hardened(max_associations=1) as guarded, RawPeer(guarded.port) as first, RawPeer(guarded.port) as second:
        with connect(guarded.port) as connection:
            assert is_ended_by_receiver(connection, 2)
        with connect(guarded.port, source="127.0.0.2") as connection:
            assert not is_ended_by_receiver(connection, 0.1)
        assert first.echo() == second.echo() == 0x0000


def test_a_stranger_gives_way_to_a_known_host_and_a_known_host_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SPARE_CONNECTIONS", 1)
    with hardened(max_associations=1) as guarded, ExitStack() as crowd:
        guarded.is_known_host = lambda host: host == "127.0.0.1"
        known = [crowd.enter_context(connect(guarded.port)) for _ in range(2)]
        strangers = [crowd.enter_context(connect(guarded.port, source=f"127.0.0.{n}")) for n in (2, 3, 4, 5)]
        newcomer = crowd.enter_context(connect(guarded.port, source="127.0.0.6"))
        assert is_ended_by_receiver(strangers[0], 2)
        assert not is_ended_by_receiver(newcomer, 0.1)
        assert not any(is_ended_by_receiver(one, 0.1) for one in known)


def test_a_burst_of_connections_waits_to_be_accepted() -> None:
    def are_connected(scp: Scp) -> bool:
        with ExitStack() as crowd:
            try:
                for _ in range(20):
                    crowd.enter_context(connect(scp.port, timeout_s=0.3))
            except TimeoutError:
                return False
            return True

    with stock(serve=False) as plain:
        assert not are_connected(plain)
    with hardened(serve=False) as guarded:
        assert are_connected(guarded)


def test_the_accepting_thread_collects_no_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[int] = []
    monkeypatch.setattr(transport, "gc", type("gc", (), {"collect": lambda: collected.append(1)}))

    def collections_in_60_turns(scp: Scp) -> int:
        collected.clear()
        for _ in range(60):
            scp.server.service_actions()
        return len(collected)

    with stock(serve=False) as plain, hardened(serve=False) as guarded:
        assert collections_in_60_turns(plain) == 1
        assert collections_in_60_turns(guarded) == 0


def test_a_connection_without_a_thread_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `process_request` a system short of threads would fill the server with connections that nobody ends."""

    def counted(process_request: Callable[..., None]) -> int:
        with hardened(serve=False) as scp, socket.create_server(("127.0.0.1", 0)) as other:
            connection = socket.create_connection(other.getsockname())
            assert scp.server.verify_request(connection, ("127.0.0.1", 1))
            with monkeypatch.context() as patch, connection:
                patch.setattr(threading.Thread, "start", _no_thread)
                with pytest.raises(RuntimeError):
                    process_request(scp.server, connection, ("127.0.0.1", 1))
            return len(scp.server._connections)

    assert counted(ThreadedAssociationServer.process_request) == 1
    assert counted(HardenedServer.process_request) == 0


def test_an_error_of_the_accepting_thread_is_logged_and_not_printed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def printed(scp: Scp) -> str:
        with monkeypatch.context() as patch:
            patch.setattr("sys.stderr", text := io.StringIO())
            try:
                raise OSError("no room")
            except OSError:
                scp.server.handle_error(None, ("127.0.0.1", 1))
            return text.getvalue()

    with stock(serve=False) as plain, hardened(serve=False) as guarded:
        assert "no room" in printed(plain)
        assert printed(guarded) == ""
    assert caplog.messages == ["a connection could not be accepted"]
