"""What the commands of the documents find: a node's data with a case in every state, and folders of DICOM files.

The cases are those of docs/develop: 1 RECEIVING, 2 INCOMPLETE, 3 SKIPPED, 4 QUEUED, 5 RUNNING, 6 HELD without a result,
7 PRODUCED, 8 SENDING, 9 SENT, 10 CONFIRMED, 11 FAILED, 12 HELD with a result, 13 CANCELLED, 14 REJECTED, 15 SUPERSEDED
(and its newer job 15-2), 16 FAILED at its destination, 17 RECALLED after it was sent.
"""

import hashlib
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from config.load import load_settings
from models import read_card
from models.testing import write_tiny_bundle
from node.beats import no_beat
from node.bootstrap.bundles import bundle_label
from node.bootstrap.store import Node, open_store
from node.bootstrap.worker import make_worker
from node.cohorts.phantom import write_phantom
from node.dicom.constants import CT_IMAGE_STORAGE
from node.dicom.headers import read_header
from storage.series import Arrival, JobRequest, OpenSeries, SeriesFacts
from storage.states import WORKER_CANNOT
from tests.builders import make_series

STATES = {
    **{"1": "RECEIVING", "2": "INCOMPLETE", "3": "SKIPPED", "4": "QUEUED", "5": "RUNNING", "6": "HELD"},
    **{"7": "PRODUCED", "8": "SENDING", "9": "SENT", "10": "CONFIRMED", "11": "FAILED", "12": "HELD"},
    **{"13": "CANCELLED", "14": "REJECTED", "15": "SUPERSEDED", "15-2": "QUEUED", "16": "FAILED"},
    "17": "RECALLED",
}
"""The state of each case, by its id."""

_NOW = datetime.now(UTC) - timedelta(minutes=2)
_LEASE_S = 86400.0
_SETTINGS = """
[node]
data_dir = "node-data"
[scp]
allowed_peers = [{{ ae_title = "CTSIM1", host = "127.0.0.1" }}]
[completion]
quiet_s = 1.0
give_up_s = 4.0
[retention]
min_free_gb = 0.05
[web]
enabled = false
[model]
bundle = "{bundle}"
device = "cpu"
precision = "fp32"
allow_unproven = ["tiny"]
[[destination]]
name = "tps"
ae_title = "TPS"
host = "127.0.0.1"
port = 11113
"""


def make_world(folder: Path) -> None:
    """Make everything in a new folder."""
    folder.mkdir()
    write_tiny_bundle(folder / "bundle")
    (folder / "node.toml").write_text(_SETTINGS.format(bundle=folder / "bundle"))
    make_series(folder / "scan", seed="scan")
    make_series(folder / "scan-enhanced", seed="enhanced", attributes={"ContrastBolusAgent": "Iomeprol 350"})
    make_series(folder / "scan-gap", seed="gap", missing=[5])
    write_phantom(folder / "cohort", 3, 5, slices=10, rows=96, slice_spacing_mm=8.0)
    shutil.copytree(folder / "cohort" / "dicom", folder / "pairs")
    (folder / "node-data").mkdir(mode=0o700)
    with open_store(load_settings(folder / "node.toml")) as node:
        _Cases(node, folder / "sources").make()
        (folder / "series-uid.txt").write_text(node.overview.case("10").series_uid)
    shutil.rmtree(folder / "sources")


class _Cases:
    """Cases are made one after the other; where a job is claimed, no other may be QUEUED."""

    def __init__(self, node: Node, sources: Path) -> None:
        self._node, self._sources = node, sources
        self._label = bundle_label(read_card(Path(node.settings.model.bundle)))
        self._worker = make_worker(node, "1", lambda _words: None, no_beat)

    def make(self) -> None:
        for number in range(1, 18):
            missing = [5] if number == 2 else []
            self._arrive(number, make_series(self._sources / str(number), seed=f"case {number}", missing=missing))
        self._undecided_ends()
        self._without_result()
        self._with_result()
        self._node.jobs.cancel(self._job("13"), "operator", "planned on another scan", _NOW)
        self._node.jobs.reject(self._job("14"), "operator", "the contrast is in the wrong vessel", _NOW)
        self._node.recalls.recall(self._job("17"), "operator", "wrong HU window", _NOW)
        self._superseded("15")
        self._queue("4")

    def _undecided_ends(self) -> None:
        series = self._node.series
        reason = "slices are missing between 12 and 18 mm"
        series.hold_incomplete(self._open("2"), reason, _NOW)
        series.skip(self._open("3"), _facts(3), "it is a localizer", _NOW)

    def _without_result(self) -> None:
        jobs = self._node.jobs
        self._queue("6")
        jobs.hold(self._claim(), "w", f"{WORKER_CANNOT}no CUDA device", _NOW)
        self._queue("11")
        jobs.fail(self._claim(), "w", "the pixel data cannot be decoded", _NOW)
        self._queue("5")
        self._claim()

    def _with_result(self) -> None:
        outbox = self._node.outbox
        for case_id in ("13", "12", "14"):
            self._produce(case_id, "after metal artifact reduction")
        for case_id in ("9", "10", "17", "16", "8"):
            self._produce(case_id)
            delivery = outbox.claim("c", "tps", _LEASE_S, datetime.now(UTC))  # the worker looks at the clock
            assert delivery is not None
            if case_id == "16":
                outbox.fail(delivery.id, "c", "status A900: the TPS refuses the data set", _NOW)
            if case_id in ("9", "10", "17"):
                for item in delivery.missing:
                    outbox.record_accepted(delivery.id, "c", item.product_id, 0, lease_s=_LEASE_S, now=_NOW)
                outbox.finish_sent(delivery.id, "c", "", _NOW)
            if case_id == "10":
                outbox.confirm(delivery.id, "c", "", _NOW)
        self._produce("7")

    def _superseded(self, case_id: str) -> None:
        self._produce(case_id, "looks enhanced")
        late = make_series(self._sources / "late", seed=f"case {case_id}", slices=11, only=[10])
        self._arrive(int(case_id), late)
        self._queue(case_id)

    def _arrive(self, number: int, paths: list[Path]) -> None:
        store = self._node.series
        association = store.open_association("r", "CTSIM1", "127.0.0.1", _NOW)
        for path in paths:
            header, data = read_header(path, decode=False), path.read_bytes()
            uids = (header.study_uid, header.series_uid, header.sop_instance_uid)
            kept = self._node.spool.keep((data,), _NOW)
            digest = hashlib.sha256(data).hexdigest()
            arrival = Arrival(*uids, CT_IMAGE_STORAGE, header.transfer_syntax_uid, digest, kept, len(data))
            store.record(association, "CTSIM1", arrival, _NOW)
        store.close_association(association, released=True, now=_NOW)

    def _open(self, case_id: str) -> OpenSeries:
        found = self._node.series.undecided(_NOW + timedelta(days=1), 5)
        return next(one for one in found if one.series_uid == self._node.overview.case(case_id).series_uid)

    def _queue(self, case_id: str, doubt: str = "") -> None:
        contents = hashlib.sha256(f"{case_id} {doubt}".encode()).hexdigest()
        request = JobRequest(contents, self._label, doubt)
        self._node.series.queue(self._open(case_id), _facts(int(case_id)), request, _NOW)

    def _claim(self) -> int:
        job = self._node.jobs.claim("w", _LEASE_S, _NOW)
        assert job is not None
        return job.id

    def _produce(self, case_id: str, doubt: str = "") -> None:
        self._queue(case_id, doubt)
        assert self._worker.run_once(threading.Event())

    def _job(self, case_id: str) -> int:
        job_id = self._node.overview.case(case_id).job_id
        assert job_id is not None
        return job_id


def _facts(number: int) -> SeriesFacts:
    known = {"modality": "CT", "body_part": "CHEST", "acquired": "2026-11-26 08:30"}
    return SeriesFacts("Thorax", f"MRN00123{number:02}", {"series_number": number, **known})
