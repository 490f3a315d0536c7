"""A store with series in every state, as a department has it on a busy day; its clock starts at `START`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom.dataset import Dataset

from node.bootstrap.store import Node
from node.dicom.constants import CT_IMAGE_STORAGE
from node.dicom.elements import put, raw_element, seal, tag_of, write_part10
from node.translate.proof import flush_and_digest
from storage.jobs import ClaimedJob, ProducedInstance, ProducedSeries
from storage.refusals import RefusedInstance
from storage.series import Arrival, JobRequest, SeriesFacts
from storage.states import WORKER_CANNOT

START = datetime.now(UTC) - timedelta(minutes=1)
DESCRIPTION = "Synthetic contrast-enhanced CT. Not for dose calculation."


class Department:
    """Series are numbered 1, 2, ... in the order in which they arrive; each has three slices unless it is said."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._arrived = 0

    def arrive(
        self,
        *,
        ae: str = "CTSIM",
        patient: str = "MRN0012345",
        description: str = "Thorax",
        slices: int = 3,
        at: datetime = START,
    ) -> str:
        """A series that is received and undecided; returns its case id."""
        self._arrived += 1
        number, store = self._arrived, self.node.series
        association = store.open_association("r", ae, "h", at)
        for n in range(slices):
            uids = (f"1.2.{number}", f"1.2.3.{number}", f"1.2.3.{number}.{n}", CT_IMAGE_STORAGE, "1.2.840.10008.1.2.1")
            arrival = Arrival(*uids, f"{number:032}{n:032}", f"received/{number}-{n}.dcm", 1)
            store.record(association, ae, arrival, at)
        store.close_association(association, released=True, now=at)
        known = {"modality": "CT", "body_part": "CHEST", "acquired": "2026-11-26 08:30"}
        self.facts = SeriesFacts(description, patient, {"series_number": number, **known})
        return str(number)

    def change(self, case_id: str) -> None:
        """One more instance comes for a series that was decided already."""
        uids = (f"1.2.{case_id}", f"1.2.3.{case_id}", f"1.2.3.{case_id}.99", CT_IMAGE_STORAGE, "1.2.840.10008.1.2.1")
        association = self.node.series.open_association("r", "CTSIM", "h", START)
        arrival = Arrival(*uids, f"{case_id:0>64}", f"received/{case_id}-99.dcm", 1)
        self.node.series.record(association, "CTSIM", arrival, START)
        self.node.series.close_association(association, released=True, now=START)

    def skip(self, case_id: str) -> None:
        """RECEIVING -> SKIPPED; a live job of earlier contents is superseded."""
        self.node.series.skip(self._undecided(case_id), self.facts, "it is a localizer", START)

    def _undecided(self, case_id: str):
        uid = f"1.2.3.{case_id}"
        return next(s for s in self.node.series.undecided(START + timedelta(days=1), 5) if s.series_uid == uid)

    def incomplete(self, reason: str = "slices are missing between 12 and 18 mm", **arrival) -> str:
        """INCOMPLETE."""
        case_id = self.arrive(**arrival)
        self.node.series.hold_incomplete(self._undecided(case_id), reason, START)
        return case_id

    def skipped(self, reason: str = "it is a localizer", **arrival) -> str:
        """SKIPPED."""
        case_id = self.arrive(**arrival)
        self.node.series.skip(self._undecided(case_id), self.facts, reason, START)
        return case_id

    def queued(self, *, bundle: str = "demo 1 (abc)", doubt: str = "", route=None, **arrival) -> str:
        """QUEUED; route: what a route put into the request, by name."""
        case_id = self.arrive(**arrival)
        request = JobRequest(case_id.rjust(64, "k"), bundle, doubt, **(route or {}))
        self.node.series.queue(self._undecided(case_id), self.facts, request, START)
        return case_id

    def running(self, **arrival) -> str:
        """RUNNING; nothing else may be QUEUED."""
        case_id = self.queued(**arrival)
        self.claim()
        return case_id

    def claim(self) -> ClaimedJob:
        """Take the one job that is QUEUED."""
        job = self.node.jobs.claim("w", 60, START)
        assert job is not None
        return job

    def failed(self, reason: str = "the device is out of memory", **arrival) -> str:
        """FAILED."""
        case_id = self.queued(**arrival)
        self.node.jobs.fail(self.claim().id, "w", reason, START)
        return case_id

    def stuck_without_product(self, reason: str = f"{WORKER_CANNOT}no CUDA device", **arrival) -> str:
        """HELD without a product, for want of a device or, with another reason, for what the series is."""
        case_id = self.queued(**arrival)
        self.node.jobs.hold(self.claim().id, "w", reason, START)
        return case_id

    def held(self, reason: str = "looks enhanced", *, remarks=(), **arrival) -> str:
        """HELD with its files."""
        return self._finish(self.queued(**arrival), held_reason=reason, remarks=remarks)

    def produced(self, *, destinations=("tps",), remarks=(), **arrival) -> str:
        """PRODUCED."""
        return self._finish(self.queued(**arrival), destinations, None, remarks)

    def _finish(self, case_id: str, destinations=(), held_reason: str | None = None, remarks=()) -> str:
        job = self.claim()
        staged = self.node.spool.stage(job.id, 1)
        made = [write_slice(staged / f"{n:04d}.dcm", f"9.{case_id}.{n}", f"1.2.3.{case_id}.{n}") for n in range(3)]
        folder = self.node.spool.publish(staged)
        product = ProducedSeries(
            f"9.{case_id}", folder, tuple(made), {"changed_share": 0.25}, tuple(remarks), 301, "sCE-CT AI Thorax"
        )
        self.node.jobs.finish(job.id, "w", product, destinations=destinations, held_reason=held_reason, now=START)
        return case_id

    def sending(self, reason: str = "no association: connection refused", *, accepted: int = 0, **arrival) -> str:
        """SENDING, after one attempt that the peer broke off."""
        case_id = self.produced(**arrival)
        delivery = self._deliver(accepted)
        self.node.outbox.postpone(delivery, "c", reason, not_before=START, now=START)
        return case_id

    def sent(self, **arrival) -> str:
        """SENT to tps."""
        case_id = self.produced(**arrival)
        self.node.outbox.finish_sent(self._deliver(3), "c", "", START)
        return case_id

    def delivery_held(self, reason: str = "tps knows the PatientID with another PatientName", **arrival) -> str:
        """PRODUCED, and HELD for tps."""
        case_id = self.produced(**arrival)
        delivery = self.node.outbox.claim("c", "tps", 60, START)
        assert delivery is not None
        self.node.outbox.hold(delivery.id, "c", reason, START)
        return case_id

    def send_failed(self, reason: str = "status A900", **arrival) -> str:
        """FAILED at tps."""
        case_id = self.produced(**arrival)
        self.node.outbox.fail(self._deliver(0), "c", reason, START)
        return case_id

    def _deliver(self, accepted: int) -> int:
        claimed = self.node.outbox.claim("c", "tps", 60, START)
        assert claimed is not None
        for item in claimed.missing[:accepted]:
            self.node.outbox.record_accepted(claimed.id, "c", item.product_id, 0, lease_s=60, now=START)
        return claimed.id

    def refuse(self, count: int = 1, *, series_uid: str = "", reason: str = "a UID has a leading zero") -> None:
        """Instances that the receiver refused just now."""
        for n in range(count):
            one = RefusedInstance("CTSIM", "10.0.0.9", series_uid, f"5.{n}", 0xC000, reason)
            self.node.refusals.record(one, datetime.now(UTC))


def write_slice(path: Path, uid: str, source_uid: str) -> ProducedInstance:
    """A derived slice with what a release looks at."""
    ds = Dataset()
    put(ds, "SOPClassUID", CT_IMAGE_STORAGE)
    put(ds, "SOPInstanceUID", uid)
    put(ds, "DerivationDescription", DESCRIPTION)
    ds[tag_of("PixelData")] = raw_element(tag_of("PixelData"), "OW", bytes(range(8)))
    write_part10(seal(ds), path)
    return ProducedInstance(uid, source_uid, path.name, flush_and_digest(path))
