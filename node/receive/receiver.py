"""The receiver: C-ECHO and C-STORE into the spool and the store; it decodes nothing and decides nothing.

An instance is answered with 0x0000 only after its file and its row are durable. Everything a peer sends is bytes of an
unknown sender: no name, no path and no log line is made from it, except UIDs and an AE title of the safe alphabet.
"""

import errno
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from config.settings import ScpSettings
from node.errors import Misconfigured, UnreadableInstance
from node.network import status
from node.network.tls import server_context
from node.receive import server
from node.receive.association import (
    LIMIT_REACHED,
    WRONG_APPLICATION,
    WRONG_CALLED_AE,
    WRONG_CALLING_AE,
    WRONG_PROTOCOL,
    House,
    Limits,
    Rejection,
    Session,
    run_association,
)
from node.receive.connection import Connection
from node.receive.group import GroupRecorder
from node.receive.header import InstanceIdentity, read_identity
from node.receive.incoming import IncomingFile, StoreRequest
from node.receive.pdu import APPLICATION_CONTEXT, AssociateRequest
from node.receive.peers import is_allowed, safe_ae_title
from node.receive.server import BoundedServer
from storage.series import Arrival, Closing, Opening, Receipt, Recorded, SeriesStore
from storage.spool import Spool

log = logging.getLogger(__name__)

QUIET_TIMEOUT_S = 120.0  # a sender may look for its next slice for that long
MAX_DATASET_BYTES = 1 << 30
STOP_GRACE_S = 5.0
_CLOSE_ATTEMPTS = 5


class PortInUse(Misconfigured):
    """Another program listens on the receiver's address; one of the two has to be stopped or configured anew."""


class Receiver:
    """A Verification and Storage SCP. One receiver owns the spool's `incoming` folder.

    `port` overrides the port of the settings; 0 lets the system choose one.
    """

    def __init__(
        self,
        settings: ScpSettings,
        spool: Spool,
        series: SeriesStore,
        *,
        name: str,
        port: int | None = None,
        max_dataset_bytes: int = MAX_DATASET_BYTES,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._series = series
        self._name = name
        self._requested_port = settings.port if port is None else port
        self._max_dataset_bytes = max_dataset_bytes
        self._clock = clock
        self._recorder = GroupRecorder(spool, series)
        self._sessions: set[Session] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._server: BoundedServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; the requested one before `start`."""
        return self._requested_port if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Listen, then clear what a killed receiver left behind, then accept. Raises Misconfigured."""
        if not self._settings.allowed_peers:
            log.warning("scp.allowed_peers is empty: every calling AE title from every host is accepted")
        listening = self._listen()
        try:
            # Only now: a second receiver that was started by mistake must not clear the files of the first.
            lost = self._series.lose_associations(self._name, self._clock())
            swept = self._spool.sweep_incoming()
        except BaseException:
            listening.server_close()
            raise
        if lost or swept:
            log.warning("a former receiver left %d associations and %d unfinished files", lost, swept)
        self._server = listening
        self._thread = threading.Thread(target=listening.serve_forever, args=(0.05,), name="receiver", daemon=True)
        self._thread.start()
        log.info("listening as %s on %s port %d", self._settings.ae_title, self._settings.host, self.port)

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Stop accepting, let open associations end by themselves for `grace_s`, then abort them."""
        listening, self._server = self._server, None
        if listening is None:
            return
        self._requested_port = int(listening.server_address[1])
        listening.stop_listening()
        if not listening.wait_until_idle(grace_s):
            self._stopping.set()
            listening.abort_all()
            if not listening.wait_until_idle(server.ACSE_TIMEOUT_S):
                log.error("an association did not end; its unfinished files are removed at the next start")
        if self._thread is not None:
            self._thread.join()

    # -- connections -------------------------------------------------------------------------------------------

    def _listen(self) -> BoundedServer:
        settings = self._settings
        tls = settings.tls
        context = None if tls is None else server_context(tls.certificate, tls.private_key, tls.ca)
        try:
            return BoundedServer(
                (settings.host, self._requested_port),
                tls=context,
                max_associations=settings.max_associations,
                serve=self._run,
            )
        except OSError as error:
            where = f"{settings.host} port {self._requested_port}"
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(f"another program listens on {where}; stop it, or change scp.port") from None
            raise Misconfigured(f"the receiver cannot listen on {where}: {error.strerror or error}") from None

    def _run(self, connection: Connection, peer_host: str) -> None:
        limits = Limits(
            max_pdu_bytes=server.MAX_PDU_BYTES,
            max_dataset_bytes=self._max_dataset_bytes,
            request_s=server.ACSE_TIMEOUT_S,
            quiet_s=QUIET_TIMEOUT_S,
            pdu_s=server.PDU_TIMEOUT_S,
        )
        house = House(limits, self._spool, self._admit, self._serve, self._leave, self._finished)
        run_association(connection, peer_host, house)

    def _admit(self, request: AssociateRequest, peer_host: str) -> Session | Rejection:
        """Accept or reject an association before its presentation contexts are negotiated."""
        settings = self._settings
        session = Session(safe_ae_title(request.calling_ae), peer_host)
        with self._lock:
            if not is_allowed(settings.allowed_peers, session.calling_ae, peer_host):
                rejection, why = WRONG_CALLING_AE, "not in scp.allowed_peers"
            elif request.called_ae != settings.ae_title.strip():
                rejection, why = WRONG_CALLED_AE, "it called another AE title"
            elif request.protocol_version != 1:
                rejection, why = WRONG_PROTOCOL, "an unknown version of the protocol"
            elif request.application_context != APPLICATION_CONTEXT:
                rejection, why = WRONG_APPLICATION, "an application other than DICOM"
            elif len(self._sessions) >= settings.max_associations:
                rejection, why = LIMIT_REACHED, "scp.max_associations are open"
            else:
                self._sessions.add(session)
                return session
        log.warning("association from %s at %s rejected: %s", session.calling_ae, peer_host, why)
        return rejection

    def _leave(self, session: Session) -> None:
        with self._lock:
            self._sessions.discard(session)

    def _finished(self, session: Session) -> None:
        """Close the books on an association, whatever way it ended."""
        if session.association_id is None:
            return
        log.info(
            "association of %s %s: %d stored, %d refused",
            session.calling_ae,
            "released" if session.released else "broken off",
            session.stored,
            session.refused,
        )
        # While this row stays open no series of the association can complete.
        for attempt in range(_CLOSE_ATTEMPTS):
            try:
                self._recorder.close_association(Closing(session.association_id, session.released, self._clock()))
                return
            except Exception:
                log.exception("association %d could not be closed in the store", session.association_id)
                self._stopping.wait(attempt)

    # -- C-STORE -----------------------------------------------------------------------------------------------

    def _serve(self, session: Session, request: StoreRequest) -> tuple[int, str]:
        """Answer one C-STORE; the boundary of the process: whatever goes wrong becomes a failure status."""
        try:
            code, comment = self._receive(request, session)
        except UnreadableInstance as error:
            code, comment = status.CANNOT_UNDERSTAND, str(error)
        except Exception:
            log.exception("an instance from %s could not be stored", session.calling_ae)
            code, comment = status.OUT_OF_RESOURCES, "the instance could not be stored; try again"
        if code == status.SUCCESS:
            session.stored += 1
        else:
            session.refused += 1
            log.warning("instance from %s refused with %04X: %s", session.calling_ae, code, comment)
        return code, comment[:64]

    def _receive(self, request: StoreRequest, session: Session) -> tuple[int, str]:
        file, command = request.file, request.command
        if file.failure is not None:
            log.error("the spool takes no more: %s", file.failure)
            return status.OUT_OF_RESOURCES, "the spool takes no more"
        with file.data_set() as stream:
            identity = read_identity(stream, file.size_bytes, implicit_vr=request.context.implicit_vr)
        asked = (command.sop_class_uid, command.sop_instance_uid)
        if asked != (identity.sop_class_uid, identity.sop_instance_uid) or asked[0] != request.context.abstract_syntax:
            return status.DATASET_DOES_NOT_MATCH, "the UIDs of the command and of the data set differ"
        self._record(session, file, identity, request.context.transfer_syntax)
        return status.SUCCESS, ""

    def _record(self, session: Session, file: IncomingFile, identity: InstanceIdentity, syntax_uid: str) -> None:
        """Make file and row durable; on an exception no row exists, or it has its file."""
        now = self._clock()
        if session.association_id is None:
            session.association_id = self._recorder.open_association(
                Opening(self._name, session.calling_ae, session.peer_host, now)
            )
        name = self._spool.place(file.path, now, descriptor=file.descriptor)
        try:
            arrival = Arrival(
                study_uid=identity.study_uid,
                series_uid=identity.series_uid,
                sop_instance_uid=identity.sop_instance_uid,
                sop_class_uid=identity.sop_class_uid,
                transfer_syntax_uid=syntax_uid,
                sha256=file.sha256(),
                spool_name=name,
                size_bytes=file.size_bytes,
            )
            recorded = self._recorder.record(Receipt(session.association_id, session.calling_ae, arrival, now))
        except BaseException:
            self._discard(name)
            raise
        if recorded is Recorded.DUPLICATE:
            self._discard(name)

    def _discard(self, name: str) -> None:
        """Remove a file that came to nothing, unless a row has it."""
        # A commit may have reached the database although its answer was lost; a row must never miss its file.
        if not self._series.is_referenced(name):
            self._spool.discard(name)
