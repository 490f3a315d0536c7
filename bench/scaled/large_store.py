"""A store of many jobs as a department leaves it after years, filled on the PostgreSQL server itself in minutes.

Nearly every job was sent long ago. The newest ones are queued, computed or on their way; some are held or failed
lately; superseded, recalled and cancelled ones are spread over the whole time. A job has few slices: no listing looks
at more.
"""

from typing import Final

from storage.database import Database
from storage.schema import ensure_schema, patience

QUEUED: Final = 200
"""The newest jobs, which wait for a worker; before them as many are on their way to a destination."""
RUNNING: Final = 4
_OPEN: Final = f"n > :jobs - {2 * QUEUED}"
_WAITS: Final = f"n > :jobs - {QUEUED}"
_LATELY: Final = ":jobs - n < 100000"  # what waits for a person is not left for years
_HAS_FILES: Final = ":jobs - n < 10000"  # what retention has not removed yet

_AT: Final = "now() - (:jobs - n) * interval '2 minutes'"
_JOB_STATE: Final = f"""
CASE WHEN n > :jobs - {QUEUED} + {RUNNING} THEN 'QUEUED' WHEN {_WAITS} THEN 'RUNNING' WHEN {_OPEN} THEN 'PRODUCED'
     WHEN n % 2003 = 0 AND {_LATELY} THEN 'HELD' WHEN n % 1009 = 0 AND {_LATELY} THEN 'FAILED'
     WHEN n % 101 = 0 THEN 'SUPERSEDED'
     WHEN n % 997 = 0 THEN 'CANCELLED' WHEN n % 1999 = 0 THEN 'REJECTED' ELSE 'PRODUCED' END
"""
_DELIVERY_STATE: Final = f"""
CASE WHEN {_OPEN} THEN 'PENDING' WHEN n % 4001 = 0 AND {_LATELY} THEN 'FAILED'
     WHEN n % 3 = 0 THEN 'CONFIRMED' ELSE 'SENT' END
"""

_PARTS: Final = {
    ":job_state:": _JOB_STATE,
    ":delivery_state:": _DELIVERY_STATE,
    ":open:": _OPEN,
    ":waits:": _WAITS,
    ":lately:": _LATELY,
    ":has_files:": _HAS_FILES,
    ":at:": _AT,
}
_STATEMENTS: Final = (
    """
    INSERT INTO series (id, series_uid, study_uid, state, reason, calling_ae, patient_id, description, facts, arrivals,
                        job_id, last_arrival_at, created_at, updated_at, purged_at)
    SELECT n, '1.2.' || n, '1.3.' || n / 2,
           CASE WHEN n % 50 = 0 AND NOT :open: THEN 'SKIPPED'
                WHEN n % 5003 = 0 AND :lately: THEN 'INCOMPLETE' ELSE 'QUEUED' END,
           CASE WHEN n % 50 = 0 AND NOT :open: THEN 'no axial CT' ELSE '' END,
           'CTSIM' || n % 4, 'PAT' || n / 5, 'Thorax native 5.0 B40',
           '{"series_number": 3, "modality": "CT", "body_part": "CHEST"}', 140,
           CASE WHEN n % 50 = 0 AND NOT :open: THEN NULL ELSE n END,
           :at:, :at:, :at: + interval '1 minute', CASE WHEN :has_files: THEN NULL ELSE :at: END
    FROM generate_series(1, :jobs) n
    """,
    """
    INSERT INTO job (id, series_id, run, job_key, repeat, state, reason, bundle, source_count, patient, progress,
                     attempts, next_attempt_at, worker, lease_until, derived_series_uid, product_dir, measurements,
                     created_at, updated_at, purged_at, recalled_at, priority, due_at)
    SELECT n, n, 1, lpad(to_hex(n), 64, '0'), 0, :job_state:, '', 'demo ' || n % 3, 140, '{"PatientID": "PAT"}',
           '{}', 1, :at:, CASE WHEN :job_state: = 'RUNNING' THEN 'worker 1' END,
           CASE WHEN :job_state: = 'RUNNING' THEN now() + interval '1 day' END, '1.4.' || n, 'derived/' || n || '-1',
           '{"changed_share": 0.9, "mean_shift_hu": 21.0}', :at:, :at: + interval '5 minutes',
           CASE WHEN :has_files: THEN NULL ELSE :at: END, CASE WHEN n % 20011 = 0 THEN :at: END, n % 3,
           :at: + interval '1 hour'
    FROM generate_series(1, :jobs) n WHERE :open: OR n % 50 <> 0
    """,
    """
    INSERT INTO delivery (job_id, destination, state, reason, attempts, next_attempt_at, created_at, updated_at,
                          leftover, held_for)
    SELECT n, destination, :delivery_state:, '', 1, :at:, :at: + interval '5 minutes', :at: + interval '6 minutes',
           '', CASE WHEN :open: AND n % 20 = 0 THEN 'another name' ELSE '' END
    FROM generate_series(1, :jobs) n, unnest(ARRAY['tps', 'archive']) destination
    WHERE (:open: OR n % 50 <> 0) AND :job_state: = 'PRODUCED' AND (destination = 'tps' OR n % 2 = 0)
    """,
    """
    INSERT INTO instance (series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, sha256, spool_name,
                          size_bytes, is_current, received_at)
    SELECT n, '1.2.' || n || '.1', '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.1.2.1', lpad(to_hex(n), 64, '0'),
           'received/20260101/' || lpad(to_hex(n), 32, '0') || '.dcm', 526000, true, :at:
    FROM generate_series(1, :jobs) n WHERE :has_files:
    """,
    """
    INSERT INTO product (job_id, sop_instance_uid, source_sop_instance_uid, file_name, sha256)
    SELECT DISTINCT job_id, '1.4.' || job_id || '.1', '1.2.' || job_id || '.1', '0001.dcm', repeat('0', 64)
    FROM delivery
    """,
    """
    INSERT INTO delivery_instance (delivery_id, product_id, dimse_status, sent_at, confirmed_at)
    SELECT delivery.id, product.id, 0, updated_at, CASE WHEN state = 'CONFIRMED' THEN updated_at END
    FROM delivery JOIN product USING (job_id) WHERE state IN ('SENT', 'CONFIRMED')
    """,
    """
    INSERT INTO event (at, series_id, job_id, delivery_id, machine, from_state, to_state, actor, reason)
    SELECT created_at, id, NULL, NULL, 'series', '', 'RECEIVING', 'receiver', '' FROM series
    """,
    """
    INSERT INTO event (at, series_id, job_id, delivery_id, machine, from_state, to_state, actor, reason)
    SELECT created_at + interval '1 minute', series_id, id, NULL, 'job', 'QUEUED', 'RUNNING', 'worker 1', ''
    FROM job WHERE state <> 'QUEUED'
    """,
    """
    INSERT INTO event (at, series_id, job_id, delivery_id, machine, from_state, to_state, actor, reason)
    SELECT updated_at, series_id, id, NULL, 'job', 'RUNNING', state, 'worker 1', ''
    FROM job WHERE state NOT IN ('QUEUED', 'RUNNING')
    """,
    """
    INSERT INTO event (at, series_id, job_id, delivery_id, machine, from_state, to_state, actor, reason)
    SELECT updated_at, job_id, job_id, id, 'delivery', 'SENDING', state, 'courier 1', ''
    FROM delivery WHERE state <> 'PENDING'
    """,
    """
    INSERT INTO association (receiver, calling_ae, peer_host, outcome, opened_at, closed_at)
    SELECT 'receiver 1', 'CTSIM' || n % 4, '10.0.0.1', CASE WHEN n % 1000 = 0 THEN 'ABORTED' ELSE 'RELEASED' END,
           :at:, :at: + interval '30 seconds' FROM generate_series(1, :jobs) n WHERE :has_files:
    """,
    """
    INSERT INTO association_series (series_id, association_id)
    SELECT (SELECT max(id) FROM series) - (SELECT max(id) FROM association) + id, id FROM association
    """,
    """
    INSERT INTO alert (kind, subject, text, series_id, opened_at, closed_at)
    SELECT 'job_failed', 'job ' || n, 'a job failed', n, :at:, :at: + interval '1 day'
    FROM generate_series(1, :jobs) n WHERE n % 101 = 0
    """,
)


def fill(database: Database, jobs: int) -> None:
    """Write about `jobs` series with all that belongs to them into an empty PostgreSQL database, and ANALYZE it."""
    ensure_schema(database)
    with patience(database):
        for statement in _STATEMENTS:
            with database.engine.begin() as connection:
                connection.exec_driver_sql(_written(statement, jobs))
        with database.engine.begin() as connection:
            for table in ("series", "job"):  # these numbers were given, not taken from the sequence
                connection.exec_driver_sql(f"SELECT setval('{table}_id_seq', {int(jobs)})")
            connection.exec_driver_sql("ANALYZE")


def _written(statement: str, jobs: int) -> str:
    for name, part in _PARTS.items():
        statement = statement.replace(name, part.strip())
    return statement.replace(":jobs", str(int(jobs))).replace("%", "%%")  # the driver takes a single % for its own
