"""The TCP side of the receiver on pynetdicom's server: bounded connections, whole PDUs in time, TLS; no policy.

Each override says what pynetdicom 3.0.4 does without it; `tests/peers/test_network_server.py` shows the harm.
"""

import logging
import queue
import select
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from node.network.dimse_guard import DimseGuard, MessageLimits

log = logging.getLogger(__name__)

MAX_PDU_BYTES = 128 * 1024  # offered to the peer in the association negotiation, and enforced
ACSE_TIMEOUT_S = 10.0  # from the connection to a whole association request
PDU_TIMEOUT_S = 60.0  # a whole PDU of 128 KiB within this time is 18 kbit/s
SEND_TIMEOUT_S = 30.0  # a peer that reads nothing for so long has gone
SPARE_CONNECTIONS = 16  # per host and in total, beyond the associations themselves
_LOOK_UP_S = 0.25  # how often a sleeping association looks at its timers
_ASSOCIATE_RQ = 0x01
_TITLES_END = 74  # of an A-ASSOCIATE-RQ: header, version and AE titles, before the variable items (PS3.8 table 9-11)
_WAITING_MESSAGES = 2  # a peer that asks before it was answered is not read further


@dataclass(frozen=True)
class Rejection:
    """An association that is not wanted: result, source and reason of PS3.8 table 9-21."""

    result: int
    source: int
    reason: int


@dataclass(frozen=True)
class Admission:
    """Who decides about an association request, by called and calling AE title and the peer's address.

    `admit` returns a session, which is any object of the receiver, or a Rejection. `ended` gets the session exactly
    once, when nothing of its association runs any more; `released` is False for whatever is no orderly release.
    `is_known_host` says whether a connection from this address is kept in preference to others.
    """

    admit: Callable[[str, str, str], object]
    ended: Callable[[Any, bool], None]
    is_known_host: Callable[[str], bool]


class PduStream:
    """Mixin of a socket that pynetdicom reads: PDUs bounded in length and in time.

    Without it pynetdicom buffers whatever length a PDU announces (448 MB before any association in the measurement),
    and waits without end for the last byte of a PDU and for a peer that reads nothing.
    """

    session: Any = None  # of the receiver, once the association request was admitted
    was_released = False
    _ahead = b""  # the association request, which was read before pynetdicom has the connection
    _left = 0  # bytes of the current PDU that have not come
    _deadline = 0.0
    _refused = False

    @property
    def has_bytes_ahead(self) -> bool:
        """Whether something can be read that the kernel does not know of."""
        return bool(self._ahead) or (isinstance(self, ssl.SSLSocket) and self.pending() > 0)

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
        if self._ahead:
            part, self._ahead = self._ahead[:buflen], self._ahead[buflen:]
            return part
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
        if stream.has_bytes_ahead or self._sleep_until_readable(stream):
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


class _Handler(RequestHandler):
    """Runs one association from its request to its exact end, in the thread of its connection.

    Without it nobody knows when the last thread of an association has ended: EVT_RELEASED and EVT_ABORTED come earlier,
    and neither comes where a connection breaks.
    """

    server: "HardenedServer"

    def handle(self) -> None:
        super().handle()
        self.association.join()
        self.association.dul.join()
        self.server.running.discard(self.association)
        messages: Any = self.association.dimse
        self.request.was_released = self.association.is_released and not messages.is_inside_message
        messages.release()

    def _create_association(self) -> Association:
        self.association = association = super()._create_association()
        made, dul = association.dul, WaitingDul(association, self.request.session)
        dul.event_queue, dul.socket = made.event_queue, made.socket
        association.dul = dul
        association.acse_timeout, association.network_timeout = self.ae.acse_timeout, self.ae.network_timeout
        association.dimse = DimseGuard(association, self.server.limits)
        self.server.running.add(association)
        return association


@dataclass
class _Open:
    """One connection; `waits` until its association was admitted, and may give way until then."""

    host: str
    known: bool
    waits: bool = field(default=True)


class HardenedServer(ThreadedAssociationServer):
    """pynetdicom's server with a bounded number of connections and one thread for each; it is made by `make_server`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, *arguments: Any, admission: Admission, limits: MessageLimits, max_associations: int, **options: Any
    ) -> None:
        self._admission, self.limits = admission, limits
        self._per_host = max_associations + SPARE_CONNECTIONS
        self._in_total = 2 * max_associations + 4 * SPARE_CONNECTIONS
        self._connections: dict[socket.socket, _Open] = {}  # in the order in which they came
        self._changed = threading.Condition()
        self.running: set[Association] = set()
        super().__init__(*arguments, **options, request_handler=_Handler)  # type: ignore[misc]

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; without this the TLS handshake of a silent peer stops every other connection."""
        accepted, address = self.socket.accept()  # type: ignore[union-attr]
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ssl_context is None:
            return PlainSocket(fileno=accepted.detach()), address
        self.ssl_context.sslsocket_class = TlsSocket
        return self.ssl_context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False), address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for a connection; the oldest that has asked for nothing makes it.

        Without it every silent connection counts as an association, so that 12 of them lock all peers out.
        """
        opened = _Open(str(client_address[0]), self._admission.is_known_host(str(client_address[0])))
        with self._changed:
            others = list(self._connections.items())
            of_host = [(one, state) for one, state in others if state.host == opened.host]
            if len(of_host) >= self._per_host:
                room = self._give_way(of_host)
            elif len(others) >= self._in_total:
                strangers = [(one, state) for one, state in others if not state.known]
                room = self._give_way(strangers) or (opened.known and self._give_way(others))
            else:
                room = True
            if room:
                self._connections[request] = opened
        if not room:
            log.warning("too many associations from %s: a connection was closed", opened.host)
        return room

    def service_actions(self) -> None:
        """Nothing; without this every sixtieth turn of the accepting thread collects garbage."""

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the thread of a connection."""
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end; never raises.

        Without the reading of the request before pynetdicom gets the connection, every port scan and every silent
        connection holds two threads and a place until a time-out, and 128 presentation contexts are decoded for a
        stranger.
        """
        host = str(client_address[0])
        try:
            if isinstance(request, ssl.SSLSocket):
                request.settimeout(ACSE_TIMEOUT_S)
                request.do_handshake()
            self._serve(request, client_address)
        except OSError as error:
            log.warning("connection from %s ended before an association: %s", host, _reason(error))
        except Exception:
            log.exception("connection from %s ended by an internal error", host)
        finally:
            self.shutdown_request(request)
            self._forget(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong while a connection was accepted, instead of printing it."""
        log.exception("a connection could not be accepted")

    def stop_listening(self) -> None:
        """Close the listening socket; connections that exist go on."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()

    def abort_all(self) -> None:
        """Abort every association and close every connection that has none."""
        for association in list(self.running):
            association.abort(block=False)
        with self._changed:
            for connection in [one for one, state in self._connections.items() if state.waits]:
                _close(connection)

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no connection is left; False when the time is up."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._connections, timeout_s)

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            # Only the titles: the many items behind them are decoded for a peer that was admitted.
            titles = request.read_request(ACSE_TIMEOUT_S)[:_TITLES_END]
            if not titles:
                return
            asked = A_ASSOCIATE_RQ()
            asked.decode(titles)
        except ValueError:  # no association request, or titles that are none
            request.sendall(A_ABORT_RQ().encode())
            return
        session = self._admission.admit(asked.called_ae_title, asked.calling_ae_title, str(client_address[0]))
        if isinstance(session, Rejection):
            answer = A_ASSOCIATE_RJ()
            answer.result, answer.source, answer.reason_diagnostic = session.result, session.source, session.reason
            request.sendall(answer.encode())
            return
        with self._changed:
            if request in self._connections:
                self._connections[request].waits = False
        request.session = session
        try:
            self.finish_request(request, client_address)
        finally:
            self._admission.ended(session, request.was_released)

    def _forget(self, request: Any) -> None:
        with self._changed:
            self._connections.pop(request, None)
            self._changed.notify_all()

    def _give_way(self, connections: list[tuple[socket.socket, _Open]]) -> bool:
        """Close the oldest of these that has not asked for an association; False where there is none."""
        for connection, state in connections:
            if state.waits:
                del self._connections[connection]
                _close(connection)
                return True
        return False


def _close(connection: socket.socket) -> None:
    """Wake the thread that reads the connection; it finds the end of the stream, and ends."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # an SSLSocket's own would pull TLS from under its thread


def _reason(error: OSError) -> str:
    """What OpenSSL or the system calls the error; never bytes of the peer."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'handshake failed'}"
    return error.strerror or type(error).__name__
