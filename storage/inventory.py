"""What the store says of the spool: which files must lie there, and which of them are known to be lost."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import exists, func, select

from storage.database import Database
from storage.states import JobState, case_id
from storage.tables import Instance, Job, LostInstance, Product, Series

_PAGE: Final = 500
# A SUPERSEDED result is never sent again, and one that is being made has no files yet.
_KEPT_RESULTS: Final = (JobState.PRODUCED, JobState.HELD, JobState.CANCELLED, JobState.REJECTED)


@dataclass(frozen=True)
class KeptFile:
    """A file that must lie in the spool: received (`job_id` is None), or produced (`size_bytes` is None)."""

    series_id: int
    job_id: int | None
    case_id: str
    sop_instance_uid: str
    name: str
    sha256: str
    size_bytes: int | None


class Inventory:
    """Read-only queries; what retention purged is not asked for."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self) -> int:
        """How many files must lie in the spool."""
        with self._database.read() as session:
            return sum(
                session.scalar(query.with_only_columns(func.count())) or 0 for query in (_received(), _produced())
            )

    def files(self) -> Iterator[KeptFile]:
        """Every file that must lie in the spool; read in pages, so that no other process waits for the reader."""
        for query, column, kept in (
            (_received(), Instance.id, _received_file),
            (_produced(), Product.id, _produced_file),
        ):
            last = 0
            while True:
                with self._database.read() as session:
                    rows = session.execute(query.where(column > last).order_by(column).limit(_PAGE)).all()
                if not rows:
                    break
                yield from (kept(row) for row in rows)
                last = rows[-1][0].id

    def newest(self, limit: int) -> list[KeptFile]:
        """The newest files that must lie in the spool, at most `limit` received ones and as many results."""
        with self._database.read() as session:
            received = session.execute(_received().order_by(Instance.id.desc()).limit(limit)).all()
            produced = session.execute(_produced().order_by(Product.id.desc()).limit(limit)).all()
        return [*map(_received_file, received), *map(_produced_file, produced)]

    def still_wants(self, kept: KeptFile) -> bool:
        """Whether a file that was wanted a moment ago still is: other processes go on meanwhile."""
        with self._database.read() as session:
            if kept.job_id is None:
                row = session.execute(_received().where(Instance.spool_name == kept.name)).first()
                return row is not None
            row = session.execute(_produced().where(Product.sop_instance_uid == kept.sop_instance_uid)).first()
            return row is not None and _produced_file(row) == kept

    def waiting_series(self) -> list[int]:
        """Series of which the spool lost instances that nobody has sent again."""
        current = exists().where(
            Instance.series_id == Series.id,
            Instance.sop_instance_uid == LostInstance.sop_instance_uid,
            Instance.is_current,
        )
        came = exists().where(
            Instance.series_id == Series.id, Instance.sop_instance_uid == LostInstance.sop_instance_uid
        )
        query = select(Series.id).join(LostInstance, LostInstance.series_uid == Series.series_uid)
        with self._database.read() as session:
            return list(session.scalars(query.where(came, ~current).distinct().order_by(Series.id)))

    def known_names(self) -> set[str]:
        """Names of all received files to which a row refers, also of replaced ones."""
        with self._database.read() as session:
            return set(session.scalars(select(Instance.spool_name)))


def _received() -> Any:
    return select(Instance).where(Instance.is_current)


def _produced() -> Any:
    query = select(Product, Job).join(Job, Job.id == Product.job_id)
    return query.where(Job.state.in_(_KEPT_RESULTS), Job.product_dir.is_not(None), Job.purged_at.is_(None))


def _received_file(row: Any) -> KeptFile:
    one: Instance = row[0]
    return KeptFile(
        one.series_id, None, str(one.series_id), one.sop_instance_uid, one.spool_name, one.sha256, one.size_bytes
    )


def _produced_file(row: Any) -> KeptFile:
    one, job = row
    name = f"{job.product_dir}/{one.file_name}"
    return KeptFile(
        job.series_id, job.id, case_id(job.series_id, job.run), one.sop_instance_uid, name, one.sha256, None
    )
