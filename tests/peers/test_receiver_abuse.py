"""What a known peer is promised while the receiver is abused: one test for each abuse that was measured.

The figures are of stock pynetdicom 3.0.4 with `AE.start_server`. Crowds have tests of their own.
"""

import os
import threading
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from tests.peers.measures import KNOWN, OTHER, echo_takes_s, memory_grows_less_than, shorten, size_bytes, wait_until
from tests.peers.raw_peer import (
    ABORT_PDU,
    CT_CONTEXT,
    RawPeer,
    connect,
    drip,
    flood,
    is_ended_by_receiver,
    p_data,
    read_pdu,
)

MEGABYTE = 1_000_000
ENDLESS_MB = 400 if os.environ.get("SYNCECT_ABUSE") == "long" else 100


def test_12_silent_connections_do_not_keep_a_known_peer_out(start_receiver: Any) -> None:
    """Stock: rejected for 28 s with 10 places."""
    receiver = start_receiver(max_associations=10, allowed_peers=[KNOWN])
    with ExitStack() as crowd:
        for _ in range(12):
            crowd.enter_context(connect(receiver.port))
        assert echo_takes_s(receiver) < 1


def test_10_ssh_banners_do_not_keep_a_known_peer_out(start_receiver: Any) -> None:
    """Stock: rejected for 30 s, and 14 threads."""
    receiver = start_receiver(max_associations=10, allowed_peers=[KNOWN])
    with ExitStack() as crowd:
        for _ in range(10):
            crowd.enter_context(connect(receiver.port)).sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n")
        assert echo_takes_s(receiver) < 1


def test_300_connections_that_close_at_once_cost_few_threads(start_receiver: Any) -> None:
    """Stock: 303 threads, rejected for 30 s; a load balancer's probe or a port scan does this."""
    receiver = start_receiver(max_associations=10, allowed_peers=[KNOWN])
    before = threading.active_count()
    most = 0
    for _ in range(300):
        connect(receiver.port).close()
        most = max(most, threading.active_count() - before)
    assert most <= 100
    assert echo_takes_s(receiver) < 1


def test_silent_associations_of_one_peer_leave_a_place_for_another(start_receiver: Any) -> None:
    """Stock: rejected for 60 s, as long as its network timeout."""
    receiver = start_receiver(max_associations=2, allowed_peers=[KNOWN, OTHER])
    with ExitStack() as crowd:
        for _ in range(2):
            try:
                crowd.enter_context(RawPeer(receiver.port, calling="OTHER"))
            except ConnectionError:
                break  # a peer may have a smaller share than all places
        assert echo_takes_s(receiver) < 1


def test_a_silent_association_is_ended_and_its_place_is_free(
    start_receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stock: after 60 s."""
    shorten(monkeypatch, "QUIET_TIMEOUT_S", 0.5)
    receiver = start_receiver(max_associations=1, allowed_peers=[KNOWN])
    with RawPeer(receiver.port) as peer:
        assert is_ended_by_receiver(peer.connection, 5)
    wait_until(lambda: has_a_place(receiver.port))


def test_a_pdu_that_drips_is_cut_off(start_receiver: Any, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock: one byte every ten seconds held the place for more than 130 s, without an end."""
    shorten(monkeypatch, "PDU_TIMEOUT_S", 0.5)
    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        peer.request_store()
        pdu = p_data(CT_CONTEXT, 0, bytes(1000))
        peer.connection.sendall(pdu[:100])
        assert drip(peer.connection, (bytes([byte]) for byte in pdu[100:]), every_s=0.1, for_s=5)
    wait_until(lambda: store.unfinished() == [])


def test_an_association_request_of_four_gigabytes_is_not_read(start_receiver: Any) -> None:
    """Stock: 448 MB in memory before any association."""
    receiver = start_receiver(allowed_peers=[KNOWN])
    with memory_grows_less_than(30), connect(receiver.port) as connection:
        connection.sendall(b"\x01\0\xff\xff\xff\xff")
        flood(connection, bytes(1 << 16), 300 * MEGABYTE)
        assert is_ended_by_receiver(connection, 5)
    assert echo_takes_s(receiver) < 1


def test_a_fragment_longer_than_agreed_ends_the_association(start_receiver: Any, store: Any) -> None:
    """Stock: accepted."""
    receiver = start_receiver(allowed_peers=[KNOWN])
    with RawPeer(receiver.port) as peer:
        assert 0 < peer.max_pdu_bytes <= 128 * 1024
        peer.request_store()
        flood(peer.connection, p_data(CT_CONTEXT, 0, bytes(1 << 20)), 8 << 20)
        with suppress(ConnectionError):  # what is unread when the connection ends can take the A-ABORT with it
            assert read_pdu(peer.connection)[0] == ABORT_PDU
        assert is_ended_by_receiver(peer.connection, 5)
    wait_until(lambda: store.unfinished() == [])
    assert store.received() == []
    assert echo_takes_s(receiver) < 1


def test_an_endless_data_set_costs_neither_memory_nor_disk(start_receiver: Any, store: Any) -> None:
    """Stock: 441 MB of memory for 400 MB, or a temporary file that stays for ever."""
    receiver = start_receiver(allowed_peers=[KNOWN], max_dataset_bytes=8 * MEGABYTE)
    with memory_grows_less_than(30), RawPeer(receiver.port, timeout_s=30) as peer:
        peer.request_store()
        fragment = p_data(CT_CONTEXT, 0, bytes(peer.max_pdu_bytes - 6))
        most = 0
        for _ in range(ENDLESS_MB // 10):
            if flood(peer.connection, fragment, 10 * MEGABYTE) < 10 * MEGABYTE:
                break  # aborted
            most = max([most, *(size_bytes(path) for path in store.unfinished())])
        with suppress(ConnectionError):  # the receiver may abort as well
            peer.send_data(b"", last=True)
            assert peer.answer() == 0xA700
    assert most <= 9 * MEGABYTE
    wait_until(lambda: store.unfinished() == [])
    assert store.received() == []
    assert echo_takes_s(receiver) < 1


def has_a_place(port: int) -> bool:
    """Whether the receiver accepts one more association."""
    try:
        with RawPeer(port) as peer:
            return peer.echo() == 0x0000
    except ConnectionError:
        return False
