"""The TCP side of the receiver: who may connect, how many at once, and TLS; it reads no association.

Every bound answers an abuse that was measured against a stock server: silent connections that use up the association
limit, a PDU length that makes the server buffer gigabytes, one byte every ten seconds, a TLS handshake that never ends.
"""

import logging
import socket
import socketserver
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from node.receive.connection import Connection, Wakeup

log = logging.getLogger(__name__)

MAX_PDU_BYTES = 128 * 1024  # offered to the peer in the association negotiation, and enforced
ACSE_TIMEOUT_S = 10.0
PDU_TIMEOUT_S = 60.0  # a whole PDU of 128 KiB within this time is 18 kbit/s
SPARE_CONNECTIONS = 16  # per host and in total, beyond the associations themselves


class BoundedServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A server with a bounded number of connections, per host and in total, and one thread for each.

    `serve` runs a connection in its thread from the first byte to the last.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        *,
        tls: ssl.SSLContext | None,
        max_associations: int,
        serve: Callable[[Connection, str], None],
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._tls, self._serve = tls, serve
        self._per_host = max_associations + SPARE_CONNECTIONS
        self._in_total = 2 * max_associations + 4 * SPARE_CONNECTIONS
        self._connections: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._wakeup = Wakeup()
        super().__init__(address, socketserver.BaseRequestHandler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; a TLS handshake is left to the connection's own thread."""
        connection, address = self.socket.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
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
            self._serve(Connection(request, self._wakeup, max_pdu_bytes=MAX_PDU_BYTES), host)
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
        self.shutdown()
        self.server_close()

    def abort_all(self) -> None:
        """Abort what is open; a connection without an association has nothing to abort and is hung up on."""
        self._wakeup.call()

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no connection is left; False when the time is up."""
        with self._changed:
            return self._changed.wait_for(lambda: self._connections.total() == 0, timeout_s)


def _reason(error: OSError) -> str:
    """What OpenSSL or the system calls the error; never bytes of the peer."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'handshake failed'}"
    return error.strerror or type(error).__name__
