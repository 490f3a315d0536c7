"""Reading a C-STORE request out of bytes that anybody may have sent, and answering it."""

import contextlib
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import create_file_meta, decode, encode_file_meta

from node.dicom.constants import IMPLEMENTATION_CLASS_UID, PRODUCT_NAME
from node.errors import UnreadableInstance
from node.receive.command import StoreCommand, read_command, store_response
from node.receive.incoming import part10_head

COMMAND = StoreCommand(message_id=7, sop_class_uid=CTImageStorage, sop_instance_uid="1.2.3")


def element(tag: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HHL", 0, tag, len(value) if length is None else length) + value


def request(**changes: bytes | None) -> bytes:
    """A C-STORE request; `e0002=b""` changes an element, None removes it."""
    elements: dict[str, bytes | None] = {
        "e0002": CTImageStorage.encode() + b"\0",
        "e0100": b"\1\0",
        "e0110": b"\7\0",
        "e0700": b"\0\0",
        "e0800": b"\0\0",
        "e1000": b"1.2.3\0",
    }
    kept = {name: value for name, value in (elements | changes).items() if value is not None}
    return b"".join(element(int(name[1:], 16), value) for name, value in sorted(kept.items()))


def test_a_request_of_another_implementation_is_read() -> None:
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 7, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = CTImageStorage, "1.2.3"
    primitive.MoveOriginatorApplicationEntityTitle, primitive.MoveOriginatorMessageID = "ARCHIVE", 3
    primitive.DataSet = io.BytesIO(b"any")
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    (first, *_) = message.encode_msg(1, 16382)
    ((_, data),) = first.presentation_data_value_list
    assert read_command(data[1:]) == COMMAND


@pytest.mark.parametrize(
    "changes",
    [
        {"e0100": b"\x30\0"},  # C-ECHO
        {"e0800": b"\1\1"},  # no data set
        {"e0110": None},
        {"e0700": None},
        {"e0110": b"\7"},
        {"e1000": None},
        {"e1000": b"1.02.3"},
        {"e1000": b"1..2"},
    ],
)
def test_what_is_no_regular_request_is_left_to_others(changes: dict[str, bytes | None]) -> None:
    assert read_command(request()) == COMMAND
    assert read_command(request(**changes)) is None


@pytest.mark.parametrize("uid", [b"../../evil", b"1.2\r\n3", b"1.2\\1.3", b"", b"1" * 65])
@pytest.mark.parametrize("tag", ["e0002", "e0003", "e1000", "e1001"])
def test_a_malformed_uid_is_refused(tag: str, uid: bytes) -> None:
    with pytest.raises(UnreadableInstance):
        read_command(request(**{tag: uid}))


@pytest.mark.parametrize("raw", [b"\0", element(0x0110, b"\7\0", 2**31), element(0x1000, b"1.2.3\0", 8)])
def test_an_element_that_ends_too_late_is_refused(raw: bytes) -> None:
    with pytest.raises(UnreadableInstance):
        read_command(request() + raw)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(UnreadableInstance):
        read_command(data)


@pytest.mark.parametrize(("status", "comment"), [(0x0000, ""), (0xA700, "the spool takes no more"), (0xC000, "x" * 65)])
def test_the_answer_is_what_another_implementation_would_write(status: int, comment: str) -> None:
    primitive = C_STORE()
    primitive.MessageID = primitive.MessageIDBeingRespondedTo = 7
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = CTImageStorage, "1.2.3"
    primitive.Status = status
    if comment:
        primitive.ErrorComment = comment[:64]
    message = C_STORE_RSP()
    message.primitive_to_message(primitive)
    (part,) = message.encode_msg(1, 16382)
    ((_, data),) = part.presentation_data_value_list
    answer = store_response(COMMAND, status, comment)
    assert answer == data[1:]
    assert decode(io.BytesIO(answer), True, True).Status == status


@pytest.mark.parametrize("instance_uid", ["1.2.3", "1.2.34", "2.25." + "1" * 59])
@pytest.mark.parametrize("class_uid", [CTImageStorage, "1.1111"])
def test_the_head_of_a_file_is_what_encoding_it_anew_gives(class_uid: str, instance_uid: str) -> None:
    meta = create_file_meta(
        sop_class_uid=UID(class_uid),
        sop_instance_uid=UID(instance_uid),
        transfer_syntax=ExplicitVRLittleEndian,
        implementation_uid=UID(IMPLEMENTATION_CLASS_UID),
        implementation_version=PRODUCT_NAME.upper(),
    )
    expected = bytes(128) + b"DICM" + encode_file_meta(meta)
    assert part10_head(class_uid, instance_uid, ExplicitVRLittleEndian) == expected
