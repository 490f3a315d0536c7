"""What is known about the destinations, on both databases."""

from datetime import UTC, datetime, timedelta

from storage.database import Database
from storage.peers import PeerStore, PeerView

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER, LAST = T0 + timedelta(minutes=1), T0 + timedelta(minutes=2)


def test_the_first_failure_counts_until_the_peer_answers(database: Database) -> None:
    peers = PeerStore(database)
    peers.failed("tps", "refused", T0)
    peers.failed("tps", "no answer", LATER)
    assert peers.all() == [PeerView("tps", T0, None, "no answer")]
    peers.answered("tps", LATER)
    assert peers.all() == [PeerView("tps", None, LATER, "")]
    peers.failed("tps", "refused", LAST)
    peers.answered("archive", LAST)
    assert peers.all() == [PeerView("archive", None, LAST, ""), PeerView("tps", LAST, LATER, "refused")]
    assert peers.standing() == {}
