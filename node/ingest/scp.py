"""The receiver: C-ECHO and C-STORE into the spool and the store; it decodes nothing and decides nothing.

An instance is answered with 0x0000 only after its file and its row are durable. Everything a peer sends is bytes of an
unknown sender: no name, no path and no log line is made from it, except UIDs and an AE title of the safe alphabet.
"""

import errno
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association

from config.settings import ScpSettings
from node.dicom import status
from node.dicom.constants import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.dicom.tls import server_context
from node.errors import Misconfigured, UnreadableInstance
from node.ingest.contexts import register_private_classes, supported_contexts
from node.ingest.group import GroupRecorder
from node.ingest.header import InstanceIdentity, read_identity
from node.ingest.incoming import IncomingFile, SpoolingDimse, StoreRequest
from node.ingest.peers import is_allowed, safe_ae_title
from node.ingest.server import ACSE_TIMEOUT_S, MAX_PDU_BYTES, BoundedServer
from storage.series import Arrival, Receipt, Recorded, SeriesStore
from storage.spool import Spool

log = logging.getLogger(__name__)

NETWORK_TIMEOUT_S = 120.0  # also runs while a handler works, so it must be far above the slowest disk
MAX_DATASET_BYTES = 1 << 30
STOP_GRACE_S = 5.0
_CLOSE_ATTEMPTS = 5
_HASHING_THREADS = 4  # OpenSSL runs outside the interpreter's lock

# PS3.8 table 9-21: result, source, diagnostic
_REJECT_CALLING_AE = (1, 1, 3)
_REJECT_LOCAL_LIMIT = (2, 3, 2)


class PortInUse(Misconfigured):
    """Another program listens on the receiver's address; one of the two has to be stopped or configured anew."""


@dataclass
class _Session:
    """What is known of one accepted association; the row is opened with its first C-STORE."""

    calling_ae: str
    peer_host: str
    association_id: int | None = None
    stored: int = 0
    refused: int = 0


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
        self._hashing = ThreadPoolExecutor(max_workers=_HASHING_THREADS, thread_name_prefix="hashing")
        self._sessions: dict[Association, _Session] = {}
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
        _configure_pynetdicom()
        if not self._settings.allowed_peers:
            log.warning("scp.allowed_peers is empty: every calling AE title from every host is accepted")
        server = self._listen()
        try:
            # Only now: a second receiver that was started by mistake must not clear the files of the first.
            lost = self._series.lose_associations(self._name, self._clock())
            swept = self._spool.sweep_incoming()
        except BaseException:
            server.server_close()
            raise
        if lost or swept:
            log.warning("a former receiver left %d associations and %d unfinished files", lost, swept)
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="receiver", daemon=True)
        self._thread.start()
        log.info("listening as %s on %s port %d", self._settings.ae_title, self._settings.host, self.port)

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Stop accepting, let open associations end by themselves for `grace_s`, then abort them."""
        server, self._server = self._server, None
        if server is None:
            return
        self._requested_port = int(server.server_address[1])
        server.stop_listening()
        if not server.wait_until_idle(grace_s):
            self._stopping.set()
            server.abort_all()
            if not server.wait_until_idle(ACSE_TIMEOUT_S):
                log.error("an association did not end; its unfinished files are removed at the next start")
        if self._thread is not None:
            self._thread.join()

    # -- connections -------------------------------------------------------------------------------------------

    def _listen(self) -> BoundedServer:
        settings = self._settings
        ae = AE(ae_title=settings.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.supported_contexts = supported_contexts()
        ae.require_called_aet = True
        ae.maximum_pdu_size = MAX_PDU_BYTES
        ae.acse_timeout = ACSE_TIMEOUT_S
        ae.network_timeout = NETWORK_TIMEOUT_S
        # pynetdicom would count connections that never said a word; `_requested` counts associations.
        ae.maximum_associations = 1_000_000
        tls = settings.tls
        context = None if tls is None else server_context(tls.certificate, tls.private_key, tls.ca)
        try:
            return BoundedServer(
                ae,
                (settings.host, self._requested_port),
                tls=context,
                evt_handlers=[(evt.EVT_REQUESTED, self._requested), (evt.EVT_C_STORE, self._refuse)],
                max_associations=settings.max_associations,
                prepare=self._prepare,
                finished=self._finished,
            )
        except OSError as error:
            where = f"{settings.host} port {self._requested_port}"
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(f"another program listens on {where}; stop it, or change scp.port") from None
            raise Misconfigured(f"the receiver cannot listen on {where}: {error.strerror or error}") from None

    def _prepare(self, association: Association) -> None:
        association.dimse = SpoolingDimse(
            association, self._spool, self._serve, max_dataset_bytes=self._max_dataset_bytes
        )

    def _requested(self, event: Any) -> None:
        """Accept or reject an association before its presentation contexts are negotiated."""
        association = event.assoc
        session = _Session(
            safe_ae_title(association.requestor.primitive.calling_ae_title), association.requestor.address
        )
        with self._lock:
            if not is_allowed(self._settings.allowed_peers, session.calling_ae, session.peer_host):
                rejection, why = _REJECT_CALLING_AE, "not in scp.allowed_peers"
            elif len(self._sessions) >= self._settings.max_associations:
                rejection, why = _REJECT_LOCAL_LIMIT, "scp.max_associations are open"
            else:
                self._sessions[association] = session
                return
        log.warning("association from %s at %s rejected: %s", session.calling_ae, session.peer_host, why)
        association.acse.send_reject(*rejection)
        association.kill()

    def _finished(self, association: Association) -> None:
        """Close the books on an association; runs after its last handler, whatever way it ended."""
        if isinstance(association.dimse, SpoolingDimse):
            association.dimse.abandon()
        with self._lock:
            session = self._sessions.pop(association, None)
        if session is None or session.association_id is None:
            return
        released = bool(association.is_released)
        log.info(
            "association of %s %s: %d stored, %d refused",
            session.calling_ae,
            "released" if released else "broken off",
            session.stored,
            session.refused,
        )
        # While this row stays open no series of the association can complete.
        for attempt in range(_CLOSE_ATTEMPTS):
            try:
                self._series.close_association(session.association_id, released=released, now=self._clock())
                return
            except Exception:
                log.exception("association %d could not be closed in the store", session.association_id)
                self._stopping.wait(attempt)

    # -- C-STORE -----------------------------------------------------------------------------------------------

    def _serve(self, association: Association, request: StoreRequest) -> tuple[int, str]:
        """Answer one C-STORE; the boundary of the process: whatever goes wrong becomes a failure status."""
        session = self._sessions[association]
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

    def _refuse(self, event: Any) -> int:
        """Answer a C-STORE that is no regular request; pynetdicom kept nothing of it."""
        session = self._sessions[event.assoc]
        session.refused += 1
        log.warning("instance from %s refused: the request is malformed", session.calling_ae)
        return status.CANNOT_UNDERSTAND

    def _receive(self, request: StoreRequest, session: _Session) -> tuple[int, str]:
        file, command = request.file, request.command
        file.close()
        if file.failure is not None:
            log.error("the spool takes no more: %s", file.failure)
            return status.OUT_OF_RESOURCES, "the spool takes no more"
        with file.path.open("rb") as stream:
            stream.seek(file.head_bytes)
            identity = read_identity(stream, file.size_bytes, implicit_vr=request.context.implicit_vr)
        asked = (command.sop_class_uid, command.sop_instance_uid)
        if asked != (identity.sop_class_uid, identity.sop_instance_uid) or asked[0] != request.context.abstract_syntax:
            return status.DATASET_DOES_NOT_MATCH, "the UIDs of the command and of the data set differ"
        self._record(session, file, identity, request.context.transfer_syntax)
        return status.SUCCESS, ""

    def _record(self, session: _Session, file: IncomingFile, identity: InstanceIdentity, syntax_uid: str) -> None:
        """Make file and row durable; on an exception no row exists, or it has its file."""
        now = self._clock()
        if session.association_id is None:
            session.association_id = self._series.open_association(
                self._name, session.calling_ae, session.peer_host, now
            )
        digest = file.sha256(self._hashing)  # beside the sync of the file
        name = self._spool.place(file.path, now)
        try:
            arrival = Arrival(
                study_uid=identity.study_uid,
                series_uid=identity.series_uid,
                sop_instance_uid=identity.sop_instance_uid,
                sop_class_uid=identity.sop_class_uid,
                transfer_syntax_uid=syntax_uid,
                sha256=digest.result(),
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


def _configure_pynetdicom() -> None:
    """Set the switches that pynetdicom only has for a whole process."""
    _config.ENFORCE_UID_CONFORMANCE = True
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its errors quote what a peer sent
    register_private_classes()
