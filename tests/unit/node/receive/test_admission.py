"""Places for associations: a share for each peer, some kept for each, and none for who only holds one."""

from collections.abc import Sequence
from typing import Any

import pytest

from config.settings import DestinationSettings, ScpSettings
from node.network.tls import PeerCertificate
from node.receive.admission import LIMIT_REACHED, SPARE_S, WRONG_CALLED_AE, WRONG_CALLING_AE, Places, Session
from storage.owners import Credentials

CT1 = {"ae_title": "CT1", "host": "10.0.0.1"}
CT2 = {"ae_title": "CT2", "host": "10.0.0.2"}


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def places(clock: Clock, *, reporting: Sequence[DestinationSettings] = (), **settings: Any) -> Places:
    return Places(ScpSettings(**settings), clock, reporting=reporting)


def enter(of: Places, ae: str = "CT1", host: str = "10.0.0.1", certificate: Any = None) -> Any:
    return of.admit("SYNCECT", ae, host, certificate)


def admitted(of: Places, count: int, ae: str = "CT1", host: str = "10.0.0.1") -> list[Session]:
    """The sessions among `count` requests that got a place."""
    answers = [enter(of, ae, host) for _ in range(count)]
    return [answer for answer in answers if isinstance(answer, Session)]


def test_a_stranger_and_a_wrong_called_title_are_told_apart(clock: Clock) -> None:
    some = places(clock, allowed_peers=[CT1])
    assert enter(some, "CT9") == WRONG_CALLING_AE
    assert enter(some, host="10.0.0.9") == WRONG_CALLING_AE
    assert some.admit("OTHER", "CT1", "10.0.0.1", None) == WRONG_CALLED_AE
    assert isinstance(some.admit("SYNCECT ", "CT1", "::ffff:10.0.0.1", None), Session)


def test_one_peer_cannot_take_the_places_that_are_kept_for_another(clock: Clock) -> None:
    some = places(clock, allowed_peers=[CT1, CT2], max_associations=10)
    assert len(admitted(some, 20)) == 8
    assert len(admitted(some, 20, "CT2", "10.0.0.2")) == 2


def test_with_as_many_peers_as_places_each_has_one(clock: Clock) -> None:
    some = places(clock, allowed_peers=[CT1, CT2], max_associations=2)
    assert len(admitted(some, 5)) == 1
    assert len(admitted(some, 5, "CT2", "10.0.0.2")) == 1


def test_a_share_bounds_each_peer_and_each_address(clock: Clock) -> None:
    listed = places(clock, allowed_peers=[CT1, CT2], max_associations=10, max_associations_per_peer=3)
    assert len(admitted(listed, 5)) == len(admitted(listed, 5, "CT2", "10.0.0.2")) == 3
    anybody = places(clock, max_associations=10, max_associations_per_peer=3)
    assert len(admitted(anybody, 5, "ANY", "10.0.0.7")) == len(admitted(anybody, 5, "OTHER", "10.0.0.8")) == 3


def test_a_place_that_is_left_is_free_and_leaving_twice_frees_one(clock: Clock) -> None:
    some = places(clock, max_associations=2)
    first, _ = admitted(some, 2)
    some.leave(first)
    some.leave(first)
    assert len(admitted(some, 5)) == 1


def test_who_stored_nothing_for_long_gives_way_and_only_then(clock: Clock) -> None:
    some = places(clock, max_associations=2)
    aborted: list[str] = []
    idle, busy = admitted(some, 2)
    idle.abort, busy.abort = lambda: aborted.append("idle"), lambda: aborted.append("busy")
    clock.now_s += SPARE_S - 1
    assert enter(some) == LIMIT_REACHED
    some.progressed(busy)
    clock.now_s += 2
    assert isinstance(enter(some), Session)
    assert aborted == ["idle"]
    assert enter(some) == LIMIT_REACHED


def test_a_peer_cannot_make_another_one_give_up_its_kept_place(clock: Clock) -> None:
    some = places(clock, allowed_peers=[CT1, CT2], max_associations=4, max_associations_per_peer=4)
    kept = admitted(some, 2, "CT2", "10.0.0.2")
    assert len(kept) == 2
    own = admitted(some, 2)
    aborted: list[Session] = []
    for session in (*kept, *own):
        session.abort = lambda session=session: aborted.append(session)  # type: ignore[misc]
    clock.now_s += SPARE_S + 1
    assert isinstance(enter(some), Session)
    assert aborted == own[:1]


CERTIFICATE = PeerCertificate(frozenset({"ct1.example", "ct 1"}), "3f" * 32, "a" * 64)
TLS = {"certificate": "a", "private_key": "b", "ca": "c"}


@pytest.mark.parametrize("bound", ["ct1.example", "CT1.Example", "CT 1", "sha256:" + "3f" * 32])
def test_a_title_that_is_bound_to_a_certificate_is_admitted_with_it_only(clock: Clock, bound: str) -> None:
    some = places(clock, tls=TLS, allowed_peers=[CT1 | {"certificate": bound}])
    session = enter(some, certificate=CERTIFICATE)
    assert session.shown == Credentials("10.0.0.1", "a" * 64, is_bound=True)
    other = PeerCertificate(frozenset({"ct2.example"}), "4e" * 32, "b" * 64)
    for shown, name in ((other, "ct2.example, sha256:4e4e4e4e4e4e4e4e..."), (None, "none")):
        rejection = enter(some, certificate=shown)
        assert rejection == WRONG_CALLING_AE
        told = f"association rejected: its certificate ({name}) is not the one of scp.allowed_peers"
        assert rejection.told == told
    assert enter(some, "CT9", certificate=CERTIFICATE).told == ""  # a stranger fills no list


def test_a_name_that_looks_like_a_fingerprint_is_none(clock: Clock) -> None:
    bound = f"sha256:{CERTIFICATE.fingerprint}"
    some = places(clock, tls=TLS, allowed_peers=[CT1 | {"certificate": bound}])
    shown = PeerCertificate(frozenset({bound}), "b" * 64, "")
    assert enter(some, certificate=shown) == WRONG_CALLING_AE


def test_one_title_may_have_two_certificates(clock: Clock) -> None:
    """The old one and its successor, or two machines under one title."""
    entries = [CT1 | {"certificate": "old.example"}, CT1 | {"certificate": "ct1.example"}]
    assert isinstance(enter(places(clock, tls=TLS, allowed_peers=entries), certificate=CERTIFICATE), Session)


def test_a_title_without_a_binding_is_admitted_with_any_certificate(clock: Clock) -> None:
    session = enter(places(clock, tls=TLS, allowed_peers=[CT1]), certificate=CERTIFICATE)
    assert session.shown == Credentials("10.0.0.1", "a" * 64)


@pytest.mark.parametrize(
    ("title", "known"),
    [("CT1", True), (" CT1   ", True), ("ct1", False), ("CT1\0", False), ("CT1\r\n", False), ("CT1\\", False)],
)
def test_only_spaces_at_the_ends_of_a_title_mean_nothing(clock: Clock, title: str, known: bool) -> None:
    assert isinstance(enter(places(clock, allowed_peers=[CT1]), title), Session) is known


def test_two_peers_behind_one_address_are_told_apart_by_their_titles(clock: Clock) -> None:
    some = places(clock, allowed_peers=[CT1, CT2 | {"host": "10.0.0.1"}], max_associations=4)
    assert [enter(some, ae).calling_ae for ae in ("CT1", "CT2")] == ["CT1", "CT2"]


def test_titles_of_peers_are_made_safe_for_the_log(clock: Clock) -> None:
    session = enter(places(clock), "A\r\nERROR forged\\!")
    assert session.calling_ae == "A??ERROR forged?"
    assert places(clock, allowed_peers=[CT1]).is_known_host("10.0.0.1")
    assert not places(clock, allowed_peers=[CT1]).is_known_host("10.0.0.2")
    assert not places(clock, allowed_peers=[{"ae_title": "CT1"}]).is_known_host("10.0.0.1")


def test_a_destination_that_reports_has_places_of_its_own_for_that_alone(clock: Clock) -> None:
    tps = DestinationSettings(name="tps", ae_title="TPS", host="10.0.0.7", confirm="commitment")
    full = places(clock, allowed_peers=[CT1], max_associations=1, reporting=[tps])
    assert len(admitted(full, 2)) == 1
    assert full.is_known_host("10.0.0.7")
    reports = admitted(full, 3, "TPS", "10.0.0.7")
    assert [one.only_reports for one in reports] == [True, True]
    assert enter(full, "TPS", "10.0.0.8") == WRONG_CALLING_AE
    assert full.admit("OTHER", "TPS", "10.0.0.7", None) == WRONG_CALLED_AE
    full.leave(reports[0])
    assert len(admitted(full, 2, "TPS", "10.0.0.7")) == 1


def test_a_destination_that_is_an_allowed_peer_too_is_one(clock: Clock) -> None:
    tps = DestinationSettings(name="tps", ae_title="CT1", host="10.0.0.1", confirm="commitment")
    (session,) = admitted(places(clock, allowed_peers=[CT1], reporting=[tps]), 1)
    assert not session.only_reports
