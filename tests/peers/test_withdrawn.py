"""What the courier does about a result that was withdrawn after a peer had accepted instances of it."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from node.network.requestor import Timeouts
from node.send.courier import Courier
from storage.overview import Case, Overview
from storage.peers import PeerStore
from storage.states import DeliveryState
from storage.transitions import LEFTOVER_PAUSE

PATIENT = Timeouts(connection_s=20, acse_s=20, dimse_s=20, send_s=20)  # nothing here waits for one


class Bench:
    """A courier with a peer that can be asked, and a clock that is set by hand."""

    def __init__(self, store: Any, tps: Any, now: datetime) -> None:
        self.store, self.tps, self.now = store, tps, now
        self.destination = tps.destination(confirm="find")
        self.courier = Courier(
            store.outbox,
            store.spool,
            [self.destination],
            peers=PeerStore(store.database),
            calling_ae="SYNCECT",
            name="courier-1",
            timeouts=PATIENT,
            clock=lambda: self.now,
        )

    def case(self, case_id: str = "1") -> Case:
        return Overview(self.store.database).case(case_id)

    def cancel(self) -> None:
        self.store.jobs.cancel(1, "operator x", "wrong patient", self.now)

    def cancel_at(self, number: int) -> None:
        """A person cancels the job while the peer has that instance in hand."""

        def answer(asked: int) -> int:
            if asked == number:
                self.cancel()
            return 0x0000

        self.tps.answer = answer

    def ask_later(self) -> bool:
        self.now += LEFTOVER_PAUSE + timedelta(seconds=1)
        return self.courier.confirm_once(self.destination)


@pytest.fixture
def bench(store: Any, produce: Any, make_tps: Callable[..., Any], now: datetime) -> Bench:
    produce(3)
    return Bench(store, make_tps(), now)


def test_a_withdrawn_series_is_asked_for_until_the_peer_lists_none_of_it(bench: Bench) -> None:
    assert bench.courier.run_once(bench.destination)
    bench.cancel()
    assert not bench.courier.confirm_once(bench.destination)
    assert bench.ask_later()
    assert bench.case().leftovers == ("tps",)
    bench.tps.stored = bench.tps.stored[:1]
    assert bench.ask_later()
    assert bench.case().leftovers == ("tps",), "one image of it is still there"
    bench.tps.stored = ["1.9.777"]
    assert bench.ask_later()
    assert bench.case().leftovers == ()
    assert not bench.ask_later()
    event = Overview(bench.store.database).events(bench.case())[-1]
    assert (event.machine, event.to_state, event.actor) == ("leftover", "GONE", "courier-1")


def test_a_peer_that_does_not_answer_has_not_deleted_anything(bench: Bench) -> None:
    bench.courier.run_once(bench.destination)
    bench.cancel()
    bench.tps.stop()
    assert bench.ask_later()
    assert not bench.courier.confirm_once(bench.destination), "it is asked again only after a while"
    assert bench.case().leftovers == ("tps",)


def test_a_peer_that_cannot_be_asked_is_not_asked(bench: Bench) -> None:
    bench.courier.run_once(bench.destination)
    bench.cancel()
    bench.now += LEFTOVER_PAUSE * 2
    assert not bench.courier.confirm_once(bench.tps.destination(confirm="none"))
    assert bench.case().leftovers == ("tps",)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_instance_in_flight_counts_when_its_job_is_cancelled(bench: Bench, number: int) -> None:
    bench.cancel_at(number)
    bench.courier.run_once(bench.destination)
    case = bench.case()
    assert case.deliveries[0].state == DeliveryState.CANCELLED
    assert bench.store.delivery().courier is None, "it said that nothing is in flight any more"
    assert case.slices.sent == len(bench.tps.stored) == number
    assert case.leftovers == ("tps",)


def test_a_reopened_delivery_sends_only_what_is_missing(bench: Bench) -> None:
    bench.cancel_at(2)
    bench.courier.run_once(bench.destination)
    assert len(bench.tps.stored) == 2
    bench.store.jobs.reopen(1, "operator x", "typo", bench.now)
    assert bench.courier.run_once(bench.destination)
    assert len(bench.tps.stored) == len(set(bench.tps.stored)) == 3
    assert (bench.case().state, bench.case().leftovers) == ("SENT", ())


def test_a_courier_fails_at_its_start_what_its_settings_do_not_know(bench: Bench) -> None:
    stop = threading.Event()
    stop.set()
    courier = Courier(
        bench.store.outbox,
        bench.store.spool,
        [],
        peers=PeerStore(bench.store.database),
        calling_ae="SYNCECT",
        name="courier-1",
        clock=lambda: bench.now,
    )
    courier.run(stop)
    assert (bench.case().state, bench.case().reason) == ("FAILED", "tps is no longer in the settings")
    bench.store.outbox.retry(1, "operator x", "it is back", bench.now)
    assert bench.courier.run_once(bench.destination)
    assert bench.case().state == "SENT"
