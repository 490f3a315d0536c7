"""Storage commitment on the wire: an archive that reports in its own ways, and a scanner to which none is granted."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association

from config.settings import DestinationSettings
from node.network.commitment import PUSH_INSTANCE, PUSH_MODEL
from node.receive.commitment import CommitmentReports
from node.send.courier import Courier
from storage.commitments import CommitmentStore
from storage.states import DeliveryState
from tests.peers.conftest import CT, FakeTps
from tests.peers.measures import wait_until
from tests.slice.harness import Orthanc


@dataclass
class Archive:
    """A TPS that also is an SCP of storage commitment; `report_at_once` what it reports on the same association."""

    tps: FakeTps
    status: int = 0x0000
    report_at_once: Callable[[Dataset], tuple[int, Dataset]] | None = None
    requests: list[Dataset] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    reported: threading.Event = field(default_factory=threading.Event)

    def asked(self, event: Any) -> tuple[int, None]:
        self.requests.append(event.action_information)
        if self.report_at_once is not None:
            threading.Thread(target=self._report_here, args=(event.assoc, self.requests[-1]), daemon=True).start()
        return self.status, None

    def _report_here(self, association: Association, asked: Dataset) -> None:
        assert self.report_at_once is not None
        kind, told = self.report_at_once(asked)
        self.answers.append(association.send_n_event_report(told, kind, PUSH_MODEL, PUSH_INSTANCE)[0])
        self.reported.set()


def committed(asked: Dataset) -> tuple[int, Dataset]:
    return 1, asked


def half(asked: Dataset) -> tuple[int, Dataset]:
    """The first two failed, one because it was not there and one for want of space; the rest is committed to."""
    told = Dataset()
    told.TransactionUID = asked.TransactionUID
    told.ReferencedSOPSequence = asked.ReferencedSOPSequence[2:]
    told.FailedSOPSequence = asked.ReferencedSOPSequence[:2]
    for item, reason in zip(told.FailedSOPSequence, (0x0112, 0x0213), strict=True):
        item.FailureReason = reason
    return 2, told


def report(port: int, told: tuple[int, Dataset], *, ae_title: str = "TPS", instance: str = PUSH_INSTANCE) -> int | None:
    """What the node answers to a report on an association of its own; None where the context was not accepted."""
    kind, information = told
    ae = AE(ae_title)
    ae.dimse_timeout = 20
    role = build_role(PUSH_MODEL, scp_role=True)
    association = ae.associate(
        "127.0.0.1", port, ae_title="SYNCECT", contexts=[build_context(PUSH_MODEL), build_context(CT)], ext_neg=[role]
    )
    if not association.is_established:
        return None
    try:
        assert [cx.abstract_syntax for cx in association.accepted_contexts if cx.abstract_syntax != PUSH_MODEL] == []
        if not association.accepted_contexts:
            return None
        return int(association.send_n_event_report(information, kind, PUSH_MODEL, instance)[0].Status)
    finally:
        association.release()


@pytest.fixture
def archive(make_tps: Any) -> Iterator[Archive]:
    tps = make_tps(running=False)
    made = Archive(tps)
    tps._ae.add_supported_context(PUSH_MODEL)
    tps.also_handles = [(evt.EVT_N_ACTION, made.asked)]
    tps.start()
    yield made
    assert not made.reported.is_set() or [one.Status for one in made.answers] == [0x0000]


@dataclass
class Sent:
    """A series of four instances that the archive accepted, and what the node keeps of it."""

    store: Any
    archive: Archive
    destination: DestinationSettings
    commitments: CommitmentStore
    courier: Courier
    port: int

    def ask(self) -> Dataset:
        assert self.courier.confirm_once(self.destination)
        return self.archive.requests[-1]

    def state(self) -> DeliveryState:
        return DeliveryState(self.store.delivery().state)


def make_courier(store: Any, destination: DestinationSettings, **options: Any) -> Courier:
    commitments = CommitmentStore(store.database)
    return Courier(
        store.outbox,
        store.spool,
        [destination],
        peers=store.peers,
        calling_ae="SYNCECT",
        name="courier-1",
        commitments=(commitments, CommitmentReports(commitments, [destination], actor="courier-1").take),
        **options,
    )


@pytest.fixture
def sent(store: Any, produce: Any, archive: Archive, start_receiver: Any, monkeypatch: pytest.MonkeyPatch) -> Sent:
    monkeypatch.setattr("node.send.commitment.KEEP_OPEN_S", 0.0)
    produce(4)
    destination = archive.tps.destination(confirm="commitment")
    receiver = start_receiver(reporting=[destination], allowed_peers=[{"ae_title": "CT1"}])
    courier = make_courier(store, destination)
    assert courier.run_once(destination)
    return Sent(store, archive, destination, CommitmentStore(store.database), courier, receiver.port)


def test_a_report_on_an_association_of_its_own_confirms_and_a_second_one_changes_nothing(sent: Sent) -> None:
    asked = sent.ask()
    assert sorted(item.ReferencedSOPInstanceUID for item in asked.ReferencedSOPSequence) == sent.archive.tps.stored
    assert {item.ReferencedSOPClassUID for item in asked.ReferencedSOPSequence} == {CT}
    assert sent.state() is DeliveryState.SENT
    assert not sent.courier.confirm_once(sent.destination), "the report is waited for"
    assert report(sent.port, committed(asked)) == 0x0000
    assert sent.state() is DeliveryState.CONFIRMED
    assert report(sent.port, half(asked)) == 0x0000
    assert sent.state() is DeliveryState.CONFIRMED


def test_only_the_peer_that_was_asked_confirms_and_only_what_it_was_asked_for(sent: Sent) -> None:
    asked = sent.ask()
    other = Dataset()
    other.update(asked)
    other.TransactionUID = "2.25.1"
    assert report(sent.port, committed(other)) == 0x0110
    assert report(sent.port, (3, asked)) == 0x0113
    nothing = Dataset()
    nothing.ReferencedSOPSequence = asked.ReferencedSOPSequence
    assert report(sent.port, (1, nothing)) == 0x0115
    assert report(sent.port, committed(asked), instance="1.2.3") == 0x0112
    assert report(sent.port, committed(asked), ae_title="STRANGER") is None
    assert sent.state() is DeliveryState.SENT


def test_failed_instances_are_sent_again_and_named_with_their_reason(sent: Sent) -> None:
    uids = list(sent.archive.tps.stored)
    assert report(sent.port, half(sent.ask())) == 0x0000
    assert sent.state() is DeliveryState.PENDING
    assert [(one.sop_instance_uid, one.failure_reason) for one in sent.commitments.failed(1)] == [
        (uids[0], 0x0112),
        (uids[1], 0x0213),
    ]
    sent.store.outbox.retry(1, "operator", "", sent.store.delivery().updated_at)  # do not wait for the pause
    assert sent.courier.run_once(sent.destination)
    assert sent.archive.tps.stored == [*uids, *uids[:2]]
    assert report(sent.port, committed(sent.ask())) == 0x0000
    assert sent.state() is DeliveryState.CONFIRMED


def test_a_quick_report_on_the_same_association_counts(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.send.commitment.KEEP_OPEN_S", 20.0)
    sent.archive.report_at_once = committed
    sent.ask()
    assert sent.archive.reported.wait(20)
    assert sent.state() is DeliveryState.CONFIRMED


def test_a_refused_request_is_told_and_made_again(sent: Sent) -> None:
    sent.archive.status = 0x0213
    sent.ask()
    assert sent.store.delivery().reason == (
        "not confirmed yet: the peer answered the request for storage commitment with status 0213"
    )
    (view,) = sent.commitments.views(1)
    assert view.outcome == "REFUSED"


def test_a_peer_without_the_service_is_told(sent: Sent) -> None:
    sent.archive.tps._server.contexts = [
        one for one in sent.archive.tps._server.contexts if one.abstract_syntax != PUSH_MODEL
    ]
    assert sent.courier.confirm_once(sent.destination)
    assert sent.store.delivery().reason.startswith("not confirmed yet: ")
    assert sent.state() is DeliveryState.SENT


def test_a_peer_that_never_reports_is_asked_again_with_longer_pauses_for_a_day(
    sent: Sent,
) -> None:
    now = [sent.store.delivery().updated_at]
    courier, began = make_courier(sent.store, sent.destination, clock=lambda: now[0]), now[0]
    asked_at_h = []
    for _ in range(20):
        if not courier.confirm_once(sent.destination):
            break
        asked_at_h.append((now[0] - began) / timedelta(hours=1))
        now[0] = max(now[0], min(sent.store.delivery().next_attempt_at, now[0] + timedelta(days=30)))
    assert asked_at_h == [0, 0.25, 0.5, 1, 2, 4, 8, 16, 24]
    uids = [asked.TransactionUID for asked in sent.archive.requests]
    assert len(set(uids)) == len(uids) == 8
    assert sent.store.delivery().reason == "not confirmed within 24 h: tps did not report on storage commitment"
    assert report(sent.port, committed(sent.archive.requests[-2])) == 0x0110
    assert sent.state() is DeliveryState.SENT
    assert report(sent.port, committed(sent.archive.requests[-1])) == 0x0000, "a late report counts"
    assert sent.state() is DeliveryState.CONFIRMED


def test_a_courier_that_is_killed_before_its_request_leaves_is_followed_by_one_that_asks(
    sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr("node.send.commitment.associate", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sent.courier.confirm_once(sent.destination)
    (left,) = sent.commitments.views(1)
    assert (left.outcome, sent.archive.requests) == ("ASKED", [])
    later = sent.store.delivery().next_attempt_at
    assert make_courier(sent.store, sent.destination, clock=lambda: later).confirm_once(sent.destination)
    assert report(sent.port, committed(sent.archive.requests[-1])) == 0x0000
    assert sent.state() is DeliveryState.CONFIRMED


def test_orthanc_commits_to_what_it_holds_and_to_nothing_else(
    store: Any, produce: Any, start_receiver: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.send.commitment.KEEP_OPEN_S", 0.0)
    produce(4)
    known = DestinationSettings(name="tps", ae_title="ORTHANC", host="127.0.0.1", confirm="commitment")
    receiver = start_receiver(reporting=[known], allowed_peers=[{"ae_title": "CT1"}])
    orthanc = Orthanc(tmp_path / "orthanc", node_port=receiver.port)
    try:
        destination = known.model_copy(update={"port": orthanc.port})
        courier = make_courier(store, destination)
        assert courier.run_once(destination)
        orthanc.delete_one()
        assert courier.confirm_once(destination)
        wait_until(lambda: store.delivery().state is DeliveryState.PENDING)
        assert [one.failure_reason for one in CommitmentStore(store.database).failed(1)] == [0x0112]
        store.outbox.retry(1, "operator", "", store.delivery().updated_at)
        assert courier.run_once(destination)
        assert courier.confirm_once(destination)
        wait_until(lambda: store.delivery().state is DeliveryState.CONFIRMED)
    finally:
        orthanc.stop()


# -- a scanner that asks ---------------------------------------------------------------------------------------


@dataclass
class Scanner:
    """An SCU of storage commitment, which hears reports on its own association."""

    port: int
    told: list[Dataset] = field(default_factory=list)
    heard: threading.Event = field(default_factory=threading.Event)

    def associate(self) -> Association:
        ae = AE("CT1")
        ae.dimse_timeout = 20
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self._reported)]
        contexts = [build_context(PUSH_MODEL), build_context(CT)]
        return ae.associate("127.0.0.1", self.port, contexts=contexts, ae_title="SYNCECT", evt_handlers=handlers)

    def _reported(self, event: Any) -> tuple[int, None]:
        self.told.append(event.event_information)
        self.told[-1].event_type = event.request.EventTypeID
        self.heard.set()
        return 0x0000, None


def _request(count: int) -> Dataset:
    asked = Dataset()
    asked.TransactionUID = "1.2.3"
    asked.ReferencedSOPSequence = [Dataset() for _ in range(count)]
    for number, item in enumerate(asked.ReferencedSOPSequence):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, f"1.2.3.{number}"
    return asked


def test_a_scanner_is_told_that_every_instance_failed(start_receiver: Any) -> None:
    scanner = Scanner(start_receiver(commitment="fail_all").port)
    association = scanner.associate()
    assert association.send_n_action(_request(700), 1, PUSH_MODEL, PUSH_INSTANCE)[0].Status == 0x0000
    assert scanner.heard.wait(20)
    association.release()
    (told,) = scanner.told
    assert (told.TransactionUID, told.event_type, len(told.FailedSOPSequence)) == ("1.2.3", 2, 700)
    assert {item.FailureReason for item in told.FailedSOPSequence} == {0x0110}
    assert "ReferencedSOPSequence" not in told


@pytest.mark.parametrize(
    ("action", "instance", "count", "answer"),
    [(2, PUSH_INSTANCE, 1, 0x0123), (1, "1.2.3", 1, 0x0112), (1, PUSH_INSTANCE, 0, 0x0115)],
)
def test_a_request_that_is_none_is_refused(
    start_receiver: Any, action: int, instance: str, count: int, answer: int
) -> None:
    association = Scanner(start_receiver(commitment="fail_all").port).associate()
    assert association.send_n_action(_request(count), action, PUSH_MODEL, instance)[0].Status == answer
    association.release()


def test_a_scanner_that_does_not_wait_for_the_report_holds_nothing(
    start_receiver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = start_receiver(commitment="fail_all")
    association = Scanner(receiver.port).associate()
    association.send_n_action(_request(1), 1, PUSH_MODEL, PUSH_INSTANCE)
    association.release()
    wait_until(lambda: "ended its association before it was told" in caplog.text)


def test_a_scanner_that_left_is_told_where_it_listens(
    start_receiver: Any, make_tps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.receive.commitment.RETRY_PAUSES_S", (0.05,))
    told: list[Dataset] = []
    heard, answers = threading.Event(), iter([0x0110, 0x0000])

    def take(event: Any) -> tuple[int, None]:
        told.append(event.event_information)
        status = next(answers)
        if status == 0x0000:
            heard.set()
        return status, None

    scanner = make_tps(running=False)
    scanner._ae.ae_title = "CT1"
    scanner._ae.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
    scanner.also_handles = [(evt.EVT_N_EVENT_REPORT, take)]
    scanner.start()
    receiver = start_receiver(commitment="fail_all", allowed_peers=[{"ae_title": "CT1", "port": scanner.port}])
    association = Scanner(receiver.port).associate()
    association.send_n_action(_request(3), 1, PUSH_MODEL, PUSH_INSTANCE)
    association.release()
    assert heard.wait(20), "the first report was answered with a failure, so there is a second one"
    assert [(one.TransactionUID, len(one.FailedSOPSequence)) for one in told] == [("1.2.3", 3)] * 2


def test_a_request_is_not_taken_by_default(start_receiver: Any) -> None:
    association = Scanner(start_receiver().port).associate()
    assert [cx.abstract_syntax for cx in association.accepted_contexts] == [CT]
    association.release()


def test_a_scanner_may_not_ask_where_only_reports_are_wanted(start_receiver: Any, make_tps: Any) -> None:
    receiver = start_receiver(reporting=[make_tps().destination(confirm="commitment")])
    association = Scanner(receiver.port).associate()
    assert [cx.abstract_syntax for cx in association.accepted_contexts] == [CT]
    association.release()
