"""Whoever holds a place of the receiver has to make progress, and whoever leaves it is recorded as it left."""

from contextlib import ExitStack
from itertools import repeat
from typing import Any

import pytest

from tests.peers.measures import KNOWN, OTHER, echo_takes_s, shorten, wait_until
from tests.peers.raw_peer import (
    ABORT,
    ASSOCIATE_AC,
    CT_CONTEXT,
    LIMIT_REACHED,
    RELEASE,
    RawPeer,
    Rejected,
    associate_rq,
    connect,
    data_set,
    drip,
    is_ended_by_receiver,
    p_data,
    read_pdu,
)


def test_a_data_set_in_fragments_of_one_byte_is_cut_off(
    start_receiver: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every PDU is whole and in time; only the message as a whole is not."""
    shorten(monkeypatch, "MESSAGE_TIMEOUT_S", 0.6)
    receiver = start_receiver(allowed_peers=[KNOWN])
    with RawPeer(receiver.port) as peer:
        peer.request_store()
        assert drip(peer.connection, repeat(p_data(CT_CONTEXT, 0, b"\0")), every_s=0.2, for_s=6)
    wait_until(lambda: store.unfinished() == [])
    assert echo_takes_s(receiver) < 1


def test_a_command_set_in_fragments_of_one_byte_is_cut_off(
    start_receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, "MESSAGE_TIMEOUT_S", 0.6)
    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        assert drip(peer.connection, repeat(p_data(CT_CONTEXT, 1, b"\0")), every_s=0.2, for_s=6)


def test_a_slow_line_may_take_longer_for_a_message(
    start_receiver: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message above the least rate is whole when it is whole, however large it is."""
    shorten(monkeypatch, "MESSAGE_TIMEOUT_S", 0.6)
    shorten(monkeypatch, "MIN_RATE_BYTES_S", 1000)
    data = data_set() + b"\xe0\x7f\x10\0OB\0\0" + (40_000).to_bytes(4, "little")
    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        peer.request_store()
        peer.send_data(data, last=False)
        pieces = repeat(p_data(CT_CONTEXT, 0, bytes(2000)), 19)
        assert not drip(peer.connection, pieces, every_s=0.1, for_s=10)
        peer.send_data(bytes(2000))
        assert peer.answer() == 0x0000
    assert len(store.instances()) == 1


def test_an_association_with_an_echo_now_and_then_stays_while_places_are_free(
    start_receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A console may keep its association; what counts is the time since its last message."""
    shorten(monkeypatch, "QUIET_TIMEOUT_S", 1.5)
    shorten(monkeypatch, "PDU_TIMEOUT_S", 1.5)
    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        for _ in range(5):
            assert not is_ended_by_receiver(peer.connection, 0.5)
            peer.connection.settimeout(5)
            assert peer.echo() == 0x0000


def test_a_peer_cannot_hold_more_than_its_share(start_receiver: Any) -> None:
    receiver = start_receiver(max_associations=8, max_associations_per_peer=2, allowed_peers=[KNOWN, OTHER])
    with RawPeer(receiver.port, calling="OTHER") as first, RawPeer(receiver.port, calling="OTHER") as second:
        with pytest.raises(Rejected) as caught:
            RawPeer(receiver.port, calling="OTHER")
        assert caught.value.reason == LIMIT_REACHED
        assert first.echo() == second.echo() == 0x0000
        assert echo_takes_s(receiver) < 1


def test_a_release_inside_a_data_set_counts_as_an_abort(start_receiver: Any, store: Any) -> None:
    """A sender that gives up in the middle has not sent its series, whatever it calls that."""
    receiver = start_receiver(allowed_peers=[KNOWN])
    with RawPeer(receiver.port) as peer:
        assert peer.store(b"1.2.3.4", data_set(b"1.2.3.4")) == 0x0000
        peer.request_store(b"1.2.3.5")
        peer.send_data(data_set(b"1.2.3.5"), last=False)
        peer.connection.sendall(RELEASE)
        assert is_ended_by_receiver(peer.connection, 5)
    receiver.stop()
    assert store.outcomes() == ["ABORTED"]
    assert [row.sop_instance_uid for row in store.instances()] == ["1.2.3.4"]
    assert len(store.received()) == 1
    assert store.unfinished() == []


def test_an_abort_between_two_messages_keeps_what_was_stored(start_receiver: Any, store: Any) -> None:
    receiver = start_receiver(allowed_peers=[KNOWN])
    with RawPeer(receiver.port) as peer:
        assert peer.store(b"1.2.3.4", data_set(b"1.2.3.4")) == 0x0000
        peer.connection.sendall(ABORT)
        assert is_ended_by_receiver(peer.connection, 5)
    receiver.stop()
    assert store.outcomes() == ["ABORTED"]
    assert [row.sop_instance_uid for row in store.instances()] == ["1.2.3.4"]
    assert store.unfinished() == []


def test_half_an_association_request_is_cut_off_and_keeps_nobody_out(
    start_receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, "ACSE_TIMEOUT_S", 1.0)
    receiver = start_receiver(max_associations=1, allowed_peers=[KNOWN])
    request = associate_rq()
    with connect(receiver.port) as connection:
        connection.sendall(request[: len(request) // 2])
        assert echo_takes_s(receiver) < 1
        assert is_ended_by_receiver(connection, 6)


def test_the_oldest_connection_without_a_request_gives_way_to_a_new_one(start_receiver: Any) -> None:
    receiver = start_receiver(max_associations=2, allowed_peers=[KNOWN])
    with ExitStack() as crowd:
        # More than any receiver with two places has room for.
        connections = [crowd.enter_context(connect(receiver.port)) for _ in range(300)]
        newest = connections[-1]
        newest.sendall(associate_rq())
        assert read_pdu(newest)[0] == ASSOCIATE_AC
        assert is_ended_by_receiver(connections[0], 2)


def test_an_association_gives_way_to_no_connection(start_receiver: Any) -> None:
    receiver = start_receiver(max_associations=2, allowed_peers=[KNOWN])
    with RawPeer(receiver.port) as peer, ExitStack() as crowd:
        for _ in range(300):
            crowd.enter_context(connect(receiver.port))
        assert peer.store(b"1.2.3.4", data_set(b"1.2.3.4")) == 0x0000
