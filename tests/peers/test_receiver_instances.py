"""One instance that cannot be accepted costs one status: the next instance of the same association is stored."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from storage.overview import Overview
from storage.tables import Series
from tests.peers.measures import KNOWN
from tests.peers.raw_peer import RawPeer, data_set

REFUSALS = (
    0xA900,  # the data set does not match the SOP class
    0xC000,  # cannot understand
    0x0117,  # invalid object instance, PS3.7 annex C
)
GOOD = b"1.2.3.99"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"1.2.03.4", "1.2.03.4"),
        (b"1.2.00.4", "1.2.00.4"),
        (b"01.2.3", "01.2.3"),
        (b"1." + b"0" * 62, "1." + "0" * 62),
        (b"1.2.3.4\0\0\0", "1.2.3.4"),
        (b"1.2.3.4 ", "1.2.3.4"),
        (b"1.2.03.4  ", "1.2.03.4"),
        (b"1..2", "1..2"),
        (b"1.2.", "1.2."),
        (b".1.2", ".1.2"),
    ],
    ids=[
        "leading zero",
        "zeros",
        "leading zero of the root",
        "64 characters",
        "NULs",
        "a space",
        "spaces",
        "an empty component",
        "a dot at the end",
        "a dot at the beginning",
    ],
)
def test_an_irregular_uid_of_digits_and_dots_is_stored_as_it_came(
    start_receiver: Any, store: Any, sent: bytes, kept: str
) -> None:
    """Scanners write components with leading zeros and pad UIDs with spaces, against PS3.5 section 9.1."""
    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        assert peer.store(sent, data_set(sent)) == 0x0000
        assert peer.store(GOOD, data_set(GOOD)) == 0x0000
    assert [row.sop_instance_uid for row in store.instances()] == [kept, GOOD.decode()]
    assert len(store.received()) == 2


@pytest.mark.parametrize(
    "uid",
    [b"1." + b"2" * 63, b"1.2.x3", b"1.2\0.3", b"1 2", b"\xff\xfe", b"", b"\0\0", b"  "],
    ids=[
        "65 characters",
        "a letter",
        "a NUL inside",
        "a space inside",
        "no ASCII",
        "empty",
        "only NULs",
        "only spaces",
    ],
)
def test_a_uid_that_is_none_costs_one_status(start_receiver: Any, store: Any, uid: bytes) -> None:
    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        status = peer.store_status(uid, data_set(uid))
        assert status in REFUSALS
        assert peer.store_status(GOOD, data_set(GOOD)) == 0x0000
    assert [row.sop_instance_uid for row in store.instances()] == [GOOD.decode()]
    assert len(store.received()) == 1
    assert store.unfinished() == []
    (recorded,) = Overview(store.database).refused_since(datetime.now(UTC), hours=1)
    assert (recorded.calling_ae, recorded.status, recorded.count) == ("SIMULATOR", f"{status:04X}", 1)
    assert "UID" in recorded.reason


@pytest.mark.parametrize("uid", [b"../../../tmp/evil", b"1.2.3\r\nINFO forged", b"1.2.3;rm"])
def test_a_path_or_a_log_line_for_a_uid_costs_one_status_and_is_written_nowhere(
    start_receiver: Any, store: Any, uid: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="node")
    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        assert peer.store_status(uid, data_set(uid)) in REFUSALS
        assert peer.store_status(GOOD, data_set(GOOD)) == 0x0000
    assert [row.sop_instance_uid for row in store.instances()] == [GOOD.decode()]
    assert not any(trace in line for line in caplog.messages for trace in ("evil", "forged", ";rm"))


def test_leading_zeros_in_the_uids_of_study_and_series_are_stored_as_they_came(start_receiver: Any, store: Any) -> None:
    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        assert peer.store(GOOD, data_set(GOOD, study=b"1.2.003", series=b"1.2.03.01")) == 0x0000
    with store.database.read() as session:
        (series,) = session.scalars(select(Series))
    assert (series.study_uid, series.series_uid) == ("1.2.003", "1.2.03.01")


@pytest.mark.parametrize("uid", [b"1.2.x3", b"1." + b"2" * 127, b""], ids=["a letter", "129 characters", "empty"])
@pytest.mark.parametrize("level", ["study", "series"])
def test_a_study_or_series_uid_that_is_none_costs_one_status(
    start_receiver: Any, store: Any, level: str, uid: bytes
) -> None:
    with RawPeer(start_receiver(allowed_peers=[KNOWN]).port) as peer:
        assert peer.store_status(b"1.2.3.4", data_set(b"1.2.3.4", **{level: uid})) in REFUSALS
        assert peer.store_status(GOOD, data_set(GOOD)) == 0x0000
    assert [row.sop_instance_uid for row in store.instances()] == [GOOD.decode()]
    assert store.unfinished() == []
