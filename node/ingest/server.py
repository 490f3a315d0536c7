"""The TCP side of the receiver: bounds on connections, PDUs and time that pynetdicom leaves open; it reads no data set.

Every bound answers an abuse that was measured against pynetdicom 3.0.4: silent connections that use up the association
limit, a PDU length that makes the server buffer gigabytes, one byte every ten seconds, a TLS handshake that never ends.
"""

import logging
import socket
import socketserver
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

log = logging.getLogger(__name__)

MAX_PDU_BYTES = 128 * 1024  # offered to the peer in the association negotiation, and enforced
ACSE_TIMEOUT_S = 10.0
PDU_TIMEOUT_S = 60.0  # a whole PDU of 128 KiB within this time is 18 kbit/s
SEND_TIMEOUT_S = 30.0
SPARE_CONNECTIONS = 16  # per host and in total, beyond the associations themselves


class BoundedSocket(AssociationSocket):
    """An AssociationSocket that never buffers more than one PDU of the agreed length and never waits for ever."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Read up to `nr_bytes`, fewer where the peer closed; raises OSError above the bound or past the deadline."""
        received = bytearray()
        try:
            if nr_bytes > MAX_PDU_BYTES:
                raise OSError(f"a PDU of {nr_bytes} bytes was announced, {MAX_PDU_BYTES} were agreed")
            received = self._recv_within(nr_bytes, PDU_TIMEOUT_S if self._negotiated else ACSE_TIMEOUT_S)
            return received
        finally:
            if len(received) < nr_bytes:
                self._wake()

    def close(self) -> None:
        """Close the connection and end the wait for an association request that will not come any more."""
        super().close()
        self._wake()

    @property
    def _negotiated(self) -> bool:
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
        return buffer[:filled]

    def _wake(self) -> None:
        # Without this a connection that ends before its association request holds its thread until acse_timeout.
        if not self._negotiated:
            waiting: Any = self.assoc.dul.to_user_queue
            waiting.put(None)  # what its `get` answers after a timeout


class _Handler(RequestHandler):
    """Runs one association from its connection to its very end, whatever way it ends."""

    server: "BoundedServer"

    def handle(self) -> None:
        assoc = self._create_association()
        # A second AssociationSocket would queue a second connection event for the state machine.
        assoc.dul.socket.__class__ = BoundedSocket
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

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no connection is left; False when the time is up."""
        with self._changed:
            return self._changed.wait_for(lambda: self._connections.total() == 0, timeout_s)


def _reason(error: OSError) -> str:
    """What OpenSSL or the system calls the error; never bytes of the peer."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'handshake failed'}"
    return error.strerror or type(error).__name__
