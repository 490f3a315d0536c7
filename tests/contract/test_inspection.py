"""What the doctor and the support bundle ask the database about itself, on both databases."""

from datetime import UTC, datetime
from pathlib import Path

from config.settings import NodeSettings, Settings
from node.operate.doctor.report import Mark
from node.operate.doctor.store import database as check_database
from storage.database import Database
from storage.inspection import Inspection
from storage.states import SeriesState
from storage.tables import Base, Event, Series
from tests.contract.store_bench import T0


def test_sizes_of_every_table_and_a_sound_file(database: Database) -> None:
    inspection = Inspection(database)
    sizes = inspection.table_sizes()
    assert set(sizes) == set(Base.metadata.tables)
    assert all(size["rows"] >= 0 for size in sizes.values())
    assert inspection.is_whole(10)
    theirs = inspection.server_time()
    assert theirs is None or abs((theirs - datetime.now(UTC)).total_seconds()) < 60
    assert (inspection.journal_mode() == "wal") is database.is_sqlite
    assert ("fsync" in inspection.server_settings()) is not database.is_sqlite


def test_the_doctor_judges_what_the_database_says(database: Database, tmp_path: Path) -> None:
    url = database.url.render_as_string(hide_password=False)
    lines = list(check_database(Settings(node=NodeSettings(data_dir=tmp_path, database_url=url))))
    # The cluster of the tests syncs nothing, which is just what a hospital must be told.
    assert {line.state for line in lines} == ({Mark.OK} if database.is_sqlite else {Mark.OK, Mark.FAIL})
    assert all(line.remedy for line in lines if line.state is Mark.FAIL)


def test_patients_reasons_and_the_events_of_what_is_not_at_its_end(database: Database) -> None:
    times = {"last_arrival_at": T0, "created_at": T0, "updated_at": T0}
    with database.write() as session:
        for number, state in enumerate((SeriesState.INCOMPLETE, SeriesState.SKIPPED), start=1):
            uids = {"series_uid": f"1.2.{number}", "study_uid": "1.2"}
            session.add(
                Series(
                    id=number, state=state, calling_ae="CT", patient_id=f"ID{number}", description="D", **uids, **times
                )
            )
            session.flush()
            changes = {"machine": "series", "from_state": "RECEIVING", "to_state": str(state)}
            session.add(Event(at=T0, series_id=number, actor="operator me", reason=f"why {number}", **changes))
    inspection = Inspection(database)
    texts = inspection.patient_texts()
    assert texts.ids == {"ID1", "ID2"}
    assert texts.descriptions == {"D"}
    assert texts.typed == {"why 1", "why 2"}
    assert [event["series"] for event in inspection.events_of_unfinished(10)] == [1]
