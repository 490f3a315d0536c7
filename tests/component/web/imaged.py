"""A store with one case whose images are real files, translated by a fake model, and a browser that looks at them."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from config.load import load_settings
from node.bootstrap.store import Node, open_store
from node.dicom.derived_plan import EquipmentIdentity
from node.dicom.headers import read_header
from node.translate.job import JobOptions, run_job
from node.web.access import Person, Role
from node.web.review import router
from storage.jobs import ClaimedJob, ProducedInstance, ProducedSeries
from storage.series import Arrival, JobRequest, SeriesFacts
from tests.builders import FakeTranslator

NOW = datetime.now(UTC)


def receive(node: Node, paths: Sequence[Path], doubt: str = "") -> None:
    """The files of one series arrive and get a job, in the order of `paths`."""
    association = node.series.open_association("r", "CTSIM", "h", NOW)
    for path in paths:
        node.series.record(association, "CTSIM", arrival_of(node, path), NOW)
    node.series.close_association(association, released=True, now=NOW)
    (series,) = node.series.undecided(NOW + timedelta(minutes=1), 5)
    node.series.queue(series, SeriesFacts("Thorax", "MRN0012345"), JobRequest("k" * 64, "fake 1", doubt), NOW)


def arrival_of(node: Node, path: Path) -> Arrival:
    """A file that is in the spool, as the receiver records it."""
    header, data = read_header(path, decode=False), path.read_bytes()
    uids = (header.study_uid, header.series_uid, header.sop_instance_uid, header.sop_class_uid)
    kept = node.spool.keep((data,), NOW)
    return Arrival(*uids, header.transfer_syntax_uid, hashlib.sha256(data).hexdigest(), kept, len(data))


def translate(node: Node, translator: FakeTranslator | None = None, held_reason: str | None = "looks odd") -> None:
    """A worker does the one job that waits; a gate's own reason comes before `held_reason`."""
    job = node.jobs.claim("w", 60, NOW)
    assert job is not None
    staged = node.spool.stage(job.id, 1)
    options = JobOptions(EquipmentIdentity(software_version="0.1.0"), NOW)
    paths = [node.spool.path(one.spool_name) for one in job.sources]
    result = run_job(paths, translator or FakeTranslator(), options, staged)
    _finish(node, job, result, node.spool.publish(staged), held_reason)


def _finish(node: Node, job: ClaimedJob, result, folder: str, held_reason: str | None) -> None:
    made = tuple(
        ProducedInstance(one.sop_instance_uid, one.source_sop_instance_uid, one.path.name, one.sha256)
        for one in result.files
    )
    product = ProducedSeries(result.series_uid, folder, made, result.measurements)
    held = result.held_reason or held_reason
    node.jobs.finish(job.id, "w", product, destinations=(), held_reason=held, now=NOW)


@contextmanager
def store_in(folder: Path) -> Iterator[Node]:
    """The store of a folder, opened to write."""
    (folder / "node.toml").write_text(f'[node]\ndata_dir = "{folder / "data"}"\n')
    (folder / "data").mkdir(mode=0o700, exist_ok=True)
    with open_store(load_settings(folder / "node.toml")) as opened:
        yield opened


class Noted:
    """An auditor that keeps who looked at what."""

    def __init__(self) -> None:
        self.looks: list[tuple[str, str, str]] = []

    def note(self, entry, study_uid: str = "") -> None:
        self.looks.append((entry.who, entry.action, entry.case_id))


def client_of(node: Node, role: Role = Role.PHYSICIST) -> TestClient:
    """A browser of a person with this role."""
    app = FastAPI()
    app.include_router(router)
    app.state.node = node
    app.state.auditor = Noted()

    @app.middleware("http")
    async def log_in(request, call_next):
        request.state.person = Person("anna", "Dr. Anna Müster", role, "token-of-anna")
        request.state.address = "127.0.0.1"
        return await call_next(request)

    return TestClient(app)


def pixels(answer, mode: str = "L") -> np.ndarray:
    """The values of a picture that came."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert(mode))
