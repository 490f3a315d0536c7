"""What an administrator is told by `echo`, and what a confirmation by C-FIND takes as proof."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from node.network.no_association import NoAssociation
from node.network.query import find_instances
from node.network.requestor import Timeouts
from node.send.confirmation import Confirmer
from node.send.scu import StorageScu
from storage.outbox import OutboxStore

PATIENT = Timeouts(connection_s=30, acse_s=30, dimse_s=30, send_s=30)  # a loaded machine is no silent peer
MR = "1.2.840.10008.5.1.4.1.1.4"


def echo(destination: Any, timeouts: Timeouts = PATIENT) -> Any:
    return StorageScu(destination, "SYNCECT", timeouts).echo()


def test_echo_of_a_good_peer(make_tps: Any) -> None:
    result = echo(make_tps().destination())
    assert result.ok
    assert "accepts CT images" in result.detail
    assert 0 < result.latency_s < 30


def test_echo_says_that_ct_images_are_not_taken(make_tps: Any) -> None:
    result = echo(make_tps(sop_class=MR).destination())
    assert not result.ok
    assert "no CT images" in result.detail


def test_echo_says_that_nobody_listens(make_tps: Any, free_port: int) -> None:
    result = echo(make_tps(running=False).destination(port=free_port))
    assert not result.ok
    assert f"TPS at 127.0.0.1 port {free_port} cannot be reached: connection refused" in result.detail


def test_echo_says_that_a_name_is_unknown(make_tps: Any) -> None:
    result = echo(make_tps(running=False).destination(host="no-such-host.invalid"))
    assert not result.ok
    assert "no-such-host.invalid cannot be resolved" in result.detail


def test_echo_says_that_the_peer_is_silent(make_tps: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = echo(make_tps(running=False).destination(port=silent.getsockname()[1]), Timeouts(acse_s=0.5))
    assert not result.ok
    assert "did not answer the association request" in result.detail


def test_echo_says_that_our_title_is_unknown(make_tps: Any) -> None:
    tps = make_tps()
    tps.reject = (1, 1, 3)
    result = echo(tps.destination())
    assert not result.ok
    assert "does not know our AE title SYNCECT" in result.detail


def test_the_receiver_is_a_good_peer(start_receiver: Any, make_tps: Any) -> None:
    receiver = start_receiver()
    assert echo(make_tps(running=False).destination(port=receiver.port, ae_title="SYNCECT")).ok


def test_find_lists_what_the_peer_holds(make_tps: Any) -> None:
    tps = make_tps()
    tps.stored = ["1.9.1", "1.9.2"]
    assert find_instances(tps.destination(), "SYNCECT", "1.2", "1.8") == {"1.9.1", "1.9.2"}


def test_find_at_a_dead_peer_is_no_proof_of_absence(make_tps: Any, free_port: int) -> None:
    with pytest.raises(NoAssociation):
        find_instances(make_tps(running=False).destination(port=free_port), "SYNCECT", "1.2", "1.8")


@dataclass
class Sent:
    sent_at: datetime
    id: int = 1
    study_uid: str = "1.2"
    derived_series_uid: str = "1.8"
    sop_instance_uids: frozenset[str] = frozenset({"1.9.1", "1.9.2"})


@dataclass
class Outbox:
    """The confirmation side of an outbox with one sent delivery."""

    sent: Sent
    due_at: datetime | None
    confirmed: bool = False
    reasons: list[str] = field(default_factory=list)

    def awaiting_confirmation(self, destination: str, now: datetime) -> Sent | None:
        return self.sent if not self.confirmed and self.due_at is not None and self.due_at <= now else None

    def awaiting_removal(self, destination: str, now: datetime) -> None:
        """Nothing was withdrawn here; `test_withdrawn` asks for that."""

    def postpone_confirmation(
        self, delivery_id: int, actor: str, reason: str, *, not_before: datetime | None, now: datetime
    ) -> None:
        self.due_at = not_before
        self.reasons.append(reason)

    def confirm(self, delivery_id: int, actor: str, reason: str, now: datetime) -> None:
        self.confirmed = True


class Bench:
    def __init__(self, now: datetime, make_tps: Any) -> None:
        self.now = now
        self.outbox = Outbox(Sent(sent_at=now), due_at=now)
        self.tps = make_tps()
        self.confirmer = Confirmer(cast("OutboxStore", self.outbox), "SYNCECT", "courier-1", lambda: self.now)

    def ask(self, listed: Sequence[str]) -> bool:
        self.tps.listed = lambda: listed
        return self.confirmer.run_once(self.tps.destination(confirm="find"))


def test_a_delivery_is_confirmed_when_every_instance_is_listed(make_tps: Any, now: datetime) -> None:
    bench = Bench(now, make_tps)
    assert bench.ask(["1.9.1", "1.9.2", "1.9.777"]) is True
    assert bench.outbox.confirmed
    assert bench.ask([]) is False


def test_a_missing_instance_is_no_confirmation_and_is_asked_for_again(make_tps: Any, now: datetime) -> None:
    bench = Bench(now, make_tps)
    pauses = []
    for _ in range(4):
        assert bench.ask(["1.9.2"]) is True
        assert bench.outbox.due_at is not None
        pauses.append((bench.outbox.due_at - bench.now).total_seconds())
        bench.now = bench.outbox.due_at
    assert pauses == [5, 5, 10, 20]
    assert "1 of 2 instances" in bench.outbox.reasons[-1]
    assert bench.ask(["1.9.1", "1.9.2"]) is True
    assert bench.outbox.confirmed


def test_asking_ends_after_a_day_without_a_confirmation(make_tps: Any, now: datetime) -> None:
    bench = Bench(now, make_tps)
    bench.now += timedelta(days=1)
    assert bench.ask([]) is True
    assert not bench.outbox.confirmed
    assert "not confirmed within 24 h" in bench.outbox.reasons[-1]
    assert bench.ask([]) is False


def test_a_peer_that_cannot_be_asked_confirms_nothing(make_tps: Any, now: datetime) -> None:
    bench = Bench(now, make_tps)
    bench.tps.stop()
    assert bench.ask([]) is True
    assert not bench.outbox.confirmed
    assert "cannot be reached" in bench.outbox.reasons[-1]
