"""The Query/Retrieve SCP: a server of its own beside the receiver, with the receiver's peers, places and TLS."""

import errno
import logging
import threading
from typing import Any

from pynetdicom import AE, evt

from config.settings import ScpSettings
from node.beats import IDLE_LIMIT_S, Beating, no_beat
from node.dicom.constants import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.errors import Misconfigured
from node.network import server, status
from node.network.contexts import verification_context
from node.network.dimse_guard import MessageLimits
from node.network.library import configure_libraries
from node.network.renewal import receiver_tls
from node.network.server import Admission, HardenedServer
from node.network.upper_layer import MAX_PDU_BYTES
from node.query.index import Index
from node.query.retrieve import Retriever
from node.query.service import query_service
from node.receive.admission import Places, Session

log = logging.getLogger(__name__)

QUIET_TIMEOUT_S = 120.0  # a peer may look for its next question for that long
ANSWER_TIMEOUT_S = 30.0  # for an instance that was sent by C-GET
STOP_GRACE_S = 5.0
_NO_LIMIT = 1_000_000
_NO_DATA_SETS = 1  # byte of a C-STORE request, which nobody may send here


class QueryScp:
    """Listens for queries. `settings`: the receiver's, with AE title and port of queries; port 0 is any free one."""

    def __init__(self, settings: ScpSettings, index: Index, retriever: Retriever, *, beat: Beating = no_beat) -> None:
        self._settings, self._beat = settings, beat
        self._places = Places(settings)
        self._service = query_service(index, retriever, self._places.progressed)
        self._server: HardenedServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; that of the settings before `start`."""
        return self._settings.port if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Listen and accept. Raises Misconfigured."""
        self._server = listening = self._listen()
        listening.on_turn = lambda: self._beat("accepting", "waiting for connections", 0, 0, IDLE_LIMIT_S)
        self._thread = threading.Thread(target=listening.serve_forever, args=(0.05,), name="query", daemon=True)
        self._thread.start()
        log.info(
            "answering queries as %s on %s port %d",
            self._settings.ae_title,
            self._settings.listening_host,
            self.port,
            extra={"event": "query_listening"},
        )

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Stop accepting, let open associations end by themselves for `grace_s`, then abort them."""
        listening, self._server = self._server, None
        if listening is None:
            return
        listening.stop_listening()
        if not listening.wait_until_idle(grace_s):
            listening.abort_all()
            listening.wait_until_idle(server.ACSE_TIMEOUT_S)
        if self._thread is not None:
            self._thread.join()

    def _listen(self) -> HardenedServer:
        settings, tls = self._settings, self._settings.tls
        configure_libraries()
        ae = AE(ae_title=settings.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_pdu_size = MAX_PDU_BYTES
        ae.maximum_associations = _NO_LIMIT  # the places are counted in `Places`
        ae.acse_timeout, ae.network_timeout = server.ACSE_TIMEOUT_S, QUIET_TIMEOUT_S
        ae.dimse_timeout = ANSWER_TIMEOUT_S
        try:
            listening: Any = ae.make_server(
                (settings.listening_host, settings.port),
                contexts=[verification_context(), *self._service.contexts],
                tls=None if tls is None else receiver_tls(tls),
                evt_handlers=[
                    *self._places.handlers(),
                    (evt.EVT_C_ECHO, lambda event: status.SUCCESS),
                    *self._service.handlers,
                ],
                server_class=HardenedServer,
                admission=Admission(self._places.admit, self._ended, self._places.is_known_host),
                limits=MessageLimits(_NO_DATA_SETS, _NO_DATA_SETS, lambda: 0),
                max_associations=settings.max_associations,
                services=[self._service],
            )
            assert isinstance(listening, HardenedServer)
            return listening
        except OSError as error:
            where = f"{settings.listening_host} port {settings.port}"
            if error.errno == errno.EADDRINUSE:
                raise Misconfigured(f"another program listens on {where}; stop it, or change query.port") from None
            raise Misconfigured(f"queries cannot be listened for on {where}: {error.strerror or error}") from None

    def _ended(self, session: Session, released: bool) -> None:
        session.turn.give_up()
        self._places.leave(session)
