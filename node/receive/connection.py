"""One peer's connection: whole PDUs in, bytes out, within a bound and a time; it gives them no meaning.

Reads and writes happen in the one thread that owns the connection. It sleeps in the kernel until something arrives, and
is woken by `Wakeup` when the receiver stops.
"""

import contextlib
import select
import socket
import ssl
import struct
import time

from node.dicom.p_data import InvalidPdu
from node.receive.pdu import HEADER_BYTES, KNOWN_TYPES

SEND_TIMEOUT_S = 30.0
_GOODBYE_S = 1.0  # for the peer to close first, so that what was sent last is not lost with the connection
_DRAIN_BYTES = 64 * 1024


class Stopped(Exception):
    """The receiver stops; the association is to be aborted."""


class UnknownPdu(Exception):
    """The peer speaks another protocol."""


class Wakeup:
    """Wakes every connection that waits, once and for all."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self.called = False

    def fileno(self) -> int:
        """What a connection watches beside its socket."""
        return self._reader.fileno()

    def call(self) -> None:
        """Let every wait end with Stopped; nothing happens the second time."""
        if not self.called:
            self.called = True
            self._writer.send(b"\0")


class Connection:
    """A connection whose reads never buffer more than two PDUs of `max_pdu_bytes` and never wait for ever."""

    def __init__(self, stream: socket.socket, wakeup: Wakeup, *, max_pdu_bytes: int) -> None:
        self._socket, self._wakeup = stream, wakeup
        self._max_pdu_bytes = max_pdu_bytes
        self._buffer = memoryview(bytearray(2 * (HEADER_BYTES + max_pdu_bytes)))
        self._begin = self._end = 0
        self._poll = select.poll()
        self._poll.register(stream, select.POLLIN)
        self._poll.register(wakeup, select.POLLIN)
        stream.settimeout(0.0)

    def read_pdu(self, *, wait_s: float, whole_s: float) -> tuple[int, memoryview] | None:
        """Type and body of the next PDU; None where the peer closed. The body is a view until the next call.

        It has to begin within `wait_s` and to be complete `whole_s` later. Raises TimeoutError, Stopped, InvalidPdu for
        one above the bound, UnknownPdu, or the OSError of the connection.
        """
        if self._wakeup.called:
            raise Stopped
        if self._begin == self._end:
            self._begin = self._end = 0
            if not self._receive(time.monotonic() + wait_s):
                return None
        deadline = time.monotonic() + whole_s
        if not self._have(HEADER_BYTES, deadline):
            return None
        kind, length = struct.unpack_from(">BxL", self._buffer, self._begin)
        if kind not in KNOWN_TYPES:
            raise UnknownPdu(f"a PDU of type {kind:02X}H")
        if length > self._max_pdu_bytes:
            raise InvalidPdu(f"a PDU of {length} bytes was announced, {self._max_pdu_bytes} were agreed")
        if not self._have(HEADER_BYTES + length, deadline):
            return None
        begin = self._begin + HEADER_BYTES
        self._begin = begin + length
        return kind, self._buffer[begin : self._begin]

    def send(self, data: bytes) -> None:
        """Send everything; raises OSError where the peer takes nothing for `SEND_TIMEOUT_S`."""
        self._socket.settimeout(SEND_TIMEOUT_S)
        try:
            self._socket.sendall(data)
        finally:
            self._socket.settimeout(0.0)

    def let_go(self) -> None:
        """After the last word, wait a little for the peer to close: it could miss what is unread when we do."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + _GOODBYE_S
            while (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv(_DRAIN_BYTES):
                    break

    def _have(self, count: int, deadline: float) -> bool:
        """Whether `count` bytes of the PDU are there before the peer closes."""
        if self._begin + count > len(self._buffer):
            left = self._end - self._begin
            self._buffer[:left] = self._buffer[self._begin : self._end]
            self._begin, self._end = 0, left
        while self._end - self._begin < count:
            if not self._receive(deadline):
                return False
        return True

    def _receive(self, deadline: float) -> bool:
        """Read once whatever has come, after waiting for something; False where the peer closed."""
        while True:
            if time.monotonic() > deadline:
                raise TimeoutError("a PDU was not complete in time")
            try:
                count = self._socket.recv_into(self._buffer[self._end :])
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                self._wait(deadline)
                continue
            self._end += count
            return count > 0

    def _wait(self, deadline: float) -> None:
        milliseconds = max(deadline - time.monotonic(), 0.0) * 1000 + 1
        ready = self._poll.poll(milliseconds)
        if self._wakeup.called:
            raise Stopped
        if not ready:
            raise TimeoutError("nothing came in time")
