"""Whatever a peer writes into a text, both databases keep the same, and none refuses it."""

import math
from datetime import UTC, datetime

import pytest

from storage.column_types import clean
from storage.constancy import FAILED, ConstancyStore
from storage.database import Database
from storage.overview import Overview
from storage.refusals import RefusalStore, RefusedInstance
from storage.series import Arrival, JobRequest, SeriesFacts, SeriesStore
from storage.tables import Job, Series

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
NASTY = "a\x00b\x1b[31m\x7f\x9b\ud800ü\n"
KEPT = "a\ufffdb\ufffd[31m\ufffd\ufffd\ufffdü\n"


def test_clean_texts_stay_as_they_are() -> None:
    assert clean("Müller^Jörg 山田\t\r\n") == "Müller^Jörg 山田\t\r\n"
    assert clean(NASTY) == KEPT


def test_texts_of_a_series_and_a_job_are_kept_cleaned(database: Database) -> None:
    store = SeriesStore(database)
    association = store.open_association("r", "CT\x00SIM", NASTY, NOW)
    arrival = Arrival("1.2", "1.2.3", "1.2.3.1", "1.2.840", "1.2.840.10008.1.2.1", "f" * 64, "received/a.dcm", 1)
    store.record(association, "CT\x00SIM", arrival, NOW)
    store.close_association(association, released=True, now=NOW)
    (waiting,) = store.undecided(NOW, 0.0)
    request = JobRequest("k" * 64, NASTY, doubt=NASTY, patient={"PatientID": NASTY, "PatientName": "Müller"})
    assert store.queue(waiting, SeriesFacts(description=NASTY, patient_id=NASTY), request, NOW)
    with database.read() as session:
        series, job = session.get_one(Series, 1), session.get_one(Job, 1)
        assert (series.description, series.patient_id, series.calling_ae) == (KEPT, KEPT, "CT\ufffdSIM")
        assert (job.doubt, job.bundle) == (KEPT, KEPT)
        assert job.patient == {"PatientID": KEPT, "PatientName": "Müller"}


@pytest.mark.parametrize("times", [2])
def test_a_text_is_found_again_by_what_it_was(database: Database, times: int) -> None:
    store = RefusalStore(database)
    for _ in range(times):
        store.record(RefusedInstance("A\x00E", "h", "1.2.3", "1.2.3.1", 0xC000, NASTY), NOW)
    (row,) = Overview(database).refused_since(NOW, hours=24)
    assert row.count == times


def test_what_is_no_number_is_left_out_of_json_as_what_was_not_measured(database: Database) -> None:
    """A constancy run that FAILED because nothing could be compared could not be recorded on PostgreSQL."""
    store = ConstancyStore(database)
    run = store.begin("demo", "a" * 64, NOW)
    figures = {"mae_hu": 1.5, "different_voxels": math.nan, "parts": [math.inf, {"x": -math.inf, "y": 2}]}
    store.finish(run, FAILED, "other pixels", {}, figures)
    assert store.view(run).outcome == FAILED
    assert store.view(run).figures == {"mae_hu": 1.5, "parts": [None, {"y": 2}]}
