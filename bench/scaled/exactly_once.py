"""Forty jobs, each exactly once, while workers are killed and the database is restarted.

Real processes: a receiver with its completion, a courier and four workers on one PostgreSQL and one spool. A scanner
keeps sending series; a planning system in this process keeps what it takes. Half of the kills wait until their worker
has a job in hand. What became of everything is read from the store, the spool and the planning system
(`tests.torture.ledger.judge`), and each job that came back to the queue must have a kill or an outage as its cause.
"""

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from random import Random

from sqlalchemy import func, select

from bench.gpu.report import Section
from bench.scaled.figures import figure
from bench.scaled.services import Services
from models.testing import write_tiny_bundle
from storage.database import Database
from storage.errors import StoreUnavailable
from storage.states import JobState, case_id
from storage.tables import Delivery, Event, Job
from tests.conftest import PostgresCluster
from tests.slice.harness import wait_for
from tests.torture.bed import TortureNode
from tests.torture.ledger import Ledger, judge, unsettled
from tests.torture.scans import Scanner, make_scan
from tests.torture.tps import Tps

_POLL_S = 0.1
_BOUND_S = 240.0
_LOG_CHARACTERS = 6000
_IN_A_JOB_S = 0.3  # a job of such a series takes half a second
_SCHEDULER = "scheduler"


@dataclass(frozen=True)
class Size:
    """How much of it. between_s: mean seconds between two series, and between two faults."""

    jobs: int
    workers: int
    kills: int
    restarts: tuple[str, ...]
    between_s: float
    faults_s: float


FULL = Size(jobs=40, workers=4, kills=16, restarts=("immediate", "fast"), between_s=2.0, faults_s=4.0)
SHORT = Size(jobs=2, workers=1, kills=1, restarts=("immediate",), between_s=0.2, faults_s=0.2)


@dataclass(frozen=True)
class Passage:
    """A job in the hands of a worker, from its claim to the next event of the job; `to` is "" where there is none."""

    worker: str
    begun_at: datetime
    ended_at: datetime | None
    to: str
    actor: str

    @property
    def was_taken_away(self) -> bool:
        """Whether the worker did not end it itself."""
        return self.actor == _SCHEDULER


@dataclass
class Faults:
    """What was done to the node: (worker, when), and (from, to) of the database's absence.

    retried: jobs that a person queued again, because two workers had died over them.
    """

    kills: list[tuple[str, datetime]] = field(default_factory=list)
    outages: list[tuple[datetime, datetime]] = field(default_factory=list)
    retried: int = 0

    def explain(self, passage: Passage) -> bool:
        """Whether a kill of its worker or an outage falls into it."""
        end = passage.ended_at or datetime.now(UTC)
        name = _short_name(passage.worker)
        killed = any(each == name and passage.begun_at <= at <= end for each, at in self.kills)
        return killed or any(begun <= end and ended >= passage.begun_at for begun, ended in self.outages)


class Crew:
    """Workers by name, each a process that can be killed and is then started again.

    processes: gets each one that is started, so that whoever has the list can end them all.
    """

    def __init__(self, node: TortureNode, count: int, processes: list[subprocess.Popen[bytes]]) -> None:
        self._node, self._running = node, dict[str, subprocess.Popen[bytes]]()
        self._processes = processes
        for number in range(1, count + 1):
            self._start(f"w{number}")

    @property
    def names(self) -> list[str]:
        """Of all workers."""
        return list(self._running)

    def kill(self, name: str) -> datetime:
        """SIGKILL, and the same worker anew; when it was."""
        at = datetime.now(UTC)
        self._running[name].kill()
        self._running[name].wait()
        self._start(name)
        return at

    def _start(self, name: str) -> None:
        self._running[name] = self._node.spawn("work", "--name", name)
        self._processes.append(self._running[name])


@dataclass(frozen=True)
class Bed:
    """What a run works with."""

    node: TortureNode
    ledger: Ledger
    crew: Crew
    cluster: PostgresCluster
    size: Size
    rng: Random
    faults: Faults = field(default_factory=Faults)


def exactly_once(section: Section, services: Services, *, short: bool) -> None:
    """Run it on PostgreSQL and enter what was lost, twice, false or stuck, and what the deaths came to."""
    size, folder = SHORT if short else FULL, services.folder("exactly-once")
    write_tiny_bundle(folder / "tiny")
    ledger, begun = Ledger(), time.monotonic()
    tps = Tps(ledger).start()
    node = TortureNode(folder / "node", folder / "tiny", tps, services.new_database("exactly_once"), {})
    processes: list[subprocess.Popen[bytes]] = []
    try:
        if node.run("db", "upgrade").returncode:
            raise RuntimeError(node.log.read_text())
        processes += [node.spawn("receive"), node.spawn("deliver")]
        bed = Bed(node, ledger, Crew(node, size.workers, processes), services.postgres, size, Random(services.seed))
        wait_for("the receiver's start", node._listening)
        _run(bed)
        _enter(section, bed)
    finally:
        node.close()
        for process in processes:
            process.kill()
            process.wait()
        tps.stop()
    section.row(figure="exactly once, the whole: s", value=time.monotonic() - begun)


def _run(bed: Bed) -> None:
    """Send all series while the faults come, then wait until each series has its end."""
    database, stop, scanners = Database(bed.node.url, read_only=True), threading.Event(), list[Scanner]()
    seed, gaps = bed.rng.random(), [bed.rng.expovariate(1 / bed.size.between_s) for _ in range(bed.size.jobs)]

    def send() -> None:
        for number, gap in enumerate(gaps):
            scan = make_scan(bed.node.folder / "scans" / str(number), f"{seed}-{number}")
            scanners.append(Scanner(bed.node.port, scan, bed.ledger))
            if stop.wait(gap):
                return

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    try:
        for fault in _faults(bed, database):
            stop.wait(bed.rng.expovariate(1 / bed.size.faults_s))
            fault()
        sending.join()
        for scanner in scanners:
            scanner.join(_BOUND_S)
        bed.faults.retried = _settle(bed, database)
    finally:
        stop.set()
        for scanner in scanners:
            scanner.quit()
        database.close()


def _faults(bed: Bed, database: Database) -> list[Callable[[], None]]:
    """The kills and restarts in a random order."""

    def kill(*, busy: bool) -> None:
        name = bed.rng.choice(bed.crew.names)
        if busy:
            found = wait_for("a worker with a job in hand", lambda: _busy(database) or _none_left(database, bed.size))
            name = bed.rng.choice(found) if isinstance(found, list) else name
            threading.Event().wait(bed.rng.uniform(0.0, _IN_A_JOB_S))
        if name not in _busy(database, died_before=True):  # a second time its job is FAILED, by design
            bed.faults.kills.append((name, bed.crew.kill(name)))

    def restart(mode: str) -> None:
        begun = datetime.now(UTC)
        bed.cluster.stop(mode)
        threading.Event().wait(bed.rng.uniform(0.5, 2.0))
        bed.cluster.start()
        bed.faults.outages.append((begun, datetime.now(UTC)))

    faults: list[Callable[[], None]] = [partial(kill, busy=number % 2 == 0) for number in range(bed.size.kills)]
    faults += [partial(restart, mode) for mode in bed.size.restarts]
    bed.rng.shuffle(faults)
    return faults


def _busy(database: Database, *, died_before: bool = False) -> list[str]:
    """Names of the workers with a job in hand during which no worker died before, or during which one did."""
    try:
        with database.read() as session:
            rows = session.execute(select(Job.worker, Job.deaths).where(Job.state == JobState.RUNNING)).all()
    except StoreUnavailable:
        return []
    return [_short_name(str(worker)) for worker, deaths in rows if (deaths > 0) is died_before]


def _short_name(worker: str) -> str:
    """The word behind --name, of the name under which a worker holds its leases."""
    return worker.removeprefix("work-").partition("@")[0]


def _none_left(database: Database, size: Size) -> bool:
    """Whether every job is made, so that no worker will have one in hand."""
    with database.read() as session:
        return session.scalar(select(func.count()).where(Job.state == JobState.PRODUCED)) == size.jobs


def _settle(bed: Bed, database: Database) -> int:
    """Wait for the end of each series; what is FAILED because of two deaths is tried again, as a person would."""
    deadline, retried = time.monotonic() + _BOUND_S, 0
    while unsettled(bed.ledger, database) and time.monotonic() < deadline:
        with database.read() as session:
            failed = session.scalars(select(Job).where(Job.state == JobState.FAILED)).all()
            cases = [case_id(job.series_id, job.run) for job in failed]
        for case in cases:
            retried += bed.node.run("jobs", "retry", case, "--reason", "this run killed its workers").returncode == 0
        threading.Event().wait(_POLL_S)
    return retried


def _enter(section: Section, bed: Bed) -> None:
    size, faults, database = bed.size, bed.faults, Database(bed.node.url, read_only=True)
    try:
        verdict = judge(bed.ledger, database, bed.node.data_dir / "spool")
        with database.read() as session:
            produced = session.scalar(select(func.count()).where(Job.state == JobState.PRODUCED)) or 0
            jobs = session.scalar(select(func.count()).select_from(Job)) or 0
            deliveries = session.scalar(select(func.count()).select_from(Delivery)) or 0
            deaths = session.scalar(select(func.sum(Job.deaths + Job.node_deaths))) or 0
            rows = session.scalars(select(Event).where(Event.machine == "job").order_by(Event.id)).all()
            passages = list(passages_of(rows))
    finally:
        database.close()
    for finding in verdict.findings():
        section.note(finding)
    if not verdict.is_clean:
        section.note(f"the end of the log of the node:\n{bed.node.log.read_text()[-_LOG_CHARACTERS:]}")
    taken = Counter(each.uid for each in bed.ledger.copies()[1])
    away = [passage for passage in passages if passage.was_taken_away]
    open_ends = sum(passage.to == "" for passage in passages)
    figure(section, f"results of {size.jobs} series", produced)
    figure(section, f"instances at the planning system of {size.jobs * 8}", len(taken))
    figure(section, "exactly once: results that are missing", size.jobs - produced)
    figure(section, "exactly once: lost", len(verdict.lost))
    figure(section, "exactly once: twice", len(verdict.twice))
    figure(section, "exactly once: jobs and deliveries beyond one of a series", jobs + deliveries - 2 * size.jobs)
    figure(section, "exactly once: said to be sent and not there", len(verdict.false))
    figure(section, "exactly once: without an end", len(verdict.stuck) + open_ends)
    unexplained = sum(not faults.explain(passage) for passage in away)
    figure(section, "exactly once: jobs that came back without a cause", unexplained)
    figure(section, "exactly once: deaths that no job counts", abs(len(away) - deaths - faults.retried))
    figure(
        section, "exactly once: instances sent again beyond one a restart", max(0, _again(taken) - len(faults.outages))
    )
    for name, value in (
        ("kills of workers", len(faults.kills)),
        ("kills and outages that took a job from its worker", len(away)),
        ("jobs that a person queued again after two deaths", faults.retried),
        ("restarts of the database", len(faults.outages)),
        ("instances sent again, the same bytes, whose answer could not be recorded", _again(taken)),
    ):
        figure(section, name, value)


def _again(taken: Counter[str]) -> int:
    return sum(count - 1 for count in taken.values())


def passages_of(events: Sequence[Event]) -> Iterator[Passage]:
    """Each claim of a worker with the next event of the same job, in the order of the claims."""
    claims: dict[int | None, Event] = {}
    for event in events:
        if claim := claims.pop(event.job_id, None):
            yield Passage(claim.actor, claim.at, event.at, event.to_state, event.actor)
        if event.to_state == JobState.RUNNING:
            claims[event.job_id] = event
    for claim in claims.values():
        yield Passage(claim.actor, claim.at, None, "", "")
