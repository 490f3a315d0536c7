"""How long `syncect jobs ls` takes as the store grows: the query alone, and the command as a user runs it."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from storage.database import Database
from storage.overview import Overview
from storage.schema import ensure_schema
from storage.states import DeliveryState, JobState, SeriesState
from storage.tables import Base, Delivery, DeliveryInstance, Event, Instance, Job, Product, Series

SIZES = (100, 10_000, 100_000)
REPEATS = 5
STARTS = 3
_WHOLE = 500
"""The newest jobs have all their slices; older ones have one, which no listing looks at."""
_SLICES = 140
_FAILED_EVERY = 5_000
_T0 = datetime.now(UTC) - timedelta(minutes=SIZES[-1])
"""One series a minute, the last one of the largest store now."""
_CHUNK = 20_000


def listing(folder: Path) -> dict[str, float]:
    """Medians in seconds over stores of 100, 10,000 and 100,000 jobs, nearly all of them sent."""
    rows: dict[str, float] = {"jobs ls, command on an empty store: s": command_s(configure(folder / "empty"))}
    for size in SIZES:
        config = configure(folder / f"{size}")
        database = Database(f"sqlite:///{config.parent / 'data' / 'syncect.sqlite3'}")
        try:
            ensure_schema(database)
            fill(database, size)
            overview = Overview(database)
            rows[f"jobs ls, query over {size} jobs: s"] = median_s(lambda overview=overview: overview.cases())
            failed = median_s(lambda overview=overview: overview.cases(states=["FAILED"]))
        finally:
            database.close()
    rows[f"jobs ls --state FAILED, query over {SIZES[-1]} jobs: s"] = failed
    rows[f"jobs ls, command over {SIZES[-1]} jobs: s"] = command_s(config)
    return rows


def configure(folder: Path) -> Path:
    """Settings of a node that never runs."""
    (folder / "data").mkdir(parents=True)
    config = folder / "node.toml"
    config.write_text(f'[node]\ndata_dir = "{folder / "data"}"\n', encoding="utf-8")
    return config


def command_s(config: Path) -> float:
    """Median wall-clock seconds of `syncect jobs ls`; the first start, which may create the store, is not counted."""
    command = [sys.executable, "-m", "node.cli", "--config", str(config), "jobs", "ls"]

    def start() -> None:
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"COLUMNS": "160"})

    start()
    return median_s(start, STARTS)


def median_s(call: Any, repeats: int = REPEATS) -> float:
    """Median wall-clock seconds of some calls."""
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def fill(database: Database, jobs: int) -> None:
    """Write `jobs` series with a job, its instances and a delivery each, by bulk inserts; the store must be empty."""
    numbers = range(1, jobs + 1)
    tables: list[tuple[type[Base], Iterator[dict[str, Any]]]] = [
        (Series, (_series(number) for number in numbers)),
        (Job, (_job(number) for number in numbers)),
        (Delivery, (_delivery(number) for number in numbers if not _failed(number))),
        (Instance, (_instance(*of) for of in _slices(jobs))),
        (Product, (_product(*of) for of in _slices(jobs) if not _failed(of[0]))),
        (DeliveryInstance, (_sent(*of) for of in _slices(jobs) if not _failed(of[0]))),
        (Event, (_event(number) for number in numbers)),
    ]
    with database.write() as session:
        for table, rows in tables:
            while chunk := list(islice(rows, _CHUNK)):
                session.execute(insert(table), chunk)


def _failed(number: int) -> bool:
    return number % _FAILED_EVERY == 1


def _slices(jobs: int) -> Iterator[tuple[int, int]]:
    for number in range(1, jobs + 1):
        yield from ((number, k) for k in range(_SLICES if number > jobs - _WHOLE else 1))


def _times(number: int) -> dict[str, datetime]:
    return {"created_at": _T0 + timedelta(minutes=number), "updated_at": _T0 + timedelta(minutes=number + 5)}


def _series(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "series_uid": f"1.2.{number}",
        "study_uid": f"1.3.{number}",
        "state": SeriesState.QUEUED,
        "calling_ae": "CTSIM",
        "patient_id": f"BENCH{number}",
        "description": "Thorax native 5.0 B40",
        "facts": {"series_number": 3, "modality": "CT", "body_part": "CHEST", "acquired": "2026-11-26 08:30"},
        "arrivals": _SLICES,
        "last_arrival_at": _T0 + timedelta(minutes=number),
        **_times(number),
    }


def _job(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "series_id": number,
        "run": 1,
        "job_key": f"{number:064x}",
        "state": JobState.FAILED if _failed(number) else JobState.PRODUCED,
        "bundle": "demo 1",
        "source_count": _SLICES,
        "attempts": 1,
        "next_attempt_at": _T0,
        "derived_series_uid": f"1.4.{number}",
        "product_dir": f"derived/{number}-1",
        "measurements": {"changed_share": 0.9, "mean_shift_hu": 21.0},
        **_times(number),
    }


def _delivery(number: int) -> dict[str, Any]:
    times = _times(number)
    return {
        "id": number,
        "job_id": number,
        "destination": "tps",
        "state": DeliveryState.SENT,
        "attempts": 1,
        "next_attempt_at": times["updated_at"],
        **times,
    }


def _key(number: int, k: int) -> int:
    return number * 1000 + k


def _instance(number: int, k: int) -> dict[str, Any]:
    return {
        "id": _key(number, k),
        "series_id": number,
        "sop_instance_uid": f"1.2.{number}.{k}",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "sha256": f"{_key(number, k):064x}",
        "spool_name": f"received/20260101/{_key(number, k):032x}.dcm",
        "size_bytes": 526_000,
        "is_current": True,
        "received_at": _T0,
    }


def _product(number: int, k: int) -> dict[str, Any]:
    return {
        "id": _key(number, k),
        "job_id": number,
        "sop_instance_uid": f"1.4.{number}.{k}",
        "source_sop_instance_uid": f"1.2.{number}.{k}",
        "file_name": f"{k + 1:04d}.dcm",
        "sha256": f"{_key(number, k):064x}",
    }


def _sent(number: int, k: int) -> dict[str, Any]:
    return {"delivery_id": number, "product_id": _key(number, k), "dimse_status": 0, "sent_at": _T0}


def _event(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "at": _times(number)["updated_at"],
        "series_id": number,
        "job_id": number,
        "machine": "job",
        "from_state": JobState.RUNNING,
        "to_state": JobState.FAILED if _failed(number) else JobState.PRODUCED,
        "actor": "worker 1",
    }
