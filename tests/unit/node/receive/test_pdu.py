"""Reading and writing PDUs: what another implementation writes is read, and it reads what is written here."""

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import build_context
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, A_RELEASE_RP, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)

from node.dicom.p_data import InvalidPdu, data_values
from node.network.contexts import negotiate
from node.receive import pdu
from node.receive.pdu import Proposal, read_associate_request

VERIFICATION = "1.2.840.10008.1.1"
PROPOSED = [
    (CTImageStorage, [ImplicitVRLittleEndian, ExplicitVRLittleEndian]),
    (VERIFICATION, [ImplicitVRLittleEndian]),
]


def request(*, extra: tuple[Any, ...] = ()) -> bytes:
    """An A-ASSOCIATE-RQ as pynetdicom writes it."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "SIMULATOR", "SYNCECT"
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 16382, "1.2.3"
    primitive.user_information = [length, implementation, *extra]
    contexts = [build_context(abstract, syntaxes) for abstract, syntaxes in PROPOSED]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = contexts
    message = A_ASSOCIATE_RQ()
    message.from_primitive(primitive)
    return bytes(message.encode())


def optional_items() -> tuple[Any, ...]:
    window, role, user = (
        AsynchronousOperationsWindowNegotiation(),
        SCP_SCU_RoleSelectionNegotiation(),
        UserIdentityNegotiation(),
    )
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 8
    role.sop_class_uid, role.scu_role, role.scp_role = CTImageStorage, True, True
    user.user_identity_type, user.primary_field, user.positive_response_requested = 1, b"somebody", True
    return window, role, user


@pytest.mark.parametrize("extra", [(), optional_items()])
def test_a_request_of_another_implementation_is_read(extra: tuple[Any, ...]) -> None:
    read = read_associate_request(request(extra=extra)[6:])
    assert (read.called_ae, read.calling_ae, read.protocol_version) == ("SYNCECT", "SIMULATOR", 1)
    assert read.max_pdu_bytes == 16382
    assert read.proposals == (
        Proposal(1, CTImageStorage, (ImplicitVRLittleEndian, ExplicitVRLittleEndian)),
        Proposal(3, VERIFICATION, (ImplicitVRLittleEndian,)),
    )


def test_another_implementation_reads_the_acceptance() -> None:
    read = read_associate_request(request()[6:])
    raw = pdu.associate_accept(
        read, negotiate(read.proposals), max_pdu_bytes=131072, class_uid="1.2.34", version_name="SYNCECT_0"
    )
    answer = A_ASSOCIATE_AC()
    answer.decode(raw)
    assert bytes(answer.encode()) == raw
    assert (answer.called_ae_title, answer.calling_ae_title) == ("SYNCECT", "SIMULATOR")
    primitive = answer.to_primitive()
    results = primitive.presentation_context_definition_results_list
    assert [(c.context_id, c.result, c.transfer_syntax) for c in results] == [
        (1, 0, [ExplicitVRLittleEndian]),
        (3, 0, [ImplicitVRLittleEndian]),
    ]
    assert primitive.maximum_length_received == 131072
    assert primitive.implementation_class_uid == "1.2.34"


@pytest.mark.parametrize(
    ("proposal", "result", "syntax"),
    [
        (Proposal(1, CTImageStorage, (JPEGBaseline8Bit, ImplicitVRLittleEndian)), 0, ImplicitVRLittleEndian),
        (Proposal(1, CTImageStorage, (ImplicitVRLittleEndian, ExplicitVRLittleEndian)), 0, ExplicitVRLittleEndian),
        (Proposal(1, CTImageStorage, (JPEGBaseline8Bit,)), 4, JPEGBaseline8Bit),
        (Proposal(1, "1.2.840.10008.5.1.4.1.1.4", (ExplicitVRLittleEndian,)), 3, ExplicitVRLittleEndian),
    ],
)
def test_every_proposal_gets_an_answer(proposal: Proposal, result: int, syntax: str) -> None:
    (answer,) = negotiate([proposal])
    assert (answer.id, answer.result, answer.transfer_syntax) == (1, result, syntax)


def test_another_implementation_reads_the_last_words() -> None:
    rejection, abort, release = A_ASSOCIATE_RJ(), A_ABORT_RQ(), A_RELEASE_RP()
    rejection.decode(pdu.associate_reject(2, 3, 2))
    assert (rejection.result, rejection.source, rejection.reason_diagnostic) == (2, 3, 2)
    abort.decode(pdu.abort(pdu.INVALID_VALUE))
    assert (abort.source, abort.reason_diagnostic) == (2, 6)
    release.decode(pdu.RELEASE_RP)
    assert bytes(release.encode()) == pdu.RELEASE_RP


@pytest.mark.parametrize("max_pdu_bytes", [0, 7, 20, 100, 131072])
def test_a_command_set_is_cut_to_what_the_peer_takes(max_pdu_bytes: int) -> None:
    message = bytes(range(100))
    raw, whole, last = pdu.command_pdus(5, message, max_pdu_bytes=max_pdu_bytes), b"", False
    while raw:
        (length,) = struct.unpack_from(">L", raw, 2)
        assert not max_pdu_bytes or length <= max_pdu_bytes
        part = P_DATA_TF()
        part.decode(raw[: 6 + length])
        ((context_id, value),) = part.to_primitive().presentation_data_value_list
        assert context_id == 5
        assert value[0] & 1
        assert not last
        whole, last, raw = whole + value[1:], bool(value[0] & 2), raw[6 + length :]
    assert whole == message
    assert last


def items(*values: tuple[int, bytes]) -> memoryview:
    return memoryview(b"".join(struct.pack(">LB", len(value) + 1, context) + value for context, value in values))


def test_data_values_are_views_in_their_order() -> None:
    body = items((1, b"\3abc"), (3, b"\0"), (1, b"\2de"))
    assert [(context, bytes(value)) for context, value in data_values(body)] == [
        (1, b"\3abc"),
        (3, b"\0"),
        (1, b"\2de"),
    ]
    assert all(value.obj is body.obj for _, value in data_values(body))


def changed(position: int, value: bytes) -> bytes:
    body = bytearray(request()[6:])
    body[position : position + len(value)] = value
    return bytes(body)


CONTEXT = 68 + 4 + 21  # behind the fixed fields and the application context


@pytest.mark.parametrize(
    "body",
    [
        b"",
        request()[6:73],
        request()[6:-1],
        changed(4, b"SYN\\CECT"),
        changed(20, b"A\r\nERROR"),
        changed(20, b" " * 16),
        changed(CONTEXT + 4, b"\2"),  # an even number
        changed(CONTEXT + 4, b"\3"),  # the number of the other one
        changed(CONTEXT + 2, b"\xff\xff"),
        changed(CONTEXT + 8, b"\x31"),  # no abstract syntax
        changed(CONTEXT + 12, b"../../evil"),
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidPdu):
        read_associate_request(body)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(InvalidPdu):
        read_associate_request(data)
    with contextlib.suppress(InvalidPdu):
        read_associate_request(request()[6:74] + data)
    with contextlib.suppress(InvalidPdu):
        list(data_values(memoryview(data)))
