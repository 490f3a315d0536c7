"""An instance that the receiver refuses, or that is cut off, is known to its series; the association goes on."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from storage.errors import SpoolFull
from storage.overview import Overview
from tests.peers.measures import KNOWN, wait_until
from tests.peers.raw_peer import ABORT, RELEASE, RawPeer, data_set, read_pdu

GOOD = b"1.2.3.99"


def lacking(store: Any, series_uid: str = "1.2.3.1") -> list[tuple[str, str]]:
    """UID and reason of what a series is known to lack."""
    later = datetime.now(UTC) + timedelta(hours=1)
    found = {one.series_uid: one.missing for one in store.series.undecided(later, 0.0)}
    return [(one.name, one.reason) for one in found.get(series_uid, ())]


def answered_uid(peer: RawPeer, uid: bytes, data: bytes) -> bytes | None:
    """The Affected SOP Instance UID of the answer to a C-STORE request; None where it has none."""
    peer.request_store(uid)
    peer.send_data(data)
    _, body = read_pdu(peer.connection)
    at = body.find(b"\0\0\0\x10")
    return None if at < 0 else body[at + 8 : at + 8 + body[at + 4]].rstrip(b"\0")


@pytest.mark.parametrize(
    ("uid", "data", "name", "reason"),
    [
        (b"1.2.x3", data_set(b"1.2.x3"), "with a malformed UID", "status C000"),
        (b"1." + b"2" * 70, data_set(b"1." + b"2" * 70), "with a malformed UID", "status C000"),
        (b"1.2.3.5", data_set(b"1.2.3.6"), "1.2.3.6", "status A900"),
        (b"1.2.3.5", data_set(b"1.2.3.5", between=b"\x09\0\x10\0OB\0\0\0\0\x20\0" + bytes(1 << 21)), "1.2.3.5", "A700"),
        (b"1.2.3.5", data_set(b"1.2.3.5", study=b"1.2.x"), "1.2.3.5", "status C000"),
    ],
    ids=["a letter", "72 characters", "another instance", "too large", "the study"],
)
def test_what_is_refused_is_missing_in_its_series_and_the_next_instance_is_stored(
    start_receiver: Any, store: Any, uid: bytes, data: bytes, name: str, reason: str
) -> None:
    receiver = start_receiver(allowed_peers=[KNOWN], max_dataset_bytes=1 << 20)
    with RawPeer(receiver.port) as peer:
        assert peer.store(uid, data) != 0x0000
        assert peer.store(GOOD, data_set(GOOD)) == 0x0000
    ((found, why),) = lacking(store)
    assert found == name
    assert reason in why
    assert [row.sop_instance_uid for row in store.instances()] == [GOOD.decode()]


def test_an_instance_that_was_refused_and_then_stored_is_missing_no_more(start_receiver: Any, store: Any) -> None:
    uid = b"1.2.3.5"
    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        assert peer.store(b"1.2.3.6", data_set(uid)) == 0xA900
        assert lacking(store) == [("1.2.3.5", lacking(store)[0][1])]
        assert peer.store(uid, data_set(uid)) == 0x0000
    assert lacking(store) == []


def test_a_full_spool_is_an_event_of_the_series_that_did_not_fit(
    start_receiver: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise SpoolFull("below the reserve")

    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        monkeypatch.setattr(store.spool, "keep", full)
        assert peer.store(b"1.2.3.5", data_set(b"1.2.3.5")) == 0xA700
    assert lacking(store) == [("1.2.3.5", "refused with status A700 (the spool takes no more)")]
    (case,) = Overview(store.database).cases()
    assert (case.state, case.calling_ae, case.slices.received) == ("RECEIVING", "SIMULATOR", 0)


@pytest.mark.parametrize("stored_first", [True, False])
@pytest.mark.parametrize(
    ("begun", "series"),
    [(data_set(b"1.2.3.5") + bytes(100), "1.2.3.1"), (b"", "")],
    ids=["its series had come", "nothing had come"],
)
def test_what_was_under_way_when_its_association_ended_is_missing(
    start_receiver: Any, store: Any, begun: bytes, series: str, stored_first: bool
) -> None:
    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        if stored_first:
            assert peer.store(GOOD, data_set(GOOD)) == 0x0000
        peer.request_store(b"1.2.3.5")
        if begun:
            peer.send_data(begun, last=False)
        peer.connection.sendall(ABORT)
    wait_until(lambda: store.outcomes() == ["ABORTED"])
    expected = [("1.2.3.5", "under way when its association was aborted")]
    assert lacking(store) == (expected if stored_first or series else [])


def test_garbage_may_belong_to_every_series_of_its_association(start_receiver: Any, store: Any) -> None:
    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        assert peer.store(GOOD, data_set(GOOD)) == 0x0000
        assert peer.store(b"1.2.4.99", data_set(b"1.2.4.99", series=b"1.2.4.1")) == 0x0000
        assert peer.store(b"1.2.3.5", b"garbage") == 0xC000
    assert [name for name, _ in lacking(store)] == ["1.2.3.5"]
    assert [name for name, _ in lacking(store, "1.2.4.1")] == ["1.2.3.5"]


@pytest.mark.parametrize(
    ("uid", "echoed"),
    [
        (b"1.2.03.4", b"1.2.03.4"),
        (b"1.2.3.4 ", b"1.2.3.4"),
        (b"1.2.x3", b"1.2.x3"),
        (b"1.2\\1.3", b"1.2\\1.3"),
        (b"1." + b"2" * 63, None),
        (b"", None),
    ],
)
def test_the_answer_names_the_instance_as_the_request_did(
    start_receiver: Any, uid: bytes, echoed: bytes | None
) -> None:
    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        assert answered_uid(peer, uid, data_set(uid)) == echoed
        assert peer.store(GOOD, data_set(GOOD)) == 0x0000


@pytest.mark.parametrize("level", ["study", "series"])
@pytest.mark.parametrize("uid", [b"1." + b"2" * 65, b"1." + b"0" * 126, b"1..2", b"1.2.3 "])
def test_a_long_or_irregular_uid_of_study_or_series_is_kept_as_it_came(
    start_receiver: Any, store: Any, level: str, uid: bytes
) -> None:
    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        assert peer.store(GOOD, data_set(GOOD, **{level: uid})) == 0x0000
    (case,) = Overview(store.database).cases()
    assert {"study": case.study_uid, "series": case.series_uid}[level] == uid.decode().strip()


def identity(moment: datetime) -> datetime:
    return moment


def ended(store: Any, count: int) -> bool:
    """Whether so many associations were released."""
    return bool(store.outcomes() == ["RELEASED"] * count)


def test_a_pause_within_a_series_is_learned(start_receiver: Any, store: Any) -> None:
    receiver = start_receiver(allowed_peers=[KNOWN])
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for number, second in enumerate((0, 9, 10)):
        moment = now + timedelta(seconds=second)
        receiver._clock = partial(identity, moment)
        uid = f"1.2.3.{number}".encode()
        with RawPeer(receiver.port) as peer:
            assert peer.store(uid, data_set(uid)) == 0x0000
            peer.connection.sendall(RELEASE)
            read_pdu(peer.connection)
        wait_until(partial(ended, store, number + 1))
    (series,) = store.series.undecided(now + timedelta(seconds=30), 5.0)
    assert series.wait_s == 18
