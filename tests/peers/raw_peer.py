"""A storage SCU in raw bytes, which sends what no library would send, and waits for what the receiver does about it.

It uses the standard library only, so that a child process that attacks the receiver starts at once.
"""

import select
import socket
import struct
import time
from collections.abc import Iterable, Sequence

CT, VERIFICATION = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
ECHO_CONTEXT, CT_CONTEXT = 1, 3
ASSOCIATE_AC, ASSOCIATE_RJ, DATA, RELEASE_RQ, ABORT_PDU = 0x02, 0x03, 0x04, 0x05, 0x07
NOT_RECOGNIZED, LIMIT_REACHED = (1, 1, 3), (2, 3, 2)  # result, source and reason of PS3.8 table 9-21
COMMAND, LAST = 1, 2  # bits of a message control header, PS3.8 annex E.2
RELEASE = b"\x05\0\0\0\0\4\0\0\0\0"
ABORT = b"\x07\0\0\0\0\4\0\0\0\0"


class Rejected(ConnectionError):
    """The association was rejected; `reason` has the result, the source and the reason of PS3.8 table 9-21."""

    def __init__(self, reason: tuple[int, int, int]) -> None:
        super().__init__(f"rejected with {reason}")
        self.reason = reason


def connect(port: int, *, source: str = "127.0.0.1", timeout_s: float = 5.0) -> socket.socket:
    """A TCP connection to the receiver from an address of the loopback."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=timeout_s, source_address=(source, 0))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class RawPeer:
    """A requestor that has associated for C-ECHO and C-STORE of CT. Raises Rejected, or OSError where it is cut off."""

    def __init__(
        self, port: int, *, calling: str = "SIMULATOR", source: str = "127.0.0.1", timeout_s: float = 5.0
    ) -> None:
        self.connection = connect(port, source=source, timeout_s=timeout_s)
        try:
            self.connection.sendall(associate_rq(calling=calling))
            kind, body = read_pdu(self.connection)
            if kind == ASSOCIATE_RJ:
                raise Rejected((body[1], body[2], body[3]))
            if kind != ASSOCIATE_AC:
                raise ConnectionError(f"a PDU of type {kind:02X}H answers the association request")
        except BaseException:
            self.connection.close()
            raise
        self.max_pdu_bytes = _maximum_length(body)
        self._message_id = 0

    def __enter__(self) -> "RawPeer":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def echo(self) -> int:
        """Send C-ECHO and return its status."""
        self._message_id += 1
        request = encode_command(VERIFICATION.encode(), 0x0030, self._message_id, [(0x0800, b"\1\1")])
        self.connection.sendall(p_data(ECHO_CONTEXT, COMMAND | LAST, request))
        return self.answer()

    def request_store(self, uid: bytes = b"1.2.3.4") -> None:
        """Send the command set of a C-STORE request with these bytes for the Affected SOP Instance UID."""
        self._message_id += 1
        more = [(0x0700, b"\0\0"), (0x0800, b"\0\0"), (0x1000, even(uid))]
        request = encode_command(CT.encode(), 0x0001, self._message_id, more)
        self.connection.sendall(p_data(CT_CONTEXT, COMMAND | LAST, request))

    def send_data(self, data: bytes, *, last: bool = True) -> None:
        """Send a part of a data set in PDUs as long as was agreed."""
        room = (self.max_pdu_bytes or 1 << 17) - 6
        for begin in range(0, max(len(data), 1), room):
            control = LAST if last and begin + room >= len(data) else 0
            self.connection.sendall(p_data(CT_CONTEXT, control, data[begin : begin + room]))

    def store(self, uid: bytes, data: bytes) -> int:
        """Send a whole C-STORE request and return its status."""
        self.request_store(uid)
        self.send_data(data)
        return self.answer()

    def answer(self) -> int:
        """The status of the next response; raises ConnectionError where the association ended instead."""
        kind, body = read_pdu(self.connection)
        if kind != DATA:
            raise ConnectionError(f"a PDU of type {kind:02X}H came instead of an answer")
        at = body.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
        return int(struct.unpack_from("<H", body, at)[0])

    def store_status(self, uid: bytes, data: bytes) -> int | None:
        """The status of a C-STORE request, or None where the receiver ended the association instead."""
        try:
            return self.store(uid, data)
        except ConnectionError:
            return None


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Type and body of the next PDU; raises ConnectionError where the connection ended."""
    kind, length = struct.unpack(">BxL", _exactly(connection, 6))
    return kind, _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        if not (received := connection.recv(count - len(data))):
            raise ConnectionError("the receiver closed the connection")
        data += received
    return bytes(data)


def is_ended_by_receiver(connection: socket.socket, within_s: float) -> bool:
    """Whether the receiver closes the connection in time; what it sends before is read and dropped."""
    deadline = time.monotonic() + within_s
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            if not connection.recv(65536):
                return True
        except TimeoutError:
            return False
        except ConnectionError:
            return True
    return False


def drip(connection: socket.socket, pieces: Iterable[bytes], *, every_s: float, for_s: float) -> bool:
    """Send piece after piece; whether the receiver ended the connection before the pieces or the time were used up."""
    deadline = time.monotonic() + for_s
    for piece in pieces:
        try:
            connection.sendall(piece)
            readable, _, _ = select.select([connection], [], [], every_s)
            if readable and connection.recv(65536)[:1] in (b"", bytes([ABORT_PDU])):
                return True
        except ConnectionError:
            return True
        if time.monotonic() > deadline:
            return False
    return False


def flood(connection: socket.socket, chunk: bytes, total_bytes: int) -> int:
    """Send `chunk` again and again until the receiver takes no more; how many bytes it took."""
    sent = 0
    while sent < total_bytes:
        try:
            connection.sendall(chunk)
        except OSError:
            break
        sent += len(chunk)
    return sent


def associate_rq(
    *,
    calling: str = "SIMULATOR",
    called: str = "SYNCECT",
    contexts: Sequence[tuple[str, Sequence[str]]] = ((VERIFICATION, (EXPLICIT,)), (CT, (EXPLICIT,))),
) -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 table 9-11) whose presentation contexts get the numbers 1, 3, 5 and so on."""
    items = [_item(0x10, b"1.2.840.10008.3.1.1.1")]
    for number, (abstract, transfers) in enumerate(contexts):
        syntaxes = [_item(0x30, abstract.encode()), *(_item(0x40, uid.encode()) for uid in transfers)]
        items.append(_item(0x20, bytes((2 * number + 1, 0, 0, 0)) + b"".join(syntaxes)))
    user = _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"1.2.3") + _item(0x55, b"RAW")
    body = struct.pack(">HH", 1, 0) + called.encode().ljust(16) + calling.encode().ljust(16) + bytes(32)
    body += b"".join(items) + _item(0x50, user)
    return b"\x01\0" + struct.pack(">L", len(body)) + body


def p_data(context: int, control: int, value: bytes) -> bytes:
    """A P-DATA-TF PDU with one presentation data value."""
    item = struct.pack(">LBB", len(value) + 2, context, control) + value
    return b"\x04\0" + struct.pack(">L", len(item)) + item


def encode_command(sop_class: bytes, field: int, message_id: int, more: Sequence[tuple[int, bytes]]) -> bytes:
    """A command set (PS3.7 annex E) with its group length."""
    elements = [(0x0002, even(sop_class)), (0x0100, struct.pack("<H", field)), (0x0110, struct.pack("<H", message_id))]
    encoded = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in (*elements, *more))
    return struct.pack("<HHLL", 0, 0, 4, len(encoded)) + encoded


def data_set(
    uid: bytes = b"1.2.3.4", *, study: bytes = b"1.2.3", series: bytes = b"1.2.3.1", between: bytes = b""
) -> bytes:
    """A data set in Explicit VR Little Endian with what identifies an instance; `between` follows group 0008."""
    identity = _ui(0x0008, 0x0016, CT.encode()) + _ui(0x0008, 0x0018, uid) + between
    return identity + _ui(0x0020, 0x000D, study) + _ui(0x0020, 0x000E, series) + _ui(0x0020, 0x0052, b"1.2.3.2")


def even(value: bytes) -> bytes:
    """A UID as it is encoded, with a NUL where its length is odd (PS3.5 section 9.1)."""
    return value + b"\0" * (len(value) % 2)


def _ui(group: int, element: int, uid: bytes) -> bytes:
    return struct.pack("<HH2sH", group, element, b"UI", len(even(uid))) + even(uid)


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _maximum_length(accept: bytes) -> int:
    at = accept.index(b"\x51\0\0\4") + 4
    return int(struct.unpack_from(">L", accept, at)[0])
