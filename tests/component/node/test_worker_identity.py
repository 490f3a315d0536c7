"""What the receiver read of an instance and completion judged is what the worker reads, or a person looks at it."""

from hashlib import sha256
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import select

from storage.database import Database
from storage.tables import Instance, Job
from tests.component.node.test_worker_heals import Bench

PATIENT = {"PatientID": "TEST-1", "PatientName": "Test^Series"}


@pytest.fixture
def database(sqlite_file: Path) -> Database:
    return Database(f"sqlite:///{sqlite_file}")


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    bench = Bench(database, tmp_path)
    bench.executor.during = lambda stage, _done: stages.append(stage)
    stages: list[str] = []
    bench.stages = stages  # type: ignore[attr-defined]
    return bench


def queued_for(database: Database, patient: dict[str, str]) -> None:
    with database.write() as session:
        session.scalars(select(Job)).one().patient = patient


def read_otherwise(bench: Bench, database: Database, keyword: str, value: str) -> None:
    """However the worker's reader is led to another value than the receiver's: it stands in the file, hash and all."""
    path = bench.spool.path(bench.names[3])
    ds = dcmread(path)
    setattr(ds, keyword, value)
    path.chmod(0o600)
    ds.save_as(path)
    with database.write() as session:
        row = session.scalars(select(Instance).where(Instance.spool_name == bench.names[3])).one()
        row.sha256, row.size_bytes = sha256(path.read_bytes()).hexdigest(), path.stat().st_size


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID"])
def test_another_identity_than_was_received_is_held_and_nothing_is_translated(
    bench: Bench, database: Database, keyword: str
) -> None:
    queued_for(database, {**PATIENT, "PatientName": str(dcmread(bench.files[0]).PatientName)})
    read_otherwise(bench, database, keyword, "1.2.3.4.5")
    bench.work()
    (case,) = bench.overview.cases()
    assert (case.state, case.slices.produced, case.product_dir) == ("HELD", 0, None)
    assert keyword in case.reason
    assert ("1.2.3.4.5" in case.reason) == (keyword != "PatientID"), "a reason names no patient"
    assert "translate" not in bench.stages  # type: ignore[attr-defined]


@pytest.mark.parametrize("patient", [{}, PATIENT, {"PatientID": "TEST-1\N{REPLACEMENT CHARACTER}"}])
def test_the_identity_that_the_store_could_keep_is_the_same(
    bench: Bench, database: Database, patient: dict[str, str]
) -> None:
    if "PatientName" in patient:
        patient = {**patient, "PatientName": str(dcmread(bench.files[0]).PatientName)}
    queued_for(database, patient)
    bench.work()
    assert bench.case().state == "PRODUCED"
