"""The upper layer of one association of the receiver (PS3.8): whole PDUs in time, threads that sleep.

Each override says what pynetdicom 3.0.4 does without it; `tests/peers/test_upper_layer.py` shows the harm.
"""

import queue
import select
import socket
import ssl
import time
from contextlib import suppress
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider

MAX_PDU_BYTES = 128 * 1024  # offered to the peer in the association negotiation, and enforced
PDU_TIMEOUT_S = 60.0  # a whole PDU of 128 KiB within this time is 18 kbit/s
SEND_TIMEOUT_S = 30.0  # a peer that reads nothing for so long has gone
_LOOK_UP_S = 0.25  # how often a sleeping association looks at its timers
_WAITING_MESSAGES = 2  # a peer that asks before it was answered is not read further
_ASSOCIATE_RQ = 0x01


class PduStream:
    """Mixin of a socket that pynetdicom reads: PDUs bounded in length and in time.

    Without it pynetdicom buffers whatever length a PDU announces (448 MB before any association in the measurement),
    and waits without end for the last byte of a PDU and for a peer that reads nothing.
    """

    session: Any = None  # of the receiver, once the association request was admitted
    was_released = False
    _ahead = b""  # what was read before pynetdicom asked for it
    _left = 0  # bytes of the current PDU that have not come
    _deadline = 0.0
    _refused = False

    @property
    def has_bytes_ahead(self) -> bool:
        """Whether something can be read that the kernel does not know of."""
        return bool(self._ahead) or (isinstance(self, ssl.SSLSocket) and self.pending() > 0)

    def has_begun(self) -> bool:
        """Whether a PDU or the end of the stream has come; a TLS record may hold neither, but new keys."""
        if self._ahead or not isinstance(self, ssl.SSLSocket):
            return True
        self.settimeout(0.0)
        try:
            self._ahead = super().recv(1)  # type: ignore[misc]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True  # the next read says so
        return True

    def read_request(self, within_s: float) -> bytes:
        """The whole first PDU, which pynetdicom reads again from here; empty where the peer closed.

        Raises ValueError for anything but an A-ASSOCIATE-RQ, TimeoutError, or the OSError of the connection.
        """
        deadline = time.monotonic() + within_s
        head = self._exactly(6, deadline)
        if head and (head[0] != _ASSOCIATE_RQ or (len(head) == 6 and not _is_acceptable(head))):
            raise ValueError("the first PDU is no association request")
        length = _length(head) if len(head) == 6 else 0
        body = self._exactly(length, deadline)
        self._ahead = head + body if length and len(body) == length else b""
        return self._ahead

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """At the beginning of a PDU its header, then what has come of its body, which may be more than `buflen`.

        Raises TimeoutError where the PDU is not whole in time.
        """
        if self._refused:
            return b""
        if self._left == 0:
            self._deadline = time.monotonic() + PDU_TIMEOUT_S
            head = self._exactly(buflen, self._deadline)
            if len(head) == 6 and not _is_acceptable(head):
                self._refused = True
                return bytes(6)  # a PDU of no known type: pynetdicom answers with an A-ABORT
            self._left = _length(head) if len(head) == 6 else 0
            return head
        part = self._receive(self._left, self._deadline)
        self._left -= len(part)
        return part

    def send(self, data: Any, flags: int = 0) -> int:
        """Send some of the bytes; raises TimeoutError where the peer takes none for `SEND_TIMEOUT_S`."""
        self.settimeout(SEND_TIMEOUT_S)  # type: ignore[attr-defined]
        count: int = super().send(data, flags)  # type: ignore[misc]
        return count

    def _exactly(self, count: int, deadline: float) -> bytes:
        data = b""
        while len(data) < count and (part := self._receive(count - len(data), deadline)):
            data += part
        return data

    def _receive(self, count: int, deadline: float) -> bytes:
        if self._ahead:
            part, self._ahead = self._ahead[:count], self._ahead[count:]
            return part
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("a PDU was not complete in time")
        self.settimeout(left_s)  # type: ignore[attr-defined]
        data: bytes = super().recv(count)  # type: ignore[misc]
        return data


def _is_acceptable(head: bytes) -> bool:
    """Whether a PDU header has a known type and a length that was agreed (PS3.8 9.3.1)."""
    return head[0] in range(1, 8) and _length(head) <= MAX_PDU_BYTES


def _length(head: bytes) -> int:
    return int.from_bytes(head[2:])


class PlainSocket(PduStream, socket.socket):
    """A connection without TLS."""


class TlsSocket(PduStream, ssl.SSLSocket):
    """A connection with TLS; `SSLContext.wrap_socket` makes it."""


class WaitingDul(DULServiceProvider):
    """The upper layer of one association, which sleeps in the kernel until there is something to do.

    Without it both threads of every association look every millisecond: 25 silent associations take a third of a
    processor, and every answer waits for two such looks.
    """

    def __init__(self, assoc: Association, session: object) -> None:
        super().__init__(assoc)
        self.session = session
        self._run_loop_delay = 0.0
        self._sleeper, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self.to_user_queue = _UserQueue(assoc)

    def run_reactor(self) -> None:
        """Serve the association until it ends."""
        try:
            super().run_reactor()
        finally:
            self._sleeper.close()
            self._waker.close()

    def send_pdu(self, primitive: Any) -> None:
        """Hand over what is to be sent."""
        super().send_pdu(primitive)
        self._wake()

    def kill_dul(self) -> None:
        """End the thread."""
        super().kill_dul()
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):  # it has ended, or is awake
            self._waker.send(b"\0")

    def _is_transport_event(self) -> bool:
        stream: Any = self.socket.socket if self.socket is not None else None
        if stream is None or self.state_machine.current_state == "Sta13":
            return bool(super()._is_transport_event())
        if not self.event_queue.empty():
            return False
        if (stream.has_bytes_ahead or self._sleep_until_readable(stream)) and stream.has_begun():
            self._read_pdu_data()
            return True
        return False

    def _sleep_until_readable(self, stream: socket.socket) -> bool:
        poll = select.poll()
        poll.register(self._sleeper, select.POLLIN)
        if self.assoc.dimse.msg_queue.qsize() <= _WAITING_MESSAGES:
            poll.register(stream, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(_LOOK_UP_S * 1000)}
        if self._sleeper.fileno() in ready:
            self._sleeper.recv(4096)
        return stream.fileno() in ready


class _UserQueue(queue.Queue[Any]):
    """What the upper layer tells the association; the association's thread, which waits for messages, is woken."""

    def __init__(self, assoc: Association) -> None:
        super().__init__()
        self._association = assoc

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._association.dimse.msg_queue.put((None, None))
