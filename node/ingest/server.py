"""The TCP side of the receiver: bounds on connections, PDUs and time that pynetdicom leaves open; it reads no data set.

Every bound answers an abuse that was measured against pynetdicom 3.0.4: silent connections that use up the association
limit, a PDU length that makes the server buffer gigabytes, one byte every ten seconds, a TLS handshake that never ends.
"""

import contextlib
import logging
import select
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

log = logging.getLogger(__name__)

MAX_PDU_BYTES = 128 * 1024  # offered to the peer in the association negotiation, and enforced
ACSE_TIMEOUT_S = 10.0
PDU_TIMEOUT_S = 60.0  # a whole PDU of 128 KiB within this time is 18 kbit/s
SEND_TIMEOUT_S = 30.0
QUIET_TURN_S = 0.02
IDLE_WAIT_S = 0.01  # how long an answer of another thread may lie in its queue while the peer is silent
SPARE_CONNECTIONS = 16  # per host and in total, beyond the associations themselves
_P_DATA_TF = 0x04


class BoundedSocket(AssociationSocket):
    """An AssociationSocket that never buffers more than one PDU of the agreed length and never waits for ever."""

    @property
    def ready(self) -> bool:
        """Whether there is something to read; on an established association it waits a little for that.

        pynetdicom asks without waiting and sleeps a millisecond instead: a thousand useless turns a second and
        association, and a request that comes meanwhile lies for that long.
        """
        if self.assoc.dul.state_machine.current_state == "Sta6":  # PS3.8 9.2.1: ready for data transfer
            self._wait_readable()
        else:
            hurry(self.assoc)
        return bool(super().ready)

    def _wait_readable(self) -> None:
        connection = self.socket
        if connection is None or (isinstance(connection, ssl.SSLSocket) and connection.pending()):
            return
        waiting = select.poll()
        try:
            waiting.register(connection, select.POLLIN)
        except ValueError:  # closed meanwhile; pynetdicom finds out by itself
            return
        waiting.poll(IDLE_WAIT_S * 1000)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read up to `nr_bytes`, fewer where the peer closed; raises OSError above the bound or past the deadline."""
        received = bytearray()
        try:
            if nr_bytes > MAX_PDU_BYTES:
                raise OSError(f"a PDU of {nr_bytes} bytes was announced, {MAX_PDU_BYTES} were agreed")
            received = self._recv_within(nr_bytes, PDU_TIMEOUT_S if self.negotiated else ACSE_TIMEOUT_S)
            return received
        finally:
            if len(received) < nr_bytes:
                self._wake()

    def close(self) -> None:
        """Close the connection and end the wait for an association request that will not come any more."""
        super().close()
        self._wake()

    def hang_up(self) -> None:
        """End a connection from another thread; its own finds that the peer has gone."""
        connection = self.socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def negotiated(self) -> bool:
        """Whether an association was asked for on this connection."""
        return self.assoc.requestor.primitive is not None

    def _recv_within(self, nr_bytes: int, timeout_s: float) -> bytearray:
        connection = self.socket
        if connection is None:
            raise OSError("the connection is closed")
        buffer, filled, deadline = bytearray(nr_bytes), 0, time.monotonic() + timeout_s
        try:
            while filled < nr_bytes:
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                count = connection.recv_into(memoryview(buffer)[filled:])
                if count == 0:
                    break
                filled += count
                if time.monotonic() > deadline:
                    raise TimeoutError("a PDU was not complete in time")
        finally:
            connection.settimeout(SEND_TIMEOUT_S)
        return buffer if filled == nr_bytes else buffer[:filled]

    def _wake(self) -> None:
        # Without this a connection that ends before its association request holds its thread until acse_timeout.
        if not self.negotiated:
            waiting: Any = self.assoc.dul.to_user_queue
            waiting.put(None)  # what its `get` answers after a timeout


class _DataPdu:
    """A P-DATA-TF PDU (PS3.8 9.3.5) whose values are views of the received bytes; pynetdicom would copy them twice.

    Raises ValueError where the lengths of its items do not add up.
    """

    def __init__(self, received: bytearray) -> None:
        self._values: list[tuple[int, memoryview]] = []
        view, position = memoryview(received), 6
        while position < len(view):
            if position + 6 > len(view):
                raise ValueError("a PDU ends inside an item")
            length, context_id = struct.unpack_from(">LB", view, position)
            end = position + 4 + length
            if length < 2 or end > len(view):
                raise ValueError("an item is longer than its PDU, or empty")
            self._values.append((context_id, view[position + 5 : end]))
            position = end

    def to_primitive(self) -> Any:
        """What pynetdicom hands to the DIMSE provider."""
        primitive: Any = P_DATA()
        primitive._presentation_data_value_list = self._values
        return primitive


class _BoundedDul(DULServiceProvider):
    """pynetdicom's upper layer, with data PDUs taken apart without a copy."""

    def _decode_pdu(self, bytestream: bytearray) -> tuple[Any, str]:
        if bytestream[0] == _P_DATA_TF:
            return _DataPdu(bytestream), "Evt10"
        decoded: tuple[Any, str] = super()._decode_pdu(bytestream)
        return decoded


class _Pace(threading.Event):
    """The gate that an association's own thread passes in every turn: while all is quiet it opens slowly.

    That thread only looks for messages that the thread of the connection left to it, releases and aborts; pynetdicom
    lets it look a thousand times a second.
    """

    def __init__(self) -> None:
        super().__init__()
        self._something = threading.Event()
        self.set()

    def hurry(self) -> None:
        """There is something to look at."""
        self._something.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Pass when there is something, at the latest after `QUIET_TURN_S`; closed, it holds as any event does."""
        self._something.wait(QUIET_TURN_S)
        self._something.clear()
        return super().wait(timeout)


def hurry(association: Association) -> None:
    """Let the association's own thread look at once: something waits for it."""
    pace = association._reactor_checkpoint
    if isinstance(pace, _Pace):
        pace.hurry()


class _Handler(RequestHandler):
    """Runs one association from its connection to its very end, whatever way it ends."""

    server: "BoundedServer"

    def handle(self) -> None:
        assoc = self._create_association()
        # A second AssociationSocket would queue a second connection event for the state machine.
        assoc.dul.socket.__class__ = BoundedSocket
        assoc.dul.__class__ = _BoundedDul
        assoc._reactor_checkpoint = _Pace()
        self.server.prepare(assoc)
        evt.trigger(assoc, evt.EVT_CONN_OPEN, {"address": self.client_address})
        assoc.start()
        assoc.join()
        self.server.finished(assoc)


class BoundedServer(ThreadedAssociationServer):
    """An association server with a bounded number of connections, per host and in total.

    `prepare` sees each association before it starts; `finished` is called exactly once when its thread has ended.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        *,
        tls: ssl.SSLContext | None,
        evt_handlers: list[Any],
        max_associations: int,
        prepare: Callable[[Association], None],
        finished: Callable[[Association], None],
    ) -> None:
        self.prepare, self.finished = prepare, finished
        self._per_host = max_associations + SPARE_CONNECTIONS
        self._in_total = 2 * max_associations + 4 * SPARE_CONNECTIONS
        self._connections: Counter[str] = Counter()
        self._changed = threading.Condition()
        super().__init__(ae, address, ae.ae_title, ae.supported_contexts, tls, evt_handlers, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; a TLS handshake is left to the connection's own thread."""
        assert self.socket is not None
        connection, address = self.socket.accept()
        if self.ssl_context is not None:
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether this host may have one more connection."""
        host = str(client_address[0])
        with self._changed:
            if self._connections[host] >= self._per_host or self._connections.total() >= self._in_total:
                log.warning("too many connections from %s, closing the newest", host)
                return False
            self._connections[host] += 1
        return True

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Shake hands, then run the association; never raises."""
        host = str(client_address[0])
        try:
            if isinstance(request, ssl.SSLSocket):
                request.settimeout(ACSE_TIMEOUT_S)
                request.do_handshake()
            self.finish_request(request, client_address)
        except OSError as error:
            log.warning("connection from %s ended before an association: %s", host, _reason(error))
        except Exception:
            log.exception("connection from %s ended by an internal error", host)
        finally:
            self.shutdown_request(request)
            with self._changed:
                self._connections[host] -= 1
                if self._connections[host] <= 0:
                    del self._connections[host]
                self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong while a connection was accepted, instead of printing it."""
        log.exception("a connection could not be accepted")

    def stop_listening(self) -> None:
        """Close the listening socket; connections that exist go on."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()

    def abort_all(self) -> None:
        """Abort what is open; a connection without an association has nothing to abort and is hung up on."""
        for association in list(self.active_associations):
            connection = association.dul.socket
            if isinstance(connection, BoundedSocket) and not connection.negotiated:
                connection.hang_up()
            else:
                association.abort(block=False)

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no connection is left; False when the time is up."""
        with self._changed:
            return self._changed.wait_for(lambda: self._connections.total() == 0, timeout_s)


def _reason(error: OSError) -> str:
    """What OpenSSL or the system calls the error; never bytes of the peer."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'handshake failed'}"
    return error.strerror or type(error).__name__
