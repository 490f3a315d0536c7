"""The receiver answers C-ECHO and stores the CT images that C-STORE brings; of the rest it keeps one row a series.

It decodes no image and decides nothing about one.

An instance is answered with 0x0000 only after its file and its row are durable. Everything a peer sends is bytes of an
unknown sender: no name, no path and no log line is made from it, except UIDs and an AE title of the safe alphabet.
"""

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt

from config.settings import DestinationSettings, ScpSettings
from config.syntax import UID_ALPHABET
from node.beats import IDLE_LIMIT_S, STEP_LIMIT_S, Beating, Numbers
from node.dicom.constants import STORED_CLASSES
from node.dicom.identity import InstanceIdentity, glimpse, inflated, part10_head, read_identity
from node.errors import UnreadableInstance
from node.network import server, status
from node.network.contexts import DEFLATED_SYNTAXES, supported_contexts
from node.network.dimse_guard import NO_UID, CutOff, MessageLimits, answer_of
from node.network.server import Admission, HardenedServer, Rejection
from node.network.services import Service
from node.network.tls import PeerCertificate
from node.receive.admission import Places, Session, safe_title, session_of
from node.receive.discarded import why_discarded
from storage.errors import ObjectsUnavailable, SchemaMismatch, SpoolFull, StoreUnavailable
from storage.intake import Intake
from storage.losses import UNKNOWN, LateLoss
from storage.outage import Outage
from storage.refusals import RefusalStore, RefusedInstance
from storage.series import Closing, Discard, Identifiers, Loss, Opening, Recorded, SeriesStore
from storage.spool import Spool

log = logging.getLogger(__name__)

QUIET_TIMEOUT_S = 120.0  # a sender may look for its next slice for that long
MAX_DATASET_BYTES = 512 * 1024**2
MAX_IN_FLIGHT_BYTES = 768 * 1024**2  # of all associations, in memory
STOP_GRACE_S = 5.0
_CLOSE_ATTEMPTS = 5
_MOST_UNCOUNTED = 100_000
UIDS_DIFFER = "the UIDs of the command and of the data set differ"
_MAY_BE_TOLD = "the object store "  # so begin the words about the server itself; others name files of this host
_NO_DATABASE = "the database cannot be used; try again"
# They name no owner: without TLS the AE title of one is all that another needs to become it.
_MAY_NOT = {
    Recorded.FOREIGN: "the series belongs to another peer",
    Recorded.BARRED: "a person dropped what this peer sent of the series",
}


class Receiver:
    """A Verification and Storage SCP. One receiver owns the spool's `incoming` folder.

    `services`: what it offers beside them; `reporting`: destinations that may report to one of them. `port`
    overrides the port of the settings; 0 lets the system choose one. `paused(stored)`: whether an instance is refused,
    of an association that stored so many, because a person paused receiving. `numbers` gets what was answered, where
    there is a beat.
    """

    def __init__(
        self,
        settings: ScpSettings,
        spool: Spool,
        series: SeriesStore,
        refusals: RefusalStore,
        *,
        name: str,
        services: Sequence[Service] = (),
        reporting: Sequence[DestinationSettings] = (),
        paused: Callable[[int], bool] = lambda _stored: False,
        port: int | None = None,
        max_dataset_bytes: int = MAX_DATASET_BYTES,
        beat: Beating | None = None,
        numbers: Numbers | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._intake = Intake(spool, series, takes_foreign=settings.foreign_instances == "hold")
        self._refusals = refusals
        self._name = name
        self._services = tuple(services)
        self._requested_port = settings.port if port is None else port
        self._max_dataset_bytes = max_dataset_bytes
        self._beat, self._numbers = beat, numbers or Numbers()
        # Status, seconds and bytes of each answer; counted by the accepting thread, so that no C-STORE waits for it.
        self._answered: deque[tuple[int, float, int]] = deque(maxlen=_MOST_UNCOUNTED)
        self._clock, self._paused = clock, paused
        self._places = Places(settings, reporting=reporting)
        self._outage = Outage("C-STORE")
        self._stopping = threading.Event()
        self._server: HardenedServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; the requested one before `start`."""
        return self._requested_port if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Listen, then clear what a killed receiver left behind, then accept. Raises Misconfigured."""
        if not self._settings.allowed_peers:
            log.warning(
                "scp.allowed_peers is empty: %s", _who_may_send(self._settings), extra={"event": "everyone_may_send"}
            )
        listening = self._listen()
        try:
            # Only now: a second receiver that was started by mistake must not clear the files of the first.
            lost, swept = self._intake.clear_up(self._name, self._clock())
        except BaseException:
            listening.server_close()
            raise
        if lost or swept:
            log.warning(
                "a former receiver left %d associations and %d unfinished files",
                lost,
                swept,
                extra={"event": "receiver_cleared_up"},
            )
        self._server = listening
        if self._beat is not None:
            listening.on_turn = partial(self._turned, self._beat)
        self._thread = threading.Thread(target=listening.serve_forever, args=(0.05,), name="receiver", daemon=True)
        self._thread.start()
        log.info(
            "listening as %s on %s port %d",
            ", ".join(self._settings.ae_titles),
            self._settings.listening_host,
            self.port,
            extra={"event": "receiver_listening"},
        )

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
                log.error(
                    "an association did not end; its unfinished files are removed at the next start",
                    extra={"event": "association_not_ended"},
                )
        if self._thread is not None:
            self._thread.join()

    def _turned(self, beat: Beating) -> None:
        """The accepting thread turns; the writing of instances is late where one commit takes too long."""
        beat("accepting", "waiting for connections", 0, 0, IDLE_LIMIT_S)
        if not self._intake.is_late(STEP_LIMIT_S):
            beat("storing", "committing", 0, 0, IDLE_LIMIT_S)
        while self._answered:
            code, seconds, size_bytes = self._answered.popleft()
            self._numbers.add("stores", of=f"{code:04X}")
            self._numbers.add("store_bytes", size_bytes)
            self._numbers.time("store_s", seconds)

    # -- connections -------------------------------------------------------------------------------------------

    def _listen(self) -> HardenedServer:
        return server.listen(
            self._settings,
            self._requested_port,
            "scp.port",
            contexts=supported_contexts(),
            handlers=[*self._places.handlers(), (evt.EVT_C_ECHO, self._echo), (evt.EVT_C_STORE, self._store)],
            services=self._services,
            admission=Admission(self._admit, self._ended, self._places.is_known_host, self._cut_off),
            limits=MessageLimits(self._max_dataset_bytes, MAX_IN_FLIGHT_BYTES, self._intake.spare_bytes),
            quiet_s=QUIET_TIMEOUT_S,
        )

    def _admit(
        self, called_ae: str, calling_ae: str, host: str, certificate: PeerCertificate | None
    ) -> Session | Rejection:
        """A session, or why there is none; what an administrator has to mend is recorded."""
        answer = self._places.admit(called_ae, calling_ae, host, certificate)
        if isinstance(answer, Rejection) and answer.told:
            self._record(RefusedInstance(safe_title(calling_ae), host, "", "", status.NOT_AUTHORIZED, answer.told))
        return answer

    def _ended(self, session: Session, released: bool) -> None:
        """Record that an association has ended, released or not, and free its place."""
        session.turn.give_up()
        self._places.leave(session)
        if session.association_id is None:
            return
        if not released:
            self._intake.pauses.broke_off(session.association_id)
        log.info(
            "association of %s %s: %d stored, %d refused",
            session.calling_ae,
            "released" if released else "broken off",
            session.stored,
            session.refused,
            extra={"event": "association_ended", **session.ids},
        )
        # While this row stays open no series of the association can complete.
        closing = Closing(session.association_id, released, self._clock())
        for attempt in range(_CLOSE_ATTEMPTS):
            try:
                self._intake.commit(closing)
                return
            except StoreUnavailable:
                self._intake.commit_later(closing, closing.association_id)
                return
            except Exception:
                log.exception(
                    "association %d could not be closed in the store",
                    session.association_id,
                    extra={"event": "association_not_closed", **session.ids},
                )
                self._stopping.wait(attempt)

    # -- DIMSE -------------------------------------------------------------------------------------------------

    def _echo(self, event: Any) -> int:
        return status.SUCCESS

    def _store(self, event: Any) -> Dataset:
        """Answer one C-STORE; whatever goes wrong becomes a failure status."""
        begun_s, session, syntax = time.perf_counter(), session_of(event), event.context.transfer_syntax
        data = b""
        try:
            data = event.encoded_dataset(include_meta=False)
            code, comment = event.request.DataSet.refusal or (status.SUCCESS, "")
            if code == status.SUCCESS and self._paused(session.stored):
                code, comment = status.OUT_OF_RESOURCES, "receiving is paused by a person; try again later"
            elif code == status.SUCCESS:
                code, comment = self._take(session, event.request, data, syntax)
        except UnreadableInstance as error:
            code, comment = status.CANNOT_UNDERSTAND, str(error)
        except SpoolFull as error:
            log.error("the spool takes no more: %s", error, extra={"event": "spool_full"})
            code, comment = status.OUT_OF_RESOURCES, "the spool takes no more"
        except ObjectsUnavailable as error:
            log.error("an instance is not taken: %s", error, extra={"event": "object_store_unavailable"})
            code, comment = status.OUT_OF_RESOURCES, _no_objects(str(error))
        except (StoreUnavailable, SchemaMismatch) as error:
            self._outage.failed(error)
            code, comment = status.OUT_OF_RESOURCES, _NO_DATABASE
        except Exception:
            log.exception(
                "an instance from %s could not be stored",
                session.calling_ae,
                extra={"event": "instance_not_stored", **session.ids},
            )
            code, comment = status.OUT_OF_RESOURCES, "the instance could not be stored; try again"
        finally:
            event.request.DataSet.release()
        if code == status.SUCCESS:
            session.stored += 1
            if self._outage.failures:
                self._outage.over()
            self._places.progressed(session)
        else:
            self._refused(session, event, data, code, comment)
        self._answered.append((code, time.perf_counter() - begun_s, len(data)))
        return answer_of(code, comment)

    def _take(self, session: Session, request: Any, data: bytes, syntax: UID) -> tuple[int, str]:
        """Keep an instance, or write down that it was thrown away; the status with which that is answered."""
        identity = identified(request, data, syntax)
        if identity is None:
            return status.DATASET_DOES_NOT_MATCH, UIDS_DIFFER
        if identity.sop_class_uid not in STORED_CLASSES:
            recorded = self._discard(session, identity)
        else:
            recorded = self._keep(session, data, identity, str(syntax))
        return (status.NOT_AUTHORIZED, _MAY_NOT[recorded]) if recorded in _MAY_NOT else (status.SUCCESS, "")

    def _discard(self, session: Session, identity: InstanceIdentity) -> Recorded:
        """Make the row durable that says what was not kept."""
        why = why_discarded(identity.sop_class_uid)
        study_uid, series_uid = identity.study_uid, identity.series_uid
        association_id = self._association_id(session)
        return self._intake.commit(
            Discard(association_id, session.calling_ae, study_uid, series_uid, why, self._clock(), session.shown)
        )

    def _keep(self, session: Session, data: bytes, identity: InstanceIdentity, syntax_uid: str) -> Recorded:
        """Make file and row durable; on an exception no row exists, or it has its file."""
        now, association_id = self._clock(), self._association_id(session)
        head = part10_head(identity.sop_class_uid, identity.sop_instance_uid, syntax_uid)
        identifiers = Identifiers(
            study_uid=identity.study_uid,
            series_uid=identity.series_uid,
            sop_instance_uid=identity.sop_instance_uid,
            sop_class_uid=identity.sop_class_uid,
            transfer_syntax_uid=syntax_uid,
        )
        return self._intake.keep(
            association_id, session.calling_ae, identifiers, (head, data), now, shown=session.shown
        )

    def _association_id(self, session: Session) -> int:
        """The row of the association, which is opened when there is something to say of it."""
        if session.association_id is None:
            session.association_id = self._intake.commit(self._opening(session))
        return session.association_id

    def _opening(self, session: Session) -> Opening:
        return Opening(self._name, session.calling_ae, session.peer_host, self._clock(), session.called_ae)

    # -- what is not stored ------------------------------------------------------------------------------------

    def _refused(self, session: Session, event: Any, data: bytes, code: int, comment: str) -> None:
        """Record that an instance was refused; never raises, because the sender learns it from the status anyway."""
        session.refused += 1
        try:
            request, identity = event.request, _glimpse(data, event.context.transfer_syntax)
            if comment != _NO_DATABASE:
                tell_refusal(session, identity, code, comment)
                uids = identity.series_uid, identity.sop_instance_uid
                self._record(RefusedInstance(session.calling_ae, session.peer_host, *uids, code, comment))
            # What another peer's series does not get, it does not lack.
            if str(request.AffectedSOPClassUID) in STORED_CLASSES and code != status.NOT_AUTHORIZED:
                reason = f"refused with status {code:04X} ({comment})"
                asked_uid = str(request.AffectedSOPInstanceUID)
                asked_uid = "" if asked_uid == NO_UID else asked_uid
                self._lose(session, identity, asked_uid, data, reason, later=comment == _NO_DATABASE)
        except Exception:
            log.exception("a refusal could not be recorded", extra={"event": "refusal_not_recorded"})

    def _record(self, refused: RefusedInstance) -> None:
        """Let `status` and `jobs show` tell of a refusal; never raises."""
        try:
            self._refusals.record(replace(refused, reason=refused.reason[:200]), self._clock())
        except StoreUnavailable as error:
            self._outage.failed(error)
        except Exception:
            log.exception("a refusal could not be recorded", extra={"event": "refusal_not_recorded"})

    def _cut_off(self, session: Session, instance: CutOff) -> None:
        """Record that an instance was under way when its association ended; never raises."""
        if instance.sop_class_uid not in STORED_CLASSES:
            return
        try:
            identity = _glimpse(instance.head, instance.transfer_syntax)
            reason = "under way when its association was aborted"
            self._lose(session, identity, instance.sop_instance_uid, instance.head, reason, later=False)
        except Exception:
            log.exception("a broken-off instance could not be recorded", extra={"event": "cut_off_not_recorded"})

    def _lose(
        self, session: Session, identity: InstanceIdentity, asked_uid: str, data: bytes, reason: str, *, later: bool
    ) -> None:
        """Let the series wait for an instance that was not stored; where no UID is known, its bytes stand for it.

        later: whether the database is known to take nothing at the moment.
        """
        uid = identity.sop_instance_uid or (asked_uid if UID_ALPHABET.fullmatch(asked_uid) else "")
        uid = uid or UNKNOWN + hashlib.sha256(asked_uid.encode() + data).hexdigest()[:32]
        self._intake.pauses.interrupted(identity.series_uid)
        study_uid, series_uid, now = identity.study_uid, identity.series_uid, self._clock()
        association_id, calling_ae = session.association_id or 0, session.calling_ae
        loss = Loss(association_id, calling_ae, study_uid, series_uid, uid, reason, now, session.shown)
        try:
            if not later:
                self._intake.commit(replace(loss, association_id=self._association_id(session)))
                return
        except StoreUnavailable as error:
            self._outage.failed(error)
        opening = None if session.association_id else self._opening(session)
        self._intake.commit_later(LateLoss(loss, opening), (identity.series_uid, uid))


def _who_may_send(settings: ScpSettings) -> str:
    if settings.is_closed:
        return (
            f"the receiver listens on {settings.listening_host} and not on {settings.host}, so only programs of this "
            "machine can send; name the peers, or set scp.allow_everyone = true"
        )
    return "every calling AE title from every host is accepted"


def _no_objects(why: str) -> str:
    """Why the object store took nothing, as an Error Comment (0000,0902), which is a LO of 64 characters at most."""
    told = f"{why}; try again"
    return told if why.startswith(_MAY_BE_TOLD) and len(told) <= 64 else "the object store takes nothing now; try again"


def identified(request: Any, data: bytes, syntax: UID) -> InstanceIdentity | None:
    """What the data set of a C-STORE request says that it is, None where the command says something else.

    Raises UnreadableInstance.
    """
    readable = inflated(data) if syntax in DEFLATED_SYNTAXES else data
    identity = read_identity(readable, implicit_vr=syntax.is_implicit_VR)
    asked = request.AffectedSOPClassUID, request.AffectedSOPInstanceUID
    return identity if asked == (identity.sop_class_uid, identity.sop_instance_uid) else None


def tell_refusal(session: Session, identity: InstanceIdentity, code: int, comment: str) -> None:
    """The line of the log about an instance that is not stored; what is not known of it is ""."""
    log.warning(
        "instance from %s refused with %04X: %s",
        session.calling_ae,
        code,
        comment,
        extra={
            "event": "instance_refused",
            **session.ids,
            "series_uid": identity.series_uid,
            "sop_instance_uid": identity.sop_instance_uid,
            "status": f"{code:04X}",
        },
    )


def _glimpse(data: bytes, syntax: UID) -> InstanceIdentity:
    """What is known of an instance that is not stored."""
    return glimpse(b"" if syntax in DEFLATED_SYNTAXES else data, implicit_vr=syntax.is_implicit_VR)
