"""The courier claims due deliveries, sends what the peer is missing, and records every answer of the peer.

One thread for each destination, so that one dead TPS does not hold up another. A delivery is SENT only when the peer
answered for every instance; what it accepted before a failure is never sent again.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from structlog.contextvars import bound_contextvars

from config.settings import AnyDestination, DestinationSettings
from node.beats import IDLE_LIMIT_S, STEP_LIMIT_S, Beating, Numbers, no_beat
from node.dicom.uids import UidFactory
from node.network.no_association import Outcome
from node.network.requestor import Timeouts
from node.send.commitment import CommitmentAsker, Take
from node.send.companions import CompanionSender, MakerOf
from node.send.confirmation import Confirmer
from node.send.peer import sender_for
from node.send.preflight import Preflight
from node.send.rejection import MakeNote, NoteSender
from node.send.scu import SendReport
from node.send.whose import IdentityCheck
from storage.commitments import CommitmentStore
from storage.errors import LeaseLost, ObjectsUnavailable, SchemaMismatch, StoreUnavailable
from storage.notes import NoteStore
from storage.outage import Outage
from storage.outbox import ClaimedDelivery, OutboxStore
from storage.peers import PeerStore
from storage.spool import LOST, Spool
from storage.wakes import Bell, Polling

log = logging.getLogger(__name__)

LEASE_S = 60.0
LEASE_TICK_S = 10.0
BACKOFF_START_S = 5.0
BACKOFF_CAP_S = 60.0  # one try a minute burdens nobody, and a planner waits for a TPS that came back
MISCONFIGURED_PAUSE_S = 900.0
REMADE_AFTER_S = (0.0, 60.0, 600.0, 3600.0)  # the first, second ... time in a day that the files of a result are lost
UNCLEAR_ATTEMPTS = 60  # about an hour of back-off; then a person has to look
_PAUSE_AFTER_ERROR_S = 5.0
STOP_GRACE_S = 20.0  # below the supervisor's, which then kills


def backoff_s(attempt: int, rng: random.Random) -> float:
    """Seconds to wait after the `attempt`-th failure in a row: 5 s doubled each time up to 1 min, times 0.5 to 1.

    The factor is random, so that many deliveries to a peer that comes back do not all arrive in one second.
    """
    whole = min(BACKOFF_CAP_S, BACKOFF_START_S * 2.0 ** min(attempt - 1, 30))
    return whole * rng.uniform(0.5, 1.0)


class Courier:
    """Delivers to `destinations` until it is told to stop. `name` owns the leases: the same after a restart.

    companions: what makes the objects that a destination wants beside the images; uids: by which they are found.
    commitments: where requests for storage commitment are kept, and what counts a report. notes: where rejection notes
    are kept, and what makes one. most_sending: so many series at most are on their way to a destination,
    from all hosts; 0 for no limit.
    """

    def __init__(
        self,
        outbox: OutboxStore,
        spool: Spool,
        destinations: Iterable[AnyDestination],
        *,
        peers: PeerStore,
        calling_ae: str,
        name: str,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - immutable
        beat: Beating = no_beat,
        numbers: Numbers | None = None,
        companions: MakerOf | None = None,
        commitments: tuple[CommitmentStore, Take] | None = None,
        notes: tuple[NoteStore, MakeNote] | None = None,
        uids: UidFactory = UidFactory(),  # noqa: B008 - immutable
        most_sending: int = 0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        rng: random.Random | None = None,
    ) -> None:
        self._outbox = outbox
        self._spool = spool
        self._destinations = tuple(destinations)
        self._peers = peers
        self._calling_ae = calling_ae
        self._name = name
        self._timeouts = timeouts
        self._beat, self._numbers = beat, numbers or Numbers()
        self._clock = clock
        self._rng = rng or random.Random()
        self._companions, self._most_sending = companions, most_sending
        self._confirmer = Confirmer(outbox, calling_ae=calling_ae, name=name, uids=uids, clock=clock)
        self._asker = None
        if commitments is not None:
            store, take = commitments
            self._asker = CommitmentAsker(store, outbox, take, calling_ae, name, clock, timeouts)
        self._notes = NoteSender(*notes, calling_ae, name, clock, timeouts) if notes is not None else None
        self._preflight, self._identity = Preflight(spool), IdentityCheck(spool, calling_ae, timeouts)
        self._unrecorded: dict[str, int] = {}  # deliveries, by destination, of which each has a thread of its own
        self._stop = threading.Event()
        self._outage = Outage("the release of old leases")

    # -- process -----------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event, *, bell_of: Callable[[str], Bell] = lambda _destination: Polling()) -> None:
        """Deliver until `stop` is set; then the instances in flight are finished and the rest is due at once.

        bell_of: says for each destination when to look for a delivery.

        A peer that keeps an instance or a question for longer than `STOP_GRACE_S` is left: its thread ends with the
        process, and the next courier of this name frees the delivery, as after a kill.
        """
        self._stop = stop
        self._begin()
        threads = [
            threading.Thread(
                target=self._serve, args=(peer, bell_of(peer.name)), name=f"courier-{peer.name}", daemon=True
            )
            for peer in self._destinations
        ]
        for thread in threads:
            thread.start()
        self._beat("leases", "looking", 0, 0, IDLE_LIMIT_S)
        while not stop.wait(LEASE_TICK_S):
            self._beat("leases", "looking", 0, 0, IDLE_LIMIT_S)
            self.release_expired()
        deadline_s = time.monotonic() + STOP_GRACE_S
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
            if thread.is_alive():
                log.warning(
                    "%s is left in the middle: its peer took longer than %g s",
                    thread.name,
                    STOP_GRACE_S,
                    extra={"event": "delivery_left"},
                )

    def _begin(self) -> None:
        """Take up what a killed courier left, once the database can be used."""
        outage = Outage("the courier")
        while True:
            try:
                for delivery_id in self._outbox.release_expired(self._clock(), dead_courier=self._name):
                    log.warning(
                        "delivery %d was left behind by a courier that was killed",
                        delivery_id,
                        extra={"event": "delivery_left_behind", "delivery": delivery_id},
                    )
                self._fail_without_destination()
                outage.over()
                return
            except StoreUnavailable as error:
                if self._stop.wait(outage.failed(error)):
                    return

    def _fail_without_destination(self) -> None:
        """What shall go to a destination that the settings no longer name waits for nobody."""
        names = [peer.name for peer in self._destinations]
        for delivery_id in self._outbox.fail_without_destination(names, self._clock()):
            log.error(
                "delivery %d failed: its destination is no longer in the settings",
                delivery_id,
                extra={"event": "delivery_failed", "delivery": delivery_id},
            )

    def release_expired(self) -> None:
        """A tick: free the deliveries of couriers, also on other hosts, that stopped answering; never raises."""
        try:
            for delivery_id in self._outbox.release_expired(self._clock()):
                log.warning(
                    "the lease of delivery %d ran out",
                    delivery_id,
                    extra={"event": "delivery_lease_ended", "delivery": delivery_id},
                )
            self._outage.over()
        except (StoreUnavailable, SchemaMismatch) as error:
            self._outage.failed(error)
        except Exception:
            log.exception("expired leases could not be released", extra={"event": "leases_not_released"})

    def _serve(self, destination: AnyDestination, bell: Bell) -> None:
        """The loop of one destination; the boundary of its thread."""
        outage = Outage(f"the courier to {destination.name}")
        while not self._stop.is_set():
            self._beat(destination.name, "waiting", 0, 0, STEP_LIMIT_S)
            try:
                self._take_up(destination)
                bell.listen()
                busy = self.reject_once(destination) or self.run_once(destination) or self.confirm_once(destination)
                outage.over()
                if not busy:
                    bell.wait(self._stop)
            except (StoreUnavailable, SchemaMismatch) as error:
                self._stop.wait(outage.failed(error))
            except Exception:
                log.exception(
                    "delivery to %s paused after an internal error",
                    destination.name,
                    extra={"event": "courier_paused", "destination": destination.name},
                )
                self._stop.wait(_PAUSE_AFTER_ERROR_S)

    # -- one delivery ------------------------------------------------------------------------------------------

    def run_once(self, destination: AnyDestination) -> bool:
        """Claim one due delivery and bring it to an end; False when none was due."""
        delivery = self._outbox.claim(
            self._name, destination.name, LEASE_S, self._clock(), most_sending=self._most_sending
        )
        if delivery is None:
            return False
        with bound_contextvars(
            case=delivery.case,
            job=delivery.job_id,
            delivery=delivery.id,
            derived_series_uid=delivery.derived_series_uid,
            destination=destination.name,
        ):
            self._take(delivery, destination)
        return True

    def _take(self, delivery: ClaimedDelivery, destination: AnyDestination) -> None:
        try:
            report = self._why_not(delivery, destination) or self._send(delivery, destination)
            if report.outcome is Outcome.DONE:
                report = self._send_companions(delivery, destination, report)
            self._settle(delivery, report)
        except LeaseLost as error:
            log.warning("delivery %d dropped: %s", delivery.id, error, extra={"event": "delivery_dropped"})
            self._outbox.let_go(delivery.id, self._name)
        except StoreUnavailable:
            self._unrecorded[destination.name] = delivery.id
            raise

    def _take_up(self, destination: AnyDestination) -> None:
        """Give back what was in hand when the database went away; nobody then waits until its lease has run out."""
        if (delivery_id := self._unrecorded.get(destination.name)) is not None:
            with suppress(LeaseLost):
                self._outbox.give_back(delivery_id, self._name, "the database could not be used", self._clock())
            del self._unrecorded[destination.name]

    def _why_not(self, delivery: ClaimedDelivery, destination: AnyDestination) -> SendReport | None:
        """Why nothing of a delivery is sent; raises LeaseLost."""
        try:
            self._fetch(delivery, destination)
            refused = self._preflight.why_not(delivery, destination) or self._identity.why_not(delivery, destination)
        except ObjectsUnavailable as error:
            return SendReport(Outcome.TRANSIENT, f"nothing was sent: {error}", ())
        except (LeaseLost, StoreUnavailable, SchemaMismatch):
            raise
        except Exception as error:  # the process boundary, as below
            log.exception("delivery %d could not be looked at", delivery.id, extra={"event": "preflight_crashed"})
            reason = f"unexpected {type(error).__name__} before the sending; the courier's log has the details"
            return SendReport(Outcome.UNCLEAR, reason, ())
        self._outbox.keep(delivery.id, self._name, lease_s=LEASE_S, now=self._clock())
        return refused

    def _fetch(self, delivery: ClaimedDelivery, destination: AnyDestination) -> None:
        """Have the files on this host; raises ObjectsUnavailable, and LeaseLost where that took too long."""

        due_s = time.monotonic() + LEASE_TICK_S

        def step() -> None:
            nonlocal due_s
            self._beat(destination.name, f"fetch for delivery {delivery.id}", 0, delivery.total, STEP_LIMIT_S)
            if time.monotonic() >= due_s:
                self._outbox.keep(delivery.id, self._name, lease_s=LEASE_S, now=self._clock())
                due_s = time.monotonic() + LEASE_TICK_S

        self._spool.fetch(((one.file_name, one.sha256, None) for one in delivery.missing), step)
        if destination.companions:
            self._spool.fetch_folder(delivery.product_dir)

    def reject_once(self, destination: AnyDestination) -> bool:
        """Send one rejection note about a withdrawn result; False when none was due."""
        if self._notes is None or not destination.rejection_notes:
            return False
        report = self._notes.run_once(destination, self._pause_s)
        if report is not None:
            self._tell_of_peer(destination.name, report)
        return report is not None

    def confirm_once(self, destination: AnyDestination) -> bool:
        """Ask once for a sent series whether it is there, or for a withdrawn one; False when none was due."""
        if isinstance(destination, DestinationSettings) and destination.confirm == "commitment":
            return self._asker is not None and self._asker.run_once(destination)
        return destination.confirm == "find" and self._confirmer.run_once(destination)

    def _send(self, delivery: ClaimedDelivery, destination: AnyDestination) -> SendReport:
        """Send what is missing; raises LeaseLost as soon as the delivery is not ours any more."""
        log.info(
            "delivery %d: %d of %d instances of series %s to %s, attempt %d",
            delivery.id,
            len(delivery.missing),
            delivery.total,
            delivery.derived_series_uid,
            destination.name,
            delivery.attempt,
            extra={"event": "delivery_begun"},
        )
        if not delivery.missing:  # a courier died between the last answer and its last transaction
            return SendReport(Outcome.DONE, "", ())
        done = delivery.total - len(delivery.missing)
        self._beat(destination.name, f"delivery {delivery.id}", done, delivery.total, STEP_LIMIT_S)
        products = {instance.sop_instance_uid: instance.product_id for instance in delivery.missing}

        def keep(sop_instance_uid: str, dimse_status: int) -> None:
            self._outbox.record_accepted(
                delivery.id,
                self._name,
                products[sop_instance_uid],
                dimse_status,
                lease_s=LEASE_S,
                now=self._clock(),
            )
            nonlocal done
            done += 1
            self._numbers.add("sent", of=destination.name)
            self._beat(destination.name, f"delivery {delivery.id}", done, delivery.total, STEP_LIMIT_S)

        items = ((instance.sop_instance_uid, self._spool.path(instance.file_name)) for instance in delivery.missing)
        sha256 = {instance.sop_instance_uid: instance.sha256 for instance in delivery.missing}
        begun_s = time.perf_counter()
        try:
            sender = sender_for(destination, self._calling_ae, self._timeouts)
            report = sender.send(items, keep, self._stop.is_set, sha256=sha256)
            self._numbers.add("send_s", time.perf_counter() - begun_s, of=destination.name)
            return report
        except (LeaseLost, StoreUnavailable, SchemaMismatch):
            raise
        except Exception as error:  # the process boundary: one unusual series must not stop the others
            log.exception(
                "delivery %d ended with an unexpected error", delivery.id, extra={"event": "delivery_crashed"}
            )
            reason = f"unexpected {type(error).__name__}; the courier's log has the details"
            return SendReport(Outcome.UNCLEAR, reason, ())

    def _send_companions(
        self, delivery: ClaimedDelivery, destination: AnyDestination, images: SendReport
    ) -> SendReport:
        """What the destination wants beside the images, which are there; raises LeaseLost."""
        if not destination.companions or self._companions is None:
            return images

        def step() -> None:
            self._outbox.keep(delivery.id, self._name, lease_s=LEASE_S, now=self._clock())
            self._beat(destination.name, f"companions of delivery {delivery.id}", 0, 0, STEP_LIMIT_S)

        sender = sender_for(destination, self._calling_ae, self._timeouts)
        report = CompanionSender(sender, self._companions, step, self._stop.is_set).send(
            delivery, destination.companions
        )
        reason = "; ".join(filter(None, (images.reason, report.reason)))
        accepted, reached = images.accepted + report.accepted, images.reached or report.reached
        return SendReport(report.outcome, reason, accepted, reached, report.wait_s)

    def _settle(self, delivery: ClaimedDelivery, report: SendReport) -> None:
        """Write down how the attempt ended; raises LeaseLost."""
        now = self._clock()
        if report.outcome not in (Outcome.DONE, Outcome.STOPPED, Outcome.HELD):
            self._numbers.add("failures", of=delivery.destination)
        self._tell_of_peer(delivery.destination, report)
        if report.outcome is Outcome.DONE:
            self._preflight.forget(delivery.id)
            self._outbox.finish_sent(delivery.id, self._name, report.reason, now)
            log.info(
                "delivery %d sent: %d instances%s",
                delivery.id,
                delivery.total,
                _suffix(report.reason),
                extra={"event": "delivery_sent"},
            )
            return
        if report.outcome is Outcome.STOPPED:
            self._outbox.give_back(delivery.id, self._name, report.reason, now)
            log.info("delivery %d goes on after the restart", delivery.id, extra={"event": "delivery_interrupted"})
            return
        if report.outcome is Outcome.HELD:
            self._outbox.hold(delivery.id, self._name, report.reason, now)
            log.warning("delivery %d is held: %s", delivery.id, report.reason, extra={"event": "delivery_held"})
            return
        given_up = report.outcome is Outcome.UNCLEAR and delivery.attempt >= UNCLEAR_ATTEMPTS
        if report.outcome is Outcome.PERMANENT or given_up:
            self._outbox.fail(delivery.id, self._name, report.reason, now)
            log.error("delivery %d failed: %s", delivery.id, report.reason, extra={"event": "delivery_failed"})
            return
        if report.outcome is Outcome.DAMAGED and self._is_lost(delivery):
            self._make_again(delivery, report.reason, now)
            return
        # A peer that took something is alive; the count of attempts only grows while nothing gets through.
        wait_s = self._pause_s(1 if report.accepted else delivery.attempt, report)
        not_before = now + timedelta(seconds=wait_s)
        self._outbox.postpone(delivery.id, self._name, report.reason, not_before=not_before, now=now)
        log.warning(
            "delivery %d postponed by %.0f s: %s",
            delivery.id,
            wait_s,
            report.reason,
            extra={"event": "delivery_postponed"},
        )

    def _is_lost(self, delivery: ClaimedDelivery) -> bool:
        """Whether a file is lost; one that was dropped from the cache of this host for want of space is fetched."""
        return any(self._spool.condition(one.file_name, one.sha256) in LOST for one in delivery.missing)

    def _make_again(self, delivery: ClaimedDelivery, reason: str, now: datetime) -> None:
        """The delivery waits until a worker has made the result again; what the peer has accepted stays accepted."""
        self._outbox.postpone(delivery.id, self._name, reason, not_before=now, now=now)
        times = self._outbox.times_made_again(delivery.job_id, now - timedelta(days=1))
        pause_s = REMADE_AFTER_S[min(times, len(REMADE_AFTER_S) - 1)]
        told = f"the result is made again: {reason}"
        if times:
            told += f" ({times + 1} times in a day: is a disk or the object store damaged?)"
        not_before = now + timedelta(seconds=pause_s)
        self._outbox.make_again(delivery.job_id, told, self._name, now, not_before=not_before)
        log.error(
            "delivery %d waits until job %d was made again: %s",
            delivery.id,
            delivery.job_id,
            reason,
            extra={"event": "delivery_waits_for_job"},
        )

    def _tell_of_peer(self, name: str, report: SendReport) -> None:
        if report.reached:
            self._peers.answered(name, self._clock())
        elif report.reached is not None:
            self._peers.failed(name, report.reason, self._clock())

    def _pause_s(self, attempt: int, report: SendReport) -> float:
        if report.outcome is Outcome.MISCONFIGURED:
            return MISCONFIGURED_PAUSE_S * self._rng.uniform(0.5, 1.0)
        return max(backoff_s(attempt, self._rng), min(report.wait_s, MISCONFIGURED_PAUSE_S))


def _suffix(reason: str) -> str:
    return f" ({reason})" if reason else ""
