"""What a sender sees of a receiver that a person paused, and that nothing of it is lost."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_context

from node.receive.paused import UNDER_WAY, PausedReceiving
from storage.errors import StoreUnavailable
from storage.overview import Overview
from storage.pauses import PauseStore
from storage.states import Stage
from tests.peers.conftest import CT, VERIFICATION

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)


@contextmanager
def association(receiver: Any, sop_class: str = CT) -> Iterator[Any]:
    ae = AE(ae_title="SIMULATOR")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
    contexts = [build_context(sop_class, [ExplicitVRLittleEndian])]
    link = ae.associate("127.0.0.1", receiver.port, contexts=contexts, ae_title="SYNCECT")
    assert link.is_established
    yield link
    link.release()


def looking(pauses: Any, host: str = "here", *, at: datetime = NOW) -> PausedReceiving:
    """One that looks into the store each time."""
    seconds = itertools.count(0.0, 10.0)
    return PausedReceiving(pauses, host, lambda: at, lambda: next(seconds))


def test_a_paused_receiver_refuses_instances_answers_an_echo_and_takes_them_once_it_is_resumed(
    start_receiver: Any, store: Any, make_ct: Any
) -> None:
    pauses = PauseStore(store.database)
    receiver = start_receiver(paused=looking(pauses).refuses)
    pauses.pause([Stage.RECEIVE], "", "operator anna", "", NOW)
    with association(receiver) as link:
        answer = link.send_c_store(make_ct())
        assert (answer.Status, answer.ErrorComment) == (0xA700, "receiving is paused by a person; try again later")
        assert store.received() == store.unfinished() == []
        (case,) = Overview(store.database).cases()
        assert case.state == "RECEIVING", "the series waits for what was refused"
        pauses.resume([Stage.RECEIVE], "")
        assert link.send_c_store(make_ct()).Status == 0x0000
    assert len(store.instances()) == 1


def test_a_paused_receiver_answers_an_echo(start_receiver: Any, store: Any) -> None:
    pauses = PauseStore(store.database)
    pauses.pause([Stage.RECEIVE], "", "operator anna", "", NOW)
    with association(start_receiver(paused=looking(pauses).refuses), VERIFICATION) as link:
        assert link.send_c_echo().Status == 0x0000


def test_a_series_under_way_may_end_and_no_association_goes_on_for_ever(store: Any) -> None:
    pauses = PauseStore(store.database)
    pauses.pause([Stage.RECEIVE], "", "operator anna", "", NOW)
    assert [looking(pauses).refuses(stored) for stored in (0, 1)] == [True, False]
    assert looking(pauses, at=NOW + UNDER_WAY + timedelta(seconds=1)).refuses(1)


def test_the_pause_of_another_stage_or_host_stops_no_sender(store: Any) -> None:
    pauses = PauseStore(store.database)
    pauses.pause([Stage.TRANSLATE, Stage.SEND], "", "operator anna", "", NOW)
    pauses.pause([Stage.RECEIVE], "elsewhere", "operator anna", "", NOW)
    assert not looking(pauses).refuses(0)
    assert looking(pauses, "elsewhere").refuses(0)


def test_the_store_is_asked_once_a_second_and_what_it_said_last_counts_while_it_is_away(store: Any) -> None:
    class Counting:
        asked, away = 0, False

        def of(self, stage: Stage, host: str) -> Any:
            self.asked += 1
            if self.away:
                raise StoreUnavailable("gone")
            return PauseStore(store.database).of(stage, host)

    counting, second = Counting(), [0.0]
    paused = PausedReceiving(counting, "here", lambda: NOW, lambda: second[0])  # type: ignore[arg-type]
    PauseStore(store.database).pause([Stage.RECEIVE], "", "operator anna", "", NOW)
    assert [paused.refuses(0) for _ in range(5)] == [True] * 5
    assert counting.asked == 1
    counting.away, second[0] = True, 1.0
    assert paused.refuses(0)
    assert counting.asked == 2
