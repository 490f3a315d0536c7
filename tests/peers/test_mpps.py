"""The Modality Performed Procedure Step SCP on the wire: what a scanner is answered, and that success is durable."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_CREATE
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import P_DATA

from node.network.procedure_step import MPPS
from node.network.services import Message
from storage.performed_steps import PerformedStepStore
from tests.peers.conftest import CT, Store

BYTES = "bytes that are no data set"
STEP, IMAGES = "1.2.7", ("1.2.3.1", "1.2.3.2")


@contextmanager
def scanner(port: int, ae_title: str = "CTSIM") -> Iterator[Association]:
    ae = AE(ae_title)
    ae.dimse_timeout = 20
    association = ae.associate("127.0.0.1", port, ae_title="SYNCECT", contexts=[build_context(MPPS), build_context(CT)])
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def begun() -> Dataset:
    told, scheduled = Dataset(), Dataset()
    scheduled.StudyInstanceUID = "1.2"
    told.ScheduledStepAttributesSequence, told.PerformedSeriesSequence = [scheduled], []
    told.PerformedProcedureStepStatus = "IN PROGRESS"
    return told


def ended(state: str = "COMPLETED") -> Dataset:
    told, series = Dataset(), Dataset()
    series.SeriesInstanceUID = "1.2.3"
    series.ReferencedImageSequence = [Dataset() for _ in IMAGES]
    for item, uid in zip(series.ReferencedImageSequence, IMAGES, strict=True):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, uid
    told.PerformedSeriesSequence, told.PerformedProcedureStepStatus = [series], state
    return told


def create(peer: Association, told: Dataset, uid: str | None = STEP) -> Dataset:
    return peer.send_n_create(told, MPPS, uid)[0]


def change(peer: Association, told: Dataset, uid: str = STEP) -> Dataset:
    return peer.send_n_set(told, MPPS, uid)[0]


def test_a_scanner_reports_its_step_and_is_told_what_it_did_wrong(store: Store, start_receiver: Any) -> None:
    receiver, steps = start_receiver(mpps=True), PerformedStepStore(store.database)
    with scanner(receiver.port) as peer:
        assert change(peer, ended()).Status == 0x0112
        assert create(peer, ended()).Status == 0x0106
        assert create(peer, begun()).Status == 0x0000
        assert [step.state for step in steps.of_series("1.2", "1.2.3")] == ["IN PROGRESS"]
        assert create(peer, begun()).Status == 0x0111
    with scanner(receiver.port, "OTHER") as stranger:
        assert change(stranger, ended()).Status == 0x0124
    with scanner(receiver.port) as peer:
        assert change(peer, ended()).Status == 0x0000
        (step,) = steps.of_series("1.2", "1.2.3")
        assert (step.state, step.calling_ae, step.listed) == ("COMPLETED", "CTSIM", frozenset(IMAGES))
        again = change(peer, ended("DISCONTINUED"))
        assert (again.Status, again.ErrorID) == (0x0110, 0xA710)
        status, made = peer.send_n_create(begun(), MPPS)
        assert status.Status == 0x0000, "a step without a UID gets one"
        assert len(steps.of_series("1.2", "1.2.3")) == 2
        assert made is None or "AffectedSOPInstanceUID" not in made


def test_without_the_setting_nobody_reports_a_step(start_receiver: Any) -> None:
    with scanner(start_receiver().port) as peer:
        assert [str(one.abstract_syntax) for one in peer.accepted_contexts] == [CT]


@pytest.mark.parametrize("kind", [BYTES, "a message about another SOP class"])
def test_nonsense_costs_a_status_or_the_association(start_receiver: Any, kind: str) -> None:
    receiver = start_receiver(mpps=True)
    with scanner(receiver.port) as peer:
        request = N_CREATE()
        request.MessageID = 1
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = MPPS if kind == BYTES else CT, STEP
        request.AttributeList = BytesIO(b"\x40\x00\x70\x02SQ\0\0\xff\xff\xff\xff" * 2000)
        context = next(one for one in peer.accepted_contexts if one.abstract_syntax == MPPS)
        peer._reactor_checkpoint.clear()
        peer.dimse.send_msg(request, context.context_id or 0)
        answer = peer.dimse.get_msg(block=True)[1]
        peer._reactor_checkpoint.set()
        if kind == BYTES:
            assert answer is not None
            assert answer.Status in (0x0110, 0x0120)
            assert create(peer, begun()).Status == 0x0000, "the association goes on"
        else:
            assert answer is None
            peer.join(20)
            assert peer.is_aborted


def test_a_message_that_names_two_sop_classes_ends_the_association(start_receiver: Any) -> None:
    with scanner(start_receiver(mpps=True).port) as peer:
        context = next(one for one in peer.accepted_contexts if one.abstract_syntax == MPPS)
        command, data = Dataset(), P_DATA()
        command.AffectedSOPClassUID, command.RequestedSOPClassUID = CT, MPPS  # pynetdicom looks at the first
        command.CommandField, command.MessageID, command.CommandDataSetType = Message.N_SET_RQ, 1, 0x0101
        command.RequestedSOPInstanceUID = STEP
        data.presentation_data_value_list = [[context.context_id or 0, b"\3" + (encode(command, True, True) or b"")]]  # type: ignore[list-item]
        peer.dul.send_pdu(data)
        peer.join(20)
        assert peer.is_aborted
