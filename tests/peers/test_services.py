"""A server with other services than storage: what their contexts take, and what ends an association."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode

from node.network import dimse_guard
from node.network.services import Message, Service
from tests.peers.measures import wait_until
from tests.peers.scp_pair import Scp, hardened

PUSH_MODEL, PUSH_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
TAKEN = frozenset({Message.N_ACTION_RQ, Message.N_EVENT_REPORT_RQ})


@dataclass
class Commitments:
    """A small SCP and SCU of storage commitment; `may_answer` holds an answer to N-EVENT-REPORT back."""

    actions: list[Dataset] = field(default_factory=list)
    reports: list[Dataset] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    may_answer: threading.Event = field(default_factory=threading.Event)

    def service(self) -> Service:
        context = build_context(PUSH_MODEL)
        context.scu_role = context.scp_role = True
        handlers = [(evt.EVT_N_ACTION, self.acted), (evt.EVT_N_EVENT_REPORT, self.reported)]
        return Service([context], {PUSH_MODEL: TAKEN}, handlers)

    def acted(self, event: Any) -> tuple[int, None]:
        self.actions.append(event.action_information)
        return 0x0000, None

    def reported(self, event: Any) -> tuple[int, None]:
        self.reports.append(event.event_information)
        self.asked.set()
        self.may_answer.wait(30)
        return 0x0000, None


@contextmanager
def associated(scp: Scp, *, as_scp: bool = False) -> Iterator[Association]:
    ae = AE("PEER")
    ae.dimse_timeout = 20
    roles = [build_role(PUSH_MODEL, scu_role=not as_scp, scp_role=as_scp)]
    association = ae.associate("127.0.0.1", scp.port, contexts=[build_context(PUSH_MODEL)], ext_neg=[*roles])
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def references(count: int) -> Dataset:
    ds = Dataset()
    ds.TransactionUID = "1.2.3"
    ds.ReferencedSOPSequence = [Dataset() for _ in range(count)]
    for number, item in enumerate(ds.ReferencedSOPSequence):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{number}"
    return ds


def test_what_a_service_takes_reaches_its_handler() -> None:
    seen = Commitments()
    seen.may_answer.set()
    with hardened(services=[seen.service()]) as scp:
        with associated(scp) as peer:
            assert peer.send_n_action(references(700), 1, PUSH_MODEL, PUSH_INSTANCE)[0].Status == 0x0000
        with associated(scp, as_scp=True) as peer:
            assert peer.send_n_event_report(references(3), 1, PUSH_MODEL, PUSH_INSTANCE)[0].Status == 0x0000
    assert [len(ds.ReferencedSOPSequence) for ds in (*seen.actions, *seen.reports)] == [700, 3]


@pytest.mark.parametrize("how", ["another message", "no UID", "too long"])
def test_what_it_does_not_take_ends_the_association(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "too long":
        monkeypatch.setattr(dimse_guard, "MAX_REQUEST_BYTES", 1000)
    seen = Commitments()
    with hardened(services=[seen.service()]) as scp, associated(scp) as peer:
        if how == "another message":
            answer = peer.send_n_get([Tag(0x00100010)], PUSH_MODEL, PUSH_INSTANCE)[0]
        else:
            instance = "1.2/../3" if how == "no UID" else PUSH_INSTANCE
            answer = peer.send_n_action(references(100), 1, PUSH_MODEL, instance)[0]
        assert "Status" not in answer
        peer.join(20)
        assert peer.is_aborted
    assert seen.actions == []


def test_reports_that_wait_for_no_answer_start_no_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Commitments()
    with hardened(services=[seen.service()]) as scp, associated(scp, as_scp=True) as peer:
        context_id = peer.accepted_contexts[0].context_id or 0
        for number in range(1, 40):
            request = _report(number)
            peer.dimse.send_msg(request, context_id)
        assert seen.asked.wait(20)
        assert len(seen.reports) <= dimse_guard.MAX_WAITING + 1
        seen.may_answer.set()
        wait_until(lambda: len(seen.reports) == 39)


def _report(number: int) -> Any:
    request = N_EVENT_REPORT()
    request.MessageID = number
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = PUSH_MODEL, PUSH_INSTANCE
    request.EventTypeID = 1
    request.EventInformation = BytesIO(encode(references(1), True, True) or b"")
    return request
