"""Sends audit messages to a syslog server: RFC 5424, over UDP (5426), TCP or TLS with octet counting (6587, 5425).

One thread sends from a queue of limited length. Where the server does not answer, messages wait; what finds no place is
counted, and the log says how many were lost. The audit trail in the store has them all.
"""

import logging
import os
import queue
import socket
import ssl
import threading
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

WAITING: Final = 1000
TIMEOUT_S: Final = 5.0
PAUSES_S: Final = (1.0, 5.0, 30.0)  # after so many failures in a row
_PRIORITY: Final = 10 * 8 + 5  # facility security/authorization, severity notice (RFC 5424 6.2.1, PS3.15 A.6)
_BOM: Final = b"\xef\xbb\xbf"
_LONGEST_DATAGRAM: Final = 60_000


def syslog_line(message: bytes, at: datetime, *, host: str, process: int) -> bytes:
    """One syslog message. The BOM says that what follows is UTF-8; MSGID is that of PS3.15 A.6."""
    moment = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    name = "".join(c for c in host if "!" <= c <= "~")[:255] or "-"
    return f"<{_PRIORITY}>1 {moment} {name} syncect {process} DICOM+RFC3881 - ".encode() + _BOM + message


class Syslog:
    """The server at a URL of the setting `web.audit_syslog`. Its thread begins with the first message."""

    def __init__(self, url: str, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._kind, self._address = parts.scheme, (parts.hostname, parts.port)
        self._pauses_s = pauses_s
        self._waiting: queue.Queue[bytes] = queue.Queue(WAITING)
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._lost = 0
        self._socket: socket.socket | None = None

    @property
    def lost(self) -> int:
        """How many messages found no place and were not sent, since the last that was sent."""
        return self._lost

    def offer(self, message: bytes, at: datetime) -> None:
        """Send it as soon as possible, or count it as lost; returns at once and raises nothing."""
        line = syslog_line(message, at, host=socket.gethostname(), process=os.getpid())
        with self._turn:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="audit-syslog", daemon=True)
                self._thread.start()
            try:
                self._waiting.put_nowait(line)
            except queue.Full:
                if not self._lost:
                    log.error(
                        "the audit syslog server does not answer: audit messages to it are lost from now on",
                        extra={"event": "audit_syslog_unreachable"},
                    )
                self._lost += 1

    def close(self) -> None:
        """End the thread; what waits is still sent if the server answers at once, else it is lost."""
        self._stop.set()
        with self._turn:
            thread = self._thread
        if thread is not None:
            thread.join(2 * TIMEOUT_S)
        self._disconnect()

    def _run(self) -> None:
        while True:
            try:
                line = self._waiting.get(timeout=0.2)
            except queue.Empty:
                if self._stop.is_set():
                    return
                continue
            if not self._send_at_last(line):
                return

    def _send_at_last(self, line: bytes) -> bool:
        """Send one message, however often that fails before; False where the node ends meanwhile."""
        failures = 0
        while True:
            try:
                self._send_once(line)
            except OSError as error:
                self._disconnect()
                log.warning(
                    "the audit syslog server cannot be reached: %s",
                    error.strerror or type(error).__name__,
                    extra={"event": "audit_syslog_unreachable"},
                )
                if self._stop.wait(self._pauses_s[min(failures, len(self._pauses_s) - 1)]):
                    log.error(
                        "%d audit messages to the syslog server were lost",
                        self._waiting.qsize() + 1,
                        extra={"event": "audit_messages_lost"},
                    )
                    return False
                failures += 1
            else:
                self._tell_lost()
                return True

    def _tell_lost(self) -> None:
        with self._turn:
            lost, self._lost = self._lost, 0
        if lost:
            log.error(
                "%d audit messages to the syslog server were lost; `syncect audit ls` has them",
                lost,
                extra={"event": "audit_messages_lost"},
            )

    def _send_once(self, line: bytes) -> None:
        if self._socket is None:
            self._socket = self._connect()
        if self._kind == "udp":
            self._socket.send(line[:_LONGEST_DATAGRAM])
            return
        self._require_open(self._socket)
        self._socket.sendall(b"%d " % len(line) + line)

    def _require_open(self, connection: socket.socket) -> None:
        """Raise ConnectionResetError where the server has closed: what is sent then would be lost without an error."""
        connection.settimeout(0)
        try:
            if connection.recv(1) == b"":
                raise ConnectionResetError
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        finally:
            connection.settimeout(TIMEOUT_S)

    def _connect(self) -> socket.socket:
        if self._kind == "udp":
            found = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
            datagrams = socket.socket(found[0], socket.SOCK_DGRAM)
            datagrams.connect(found[4])
            return datagrams
        connection = socket.create_connection(self._address, timeout=TIMEOUT_S)
        if self._kind == "tcp":
            return connection
        try:
            return ssl.create_default_context().wrap_socket(connection, server_hostname=self._address[0])
        except OSError:
            connection.close()
            raise

    def _disconnect(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()
