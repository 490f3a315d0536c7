"""What a peer of the network sends: PDUs, DIMSE messages, and whole streams to a server that must go on serving."""

import logging
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import P_DATA

from config.settings import ScpSettings
from config.syntax import UID_ALPHABET
from node.network.commitment import PUSH_INSTANCE, PUSH_MODEL, request_of
from node.network.dimse_guard import DimseGuard, MessageLimits
from node.network.library import configure_libraries
from node.network.services import Message, Service
from node.network.upper_layer import MAX_PDU_BYTES, PlainSocket
from node.ops.log_lines import line_formatter
from node.query.service import STUDY_FIND
from node.receive.admission import Places
from node.receive.commitment import CommitmentService
from tests.fuzz.hostile import AE_TITLES, UIDS
from tests.fuzz.target import KB, MB, Run, Target, always
from tests.peers import raw_peer
from tests.peers.raw_peer import COMMAND, CT, CT_CONTEXT, ECHO_CONTEXT, LAST, RELEASE, VERIFICATION, RawPeer, p_data
from tests.peers.scp_pair import hardened

WHOLE: Final = COMMAND | LAST
ACTION_CONTEXT: Final = 5
FIND_CONTEXT: Final = 7
_SHORT_S: Final = 1.0
ECHO: Final = p_data(
    ECHO_CONTEXT, WHOLE, raw_peer.encode_command(VERIFICATION.encode(), 0x0030, 1, [(0x0800, b"\1\1")])
)


def _store(uid: bytes = b"1.2.3.4") -> bytes:
    more = [(0x0700, b"\0\0"), (0x0800, b"\0\0"), (0x1000, raw_peer.even(uid))]
    command = raw_peer.encode_command(CT.encode(), 0x0001, 1, more)
    data = raw_peer.data_set(uid)
    half = len(data) // 2
    return (
        p_data(CT_CONTEXT, WHOLE, command) + p_data(CT_CONTEXT, 0, data[:half]) + p_data(CT_CONTEXT, LAST, data[half:])
    )


def _action() -> bytes:
    more = [(0x0110, b"\1\0"), (0x0800, b"\0\0"), (0x1001, raw_peer.even(PUSH_INSTANCE.encode())), (0x1008, b"\1\0")]
    elements = [(0x0003, raw_peer.even(PUSH_MODEL.encode())), (0x0100, struct.pack("<H", 0x0130)), *more]
    encoded = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)
    command = struct.pack("<HHLL", 0, 0, 4, len(encoded)) + encoded
    asked = encode(request_of("1.2.9", CT, ["1.2.3.4"]), False, True) or b""
    return p_data(ACTION_CONTEXT, WHOLE, command) + p_data(ACTION_CONTEXT, LAST, asked)


def find_command() -> bytes:
    """The command set of a C-FIND request."""
    more = [(0x0700, b"\0\0"), (0x0800, b"\0\0")]
    return p_data(FIND_CONTEXT, WHOLE, raw_peer.encode_command(STUDY_FIND.encode(), 0x0020, 1, more))


def _find() -> bytes:
    query = Dataset()
    query.QueryRetrieveLevel, query.PatientID = "STUDY", "*"
    return find_command() + p_data(FIND_CONTEXT, LAST, encode(query, False, True) or b"")


def _messages() -> list[bytes]:
    cancel = raw_peer.encode_command(STUDY_FIND.encode(), 0x0FFF, 1, [(0x0120, b"\1\0"), (0x0800, b"\1\1")])
    hostile = [_store(uid.encode("utf-8", "replace")[:200]) for uid in UIDS]
    return [ECHO, _store(), _store() * 3, _action(), _find(), p_data(FIND_CONTEXT, WHOLE, cancel), *hostile]


def _requests() -> list[bytes]:
    """Association requests: the usual one, hostile titles, and many contexts."""
    contexts = [(VERIFICATION, (raw_peer.EXPLICIT,)), (CT, (raw_peer.EXPLICIT,)), (PUSH_MODEL, (raw_peer.EXPLICIT,))]
    titles = [title.encode("utf-8", "replace")[:16].decode("latin-1") for title in AE_TITLES]
    requests = [raw_peer.associate_rq(contexts=[*contexts, (STUDY_FIND, (raw_peer.EXPLICIT,))])]
    plain = raw_peer.associate_rq(calling="@" * 16, contexts=contexts)
    requests += [plain.replace(b"@" * 16, title.encode("latin-1").ljust(16)) for title in titles]
    return [*requests, raw_peer.associate_rq(contexts=[(CT, (raw_peer.EXPLICIT,))] * 128)]


# -- the PDU guard: a stream becomes whole PDUs, or ends --------------------------------------------------------------


def _whole_pdus(data: bytes) -> list[bytes]:
    """PS3.8 9.3.1 read slowly: the whole PDUs at the beginning, each of a known type and a length that is allowed."""
    found = []
    while len(data) >= 6 and 1 <= data[0] <= 7 and (length := int.from_bytes(data[2:6])) <= MAX_PDU_BYTES:
        if len(data) < 6 + length:
            break
        found.append(data[: 6 + length])
        data = data[6 + length :]
    return found


def _read_stream(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MB)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MB)
    theirs.setblocking(False)
    stream = PlainSocket(fileno=ours.detach())
    try:
        sent = theirs.send(data) if data else 0
        theirs.close()
        expected, read = _whole_pdus(data[:sent]), []
        while stream.take_in() and (header := stream.recv(6)):
            body = stream.recv(6) if int.from_bytes(header[2:6]) else b""
            read.append(header + body)
            assert len(stream._come) <= 6, f"more than one PDU was taken in: {len(stream._come)} bytes"
        assert read[: len(expected)] == expected, f"other PDUs were read: {len(read)} and {len(expected)}"
        assert len(read) <= len(expected) + 1, f"PDUs were made up: {len(read)} and {len(expected)}"
    finally:
        stream.close()
        theirs.close()


# -- the DIMSE guard: PDUs become messages, or the association ends ---------------------------------------------------

_LIMITS: Final = MessageLimits(MB, 4 * MB, lambda: 1 << 40)
_TAKEN: Final = {
    PUSH_MODEL: frozenset({Message.N_ACTION_RQ, Message.N_EVENT_REPORT_RQ}),
    STUDY_FIND: frozenset({Message.C_FIND_RQ, Message.C_CANCEL_RQ}),
}
_CONTEXTS: Final = {ECHO_CONTEXT: VERIFICATION, CT_CONTEXT: CT, ACTION_CONTEXT: PUSH_MODEL, FIND_CONTEXT: STUDY_FIND}


@contextmanager
def _guarded() -> Iterator[Run]:
    configure_libraries()
    yield take_messages


class _Events(list[str]):
    def put(self, event: str) -> None:
        self.append(event)


def _association() -> Any:
    accepted = [
        SimpleNamespace(context_id=number, abstract_syntax=uid, transfer_syntax=[ExplicitVRLittleEndian])
        for number, uid in _CONTEXTS.items()
    ]
    upper_layer = SimpleNamespace(event_queue=_Events(), wake=lambda: None)
    return SimpleNamespace(
        accepted_contexts=accepted, dul=upper_layer, get_handlers=lambda event: [], _handlers={}, abort=lambda: None
    )


def _fragments(data: bytes) -> Iterator[list[list[Any]]]:
    """The presentation data values of each P-DATA-TF PDU (PS3.8 9.3.5), as pynetdicom would hand them over."""
    while len(data) >= 6:
        length = int.from_bytes(data[2:6])
        body, data = data[6 : 6 + length], data[6 + length :]
        found = []
        while len(body) >= 6:
            size = int.from_bytes(body[:4])
            found.append([body[4], body[5 : 4 + size]])
            body = body[4 + max(size, 1) :]
        yield found


def take_messages(data: bytes) -> tuple[DimseGuard, list[str]]:
    """The guard of an association to which these PDUs came, and the events of its upper layer."""
    association = _association()
    guard = DimseGuard(association, _LIMITS, _TAKEN)
    for fragments in _fragments(data):
        primitive = P_DATA()
        primitive._presentation_data_value_list = [
            (number, value) for number, value in fragments
        ]  # as pynetdicom fills it from a PDU
        guard.receive_primitive(primitive)
        while not guard.msg_queue.empty():
            context_id, message = guard.msg_queue.get()
            assert context_id in _CONTEXTS, "a message in a context that was not accepted: "
            if isinstance(message, C_STORE):
                uid = str(message.AffectedSOPInstanceUID)
                assert UID_ALPHABET.fullmatch(uid), f"a UID of other characters reaches the receiver: {uid!r}"
        if association.dul.event_queue:
            break
    guard.cut_off()
    guard.release()
    assert _LIMITS.in_flight._bytes == 0, "bytes stay counted: "
    return guard, association.dul.event_queue


# -- a server that serves ---------------------------------------------------------------------------------------------


class OneLine(logging.Handler):
    """Every line that is logged is made as the node makes it, and has to be one printable line."""

    def __init__(self) -> None:
        super().__init__()
        self._text, self._json = line_formatter("console", "receive"), line_formatter("json", "receive")
        self.broken: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        lines = [self._json.format(record), *([] if record.exc_info else [self._text.format(record)])]
        self.broken += [line for line in lines if not line.isprintable()]

    @contextmanager
    def listening(self, *names: str) -> Iterator["OneLine"]:
        """Take the lines of these loggers instead of whoever takes them otherwise."""
        before = [(logging.getLogger(name), logging.getLogger(name).propagate) for name in names]
        for one, _ in before:
            one.addHandler(self)
            one.propagate = False
        try:
            yield self
        finally:
            for one, propagate in before:
                one.removeHandler(self)
                one.propagate = propagate


def _services() -> list[Service]:
    reports = SimpleNamespace(destinations=(), take=lambda *_: 0)
    settings = ScpSettings(commitment="fail_all")
    commitment = CommitmentService(settings, reports).service()  # type: ignore[arg-type]
    assert commitment is not None
    handlers = [one for one in commitment.handlers if one[0] is not evt.EVT_REQUESTED]
    find = Service(
        [build_context(STUDY_FIND, [ExplicitVRLittleEndian])],
        {STUDY_FIND: frozenset({Message.C_FIND_RQ, Message.C_CANCEL_RQ})},
        [(evt.EVT_C_FIND, _found)],
    )
    return [Service(commitment.contexts, commitment.messages, handlers), find]


def _found(event: Any) -> Iterator[tuple[int, Dataset | None]]:
    yield 0x0000, None


@contextmanager
def _served() -> Iterator[Run]:
    """A server with commitment and queries beside C-STORE; after each stream a known peer's C-ECHO has to work."""
    places = Places(ScpSettings(max_associations=8))
    with OneLine().listening("node", "pynetdicom") as lines:

        def admit(called: str, calling: str, host: str, certificate: Any) -> object:
            return places.admit(called, calling, host, certificate)

        with hardened(admit=admit, services=_services(), acse_s=_SHORT_S, network_s=_SHORT_S) as scp:
            scp.end = lambda session, released: (session.turn.give_up(), places.leave(session))  # type: ignore
            scp.server._admission = type(scp.server._admission)(admit, scp.end, lambda host: False)

            def run(data: bytes) -> None:
                with suppress(OSError), raw_peer.connect(scp.port) as connection:
                    connection.sendall(data)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(64 * KB):
                        pass
                for seen in (scp.stored, scp.associations, scp.events, scp.ended):
                    seen.clear()
                with RawPeer(scp.port) as peer:
                    assert peer.echo() == 0x0000, "a known peer gets no answer: "
                    peer.connection.sendall(RELEASE)
                broken, lines.broken = lines.broken, []
                assert not broken, f"a line of the log is not one printable line: {broken[0]!r}"
                assert scp.server.limits.in_flight._bytes == 0, "bytes stay counted: "

            yield run


def _streams() -> list[bytes]:
    usual, *others = _requests()
    return [usual + message + RELEASE for message in _messages()[:12]] + [one + ECHO + RELEASE for one in others]


WIRE: Final = (
    Target("pdu", always(_read_stream), lambda: [*_streams(), b"".join(_messages()[:6])], max_bytes=160 * KB),
    Target(
        "dimse",
        _guarded,
        lambda: [*_messages(), _store() + ECHO + _find()],
        max_bytes=64 * KB,
        memory_bytes=8 * MB,
    ),
    Target("server", _served, _streams, max_bytes=64 * KB, memory_bytes=16 * MB, examples=20, share=3),
)
