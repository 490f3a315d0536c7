"""Old data through new code: a store of every earlier schema is brought forward, and nothing in it is lost.

The rows below are what a node of that time wrote, as SQL that never changes again: what today's tables look like must
not reach into it. A new revision needs rows for the one before it, and the tests ask for them.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, inspect, select

import storage
from node.cli import run_command
from storage.database import Database
from storage.mark import write_mark
from storage.schema import alembic_config

MIGRATIONS = Path(storage.__path__[0]) / "migrations"

FIRST_SCHEMA = """
INSERT INTO association (id, receiver, calling_ae, peer_host, outcome, opened_at, closed_at) VALUES
  (1, 'node-1', 'CTSIM', '10.0.0.1', 'RELEASED', '2026-11-02 07:15:00.000000', '2026-11-02 07:15:09.250000'),
  (2, 'node-1', 'CTSIM', '10.0.0.1', 'ABORTED', '2026-11-02 08:00:00.000000', '2026-11-02 08:00:01.000000'),
  (3, 'node-1', 'CTSIM2', '10.0.0.2', 'OPEN', '2026-11-02 09:00:00.000000', NULL);

INSERT INTO series (id, series_uid, study_uid, state, reason, calling_ae, patient_id, description, arrivals,
                    last_arrival_at, created_at, updated_at) VALUES
  (1, '1.2.3.1', '1.2.3', 'QUEUED', '', 'CTSIM', 'MRN-1', 'Thörax', 2,
   '2026-11-02 07:15:09.000000', '2026-11-02 07:15:00.000000', '2026-11-02 07:15:20.123456'),
  (2, '1.2.3.2', '1.2.3', 'INCOMPLETE', '1 slice is missing', 'CTSIM', 'MRN-1', '', 1,
   '2026-11-02 08:00:01.000000', '2026-11-02 08:00:00.000000', '2026-11-02 08:10:00.000000'),
  (3, '1.2.4.1', '1.2.4', 'SKIPPED', 'looks enhanced', 'CTSIM', 'MRN-2', 'Liver', 1,
   '2026-11-02 08:20:00.000000', '2026-11-02 08:20:00.000000', '2026-11-02 08:20:30.000000'),
  (4, '1.2.5.1', '1.2.5', 'QUEUED', '', 'CTSIM', 'MRN-3', 'Neck', 3,
   '2026-11-02 08:40:00.000000', '2026-11-02 08:30:00.000000', '2026-11-02 08:41:00.000000'),
  (5, '1.2.6.1', '1.2.6', 'RECEIVING', '', 'CTSIM2', '', '', 1,
   '2026-11-02 09:00:01.000000', '2026-11-02 09:00:00.000000', '2026-11-02 09:00:01.000000');

INSERT INTO association_series (series_id, association_id) VALUES (1, 1), (2, 2), (3, 1), (4, 1), (5, 3);

INSERT INTO instance (id, series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, sha256, spool_name,
                      size_bytes, is_current, received_at) VALUES
  (1, 1, '1.2.3.1.1', '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1', 'a1', 'received/1.dcm', 526000, true,
   '2026-11-02 07:15:08.000000'),
  (2, 1, '1.2.3.1.2', '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1', 'a2', 'received/2.dcm', 526000, true,
   '2026-11-02 07:15:09.000000'),
  (3, 2, '1.2.3.2.1', '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1', 'a3', 'received/3.dcm', 1, true,
   '2026-11-02 08:00:01.000000'),
  (4, 3, '1.2.4.1.1', '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2', 'a4', 'received/4.dcm', 2, true,
   '2026-11-02 08:20:00.000000'),
  (5, 4, '1.2.5.1.1', '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1', 'a5', 'received/5.dcm', 3, false,
   '2026-11-02 08:30:00.000000'),
  (6, 4, '1.2.5.1.1', '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1', 'a6', 'received/6.dcm', 4, true,
   '2026-11-02 08:40:00.000000'),
  (7, 5, '1.2.6.1.1', '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1', 'a7', 'received/7.dcm', 5, true,
   '2026-11-02 09:00:01.000000');

INSERT INTO job (id, series_id, run, job_key, repeat, state, reason, bundle, source_count, attempts, next_attempt_at,
                 worker, lease_until, derived_series_uid, product_dir, measurements, created_at, updated_at) VALUES
  (1, 1, 1, 'k1', 0, 'PRODUCED', '', 'demo 1 (abc)', 2, 1, '2026-11-02 07:15:20.000000', NULL, NULL,
   '2.25.1', 'derived/1-1', '{"changed_share": 0.25}', '2026-11-02 07:15:20.000000', '2026-11-02 07:16:00.000000'),
  (2, 4, 1, 'k2', 0, 'SUPERSEDED', 'a slice came again', 'demo 1 (abc)', 1, 1, '2026-11-02 08:31:00.000000', NULL,
   NULL, '2.25.2', 'derived/4-1', '{}', '2026-11-02 08:31:00.000000', '2026-11-02 08:40:00.000000'),
  (3, 4, 2, 'k3', 0, 'RUNNING', '', 'demo 1 (abc)', 1, 2, '2026-11-02 08:41:00.000000', 'node-1-worker',
   '2026-11-02 08:43:00.000000', NULL, NULL, '{}', '2026-11-02 08:41:00.000000', '2026-11-02 08:42:00.000000');

INSERT INTO product (id, job_id, sop_instance_uid, source_sop_instance_uid, file_name, sha256) VALUES
  (1, 1, '2.25.1.1', '1.2.3.1.1', '0001.dcm', 'b1'),
  (2, 1, '2.25.1.2', '1.2.3.1.2', '0002.dcm', 'b2'),
  (3, 2, '2.25.2.1', '1.2.5.1.1', '0001.dcm', 'b3');

INSERT INTO delivery (id, job_id, destination, state, reason, attempts, next_attempt_at, courier, lease_until,
                      created_at, updated_at) VALUES
  (1, 1, 'tps', 'SENDING', 'no answer', 2, '2026-11-02 07:17:00.000000', 'node-1-courier',
   '2026-11-02 07:19:00.000000', '2026-11-02 07:16:00.000000', '2026-11-02 07:17:00.000000'),
  (2, 1, 'archive', 'CONFIRMED', '', 1, '2026-11-02 07:16:00.000000', NULL, NULL,
   '2026-11-02 07:16:00.000000', '2026-11-02 07:18:00.000000'),
  (3, 2, 'tps', 'CANCELLED', 'superseded', 0, '2026-11-02 08:32:00.000000', NULL, NULL,
   '2026-11-02 08:32:00.000000', '2026-11-02 08:40:00.000000');

INSERT INTO delivery_instance (delivery_id, product_id, dimse_status, sent_at, confirmed_at) VALUES
  (1, 1, 0, '2026-11-02 07:17:01.000000', NULL),
  (2, 1, 45056, '2026-11-02 07:16:01.000000', '2026-11-02 07:18:00.000000'),
  (2, 2, 0, '2026-11-02 07:16:02.000000', '2026-11-02 07:18:00.000000');

INSERT INTO event (id, at, series_id, job_id, delivery_id, machine, from_state, to_state, actor, reason) VALUES
  (1, '2026-11-02 07:15:00.000000', 1, NULL, NULL, 'series', '', 'RECEIVING', 'receiver', ''),
  (2, '2026-11-02 07:16:00.000000', 1, 1, NULL, 'job', 'RUNNING', 'PRODUCED', 'node-1-worker', ''),
  (3, '2026-11-02 07:18:00.000000', 1, 1, 2, 'delivery', 'SENT', 'CONFIRMED', 'node-1-courier', 'all 2 are there');
"""

REFUSALS = """
INSERT INTO refusal (id, calling_ae, peer_host, series_uid, sop_instance_uid, dimse_status, reason, count, first_at,
                     last_at) VALUES
  (1, 'CTSIM', '10.0.0.1', '1.2.7.1', '1.2.7.1.9', 49152, 'no SOP Instance UID', 17, '2026-11-02 10:00:00.000000',
   '2026-11-02 10:05:00.000000');
"""

EVENTS_OF_A_SERIES = """
INSERT INTO lost_instance (id, association_id, series_uid, sop_instance_uid, reason, at) VALUES
  (1, 2, '1.2.3.2', '1.2.3.2.7', 'under way when its association was aborted', '2026-11-02 08:00:01.000000'),
  (2, NULL, '', '1.2.3.2.8', 'refused with status A700 (the spool takes no more)', '2026-11-02 08:00:02.000000');

INSERT INTO sender (calling_ae, pause_s, measured_at) VALUES ('CTSIM', 7.25, '2026-11-02 08:10:00.000000');

INSERT INTO peer_state (destination, failing_since, answered_at, reason) VALUES
  ('tps', '2026-11-02 07:17:02.000000', '2026-11-02 07:17:01.000000', 'refused the connection'),
  ('archive', NULL, '2026-11-02 07:18:00.000000', '');

UPDATE series SET ignored = 2, expected = 3 WHERE id = 2;

UPDATE series SET job_id = 1 WHERE id = 1;

UPDATE job SET version = 2, doubt = 'other spacing', override = 'Dr. A: seen', patient = '{"PatientID": "MRN-1"}',
               remarks = '["a date was left out"]', progress = '{"stage": "translate", "done": 1, "total": 2}',
               series_number = 301, series_description = 'sCE-CT AI Thorax' WHERE id = 1;

UPDATE delivery SET leftover = 'STANDS' WHERE id = 3;
"""

WHAT_A_NIGHT_BRINGS = """
INSERT INTO alert (id, kind, subject, text, series_id, job_id, notified, opened_at, told_at, acknowledged_at,
                   acknowledged_by, acknowledged_for, closed_at) VALUES
  (1, 'held', 'job 1', 'a result waits for a person', 1, 1, '{"webhook": "2026-11-02T07:16:05+00:00"}',
   '2026-11-02 07:16:00.000000', '2026-11-02 07:16:05.000000', '2026-11-02 07:20:00.000000', 'kim', 'seen',
   '2026-11-02 07:21:00.000000');

UPDATE series SET certificate = 'c0ffee', in_hand = 'worker node-1', starter = 'node-1', deaths = 1, node_deaths = 2,
                  purged_at = '2026-11-02 12:00:00.000000', barred = '["CTSIM"]', facts = '{"rows": 512}' WHERE id = 3;

UPDATE instance SET calling_ae = 'CTSIM' WHERE id = 4;

UPDATE job SET starter = 'node-1', deaths = 1, node_deaths = 2, device_faults = 3,
               purged_at = '2026-11-02 12:00:00.000000' WHERE id = 2;

INSERT INTO shadow (id, job_id, bundle, outcome, reason, measurements, updated_at) VALUES
  (1, 1, 'demo-1step 1 (abc)', 'MEASURED', '', '{"mean_change_hu": 4.5}', '2026-11-02 07:30:00.000000');

INSERT INTO store_mark (uid, made_at) VALUES ('2.25.77', '2026-11-02 07:00:00.000000');

INSERT INTO web_user (id, name, full_name, role, secret, failures, locked_until, created_at, changed_at) VALUES
  (1, 'kim', 'Kim Example', 'PHYSICIST', 'no-hash', 5, '2026-11-02 07:05:00.000000', '2026-11-02 07:00:00.000000',
   '2026-11-02 07:00:00.000000');

INSERT INTO web_session (token, user_id, csrf, address, made_at, seen_at) VALUES
  ('token-1', 1, 'csrf-1', '127.0.0.1', '2026-11-02 07:10:00.000000', '2026-11-02 07:20:00.000000');

INSERT INTO audit (id, at, who, address, action, case_id, outcome, detail) VALUES
  (1, '2026-11-02 07:20:00.000000', 'kim', '127.0.0.1', 'acknowledge', '1', 'done', 'held');
"""

ACCEPTANCE_AND_CONSTANCY = """
INSERT INTO acceptance (id, at, bundle, bundle_digest, decision, who, report_sha256, note) VALUES
  (1, '2026-11-02 06:00:00.000000', 'demo-1step 3', 'c0ffee', 'ACCEPTED', 'kim', 'beef', 'read page by page');

INSERT INTO constancy (id, at, bundle, bundle_digest, environment, outcome, reason, measurements) VALUES
  (1, '2026-11-02 06:10:00.000000', 'demo-1step 3', 'c0ffee', '{"torch": "2.13.0"}', 'FAILED', 'slices differ',
   '{"mean_change_hu": 4.5}');
"""

A_GOOD_NEIGHBOUR = """
INSERT INTO commitment (id, transaction_uid, delivery_id, outcome, reason, asked_at, answered_at) VALUES
  (1, '2.25.501', 1, 'ANSWERED', '1 of 2 instances failed', '2026-11-02 07:17:00.000000', '2026-11-02 07:18:00.000000');

UPDATE delivery SET held_for = 'another name', override = 'kim: the same patient' WHERE id = 2;

UPDATE delivery_instance SET failure_reason = 272 WHERE delivery_id = 1;
"""

ROUTES_RECALLS_AND_STEPS = """
UPDATE association SET called_ae = 'SYNCECT' WHERE id = 1;

UPDATE series SET called_ae = 'SYNCECT' WHERE id = 1;

UPDATE job SET route = 'breast', destinations = '["tps"]', recalled_at = '2026-11-02 07:30:00.000000' WHERE id = 2;

INSERT INTO rejection_note (id, delivery_id, sop_instance_uid, code, state, reason, attempts, next_attempt_at,
                            created_at, updated_at) VALUES
  (1, 1, '2.25.601', 'quality', 'SENT', '', 1, '2026-11-02 07:31:00.000000', '2026-11-02 07:30:00.000000',
   '2026-11-02 07:31:00.000000');

INSERT INTO performed_step (sop_instance_uid, calling_ae, certificate, study_uid, state, discontinued_for, created_at,
                            updated_at) VALUES
  ('2.25.701', 'CTSIM', '', '1.2.3', 'COMPLETED', '', '2026-11-02 07:10:00.000000', '2026-11-02 07:15:09.000000');

INSERT INTO performed_series (id, step_uid, series_uid, images) VALUES
  (1, '2.25.701', '1.2.3.1', '["1.2.3.1.1", "1.2.3.1.2"]');
"""

ROWS = {
    "0001": FIRST_SCHEMA,
    "0002": FIRST_SCHEMA + REFUSALS,
    "0003": FIRST_SCHEMA + REFUSALS + EVENTS_OF_A_SERIES,
    "0004": FIRST_SCHEMA + REFUSALS + EVENTS_OF_A_SERIES + WHAT_A_NIGHT_BRINGS,
    "0005": FIRST_SCHEMA + REFUSALS + EVENTS_OF_A_SERIES + WHAT_A_NIGHT_BRINGS + ACCEPTANCE_AND_CONSTANCY,
    "0006": FIRST_SCHEMA
    + REFUSALS
    + EVENTS_OF_A_SERIES
    + WHAT_A_NIGHT_BRINGS
    + ACCEPTANCE_AND_CONSTANCY
    + A_GOOD_NEIGHBOUR,
    "0007": FIRST_SCHEMA
    + REFUSALS
    + EVENTS_OF_A_SERIES
    + WHAT_A_NIGHT_BRINGS
    + ACCEPTANCE_AND_CONSTANCY
    + A_GOOD_NEIGHBOUR
    + ROUTES_RECALLS_AND_STEPS,
}
"""What a node with the schema of each revision had in its tables: at least one row in every table."""

CASES = {"1": "SENDING", "2": "INCOMPLETE", "3": "SKIPPED", "4": "SUPERSEDED", "4-2": "RUNNING", "5": "RECEIVING"}
"""What `jobs ls` says of those rows."""

CHANGED_ON_PURPOSE: frozenset[str] = frozenset()
"""`table.column` or `table` that a revision drops or rewrites; its own test then says what becomes of the values."""

Rows = dict[str, list[dict[str, Any]]]


def revisions() -> list[str]:
    """Every revision, oldest first."""
    scripts = ScriptDirectory(str(MIGRATIONS))
    return [script.revision for script in reversed(list(scripts.walk_revisions()))]


EARLIER, HEAD = revisions()[:-1], revisions()[-1]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, vacant_url: Callable[[str], str]) -> Iterator[Database]:
    """A database without a table."""
    database = Database(vacant_url(request.param))
    if database.is_sqlite:
        Path(database.location).touch()
    yield database
    database.close()


def build(database: Database, revision: str) -> Rows:
    """Make the store one of this revision, with its rows; their values as they stand in the database."""
    if database.has_schema():
        command.downgrade(alembic_config(database.engine), "base")
    command.upgrade(alembic_config(database.engine), revision)
    with database.engine.begin() as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")  # the instants above name no zone
        for statement in ROWS[revision].split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
    return contents(database)


def contents(database: Database) -> Rows:
    """Every row of every table but Alembic's own."""
    with database.engine.connect() as connection:
        names = set(inspect(connection).get_table_names()) - {"alembic_version"}
        return {name: _rows(connection, name) for name in sorted(names)}


def _rows(connection: Connection, name: str) -> list[dict[str, Any]]:
    table = Table(name, MetaData(), autoload_with=connection)
    found = connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()
    return [{column: _plain(value) for column, value in row.items()} for row in found]


def _plain(value: Any) -> Any:
    """A value that compares by what it means: PostgreSQL gives an instant back in the zone of the session."""
    return value.astimezone(UTC) if getattr(value, "tzinfo", None) else value


def assert_full(rows: Rows) -> None:
    """Every table has a row, and every column a value in one of them."""
    assert [name for name, found in rows.items() if not found] == []
    empty = [
        f"{name}.{column}"
        for name, found in rows.items()
        for column in found[0]
        if all(row[column] is None for row in found)
    ]
    assert empty == []


def assert_survived(before: Rows, after: Rows, tables: set[str]) -> None:
    """Every row of these tables is still there, with the value of every column."""
    for name in sorted(tables - CHANGED_ON_PURPOSE):
        assert len(after[name]) == len(before[name]), name
        for old, new in zip(before[name], after[name], strict=True):
            kept = {column for column in old if f"{name}.{column}" not in CHANGED_ON_PURPOSE}
            assert {column: new.get(column) for column in kept} == {column: old[column] for column in kept}, name


@pytest.fixture
def syncect(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """The product's own command on this database; gives what it printed."""
    settings = tmp_path / "node.toml"
    url = database.url.render_as_string(hide_password=False)
    settings.write_text(f'[node]\ndata_dir = "{tmp_path / "data"}"\ndatabase_url = "{url}"\n')
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("SYNCECT_CONFIG", str(settings))

    def call(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["syncect", *arguments])
        code = run_command()
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    return call


def test_every_earlier_revision_has_rows_here() -> None:
    assert set(ROWS) <= set(EARLIER)
    missing = [revision for revision in EARLIER if revision not in ROWS]
    assert not missing, f"write rows of every table for revision {missing[0]} before adding the one after it"


@pytest.mark.parametrize("revision", EARLIER)
def test_a_store_of_an_earlier_revision_is_brought_forward_with_every_row(
    database: Database, syncect: Callable[..., str], revision: str, tmp_path: Path
) -> None:
    before = build(database, revision)
    assert_full(before)
    assert json.loads(syncect("db", "current", "--json")) == {"current": revision, "needed": HEAD}
    syncect("db", "upgrade")
    assert json.loads(syncect("db", "current", "--json")) == {"current": HEAD, "needed": HEAD}
    assert_survived(before, contents(database), set(before))
    for mark in before.get("store_mark", ()):  # a store that knows its spool by name is used with no other
        write_mark(tmp_path / "data" / "spool", mark["uid"])
    cases = json.loads(syncect("jobs", "ls", "--json", "--phi"))
    recalled = {"4": "RECALLED"} if revision >= "0007" else {}
    assert {case["id"]: case["state"] for case in cases} == CASES | recalled
    (sending,) = (case for case in cases if case["id"] == "1")
    assert sending["slices"] == {"received": 2, "produced": 2, "sent": 1, "confirmed": 0}
    assert (sending["description"], sending["measurements"]) == ("Thörax", {"changed_share": 0.25})


# A column has what its revision gave to the oldest rows, or what the newest rows say; other rows have one or the other.
@pytest.mark.parametrize("revision", [EARLIER[0], EARLIER[-1]])
def test_one_revision_back_and_forward_again_keeps_what_both_know(
    database: Database, syncect: Callable[..., str], revision: str
) -> None:
    build(database, revision)
    syncect("db", "upgrade")
    before = contents(database)
    command.downgrade(alembic_config(database.engine), "-1")
    with database.engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == EARLIER[-1]
    earlier = contents(database)
    common = set(before) & set(earlier)
    assert_survived(earlier, before, common)
    syncect("db", "upgrade")
    after = contents(database)
    assert set(after) == set(before)
    assert_survived(earlier, after, common)


def test_all_revisions_can_be_taken_back(database: Database) -> None:
    build(database, EARLIER[-1])
    command.upgrade(alembic_config(database.engine), HEAD)
    command.downgrade(alembic_config(database.engine), "base")
    assert contents(database) == {}
