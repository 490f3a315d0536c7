"""HostStore knows which processes of the node run on which host, and gives back what an upgrade took from them.

Only on PostgreSQL: with SQLite all processes are on one host, where their lock files tell more.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import and_, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from storage.arrivals import LOST, OPEN
from storage.database import Database
from storage.errors import IllegalTransition, NotFound
from storage.scale_tables import ProcessRow
from storage.states import JobState
from storage.tables import Association, Job
from storage.transitions import move_job

REPORT_EVERY_S: Final = 10.0
GONE_AFTER: Final = timedelta(seconds=60)  # several reports: a database that is restarted makes no host silent


@dataclass(frozen=True)
class ReportedProcess:
    """A process as it last reported itself at `seen_at`; `details` says what it works with, such as the device."""

    name: str
    host: str
    role: str
    pid: int
    version: str
    details: str
    beats: Sequence[Mapping[str, Any]]
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True)
class Host:
    """A host with its processes; seen_at: when one of them last reported itself.

    silent: names of those that did not for longer than `GONE_AFTER`; is_gone: all of them.
    """

    name: str
    processes: tuple[ReportedProcess, ...]
    seen_at: datetime
    silent: tuple[str, ...]
    is_gone: bool

    @property
    def versions(self) -> list[str]:
        """Of its processes; several while it is being upgraded."""
        return sorted({process.version for process in self.processes})


def roles_on(hosts: Iterable[Host]) -> frozenset[str]:
    """The roles of which a process is heard on one of these hosts."""
    return frozenset(one.role for host in hosts for one in host.processes if one.name not in host.silent)


class HostStore:
    """The only writer of the processes of every host."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def report(self, process: ReportedProcess) -> None:
        """Say how a process is; replaces what one of its name, which it follows, has said."""
        values = {name: getattr(process, name) for name in ReportedProcess.__dataclass_fields__}
        values["beats"] = [dict(beat) for beat in process.beats]
        rest = {name: value for name, value in values.items() if name != "name"}
        with self._database.write() as session:
            session.execute(
                insert(ProcessRow).values(**values).on_conflict_do_update(index_elements=["name"], set_=rest)
            )

    def named(self, name: str) -> ReportedProcess | None:
        """What the process of a name has reported last; None where none has."""
        with self._database.read() as session:
            row = session.get(ProcessRow, name)
            return None if row is None else _reported(row)

    def leave(self, name: str, pid: int, started_at: datetime) -> None:
        """A process ended in order; nobody misses it. Another one that has its name by now stays.

        started_at: as it was reported. The pid alone does not tell them apart: in containers it is often 1.
        """
        is_it = and_(ProcessRow.name == name, ProcessRow.pid == pid, ProcessRow.started_at == started_at)
        with self._database.write() as session:
            session.execute(delete(ProcessRow).where(is_it))

    def forget(self, host: str) -> int:
        """Take away what is known about a host that is gone for good, or of its processes that are; their number.

        The associations that its receiver had open are lost, so that nobody waits for their images. Raises NotFound,
        and IllegalTransition where every process of it reports itself.
        """
        found = next((one for one in self.all() if one.name == host), None)
        if found is None:
            raise NotFound(f"no process of a host named {host} is known")
        if not found.silent:
            raise IllegalTransition(
                f"the host {host} is not gone: it reported itself at {found.seen_at:%Y-%m-%d %H:%M:%S} UTC"
            )
        with self._database.write() as session:
            silent = {one.name: one.seen_at for one in found.processes if one.name in found.silent}
            is_silent = and_(ProcessRow.name.in_(silent), ProcessRow.seen_at <= max(silent.values()))
            gone = session.scalars(delete(ProcessRow).where(is_silent).returning(ProcessRow.name)).all()
            session.execute(
                update(Association)
                .where(Association.receiver.in_(gone), Association.outcome == OPEN)
                .values(outcome=LOST, closed_at=self._database.now())
            )
        return len(gone)

    def all(self) -> list[Host]:
        """Every host by name, each with its processes by name; none on SQLite, which has but one."""
        if self._database.is_sqlite:
            return []
        now = self._database.now()
        with self._database.read() as session:
            rows = session.scalars(select(ProcessRow).order_by(ProcessRow.host, ProcessRow.name)).all()
        by_host: dict[str, list[ReportedProcess]] = {}
        for row in rows:
            by_host.setdefault(row.host, []).append(_reported(row))
        return [_host(name, processes, now) for name, processes in by_host.items()]


def free_running(database: Database, before: datetime, now: datetime) -> list[int]:
    """RUNNING -> QUEUED for jobs that workers had when an upgrade began, `before` which their last step was.

    Those workers may write nothing any more, and so cannot give them back. It counts as no attempt and no death. What
    nobody had a lease of is freed as it always is.
    """
    with database.write() as session:
        jobs = session.scalars(
            select(Job)
            .where(Job.state == JobState.RUNNING, Job.updated_at < before, Job.lease_until > before)
            .with_for_update(key_share=True, skip_locked=True)
        ).all()
        for job in jobs:
            reason = f"the store was upgraded while {job.worker} translated it"
            move_job(session, job, JobState.QUEUED, actor="upgrade", reason=reason, now=now)
            job.attempts, job.next_attempt_at = job.attempts - 1, now
        return [job.id for job in jobs]


def _reported(row: ProcessRow) -> ReportedProcess:
    return ReportedProcess(**{name: getattr(row, name) for name in ReportedProcess.__dataclass_fields__})


def _host(name: str, processes: Sequence[ReportedProcess], now: datetime) -> Host:
    seen_at = max(process.seen_at for process in processes)
    silent = tuple(process.name for process in processes if now - process.seen_at > GONE_AFTER)
    return Host(name, tuple(processes), seen_at, silent, len(silent) == len(processes))
