"""The upper layer of one association of the receiver (PS3.8): whole PDUs in time, threads that sleep.

Each override says what pynetdicom 3.0.4 does without it; `tests/peers/test_network_server.py` shows it.
"""

import logging
import queue
import select
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider

log = logging.getLogger(__name__)

MAX_PDU_BYTES = 128 * 1024  # offered to the peer in the association negotiation, and enforced
PDU_TIMEOUT_S = 60.0  # a whole PDU of 128 KiB within this time is 18 kbit/s
SEND_TIMEOUT_S = 30.0  # a peer that reads nothing for so long has gone
_LOOK_UP_S = 0.25  # how often a sleeping association looks at its timers
_TLS_HANDSHAKE = b"\x16\x03"  # type and major version of the first record, RFC 8446 5.1
_ASSOCIATE_RQ, _PDU_TYPES, _HEADER_BYTES = 0x01, range(0x01, 0x08), 6  # PS3.8 9.3.1


class PduStream:
    """Mixin of a socket that pynetdicom reads: PDUs bounded in length and in time, and read when they are whole.

    Without it pynetdicom buffers whatever length a PDU announces (448 MB before any association in the measurement),
    and waits without end for the last byte of a PDU, where nothing can be sent and nothing aborted meanwhile, and for a
    peer that reads nothing.
    """

    session: Any = None  # of the receiver, once the association request was admitted
    was_released = False
    began_with_tls = False  # on a port without TLS
    cut_off: Sequence[Any] = ()  # instances that were under way when the association ended
    _come = b""  # what was taken in and not read
    _is_body_next = False
    _ended = False  # the peer closed, sent what is no PDU, or sent half a PDU for too long
    _deadline = 0.0

    def take_in(self) -> bool:
        """Take what has come of a PDU, without waiting; whether a whole one or the end of the stream can be read."""
        try:
            while not self._ended and len(self._come) < (wanted := self._wanted_bytes()):
                self.settimeout(0.0)  # type: ignore[attr-defined]
                part = super().recv(wanted - len(self._come))  # type: ignore[misc]
                self._deadline = self._deadline if self._come else time.monotonic() + PDU_TIMEOUT_S
                self._ended = not part
                self._come += part
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._ended = bool(self._come) and time.monotonic() > self._deadline
        except OSError:
            self._ended = True
        return self._ended or len(self._come) >= self._wanted_bytes()

    def read_request(self, within_s: float) -> bytes:
        """The whole first PDU, which pynetdicom reads again from here; empty where the peer closed.

        Raises ValueError for anything but an A-ASSOCIATE-RQ, and TimeoutError.
        """
        deadline = time.monotonic() + within_s
        poll = select.poll()
        poll.register(self, select.POLLIN)  # type: ignore[arg-type]
        while not self.take_in():
            if (left_s := deadline - time.monotonic()) <= 0:
                raise TimeoutError("no whole association request in time")
            poll.poll(left_s * 1000)
        if self._come and self._come[0] != _ASSOCIATE_RQ:
            raise ValueError("the first PDU is no association request")
        return b"" if self._ended else self._come

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """The header of the PDU that was taken in, then its body, which may be more than `buflen`; empty at the end."""
        size = len(self._come) if self._is_body_next else _HEADER_BYTES
        part, self._come = self._come[:size], self._come[size:]
        self._is_body_next = not self._is_body_next and bool(self._come)
        return part

    def send(self, data: Any, flags: int = 0) -> int:
        """Send some of the bytes; raises TimeoutError where the peer takes none for `SEND_TIMEOUT_S`."""
        self.settimeout(SEND_TIMEOUT_S)  # type: ignore[attr-defined]
        count: int = super().send(data, flags)  # type: ignore[misc]
        return count

    def _wanted_bytes(self) -> int:
        """How many bytes make the PDU whole, as far as they tell; what is no PDU that was agreed ends the stream."""
        if len(self._come) < _HEADER_BYTES:
            return _HEADER_BYTES
        length = int.from_bytes(self._come[2:_HEADER_BYTES])
        if self._come[0] in _PDU_TYPES and length <= MAX_PDU_BYTES:
            return _HEADER_BYTES + length
        self.began_with_tls = self._come[:2] == _TLS_HANDSHAKE
        self._ended, self._come = True, bytes(_HEADER_BYTES)  # no PDU type; pynetdicom answers it with an A-ABORT
        return _HEADER_BYTES


class PlainSocket(PduStream, socket.socket):
    """A connection without TLS."""


class TlsSocket(PduStream, ssl.SSLSocket):
    """A connection with TLS; `SSLContext.wrap_socket` makes it."""


class WaitingDul(DULServiceProvider):
    """The upper layer of one association, which sleeps in the kernel until there is something to do.

    Without it both threads of every association look every millisecond: 25 silent associations take a third of a
    processor, and every answer waits for two such looks. An error of the state machine ends its thread with a traceback
    on standard error, and the association's thread waits for a request that nobody reads.
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
        except Exception as error:
            log.warning(
                "an association ended in its upper layer: %s",
                type(error).__name__,
                extra={"event": "association_failed"},
            )
        finally:
            self.to_user_queue.put(None)  # the association's thread may wait for a request
            self.close()

    def close(self) -> None:
        """Give back what the thread needs to be woken."""
        self._sleeper.close()
        self._waker.close()

    def send_pdu(self, primitive: Any) -> None:
        """Hand over what is to be sent."""
        super().send_pdu(primitive)
        self.wake()

    def kill_dul(self) -> None:
        """End the thread."""
        super().kill_dul()
        self.wake()

    def wake(self) -> None:
        """Let the thread look around."""
        with suppress(OSError):  # it has ended, or is awake
            self._waker.send(b"\0")

    def _is_transport_event(self) -> bool:
        stream: Any = self.socket.socket if self.socket is not None else None
        if stream is None or self.state_machine.current_state == "Sta13":
            # The last PDU was sent. Whatever still comes is not read: it could take a minute, or never end.
            if self.socket is not None:
                self.socket.close()
            return True
        if not self.event_queue.empty():
            return False
        messages: Any = self.assoc.dimse
        if messages.is_full:
            self._sleep(None)
        elif stream.take_in() or (self._sleep(stream) and stream.take_in()):
            self._read_pdu_data()
            return True
        return False

    def _sleep(self, stream: socket.socket | None) -> bool:
        """Until something is to be sent, or can be read from `stream`; whether the latter."""
        poll = select.poll()
        poll.register(self._sleeper, select.POLLIN)
        if stream is not None:
            poll.register(stream, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(_LOOK_UP_S * 1000)}
        if self._sleeper.fileno() in ready:
            self._sleeper.recv(4096)
        return stream is not None and stream.fileno() in ready


class _UserQueue(queue.Queue[Any]):
    """What the upper layer tells the association; the association's thread, which waits for messages, is woken."""

    def __init__(self, assoc: Association) -> None:
        super().__init__()
        self._association = assoc

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._association.dimse.msg_queue.put((None, None))
