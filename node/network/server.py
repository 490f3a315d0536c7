"""The TCP side of the receiver on pynetdicom's server: bounded connections, whole PDUs in time, TLS; no policy.

Each override says what pynetdicom 3.0.4 does without it; `tests/peers/test_network_server.py` shows it.
"""

import errno
import logging
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.events import EventType
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from config.settings import ScpSettings
from node.dicom.constants import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import Misconfigured
from node.network.dimse_guard import CutOff, DimseGuard, MessageLimits
from node.network.library import configure_libraries
from node.network.renewal import receiver_tls
from node.network.services import Operation, Service, messages_of, operations_of
from node.network.tls import PeerCertificate, peer_certificate
from node.network.tls_faults import why_no_tls
from node.network.upper_layer import MAX_PDU_BYTES, SEND_TIMEOUT_S, PlainSocket, TlsSocket, WaitingDul

log = logging.getLogger(__name__)

ACSE_TIMEOUT_S = 10.0  # from the connection to a whole association request
SPARE_CONNECTIONS = 16  # per host and in total, beyond the associations themselves
_NO_LIMIT = 1_000_000
_PAUSE_S = 0.1
_ABORT_BY_PROVIDER = (2, 1)  # source and reason, unrecognized PDU: PS3.8 table 9-26
_TITLES_END = 74  # of an A-ASSOCIATE-RQ: header, version and AE titles, before the variable items (PS3.8 table 9-11)


class PortInUse(Misconfigured):
    """Another program listens on the address; one of the two has to be stopped or configured anew."""


@dataclass(frozen=True)
class Rejection:
    """An association that is not wanted: result, source and reason of PS3.8 table 9-21.

    told: what an administrator is to find in the list of refusals; "" where the log is enough.
    """

    result: int
    source: int
    reason: int
    told: str = field(default="", compare=False)


@dataclass(frozen=True)
class Admission:
    """Who decides about an association request, by called and calling AE title, the peer's address and certificate.

    `admit` returns a session, which is any object of the receiver, or a Rejection. `ended` gets the session exactly
    once, when nothing of its association runs any more; `released` is False for whatever is no orderly release.
    `is_known_host` says whether a connection from this address is kept in preference to others. `cut_off` gets, before
    `ended`, every instance of the session that had begun to come and that nobody has dealt with.
    """

    admit: Callable[[str, str, str, PeerCertificate | None], object]
    ended: Callable[[Any, bool], None]
    is_known_host: Callable[[str], bool]
    cut_off: Callable[[Any, CutOff], None] = lambda session, instance: None


class _Handler(RequestHandler):
    """Runs one association from its request to its exact end, in the thread of its connection.

    Without it nobody knows when the last thread of an association has ended: EVT_RELEASED and EVT_ABORTED come earlier,
    and neither comes where a request is malformed or was rejected in EVT_REQUESTED.
    """

    server: "HardenedServer"
    _parts: tuple[Association, WaitingDul, DimseGuard] | None = None

    def handle(self) -> None:
        try:
            super().handle()
        finally:
            if self._parts is not None:
                self._see_to_the_end(*self._parts)

    def _see_to_the_end(self, association: Association, upper_layer: WaitingDul, messages: DimseGuard) -> None:
        if association.is_alive():
            association.join()
        if upper_layer.is_alive():
            upper_layer.kill_dul()
            upper_layer.join()
        upper_layer.close()
        self.request.cut_off = messages.cut_off()
        messages.release()
        self.server.running.discard(association)
        self.request.was_released = association.is_released and not messages.is_inside_message

    def _create_association(self) -> Association:
        association = super()._create_association()
        made, upper_layer = association.dul, WaitingDul(association, self.request.session)
        upper_layer.event_queue, upper_layer.socket = made.event_queue, made.socket
        association.dul = upper_layer
        association.acse_timeout, association.network_timeout = self.ae.acse_timeout, self.ae.network_timeout
        messages = DimseGuard(association, self.server.limits, self.server.messages)
        association.dimse = messages
        association.run = partial(_run, association.run)  # type: ignore[method-assign]
        if self.server.operations:
            serve = partial(_serve, association, self.server.operations)
            association._serve_request = serve  # type: ignore[method-assign]
        self._parts = association, upper_layer, messages
        self.server.running.add(association)
        if self.server.is_stopping:
            raise ConnectionAbortedError("the receiver stops")
        return association


def _run(serve: Callable[[], None]) -> None:
    """The thread of an association; a malformed request can end it, which pynetdicom would print to standard error."""
    try:
        serve()
    except Exception as error:
        log.warning("an association ended by an error: %s", type(error).__name__, extra={"event": "association_failed"})


def _serve(association: Association, operations: Mapping[type, Operation], request: Any, context_id: int) -> None:
    """Answer one request by an operation of our own, where there is one for it, and else as pynetdicom does.

    Without it pynetdicom answers C-MOVE with associations that nothing bounds, and names itself as the originator.
    """
    operation = operations.get(type(request)) if request.is_valid_request else None
    context = next((one for one in association.accepted_contexts if one.context_id == context_id), None)
    if operation is None or context is None:
        Association._serve_request(association, request, context_id)
        return
    association.dimse.cancel_req = {}
    association._is_paused = True  # an operation may send C-STORE requests
    try:
        operation(association, context, request)
    finally:
        association._is_paused = False
        association.dimse.cancel_req = {}


@dataclass
class _Open:
    """One connection; `waits` until its association was admitted, and may give way until then."""

    host: str
    known: bool
    waits: bool = field(default=True)


class _Shared(list[PresentationContext]):
    """Contexts that nobody changes; without it pynetdicom copies all of them deeply for every association: 0.05 s."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shared":
        return self


class HardenedServer(ThreadedAssociationServer):
    """pynetdicom's server with a bounded number of connections and one thread for each; it is made by `make_server`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        *arguments: Any,
        admission: Admission,
        limits: MessageLimits,
        max_associations: int,
        services: Sequence[Service] = (),
        tls: Callable[[], ssl.SSLContext] | None = None,
        **options: Any,
    ) -> None:
        self._admission, self.limits, self.messages = admission, limits, messages_of(services)
        self._tls = tls  # asked for each connection: a renewed certificate needs no restart
        self.operations = operations_of(services)
        self._per_host = max_associations + SPARE_CONNECTIONS
        self._in_total = 2 * max_associations + 4 * SPARE_CONNECTIONS
        self._connections: dict[socket.socket, _Open] = {}  # in the order in which they came
        self._changed = threading.Condition()
        self.running: set[Association] = set()
        self.is_stopping = False
        self.on_turn: Callable[[], None] = lambda: None
        super().__init__(*arguments, **options, request_handler=_Handler)  # type: ignore[misc]
        self.contexts = _Shared(self.contexts)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; without this the TLS handshake of a silent peer stops every other connection."""
        try:
            accepted, address = self.socket.accept()  # type: ignore[union-attr]
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(_PAUSE_S)  # it would fail again at once, for as long as no descriptor is free
            raise
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return PlainSocket(fileno=accepted.detach()), address
        context = self._tls()
        context.sslsocket_class = TlsSocket
        return context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False), address

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
            log.warning(
                "too many associations from %s: a connection was closed",
                opened.host,
                extra={"event": "connection_refused", "peer": opened.host},
            )
        return room

    def service_actions(self) -> None:
        """Say that the accepting thread turns; without this every sixtieth turn of it collects garbage."""
        self.on_turn()

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
            log.warning(
                "connection from %s ended before an association: %s",
                host,
                _reason(error),
                extra={"event": "connection_ended", "peer": host},
            )
        except Exception:
            log.exception(
                "connection from %s ended by an internal error",
                host,
                extra={"event": "connection_failed", "peer": host},
            )
        finally:
            self.shutdown_request(request)
            self._forget(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong while a connection was accepted, instead of printing it."""
        log.exception("a connection could not be accepted", extra={"event": "connection_not_accepted"})

    def stop_listening(self) -> None:
        """Close the listening socket; connections that exist go on."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()

    def stop(self, grace_s: float) -> None:
        """Stop accepting, let open associations end by themselves for `grace_s`, then abort them."""
        self.stop_listening()
        if not self.wait_until_idle(grace_s):
            self.abort_all()
            self.wait_until_idle(ACSE_TIMEOUT_S)

    def abort_all(self) -> None:
        """Abort every association and close every connection that has none; new ones are not begun."""
        self.is_stopping = True
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
        asked = A_ASSOCIATE_RQ()
        try:
            # Only the titles: the many items behind them are decoded for a peer that was admitted.
            titles = request.read_request(ACSE_TIMEOUT_S)[:_TITLES_END]
            if not titles:
                return
            asked.decode(titles)
        except (ValueError, struct.error):  # no association request, or titles that are none
            if request.began_with_tls:
                host = str(client_address[0])
                log.warning(
                    "connection from %s ended before an association: it speaks TLS, and [scp.tls] is not set",
                    host,
                    extra={"event": "connection_ended", "peer": host},
                )
            answer = A_ABORT_RQ()
            answer.source, answer.reason_diagnostic = _ABORT_BY_PROVIDER
            request.settimeout(SEND_TIMEOUT_S)
            request.sendall(answer.encode())
            return
        certificate = peer_certificate(request) if isinstance(request, ssl.SSLSocket) else None
        host = str(client_address[0])
        session = self._admission.admit(asked.called_ae_title, asked.calling_ae_title, host, certificate)
        if isinstance(session, Rejection):
            refusal = A_ASSOCIATE_RJ()
            refusal.result, refusal.source, refusal.reason_diagnostic = session.result, session.source, session.reason
            request.settimeout(SEND_TIMEOUT_S)
            request.sendall(refusal.encode())
            return
        with self._changed:
            if request in self._connections:
                self._connections[request].waits = False
        request.session = session
        try:
            self.finish_request(request, client_address)
        finally:
            for instance in request.cut_off:
                self._admission.cut_off(session, instance)
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


def listen(
    settings: ScpSettings,
    port: int,
    port_key: str,
    *,
    contexts: Sequence[PresentationContext],
    handlers: Sequence[tuple[EventType, Callable[..., Any]]],
    services: Sequence[Service],
    admission: Admission,
    limits: MessageLimits,
    quiet_s: float,
    answer_s: float | None = None,
) -> HardenedServer:
    """A server on the address of `settings` that is bound and does not accept yet; port 0 is any free one.

    port_key: which setting the port comes from. contexts, handlers: beside those of the services. quiet_s: how long a
    peer may say nothing. answer_s: how long it may take for an answer, where it is asked. Raises PortInUse, and
    Misconfigured where the address cannot be listened on.
    """
    configure_libraries()
    ae = AE(ae_title=settings.ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = MAX_PDU_BYTES
    ae.maximum_associations = _NO_LIMIT  # `admission` counts the places, before pynetdicom hears of a request
    ae.acse_timeout, ae.network_timeout = ACSE_TIMEOUT_S, quiet_s
    if answer_s is not None:
        ae.dimse_timeout = answer_s
    try:
        listening: Any = ae.make_server(
            (settings.listening_host, port),
            contexts=[*contexts, *(one for service in services for one in service.contexts)],
            tls=None if settings.tls is None else receiver_tls(settings.tls),
            evt_handlers=[*handlers, *(one for service in services for one in service.handlers)],
            server_class=HardenedServer,
            admission=admission,
            limits=limits,
            max_associations=settings.max_associations,
            services=services,
        )
    except OSError as error:
        where = f"{settings.listening_host} port {port}"
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"another program listens on {where}; stop it, or change {port_key}") from None
        raise Misconfigured(f"nobody can listen on {where} ({port_key}): {error.strerror or error}") from None
    assert isinstance(listening, HardenedServer)
    return listening


def _close(connection: socket.socket) -> None:
    """Wake the thread that reads the connection; it finds the end of the stream, and ends."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # an SSLSocket's own would pull TLS from under its thread


def _reason(error: OSError) -> str:
    """What OpenSSL or the system calls the error; never bytes of the peer."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {why_no_tls(error)}"
    return error.strerror or type(error).__name__
