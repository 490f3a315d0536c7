"""The ledger holds what the node said yes to and what a TPS said yes to; the judge compares it with store and spool."""

import hashlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.overview import Overview
from storage.states import DeliveryState, JobState
from storage.tables import Delivery, DeliveryInstance, Instance, Job, Product, Series

WHOLE = frozenset({"SENT", "CONFIRMED"})


@dataclass(frozen=True)
class Content:
    """A data set by its size and its digest; a file has it where it ends with these bytes."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> "Content":
        """The content of a data set."""
        return cls(len(data), hashlib.sha256(data).hexdigest())

    def is_in(self, path: Path) -> bool:
        """Whether the file is there and ends with this data set."""
        try:
            data = path.read_bytes()
        except OSError:
            return False
        return len(data) > self.size and Content.of(data[len(data) - self.size :]) == self


@dataclass(frozen=True)
class Taken:
    """One instance that the TPS answered with 0x0000."""

    uid: str
    source_uid: str
    content: Content


@dataclass
class Verdict:
    """What was found, each as a sentence; all four lists are empty where the node kept its word."""

    acknowledged: int = 0
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings()

    def findings(self) -> list[str]:
        """Everything that is wrong, the kind first."""
        kinds = (("lost", self.lost), ("twice", self.twice), ("false", self.false), ("stuck", self.stuck))
        return [f"{kind}: {text}" for kind, texts in kinds for text in texts]


class Ledger:
    """What was promised, written by the scanners and the TPS at the moment of each yes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.acknowledged: dict[str, tuple[str, Content]] = {}  # by SOP Instance UID: series and content
        self.taken: list[Taken] = []
        self.ends: dict[str, frozenset[str]] = {}  # by SeriesInstanceUID
        self.sizes: dict[str, int] = {}

    def expect(self, series_uid: str, slices: int, ends: frozenset[str] = WHOLE) -> None:
        """This series comes, and must end in one of these states of `jobs ls`."""
        with self._lock:
            self.sizes[series_uid] = slices
            self.ends.setdefault(series_uid, ends)

    def allow(self, series_uid: str, *states: str) -> None:
        """These states are an end of this series, too: a fault of it needs a person by design."""
        with self._lock:
            self.ends[series_uid] = self.ends.get(series_uid, WHOLE) | frozenset(states)

    def acknowledge(self, series_uid: str, uid: str, data: bytes) -> None:
        """The node answered 0x0000."""
        with self._lock:
            self.acknowledged[uid] = series_uid, Content.of(data)

    def take(self, uid: str, source_uid: str, data: bytes) -> None:
        """The TPS is about to answer 0x0000."""
        with self._lock:
            self.taken.append(Taken(uid, source_uid, Content.of(data)))

    def copies(self) -> tuple[dict[str, tuple[str, Content]], list[Taken]]:
        """What there is at this moment."""
        with self._lock:
            return dict(self.acknowledged), list(self.taken)


def unsettled(ledger: Ledger, database: Database) -> list[str]:
    """The expected series that have not come to one of their ends, each as a sentence."""
    cases = {}
    for case in Overview(database).cases(limit=0):
        if case.state != "SUPERSEDED" and case.series_uid not in cases:
            cases[case.series_uid] = case
    waiting = []
    for series_uid, ends in list(ledger.ends.items()):
        if series_uid not in cases:
            waiting.append(f"series ..{series_uid[-8:]} is not in the store")
            continue
        case = cases[series_uid]
        if case.state not in ends or (case.state in WHOLE and case.slices.sent != ledger.sizes[series_uid]):
            slices = f"{case.slices.received} received, {case.slices.sent} sent"
            waiting.append(f"job {case.id} is {case.state} ({case.reason}; {slices})")
    return waiting


def judge(ledger: Ledger, database: Database, spool: Path) -> Verdict:
    """Compare what was promised with what there is, after the node had time to recover."""
    acknowledged, taken = ledger.copies()
    verdict = Verdict(acknowledged=len(acknowledged))
    with database.read() as session:
        verdict.lost = list(_lost(session, spool, acknowledged))
        verdict.twice = [*_two_rows(session), *_two_results(session, taken)]
        verdict.false = list(_false(session, spool, taken))
    verdict.stuck = unsettled(ledger, database)
    return verdict


def lost_instances(ledger: Ledger, database: Database, spool: Path) -> list[str]:
    """Only what was acknowledged and is gone."""
    with database.read() as session:
        return list(_lost(session, spool, ledger.copies()[0]))


def forgotten(ledger: Ledger, database: Database, spool: Path) -> Iterator[str]:
    """What the TPS took and the node does not have any more: it would make it anew, with other bytes."""
    with database.read() as session:
        rows = session.execute(select(Product, Job.product_dir).join(Job, Job.id == Product.job_id))
        files = {product.sop_instance_uid: spool / str(folder) / product.file_name for product, folder in rows}
    for each in ledger.copies()[1]:
        if each.uid not in files or not each.content.is_in(files[each.uid]):
            yield f"the TPS has ..{each.uid[-8:]}, and the node has not"


# The series whose received files retention took, after their results had come to the TPS.
_REMOVED = (
    select(Series.series_uid)
    .join(Job, Job.series_id == Series.id)
    .join(Delivery, Delivery.job_id == Job.id)
    .where(Series.purged_at.is_not(None), Delivery.state.in_((DeliveryState.SENT, DeliveryState.CONFIRMED)))
)


def _lost(session: Session, spool: Path, acknowledged: dict[str, tuple[str, Content]]) -> Iterator[str]:
    rows = session.execute(
        select(Series.series_uid, Instance.sop_instance_uid, Instance.spool_name)
        .join(Series, Series.id == Instance.series_id)
        .where(Instance.is_current)
    )
    names = {(series_uid, uid): name for series_uid, uid, name in rows}
    removed = set(session.scalars(_REMOVED))
    for uid, (series_uid, content) in acknowledged.items():
        if series_uid in removed:
            continue
        name = names.get((series_uid, uid))
        if name is None:
            yield f"instance ..{uid[-8:]} has no row"
        elif not content.is_in(spool / name):
            yield f"instance ..{uid[-8:]} has a row, and {name} is not its file"


def _two_rows(session: Session) -> Iterator[str]:
    seen: set[tuple[int, str]] = set()
    for series_id, uid in session.execute(
        select(Instance.series_id, Instance.sop_instance_uid).where(Instance.is_current)
    ):
        if (series_id, uid) in seen:
            yield f"instance ..{uid[-8:]} has two current rows"
        seen.add((series_id, uid))


def _two_results(session: Session, taken: list[Taken]) -> Iterator[str]:
    contents: dict[str, set[Content]] = defaultdict(set)
    results: dict[str, set[str]] = defaultdict(set)
    gone = select(Product.sop_instance_uid).join(Job, Job.id == Product.job_id)
    withdrawn = set(session.scalars(gone.where(Job.state.in_((JobState.SUPERSEDED, JobState.CANCELLED)))))
    for each in taken:
        contents[each.uid].add(each.content)
        if each.uid not in withdrawn:
            results[each.source_uid].add(each.uid)
    for uid, different in contents.items():
        if len(different) > 1:
            yield f"the TPS has {len(different)} contents under ..{uid[-8:]}"
    for source_uid, uids in results.items():
        if len(uids) > 1:
            yield f"the TPS has {len(uids)} results of source ..{source_uid[-8:]}"


def _false(session: Session, spool: Path, taken: list[Taken]) -> Iterator[str]:
    has: dict[str, list[Content]] = defaultdict(list)
    for each in taken:
        has[each.uid].append(each.content)
    said = set(session.scalars(select(DeliveryInstance.product_id)))
    rows = session.execute(
        select(Product, Job.product_dir, Job.purged_at, Delivery.state)
        .join(Job, Job.id == Product.job_id)
        .join(Delivery, Delivery.job_id == Job.id)
    )
    for product, folder, purged_at, state in rows:
        if state not in (DeliveryState.SENT, DeliveryState.CONFIRMED) and product.id not in said:
            continue
        if product.sop_instance_uid not in has:
            yield f"..{product.sop_instance_uid[-8:]} is recorded as sent, and the TPS never took it"
        elif purged_at is None and not any(
            content.is_in(spool / str(folder) / product.file_name) for content in has[product.sop_instance_uid]
        ):
            yield f"the TPS has other bytes of ..{product.sop_instance_uid[-8:]} than the spool"
