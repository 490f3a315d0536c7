"""A peer of raw sockets that accepts one association and then does what its script says, in a thread of its own."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from pydicom.uid import ExplicitVRLittleEndian

from config.settings import DestinationSettings

RELEASE_RQ, RELEASE_RP = b"\5\0\0\0\0\4\0\0\0\0", b"\6\0\0\0\0\4\0\0\0\0"
ABORT_BY_USER, ABORT_BY_PROVIDER = b"\7\0\0\0\0\4\0\0\0\0", b"\7\0\0\0\0\4\0\0\2\0"


def elements(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<HHLH", 0, tag, 2, value) for tag, value in pairs)


def answer(
    status: int = 0, *, field: int = 0x8001, message_id: int = 1, data_set: int = 0x0101, instance: bytes | None = None
) -> bytes:
    """A command set of an answer; `instance` is its Affected SOP Instance UID, of even length."""
    named = b"" if instance is None else struct.pack("<HHL", 0, 0x1000, len(instance)) + instance
    return elements((0x0100, field), (0x0120, message_id), (0x0800, data_set), (0x0900, status)) + named


def value(control: int, data: bytes, *, context_id: int = 1) -> bytes:
    """A presentation data value."""
    return struct.pack(">LBB", len(data) + 2, context_id, control) + data


def pdu(*values: bytes) -> bytes:
    """A P-DATA-TF PDU."""
    body = b"".join(values)
    return struct.pack(">BxL", 4, len(body)) + body


STORED = pdu(value(0b11, answer()))


class Peer:
    """A Storage SCP of raw bytes: it accepts one association and its first presentation context, then acts as told.

    The act is a script that is called with the peer; afterwards the peer reads to the end of the connection.
    """

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self.port = self._server.getsockname()[1]
        self.max_pdu_bytes = 16384
        self.answers_release = True
        self.script: Callable[[Peer], object] = lambda peer: None
        self.received: list[bytes] = []
        self.rest = b""
        self.released = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="scripted peer", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self.connection = self._server.accept()[0]
            with self.connection:
                self.connection.settimeout(8)
                self.connection.sendall(self._accept(self.read_pdu()))
                self.script(self)
                while more := self._more():
                    self.rest += more
                    if self.answers_release and self.rest.endswith(RELEASE_RQ):
                        self.send(RELEASE_RP)
        except BaseException as error:
            self._error = error

    def _more(self) -> bytes:
        try:
            return self.connection.recv(1 << 16)
        except OSError:  # closed by the script, or reset
            return b""

    def _accept(self, request: bytes) -> bytes:
        """The A-ASSOCIATE-AC to a request."""
        context = item(0x21, b"\1\0\0\0" + item(0x40, ExplicitVRLittleEndian.encode()))
        user = item(0x50, item(0x51, struct.pack(">L", self.max_pdu_bytes)) + item(0x52, b"1.2.3"))
        body = request[6:74] + item(0x10, b"1.2.840.10008.3.1.1.1") + context + user
        return struct.pack(">BxL", 2, len(body)) + body

    def read_pdu(self) -> bytes:
        head = self._read(6)
        return head + self._read(struct.unpack(">L", head[2:])[0])

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count and (more := self.connection.recv(count - len(data))):
            data += more
        if len(data) < count:
            raise ConnectionError("closed")
        return data

    def read_message(self) -> None:
        """Read a command set and the data set that follows it."""
        self.received.append(self.read_pdu())
        while self.received[-1][11] != 0b10:
            self.received.append(self.read_pdu())

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def dribble(self, kind: int) -> None:
        """Send a long PDU, a byte at a time, until the connection ends."""
        self.send(struct.pack(">BxL", kind, 60000))
        with contextlib.suppress(OSError):
            while not self.released.wait(0.02):
                self.send(b"\0")

    def wait(self) -> None:
        """Until the connection has ended; raises what went wrong in the peer."""
        self.released.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.released.set()
        self._server.close()

    @property
    def destination(self) -> DestinationSettings:
        return DestinationSettings(name="tps", ae_title="TPS", host="127.0.0.1", port=self.port)


def item(kind: int, body: bytes) -> bytes:
    """An item of an A-ASSOCIATE PDU."""
    return struct.pack(">BxH", kind, len(body)) + body


def answering(*data: bytes, close: bool = False) -> Callable[[Peer], None]:
    """A script: read an instance and send what is given; for each one that is given."""

    def script(peer: Peer) -> None:
        for one in data:
            peer.read_message()
            peer.send(one)
        if close:
            peer.connection.close()

    return script


@contextlib.contextmanager
def rejecting(reason: tuple[int, int, int]) -> Iterator[int]:
    """The port of a peer that rejects one association and closes at once."""

    def serve() -> None:
        with server.accept()[0] as connection:
            connection.recv(1 << 16)
            connection.sendall(b"\3\0\0\0\0\4\0" + bytes(reason))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(60)
