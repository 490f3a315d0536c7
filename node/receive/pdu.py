"""Reads and writes the PDUs of an association's acceptor in their raw bytes (PS3.8 section 9.3); it knows no messages.

Own code, because a sender proposes 128 presentation contexts at a time and a general reader makes objects of each
element: 15 ms for one association, which a crowd of associations pays one after the other.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from node.dicom.p_data import COMMAND, LAST, InvalidPdu

ASSOCIATE_RQ, DATA, RELEASE_RQ, ABORT = 0x01, 0x04, 0x05, 0x07
KNOWN_TYPES = frozenset(range(0x01, 0x08))
RELEASE_RP = b"\x06\0\0\0\0\4\0\0\0\0"
HEADER_BYTES = 6

# PS3.8 table 9-26: source and reason
BY_USER, UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_VALUE = (0, 0), (2, 1), (2, 2), (2, 6)

# PS3.8 table 9-18: what became of a proposed presentation context
ACCEPTED, ABSTRACT_SYNTAX_UNKNOWN, TRANSFER_SYNTAXES_UNKNOWN = 0, 3, 4

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"  # DICOM's only one, PS3.7 annex A.2.1
_APPLICATION = 0x10
_PRESENTATION_CONTEXT, _ABSTRACT_SYNTAX, _TRANSFER_SYNTAX, _USER_INFORMATION = 0x20, 0x30, 0x40, 0x50
_MAXIMUM_LENGTH, _IMPLEMENTATION_CLASS, _IMPLEMENTATION_VERSION = 0x51, 0x52, 0x55
_TITLES = slice(4, 68)  # of the body: called and calling AE title, and 32 bytes that go back as they came
_FIXED_BYTES = 68

_AE_TITLE = re.compile(rb"[\x20-\x5b\x5d-\x7e]{16}")
_UID = re.compile(rb"[0-9.]{1,64}")


@dataclass(frozen=True)
class Proposal:
    """One presentation context as a requestor proposes it."""

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What became of one proposal, in the terms of PS3.8 table 9-18."""

    id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True)
class AssociateRequest:
    """What an A-ASSOCIATE-RQ asks for; everything that this node does not negotiate is left out.

    `max_pdu_bytes` is the largest PDU body that the requestor takes; 0 stands for no limit.
    """

    protocol_version: int
    application_context: str
    titles: bytes
    called_ae: str
    calling_ae: str
    proposals: tuple[Proposal, ...]
    max_pdu_bytes: int


def read_associate_request(body: bytes) -> AssociateRequest:
    """Read the body of an A-ASSOCIATE-RQ (PS3.8 table 9-11). Raises InvalidPdu."""
    if len(body) < _FIXED_BYTES:
        raise InvalidPdu("an association request is too short")
    proposals: dict[int, Proposal] = {}
    application_context, max_pdu_bytes = "", 0
    for kind, value in _items(body, _FIXED_BYTES):
        if kind == _APPLICATION:
            application_context = _uid(value)
        elif kind == _PRESENTATION_CONTEXT:
            proposal = _proposal(value)
            if proposals.setdefault(proposal.id, proposal) is not proposal:
                raise InvalidPdu("two presentation contexts have one number")
        elif kind == _USER_INFORMATION:
            max_pdu_bytes = _maximum_length(value)
    titles = body[_TITLES]
    return AssociateRequest(
        protocol_version=struct.unpack_from(">H", body)[0],
        application_context=application_context,
        titles=titles,
        called_ae=_ae_title(titles[:16]),
        calling_ae=_ae_title(titles[16:32]),
        proposals=tuple(proposals.values()),
        max_pdu_bytes=max_pdu_bytes,
    )


def associate_accept(
    request: AssociateRequest, answers: Sequence[Answer], *, max_pdu_bytes: int, class_uid: str, version_name: str
) -> bytes:
    """The A-ASSOCIATE-AC (PS3.8 table 9-17), which names every proposed context."""
    user = (
        _item(_MAXIMUM_LENGTH, struct.pack(">L", max_pdu_bytes))
        + _item(_IMPLEMENTATION_CLASS, class_uid.encode("ascii"))
        + _item(_IMPLEMENTATION_VERSION, version_name.encode("ascii"))
    )
    contexts = (
        _item(
            0x21,
            bytes((answer.id, 0, answer.result, 0)) + _item(_TRANSFER_SYNTAX, answer.transfer_syntax.encode("ascii")),
        )
        for answer in answers
    )
    body = b"".join(
        (
            b"\0\1\0\0",
            request.titles,
            _item(_APPLICATION, APPLICATION_CONTEXT.encode("ascii")),
            *contexts,
            _item(_USER_INFORMATION, user),
        )
    )
    return _pdu(0x02, body)


def associate_reject(result: int, source: int, reason: int) -> bytes:
    """The A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    return _pdu(0x03, bytes((0, result, source, reason)))


def abort(why: tuple[int, int]) -> bytes:
    """The A-ABORT with a source and a reason (PS3.8 table 9-26)."""
    return _pdu(ABORT, bytes((0, 0, *why)))


def command_pdus(context_id: int, message: bytes, *, max_pdu_bytes: int) -> bytes:
    """The P-DATA-TF PDUs of a whole command set, none longer than the peer takes; 0 stands for no limit."""
    room = max(max_pdu_bytes - 6, 1) if max_pdu_bytes else len(message)
    pdus = []
    for begin in range(0, len(message), room):
        fragment = message[begin : begin + room]
        control = COMMAND | (LAST if begin + room >= len(message) else 0)
        pdus.append(_pdu(DATA, struct.pack(">LBB", len(fragment) + 2, context_id, control) + fragment))
    return b"".join(pdus)


def _pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _items(raw: bytes, position: int = 0) -> Iterator[tuple[int, bytes]]:
    size = len(raw)
    while position < size:
        if position + 4 > size:
            raise InvalidPdu("an association request ends inside an item")
        kind, length = struct.unpack_from(">BxH", raw, position)
        position += 4
        if position + length > size:
            raise InvalidPdu("an item is longer than the association request")
        yield kind, raw[position : position + length]
        position += length


def _proposal(value: bytes) -> Proposal:
    if len(value) < 4 or value[0] % 2 == 0:
        raise InvalidPdu("a presentation context has no valid number")
    abstract, transfer = "", []
    for kind, name in _items(value, 4):
        if kind == _ABSTRACT_SYNTAX:
            abstract = _uid(name)
        elif kind == _TRANSFER_SYNTAX:
            transfer.append(_uid(name))
    if not abstract or not transfer:
        raise InvalidPdu("a presentation context lacks a syntax")
    return Proposal(value[0], abstract, tuple(transfer))


def _maximum_length(value: bytes) -> int:
    for kind, content in _items(value):
        if kind == _MAXIMUM_LENGTH:
            if len(content) != 4:
                raise InvalidPdu("the maximum length is no number")
            return int(struct.unpack(">L", content)[0])
    return 0


def _uid(raw: bytes) -> str:
    value = raw.rstrip(b"\0 ")
    if _UID.fullmatch(value) is None:
        raise InvalidPdu("a syntax is no UID")
    return value.decode("ascii")


def _ae_title(raw: bytes) -> str:
    title = raw.decode("latin-1").strip()
    if _AE_TITLE.fullmatch(raw) is None or not title:
        raise InvalidPdu("an AE title is malformed")
    return title
