"""Asking as the standard writes it, and taking nothing for an answer that is none."""

import contextlib
import io
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage
from pynetdicom.dimse_messages import C_ECHO_RQ, C_FIND_RQ, C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, C_STORE

from node.send.command import Request, Service, read_answer

STORE = Request(Service.STORE, CTImageStorage, "1.2.3", message_id=7)


def command_set(message: Any, primitive: Any) -> bytes:
    """The command set that pynetdicom makes of a primitive."""
    message.primitive_to_message(primitive)
    (first, *_) = list(message.encode_msg(1, 0))
    return bytes(first.presentation_data_value_list[0][1][1:])


def answer(*, responded_to: int = 7, status: int = 0xB000) -> bytes:
    primitive = C_STORE()
    primitive.MessageIDBeingRespondedTo, primitive.Status = responded_to, status
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = CTImageStorage, "1.2.3"
    return command_set(C_STORE_RSP(), primitive)


def test_a_store_request_is_what_pynetdicom_would_send() -> None:
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 7, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = CTImageStorage, "1.2.3"
    primitive.DataSet = io.BytesIO(b"\0\0")
    theirs = command_set(C_STORE_RQ(), primitive)
    assert STORE.encoded() == theirs


def test_an_echo_and_a_find_request_are_what_pynetdicom_would_send() -> None:
    echo, find = C_ECHO(), C_FIND()
    echo.MessageID, echo.AffectedSOPClassUID = 1, "1.2.840.10008.1.1"
    find.MessageID, find.AffectedSOPClassUID, find.Priority = 1, "1.2.840.10008.5.1.4.1.2.2.1", 2
    find.Identifier = io.BytesIO(b"\0\0")
    assert Request(Service.ECHO, str(echo.AffectedSOPClassUID)).encoded() == command_set(C_ECHO_RQ(), echo)
    assert Request(Service.FIND, str(find.AffectedSOPClassUID)).encoded() == command_set(C_FIND_RQ(), find)


def test_an_answer_is_read() -> None:
    assert read_answer(answer(), STORE) == (0xB000, False)


def test_a_data_set_that_follows_is_announced() -> None:
    assert read_answer(answer().replace(b"\x01\x01", b"\x01\x00"), STORE) == (0xB000, True)


@pytest.mark.parametrize(
    "raw",
    [
        answer(responded_to=8),
        answer().replace(b"\x01\x80", b"\x20\x80"),  # the answer to a C-FIND
        STORE.encoded(),
        answer()[:-1],
        answer()[:-40],
        b"",
        struct.pack("<HHL", 0, 0x0900, 4) + b"\0\0\0\0",
    ],
)
def test_anything_else_is_no_answer(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_answer(raw, STORE)


@given(st.binary(max_size=200), st.integers(0, 150))
def test_noise_is_refused_with_one_kind_of_error(noise: bytes, position: int) -> None:
    whole = answer()
    for raw in (noise, whole[:position] + noise, whole[:position] + noise + whole[position:]):
        with contextlib.suppress(ValueError):
            read_answer(raw, STORE)
