"""One small SCP twice, on stock pynetdicom and on the receiver's server, so that a scenario runs against both."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket, ThreadedAssociationServer

from node.network.dimse_guard import MessageLimits
from node.network.library import configure_libraries
from node.network.server import Admission, HardenedServer
from node.network.services import Service
from tests.peers.raw_peer import CT, EXPLICIT, RELEASE, VERIFICATION, RawPeer, read_pdu


@dataclass
class Scp:
    """A Verification and Storage SCP on a free port of the loopback, and what it saw.

    `on_store` runs inside every C-STORE and may block or raise. `ended` is of the receiver's server only: whether the
    association was released, and how many of its threads were alive then.
    """

    is_stock: bool
    server: Any = None
    associations: list[Any] = field(default_factory=list)
    stored: list[tuple[str, bytes]] = field(default_factory=list)
    events: list[tuple[str, int]] = field(default_factory=list)  # of an association's end, with the threads alive then
    ended: list[tuple[bool, int]] = field(default_factory=list)
    on_store: Callable[[], object] = lambda: None
    is_known_host: Callable[[str], bool] = lambda host: False

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def has(self, associations: int) -> bool:
        """Whether so many associations have begun; the receiver's server begins none before the request."""
        return not self.is_stock or len(self.associations) >= associations

    def is_idle(self) -> bool:
        """Whether no thread of an association runs any more."""
        return not any(threads_alive(association) for association in self.associations)

    def knows(self, host: str) -> bool:
        return self.is_known_host(host)

    def handlers(self) -> list[Any]:
        return [
            (evt.EVT_CONN_OPEN, lambda event: self.associations.append(event.assoc)),
            (evt.EVT_RELEASED, self._saw),
            (evt.EVT_ABORTED, self._saw),
            (evt.EVT_CONN_CLOSE, self._saw),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_C_ECHO, lambda event: 0x0000),
            (evt.EVT_C_STORE, self._store),
        ]

    def end(self, session: Any, released: bool) -> None:
        self.ended.append((released, threads_alive(self.associations[-1]) if self.associations else 0))

    def _saw(self, event: Any) -> None:
        self.events.append((event.event.name, threads_alive(event.assoc)))

    def _requested(self, event: Any) -> None:
        if getattr(event.assoc.requestor.primitive, "calling_ae_title", "") == "UNWANTED":
            event.assoc.acse.send_reject(1, 1, 3)
            event.assoc.kill()

    def _store(self, event: Any) -> Dataset:
        request = event.request
        try:
            self.on_store()
            status, comment = getattr(request.DataSet, "refusal", None) or (0x0000, "")
            if status == 0x0000:
                self.stored.append((str(request.AffectedSOPInstanceUID), request.DataSet.getvalue()))
        finally:
            if not self.is_stock:
                request.DataSet.release()
        answer = Dataset()
        answer.Status = status
        if comment:
            answer.ErrorComment = comment
        return answer


def threads_alive(association: Any) -> int:
    """How many of an association's two threads run."""
    return sum(thread.is_alive() for thread in (association, association.dul))


def gives_up_sending(connection: socket.socket, within_s: float = 1.0) -> bool:
    """Whether pynetdicom ends in time to send over a connection whose other end reads nothing."""
    given_up = threading.Event()
    wrapper = AssociationSocket(Association(AE(), "acceptor"), client_socket=connection)

    def send() -> None:
        wrapper.send(bytes(8 << 20))
        given_up.set()

    thread = threading.Thread(target=send)
    thread.start()
    result = given_up.wait(within_s)
    socket.socket.shutdown(connection, socket.SHUT_RDWR)
    thread.join(60)
    connection.close()
    return result


def release_takes_s(scp: Scp) -> float:
    """How long a peer waits for the answer to A-RELEASE just after one to C-ECHO."""
    with RawPeer(scp.port) as peer:
        assert peer.echo() == 0x0000
        begun = time.perf_counter()
        peer.connection.sendall(RELEASE)
        assert read_pdu(peer.connection)[0] == 0x06
        return time.perf_counter() - begun


@contextmanager
def stock(*, serve: bool = True, network_s: float = 5.0, acse_s: float = 5.0, **options: Any) -> Iterator[Scp]:
    """The SCP on pynetdicom's own server."""
    scp = Scp(is_stock=True)
    ae = _ae(network_s, acse_s)
    scp.server = ae.make_server(
        ("127.0.0.1", 0), evt_handlers=scp.handlers(), server_class=ThreadedAssociationServer, **options
    )
    ae._servers.append(scp.server)  # as `AE.start_server` does; `shutdown` removes it there
    with _serving(scp, serve):
        yield scp


@contextmanager
def hardened(
    *,
    serve: bool = True,
    network_s: float = 5.0,
    acse_s: float = 5.0,
    max_associations: int = 10,
    max_dataset_bytes: int = 1 << 20,
    max_in_flight_bytes: int = 1 << 22,
    admit: Callable[[str, str, str, Any], object] = lambda called, calling, host, certificate: object(),
    services: Sequence[Service] = (),
    **options: Any,
) -> Iterator[Scp]:
    """The SCP on the receiver's server, which admits whoever `admit` wants, and offers these services too."""
    scp = Scp(is_stock=False)
    ae = _ae(network_s, acse_s)
    scp.server = ae.make_server(
        ("127.0.0.1", 0),
        contexts=[*ae.supported_contexts, *(context for service in services for context in service.contexts)],
        evt_handlers=[*scp.handlers(), *(handler for service in services for handler in service.handlers)],
        services=services,
        server_class=HardenedServer,
        admission=Admission(admit, scp.end, scp.knows),
        limits=MessageLimits(max_dataset_bytes, max_in_flight_bytes, lambda: 1 << 40),
        max_associations=max_associations,
        **options,
    )
    with _serving(scp, serve):
        yield scp


@contextmanager
def both(**options: Any) -> Iterator[tuple[Scp, Scp]]:
    """The SCP on stock pynetdicom and on the receiver's server."""
    with stock(**options) as plain, hardened(**options) as guarded:
        yield plain, guarded


@contextmanager
def _serving(scp: Scp, serve: bool) -> Iterator[None]:
    thread = threading.Thread(target=scp.server.serve_forever, args=(0.01,), daemon=True)
    if serve:
        thread.start()
    try:
        yield
    finally:
        if serve:
            _stop(scp)
            thread.join()
        else:
            scp.server.server_close()


def _stop(scp: Scp) -> None:
    if not scp.is_stock:
        scp.server.stop_listening()
        scp.server.abort_all()
        scp.server.wait_until_idle(5)
        return
    scp.server.shutdown()
    for association in scp.associations:
        association.join(60)


def _ae(network_s: float, acse_s: float) -> AE:
    configure_libraries()
    ae = AE(ae_title="SYNCECT")
    ae.add_supported_context(VERIFICATION, EXPLICIT)
    ae.add_supported_context(CT, EXPLICIT)
    ae.acse_timeout, ae.network_timeout = acse_s, network_s
    return ae
