"""What is looked at before the first image of a series is sent: the rules of its destination, and whose it is there."""

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from node.dicom.quiet import quiet_pydicom
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


# -- whose the PatientID is at the destination -------------------------------------------------------------------------

OURS = {"PatientName": "CANARY^NAME", "PatientBirthDate": "19700131"}


@pytest.fixture
def asked(make_tps: Any) -> Any:
    """A TPS that is asked before the first image, and `asked.questions`, what it was asked."""
    tps = make_tps()
    tps.questions = []
    tps.known = []

    def patients(question: Any) -> list[Any]:
        tps.questions.append(question)
        return list(tps.known)

    tps.patients = patients
    return tps


def take(asked: Any, courier: Courier, **changes: Any) -> None:
    assert courier.run_once(asked.destination(identity_check=True, **changes))


@pytest.mark.parametrize(
    "known",
    [
        [],
        [OURS],
        [{"PatientName": "canary ^ name^^=山田", "PatientBirthDate": "19700131"}, {"PatientName": ""}],
        [{"PatientID": "SOMEBODY", "PatientName": "Berg^Anna"}],
    ],
    ids=["nobody", "the same", "the same in other words", "an answer about another PatientID"],
)
def test_the_same_patient_gets_the_series(
    store: Any, produce: Any, asked: Any, make_courier: Any, known: list[Any]
) -> None:
    uids = produce(2, PatientBirthDate="19700131")
    asked.known = known
    take(asked, make_courier())
    assert (store.delivery().state, asked.stored) == (DeliveryState.SENT, uids)
    (question,) = asked.questions
    assert (question.QueryRetrieveLevel, question.PatientID) == ("STUDY", "CANARY-ID")


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ([OURS, OURS | {"PatientName": "Berg^Anna"}], "another PatientName (in 1 of 2 studies)"),
        ([OURS | {"PatientBirthDate": "19710131"}], "another PatientBirthDate (in 1 of 1 studies)"),
        (
            [{"PatientName": "X", "PatientBirthDate": "1"}],
            "another PatientName and PatientBirthDate (in 1 of 1 studies)",
        ),
        ([{"PatientID": "", "PatientName": "Berg^Anna"}], "another PatientName (in 1 of 1 studies)"),
    ],
    ids=["name", "birth date", "both", "without saying of whom it speaks"],
)
def test_another_patient_under_the_id_gets_nothing(
    store: Any,
    produce: Any,
    asked: Any,
    make_courier: Any,
    known: list[Any],
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", "node")
    produce(2, PatientBirthDate="19700131")
    asked.known = known
    courier = make_courier()
    take(asked, courier)
    delivery = store.delivery()
    assert delivery.held_for == delivery.reason
    assert delivery.held_for == f"tps knows the PatientID with {words}: compare the patient there with the scan"
    assert (delivery.state, delivery.attempts, asked.stored) == (DeliveryState.PENDING, 0, [])
    assert not courier.run_once(asked.destination(identity_check=True))
    assert len(asked.questions) == 1
    assert not any(word in caplog.text for word in ("CANARY", "Berg", "1970", "1971"))


def test_what_a_person_lets_go_is_sent_without_another_question(
    store: Any, produce: Any, asked: Any, make_courier: Any, now: datetime
) -> None:
    uids = produce(2)
    asked.known = [{"PatientName": "Berg^Anna"}]
    take(asked, make_courier())
    store.outbox.release_held(store.job().id, "operator mia", "she married", now)
    take(asked, make_courier())
    assert (store.delivery().state, asked.stored, len(asked.questions)) == (DeliveryState.SENT, uids, 1)
    store.jobs.resend(store.job().id, ["tps"], "operator mia", "", now)
    take(asked, make_courier())
    assert (store.delivery().held_for != "", len(asked.questions)) == (True, 2)


def test_what_is_partly_there_is_not_asked_about_again(
    store: Any, produce: Any, asked: Any, make_courier: Any, now: datetime
) -> None:
    uids = produce(2)
    asked.answer = lambda number: 0x0000 if number == 1 else 0xA700
    take(asked, make_courier())
    asked.known, asked.answer = [{"PatientName": "Berg^Anna"}], lambda _number: 0x0000
    store.outbox.retry(store.job().id, "operator mia", "", now)
    take(asked, make_courier())
    assert (store.delivery().state, asked.stored) == (DeliveryState.SENT, uids)


@pytest.mark.parametrize(("patient_id", "words"), [("", "no PatientID"), (["A", "B"], "several values of PatientID")])
def test_a_patient_id_that_names_nobody_is_looked_at_by_a_person(
    store: Any, produce: Any, asked: Any, make_courier: Any, patient_id: Any, words: str
) -> None:
    produce(1, PatientID=patient_id)
    take(asked, make_courier())
    assert words in store.delivery().held_for
    assert (asked.associations, asked.stored) == (0, [])


def test_a_peer_that_refuses_the_question_is_asked_again(
    store: Any, produce: Any, asked: Any, make_courier: Any, now: datetime
) -> None:
    produce(1)
    asked.known = [OURS, 0xA700]
    take(asked, make_courier())
    delivery = store.delivery()
    assert (delivery.state, delivery.held_for, delivery.attempts) == (DeliveryState.PENDING, "", 1)
    assert "the peer refused the query with status A700" in delivery.reason
    assert delivery.next_attempt_at > now
    assert asked.stored == []


def test_nobody_there_and_a_peer_without_queries_let_the_series_wait(
    store: Any, produce: Any, make_tps: Any, make_courier: Any, free_port: int, now: datetime
) -> None:
    produce(1)
    courier = make_courier()
    assert courier.run_once(make_tps(running=False).destination(port=free_port, identity_check=True))
    assert "cannot be reached" in store.delivery().reason
    assert (store.delivery().state, store.delivery().held_for) == (DeliveryState.PENDING, "")
    store.outbox.retry(store.job().id, "operator mia", "", now)
    deaf = make_tps(questions=False)
    assert courier.run_once(deaf.destination(identity_check=True))
    assert "accepts none of the SOP classes" in store.delivery().reason
    assert (store.delivery().state, deaf.stored) == (DeliveryState.PENDING, [])


def test_a_name_in_another_script_is_compared_as_it_is_written(
    store: Any, produce: Any, asked: Any, make_courier: Any
) -> None:
    produce(1, SpecificCharacterSet="ISO_IR 192", PatientName="M\u00fcller^Eva", PatientID="\u00c4-1")
    asked.known = [{"PatientName": "M\u00dcLLER^EVA"}]
    take(asked, make_courier())
    assert store.delivery().state is DeliveryState.SENT
    assert asked.questions[0].PatientID == "\u00c4-1"


def test_an_id_longer_than_the_standard_allows_is_asked_for_as_it_is(
    store: Any, produce: Any, asked: Any, make_courier: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with quiet_pydicom():
        produce(1, PatientID="CANARY" * 12)
    asked.known = [{"PatientName": "Berg^Anna"}]
    take(asked, make_courier())
    assert "another PatientName" in store.delivery().held_for
    assert asked.questions[0].PatientID == "CANARY" * 12
    assert "CANARY" not in caplog.text


def test_more_instances_at_the_peer_than_were_sent_are_a_remark(
    store: Any, produce: Any, make_tps: Any, make_courier: Any
) -> None:
    uids, tps = produce(2), make_tps()
    tps.listed = lambda: [*tps.stored, "1.9.777"]
    courier = make_courier()
    destination = tps.destination(confirm="find")
    assert courier.run_once(destination)
    assert courier.confirm_once(destination)
    assert (store.delivery().state, tps.stored) == (DeliveryState.CONFIRMED, uids)
    assert store.delivery().reason == "the peer lists every instance, and under the same series 1 that was not sent"
