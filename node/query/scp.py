"""The Query/Retrieve SCP: a server of its own beside the receiver, with the receiver's peers, places and TLS."""

import logging
import threading

from pynetdicom import evt

from config.settings import ScpSettings
from node.beats import IDLE_LIMIT_S, Beating, no_beat
from node.network import server, status
from node.network.contexts import verification_context
from node.network.dimse_guard import MessageLimits
from node.network.server import Admission, HardenedServer
from node.query.index import Index
from node.query.retrieve import Retriever
from node.query.service import query_service
from node.receive.admission import Places, Session

log = logging.getLogger(__name__)

QUIET_TIMEOUT_S = 120.0  # a peer may look for its next question for that long
ANSWER_TIMEOUT_S = 30.0  # for an instance that was sent by C-GET
STOP_GRACE_S = 5.0
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
        listening.stop(grace_s)
        if self._thread is not None:
            self._thread.join()

    def _listen(self) -> HardenedServer:
        return server.listen(
            self._settings,
            self._settings.port,
            "query.port",
            contexts=[verification_context()],
            handlers=[*self._places.handlers(), (evt.EVT_C_ECHO, lambda event: status.SUCCESS)],
            services=[self._service],
            admission=Admission(self._places.admit, self._ended, self._places.is_known_host),
            limits=MessageLimits(_NO_DATA_SETS, _NO_DATA_SETS, lambda: 0),
            quiet_s=QUIET_TIMEOUT_S,
            answer_s=ANSWER_TIMEOUT_S,
        )

    def _ended(self, session: Session, released: bool) -> None:
        session.turn.give_up()
        self._places.leave(session)
