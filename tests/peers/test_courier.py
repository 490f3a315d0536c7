"""What the courier promises: SENT means that the peer took every instance, and nothing is sent twice to get there."""

import io
import random
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest

from config.settings import DestinationSettings
from node.beats import Numbers
from node.network.requestor import Timeouts
from node.send.courier import BACKOFF_CAP_S, MISCONFIGURED_PAUSE_S, UNCLEAR_ATTEMPTS, Courier
from storage.states import DeliveryState, JobState
from storage.wakes import Polling
from tests.damages import EVERY, overwritten

QUICK = Timeouts(connection_s=2, acse_s=2, dimse_s=0.5, send_s=0.5)


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock(now: datetime) -> Clock:
    return Clock(now)


@pytest.fixture
def make_courier(store: Any, clock: Clock) -> Callable[..., Courier]:
    def make(*destinations: Any, **options: Any) -> Courier:
        chosen: dict[str, Any] = {"clock": clock, "rng": random.Random(1), "timeouts": QUICK} | options
        chosen |= {"peers": store.peers, "calling_ae": "SYNCECT", "name": "courier-1"}
        return Courier(store.outbox, store.spool, destinations, **chosen)

    return make


def due_in_s(store: Any, clock: Clock) -> float:
    return float((store.delivery().next_attempt_at - clock.now).total_seconds())


def test_a_series_is_sent_in_one_association_as_it_was_written(
    store: Any, produce: Any, make_tps: Any, make_courier: Any
) -> None:
    uids, tps = produce(4), make_tps()
    courier = make_courier(tps.destination())
    assert courier.run_once(tps.destination()) is True
    assert store.delivery().state is DeliveryState.SENT
    assert tps.stored == uids
    assert tps.associations == 1
    assert store.statuses() == [0, 0, 0, 0]
    for path in (store.spool.root / "derived").rglob("*.dcm"):
        ds = pydicom.dcmread(path)
        written = path.read_bytes()
        assert tps.datasets[ds.SOPInstanceUID] == written[-len(tps.datasets[ds.SOPInstanceUID]) :]
        assert tps.datasets[ds.SOPInstanceUID].startswith(b"\x08\x00\x05\x00CS")
    assert courier.run_once(tps.destination()) is False


def test_a_peer_that_takes_only_implicit_vr_gets_implicit_vr(
    store: Any, produce: Any, make_tps: Any, make_courier: Any
) -> None:
    produce(2)
    tps = make_tps(syntaxes=["1.2.840.10008.1.2"])
    make_courier().run_once(tps.destination())
    assert store.delivery().state is DeliveryState.SENT
    (first, _) = tps.datasets.values()
    received = pydicom.filereader.read_dataset(io.BytesIO(first), True, True)
    assert received.SyntheticData == "YES"


@pytest.mark.parametrize("status", [0xB007, 0x0111])
def test_a_stored_warning_counts_and_is_told(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, status: int
) -> None:
    produce(3)
    tps = make_tps()
    tps.answer = lambda number: status if number == 2 else 0x0000
    make_courier().run_once(tps.destination())
    assert store.delivery().state is DeliveryState.SENT
    assert f"{status:04X}" in store.delivery().reason
    assert store.statuses() == [0, status, 0]


@pytest.mark.parametrize("status", [0xA900, 0xC123])
def test_a_permanent_refusal_fails_at_once_with_the_reason(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, status: int
) -> None:
    uids = produce(4)
    tps = make_tps()
    tps.answer = lambda number: status if number == 3 else 0x0000
    make_courier().run_once(tps.destination())
    delivery = store.delivery()
    assert delivery.state is DeliveryState.FAILED
    assert f"{status:04X}" in delivery.reason
    assert uids[2] in delivery.reason
    assert tps.stored == uids[:2]
    assert store.statuses() == [0, 0]


@pytest.mark.parametrize("trouble", [0xA700, 0xDEAD, "abort", "stall"])
def test_after_a_passing_trouble_only_the_missing_instances_are_sent(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, clock: Clock, trouble: Any
) -> None:
    uids = produce(5)
    tps = make_tps()
    tps.answer = lambda number: trouble if number == 3 else 0x0000
    numbers = Numbers()
    courier = make_courier(numbers=numbers)
    courier.run_once(tps.destination())
    assert (numbers.all()["sent:tps"], numbers.all()["failures:tps"]) == (2, 1)
    assert store.delivery().state is DeliveryState.PENDING
    assert store.delivery().reason
    assert 2.5 <= due_in_s(store, clock) <= 5
    assert courier.run_once(tps.destination()) is False
    clock.pass_s(5)
    assert courier.run_once(tps.destination()) is True
    assert store.delivery().state is DeliveryState.SENT
    assert tps.stored == uids
    assert tps.associations == 2


def test_a_tps_that_goes_down_and_comes_back_gets_the_rest(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, clock: Clock
) -> None:
    uids = produce(5)
    tps = make_tps()
    tps.answer = lambda number: "abort" if number == 3 else 0x0000
    courier = make_courier()
    courier.run_once(tps.destination())
    tps.stop()
    waits = []
    for _ in range(3):
        clock.pass_s(due_in_s(store, clock))
        assert courier.run_once(tps.destination()) is True
        assert store.delivery().state is DeliveryState.PENDING
        assert "refused" in store.delivery().reason
        waits.append(due_in_s(store, clock))
    assert waits[0] < waits[1] < waits[2]
    tps.start()
    clock.pass_s(waits[-1])
    courier.run_once(tps.destination())
    assert store.delivery().state is DeliveryState.SENT
    assert tps.stored == uids


@pytest.mark.parametrize(
    ("rejection", "slow", "word"),
    [
        ((1, 1, 3), True, "does not know our AE title SYNCECT"),
        ((1, 1, 7), True, "its AE title is not TPS"),
        ((1, 1, 1), True, "no reason given"),
        ((2, 3, 2), False, "too many associations"),
    ],
)
def test_a_rejected_association_is_tried_again_soon_or_slowly(
    store: Any,
    produce: Any,
    make_tps: Any,
    make_courier: Any,
    clock: Clock,
    rejection: tuple[int, int, int],
    slow: bool,
    word: str,
) -> None:
    produce(1)
    tps = make_tps()
    tps.reject = rejection
    make_courier().run_once(tps.destination())
    assert store.delivery().state is DeliveryState.PENDING
    assert word in store.delivery().reason
    assert (due_in_s(store, clock) >= MISCONFIGURED_PAUSE_S / 2) is slow


def test_a_peer_without_ct_fails(store: Any, produce: Any, make_tps: Any, make_courier: Any) -> None:
    produce(1)
    tps = make_tps(sop_class="1.2.840.10008.5.1.4.1.1.4")
    make_courier().run_once(tps.destination())
    assert store.delivery().state is DeliveryState.FAILED
    assert "accepts none" in store.delivery().reason


def test_an_unclear_answer_is_not_repeated_for_ever(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, clock: Clock
) -> None:
    produce(1)
    tps = make_tps()
    tps.answer = lambda number: 0x0110
    courier = make_courier()
    for _ in range(UNCLEAR_ATTEMPTS):
        assert store.delivery().state is DeliveryState.PENDING
        clock.pass_s(BACKOFF_CAP_S)
        courier.run_once(tps.destination())
    assert store.delivery().state is DeliveryState.FAILED
    assert "0110" in store.delivery().reason


@pytest.mark.parametrize("damage", EVERY)
def test_no_damaged_file_is_sent_and_its_result_is_made_again(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, clock: Clock, damage: Callable[[Path], None]
) -> None:
    uids, tps, courier = produce(3), make_tps(), make_courier()
    damage(store.spool.root / "derived" / "1-1" / "0001.dcm")
    assert courier.run_once(tps.destination()) is True
    assert tps.stored in ([], uids[:1])  # a damaged folder takes the first one with it
    assert store.delivery().state is DeliveryState.PENDING
    assert re.search(
        f"file of instance {uids[len(tps.stored)]} (is not in the spool|has other bytes)", store.job().reason
    )
    assert store.job().state is JobState.QUEUED
    clock.pass_s(3600)
    assert courier.run_once(tps.destination()) is False


def test_a_file_that_is_damaged_while_its_series_is_sent_stays_here(
    store: Any, produce: Any, make_tps: Any, make_courier: Any
) -> None:
    uids, tps = produce(4), make_tps()

    def damage_the_third(number: int) -> int:
        if number == 2:
            overwritten(store.spool.root / "derived" / "1-1" / "0002.dcm")
        return 0x0000

    tps.answer = damage_the_third
    make_courier().run_once(tps.destination())
    assert (tps.stored, store.job().state) == (uids[:2], JobState.QUEUED)
    assert store.statuses() == [0, 0]


def test_a_file_that_cannot_be_read_for_the_moment_is_tried_again(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(1)
    tps, courier = make_tps(), make_courier()

    def refused(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused)
        courier.run_once(tps.destination())
    assert (store.delivery().state, store.job().state) == (DeliveryState.PENDING, JobState.PRODUCED)
    assert "cannot be read: Permission denied" in store.delivery().reason
    clock.pass_s(60)
    courier.run_once(tps.destination())
    assert store.delivery().state is DeliveryState.SENT


def test_a_cancelled_delivery_stops_in_the_middle_and_stays_cancelled(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, clock: Clock
) -> None:
    produce(4)
    tps = make_tps()

    def cancel_at_two(number: int) -> int:
        if number == 2:
            store.jobs.cancel(1, "operator", "wrong patient", clock.now)
        return 0x0000

    tps.answer = cancel_at_two
    assert make_courier().run_once(tps.destination()) is True
    assert store.delivery().state is DeliveryState.CANCELLED
    assert len(tps.stored) == 2


def test_an_error_of_ours_is_written_down_and_tried_again(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(1)
    tps, courier = make_tps(), make_courier()
    with monkeypatch.context() as patch:
        patch.setattr("node.send.scu.read_file_meta_info", lambda path: 1 / 0)
        courier.run_once(tps.destination())
    assert store.delivery().state is DeliveryState.PENDING
    assert "ZeroDivisionError" in store.delivery().reason
    clock.pass_s(5)
    courier.run_once(tps.destination())
    assert store.delivery().state is DeliveryState.SENT


def test_stop_finishes_the_instance_in_flight_and_leaves_the_rest_due(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, clock: Clock
) -> None:
    produce(5)
    tps, stop = make_tps(), threading.Event()

    def stop_at_two(number: int) -> int:
        if number == 2:
            stop.set()
        return 0x0000

    tps.answer = stop_at_two
    make_courier(tps.destination()).run(stop, bell_of=lambda _name: Polling(0.01))
    assert store.delivery().state is DeliveryState.PENDING
    assert due_in_s(store, clock) == 0
    assert store.statuses() == [0, 0]
    tps.answer = lambda number: 0x0000
    make_courier().run_once(tps.destination())
    assert store.delivery().state is DeliveryState.SENT
    assert len(tps.stored) == len(set(tps.stored)) == 5


def test_one_dead_destination_does_not_hold_up_another(
    store: Any, produce: Any, make_tps: Any, make_courier: Any
) -> None:
    produce(2, destinations=["dead", "tps"])
    stuck, tps, stop = make_tps(), make_tps(), threading.Event()
    stuck.answer = lambda number: "stall"

    def stop_at_two(number: int) -> int:
        if number == 2:
            stop.set()
        return 0x0000

    tps.answer = stop_at_two
    slow = Timeouts(connection_s=2, acse_s=2, dimse_s=3, send_s=3)
    courier = make_courier(stuck.destination(name="dead"), tps.destination(), timeouts=slow)
    running = threading.Thread(target=courier.run, args=(stop,), kwargs={"bell_of": lambda _name: Polling(0.01)})
    running.start()
    assert stop.wait(60)
    assert store.delivery("dead").state is DeliveryState.SENDING
    stuck.released.set()
    running.join(60)
    assert not running.is_alive()
    assert store.delivery("tps").state is DeliveryState.SENT


def test_what_a_killed_courier_held_is_sent_by_the_next_one_of_its_name(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, clock: Clock
) -> None:
    uids, tps, stop = produce(3), make_tps(), threading.Event()
    held = store.outbox.claim("courier-1", "tps", 3600, clock.now)
    store.outbox.record_accepted(held.id, "courier-1", held.missing[0].product_id, 0, lease_s=3600, now=clock.now)

    def stop_at_two(number: int) -> int:
        if number == 2:
            stop.set()
        return 0x0000

    tps.answer = stop_at_two
    make_courier(tps.destination()).run(stop, bell_of=lambda _name: Polling(0.01))
    assert tps.stored == uids[1:]
    assert store.delivery().state is DeliveryState.SENT


def test_a_series_that_was_taken_whole_before_a_crash_needs_no_association(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, clock: Clock
) -> None:
    produce(2)
    tps = make_tps()
    held = store.outbox.claim("courier-0", "tps", 1, clock.now)
    for instance in held.missing:
        store.outbox.record_accepted(held.id, "courier-0", instance.product_id, 0, lease_s=1, now=clock.now)
    clock.pass_s(2)
    courier = make_courier()
    courier.release_expired()
    courier.run_once(tps.destination())
    assert store.delivery().state is DeliveryState.SENT
    assert tps.associations == 0


def test_no_identifier_reaches_a_log_line_or_a_reason(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    produce(2)
    tps = make_tps()
    tps.answer = lambda number: 0xC000
    make_courier().run_once(tps.destination())
    assert store.delivery().reason
    assert not any("CANARY" in line for line in [*caplog.messages, store.delivery().reason])


def test_dcmtk_aborting_inside_an_instance_gets_the_series_later(
    store: Any, produce: Any, make_courier: Any, clock: Clock, tmp_path: Path, peer_program: Any, free_port: int
) -> None:
    produce(4)
    folder = tmp_path / "tps"
    folder.mkdir()
    storescp = peer_program("/usr/bin/storescp")

    def run_scp(*options: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([storescp, "-aet", "TPS", "-od", str(folder), "+uf", *options, str(free_port)])

    destination = DestinationSettings(name="tps", ae_title="TPS", host="127.0.0.1", port=free_port)
    courier = make_courier(timeouts=Timeouts(dimse_s=5))
    first = run_scp("--abort-during")
    try:
        deliver_until(courier, destination, store, clock, lambda: "cannot be reached" not in store.delivery().reason)
        assert store.delivery().state is DeliveryState.PENDING
    finally:
        first.kill()
        first.wait()
    shutil.rmtree(folder)
    folder.mkdir()
    second = run_scp()
    try:
        deliver_until(courier, destination, store, clock, lambda: store.delivery().state is DeliveryState.SENT)
    finally:
        second.kill()
        second.wait()
    assert len(list(folder.iterdir())) == 4
    assert store.statuses() == [0, 0, 0, 0]


def deliver_until(courier: Courier, destination: Any, store: Any, clock: Clock, done: Callable[[], bool]) -> None:
    for _ in range(200):
        clock.pass_s(BACKOFF_CAP_S)
        courier.run_once(destination)
        if done():
            return
    pytest.fail(f"still {store.delivery().state}: {store.delivery().reason}")


def test_since_when_a_peer_cannot_be_reached_is_kept_until_it_answers(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, clock: Clock, free_port: int
) -> None:
    produce(1)
    down = DestinationSettings(name="tps", ae_title="TPS", host="127.0.0.1", port=free_port)
    courier, began = make_courier(down), clock.now
    for _ in range(2):
        assert courier.run_once(down)
        (peer,) = store.peers.all()
        assert (peer.destination, peer.failing_since, peer.answered_at) == ("tps", began, None)
        assert "cannot be reached: connection refused" in peer.reason
        clock.pass_s(BACKOFF_CAP_S)
    tps = make_tps()
    assert make_courier(tps.destination()).run_once(tps.destination())
    (peer,) = store.peers.all()
    assert (peer.failing_since, peer.answered_at, peer.reason) == (None, clock.now, "")


def test_a_peer_that_refuses_an_instance_is_no_peer_that_cannot_be_reached(
    store: Any, produce: Any, make_tps: Any, make_courier: Any
) -> None:
    produce(1)
    tps = make_tps()
    tps.answer = lambda _number: 0xA700
    assert make_courier(tps.destination()).run_once(tps.destination())
    assert store.delivery().state is DeliveryState.PENDING
    assert store.peers.all()[0].failing_since is None
