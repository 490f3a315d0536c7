"""What is looked at before the first image of a series is sent: the rules of its destination, and whose it is there."""

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from node.network.requestor import Timeouts
from node.send.courier import Courier
from storage.states import DeliveryState

QUICK = Timeouts(connection_s=2, acse_s=2, dimse_s=0.5, send_s=0.5)


@pytest.fixture
def make_courier(store: Any, now: datetime) -> Callable[[], Courier]:
    def make() -> Courier:
        options: dict[str, Any] = {"clock": lambda: now, "rng": random.Random(1), "timeouts": QUICK}
        return Courier(store.outbox, store.spool, (), peers=store.peers, calling_ae="SYNCECT", name="c-1", **options)

    return make


def test_a_series_that_breaks_a_rule_of_its_destination_is_not_sent_at_all(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, caplog: pytest.LogCaptureFixture
) -> None:
    produce(3, RescaleSlope="0.5", PatientPosition="HFDR", KVP="", AccessionNumber=None)
    tps = make_tps()
    assert make_courier().run_once(tps.destination(profile="eclipse"))
    delivery = store.delivery()
    assert (delivery.state, tps.associations, tps.stored) == (DeliveryState.FAILED, 0, [])
    assert delivery.reason == (
        "nothing was sent: KVP is empty, but a planning system uses the tube voltage, the thickness and the position of"
        " the patient (rule filled_acquisition of profile planning, unproven); PatientPosition is HFDR, but patients "
        "lie on their back or front, head or feet first (rule lying_straight of profile planning, unproven); "
        "RescaleSlope is 0.5, but a stored value is one HU (rule slope_of_one of profile planning, unproven); "
        "and 1 more"
    )
    assert "CANARY" not in caplog.text


def test_after_a_correction_it_is_sent(store: Any, produce: Any, make_tps: Any, make_courier: Any, now: Any) -> None:
    uids, tps, courier = produce(2, RescaleSlope="0.5"), make_tps(), make_courier()
    assert courier.run_once(tps.destination(profile="monaco"))
    assert store.delivery().state is DeliveryState.FAILED
    store.outbox.retry(store.job().id, "operator mia", "the profile was wrong", now)
    assert courier.run_once(tps.destination())
    assert (store.delivery().state, tps.stored) == (DeliveryState.SENT, uids)


def test_what_is_partly_there_is_completed_whatever_the_profile(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, now: Any
) -> None:
    uids, tps = produce(3, RescaleSlope="0.5"), make_tps()
    tps.answer = lambda number: 0x0000 if number == 1 else 0xA700
    assert make_courier().run_once(tps.destination())
    tps.answer = lambda _number: 0x0000
    store.outbox.retry(store.job().id, "operator mia", "", now)
    assert make_courier().run_once(tps.destination(profile="monaco"))
    assert (store.delivery().state, tps.stored) == (DeliveryState.SENT, uids)
