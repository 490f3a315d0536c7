"""Claims per second: jobs of 140 slices that are claimed and finished, on both databases, by 1 to 8 processes at once.

A claim reads a job with its sources, a finish writes a row for each slice of the result and the outbox; each is one
durable transaction. Nothing is computed between the two. `python -m bench.scaled.claims URL NAME` is one process.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import delete, update

from bench.gpu.report import Section
from bench.listing import fill
from bench.scaled.figures import figure
from bench.scaled.services import Services
from storage.database import Database
from storage.jobs import ClaimedJob, JobStore, ProducedInstance, ProducedSeries
from storage.schema import ensure_schema
from storage.states import JobState
from storage.tables import Delivery, DeliveryInstance, Event, Job, Product

LEASE_S = 60.0


def claims(section: Section, services: Services, *, short: bool) -> None:
    """Both databases side by side, each number of processes on one after the other."""
    jobs, at_once = (8, (2,)) if short else (240, (1, 2, 4, 8))
    folder = services.folder("claims")
    urls = {"SQLite": f"sqlite:///{folder / 'claims.sqlite3'}", "PostgreSQL": services.new_database("claims")}
    databases = {name: Database(url) for name, url in urls.items()}
    try:
        for database in databases.values():
            ensure_schema(database)
            fill(database, jobs)
        for processes in at_once:
            for name, database in databases.items():
                queue_all(database)
                _enter(section, f"claims, {name}, {processes} processes", measure(urls[name], processes), jobs)
    finally:
        for database in databases.values():
            database.close()


def queue_all(database: Database) -> None:
    """Let every job be QUEUED, without a result and without a history."""
    with database.write() as session:
        for table in (DeliveryInstance, Event, Delivery, Product):
            session.execute(delete(table))
        session.execute(update(Job).values(state=JobState.QUEUED, product_dir=None, worker=None, lease_until=None))


def measure(url: str, processes: int) -> list[list[float]]:
    """Let so many processes claim and finish all that is queued: seconds of one clock at begin, claim, end of each."""
    command = [sys.executable, "-m", "bench.scaled.claims", url]
    running = [
        subprocess.Popen([*command, f"worker {number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(processes)
    ]
    try:
        for process in running:  # all are loaded before the first begins
            assert process.stdout is not None
            process.stdout.readline()
        for process in running:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        found = [json.loads(process.communicate()[0]) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    return [times for one in found for times in one]


def _enter(section: Section, what: str, times: Sequence[Sequence[float]], jobs: int) -> None:
    begun, claimed, ended = np.array(times).T
    if len(times) != jobs:
        raise RuntimeError(f"{what}: {len(times)} of {jobs} jobs were claimed, or some twice")
    figure(section, f"{what}: jobs per s", jobs / float(ended.max() - begun.min()))
    for kind, waited in (("claim", claimed - begun), ("finish", ended - claimed)):
        median_s, most_s, longest_s = np.percentile(waited, (50, 95, 100)).tolist()
        section.row(what=what, waits_for=kind, median_s=median_s, percentile_95_s=most_s, longest_s=longest_s)


def work(url: str, name: str) -> list[list[float]]:
    """Claim and finish until nothing is queued."""
    database, times = Database(url), list[list[float]]()
    jobs = JobStore(database, name)
    _tell("ready")
    sys.stdin.readline()
    try:
        while True:
            begun = time.monotonic()  # one clock for all processes of a machine
            job = jobs.claim(name, LEASE_S, datetime.now(UTC))
            if job is None:
                return times
            claimed = time.monotonic()
            jobs.finish(job.id, name, _product(job), destinations=("tps",), held_reason=None, now=datetime.now(UTC))
            times.append([begun, claimed, time.monotonic()])
    finally:
        database.close()


def _product(job: ClaimedJob) -> ProducedSeries:
    made = [
        ProducedInstance(f"1.4.{job.id}.{k}", source.sop_instance_uid, f"{k:04d}.dcm", source.sha256)
        for k, source in enumerate(job.sources)
    ]
    return ProducedSeries(f"1.4.{job.id}", f"derived/{job.id}-1", tuple(made), measurements={"changed_share": 0.9})


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _tell(json.dumps(work(*sys.argv[1:])))
