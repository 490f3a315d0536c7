"""Many associations share one sync and one commit, and nobody is answered before it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from storage.database import Database
from storage.errors import StoreUnavailable
from storage.intake import Intake
from storage.series import Arrival, Closing, Identifiers, Opening, Receipt, Recorded, SeriesStore
from storage.spool import Spool
from storage.tables import Association, Instance

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
WAIT_S = 20.0


class GatedStore:
    """A store whose first transaction waits at a gate, so that the arrivals behind it become one group.

    `fault` is called with the receipts of every transaction before it begins.
    """

    def __init__(self, real: SeriesStore) -> None:
        self.real, self.groups = real, list[int]()
        self.entered, self.gate = threading.Event(), threading.Event()
        self.fault: Callable[[int], None] = lambda _size: None

    def record_group(self, receipts: Any) -> Any:
        if not self.entered.is_set():
            self.entered.set()
            assert self.gate.wait(WAIT_S)
        self.groups.append(len(receipts))
        self.fault(len(receipts))
        return self.real.record_group(receipts)


class CountingSpool(Spool):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.settled: list[list[str]] = []

    def settle(self, names: Any) -> None:
        self.settled.append(list(names))
        super().settle(self.settled[-1])


class Crowd:
    """Associations that record one arrival each: the first alone, the others as one group behind it."""

    def __init__(self, database: Database, spool: CountingSpool) -> None:
        self.database, self.spool = database, spool
        self.store = GatedStore(SeriesStore(database))
        self.intake = Intake(spool, self.store)  # type: ignore[arg-type]

    def receipt(self, number: int, **changes: Any) -> Receipt:
        association = self.store.real.open_association("receiver", "CTSIM", "10.0.0.1", NOW)
        values: dict[str, Any] = {
            "study_uid": "1.2",
            "series_uid": "1.2.3",
            "sop_instance_uid": f"1.2.3.{number}",
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "sha256": str(number).zfill(64),
            "spool_name": self.spool.keep((b"instance",), NOW),
            "size_bytes": 8,
        }
        return Receipt(association, "CTSIM", Arrival(**(values | changes)), NOW)

    def record(self, receipts: list[Receipt], *, before_the_gate_opens: Callable[[], None] = lambda: None) -> Any:
        """What each `record` returned or raised."""
        with ThreadPoolExecutor(len(receipts)) as threads:
            answers: list[Future[Recorded]] = [threads.submit(self.intake.commit, receipts[0])]
            assert self.store.entered.wait(WAIT_S)
            answers += [threads.submit(self.intake.commit, receipt) for receipt in receipts[1:]]
            while self.intake.waiting < len(receipts) - 1:
                time.sleep(0.001)
            before_the_gate_opens()
            assert not any(answer.done() for answer in answers)
            self.store.gate.set()
            return [answer.exception(WAIT_S) or answer.result(WAIT_S) for answer in answers]

    def recorded(self) -> set[str]:
        with self.database.read() as session:
            return set(session.scalars(select(Instance.spool_name)))


@pytest.fixture
def crowd(database: Database, tmp_path: Path) -> Crowd:
    return Crowd(database, CountingSpool(tmp_path / "spool"))


def test_arrivals_that_wait_share_one_transaction_and_one_sync_of_the_directory(crowd: Crowd) -> None:
    receipts = [crowd.receipt(number) for number in range(8)]
    assert crowd.record(receipts) == [Recorded.NEW] * 8
    assert crowd.store.groups == [1, 7]
    assert [len(names) for names in crowd.spool.settled] == [1, 7]
    assert crowd.recorded() == {receipt.arrival.spool_name for receipt in receipts}


def test_associations_begin_and_end_in_the_transaction_of_the_others(crowd: Crowd) -> None:
    first, second = crowd.receipt(0), crowd.receipt(1)
    others: list[Opening | Closing | Receipt] = [
        second,
        Closing(first.association_id, True, NOW),
        Opening("receiver", "OTHER", "10.0.0.2", NOW),
    ]
    with ThreadPoolExecutor(4) as threads:
        answers: list[Future[Any]] = [threads.submit(crowd.intake.commit, first)]
        assert crowd.store.entered.wait(WAIT_S)
        answers += [threads.submit(crowd.intake.commit, entry) for entry in others]
        while crowd.intake.waiting < 3:
            time.sleep(0.001)
        crowd.store.gate.set()
        *_, closed, opened = [answer.result(WAIT_S) for answer in answers]
    assert crowd.store.groups == [1, 3]
    assert [len(names) for names in crowd.spool.settled] == [1, 1]
    assert closed is None
    with crowd.database.read() as session:
        outcomes = dict(session.execute(select(Association.id, Association.outcome)).tuples().all())
    assert outcomes == {first.association_id: "RELEASED", second.association_id: "OPEN", opened: "OPEN"}


def test_in_one_group_everything_means_what_it_means_alone(crowd: Crowd) -> None:
    receipts = [
        crowd.receipt(0),
        crowd.receipt(1),
        crowd.receipt(1),
        crowd.receipt(1, sha256="f" * 64),
        crowd.receipt(2, series_uid="1.2.4"),
        crowd.receipt(3, series_uid="1.2.4"),
    ]
    answers = crowd.record(receipts)
    assert sorted(answer.value for answer in answers) == ["duplicate", "new", "new", "new", "new", "replaced"]
    assert crowd.store.groups == [1, 5]
    waiting = crowd.store.real.undecided(NOW, 0.0)
    assert {series.series_uid: series.arrivals for series in waiting} == {"1.2.3": 4, "1.2.4": 2}


def test_one_bad_arrival_fails_alone(crowd: Crowd) -> None:
    receipts = [crowd.receipt(number) for number in range(5)]
    receipts[2] = crowd.receipt(2, sha256=None)
    answers = crowd.record(receipts)
    assert [answer is Recorded.NEW for answer in answers] == [True, True, False, True, True]
    assert isinstance(answers[2], Exception)
    assert crowd.recorded() == {r.arrival.spool_name for r in receipts if r is not receipts[2]}


def test_a_database_that_is_gone_is_everybodys_failure_and_the_next_try_succeeds(crowd: Crowd) -> None:
    def gone(size: int) -> None:
        if size > 1:
            raise StoreUnavailable("disk I/O error")

    crowd.store.fault = gone
    receipts = [crowd.receipt(number) for number in range(4)]
    first, *others = crowd.record(receipts)
    assert first is Recorded.NEW
    assert all(isinstance(answer, StoreUnavailable) for answer in others)
    crowd.store.fault = lambda _size: None
    assert [crowd.intake.commit(receipt) for receipt in receipts[1:]] == [Recorded.NEW] * 3


def test_nobody_is_answered_before_the_commit(crowd: Crowd) -> None:
    receipts = [crowd.receipt(number) for number in range(4)]

    def nothing_is_recorded() -> None:
        assert crowd.recorded() == set()

    assert crowd.record(receipts, before_the_gate_opens=nothing_is_recorded) == [Recorded.NEW] * 4


def test_a_crash_between_the_sync_and_the_commit_leaves_files_without_rows_and_no_answer(crowd: Crowd) -> None:
    class Crash(BaseException):
        pass

    def crash(size: int) -> None:
        raise Crash

    crowd.store.fault = crash
    answers = crowd.record([crowd.receipt(number) for number in range(4)])
    assert all(isinstance(answer, Crash) for answer in answers)
    assert crowd.recorded() == set()
    assert len(list((crowd.spool.root / "received").rglob("*.dcm"))) == 4


def test_arrivals_of_many_threads_are_all_recorded(crowd: Crowd) -> None:
    crowd.store.gate.set()
    receipts = [crowd.receipt(number) for number in range(60)]
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(crowd.intake.commit, receipts)) == [Recorded.NEW] * 60
    assert len(crowd.recorded()) == 60
    (series,) = crowd.store.real.undecided(NOW, 0.0)
    assert series.arrivals == 60


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_known_file_that_is_gone_comes_back_with_the_same_instance(
    database: Database, tmp_path: Path, is_gone: bool
) -> None:
    store, spool = SeriesStore(database), Spool(tmp_path / "spool")
    intake = Intake(spool, store)
    association = store.open_association("receiver", "CTSIM", "10.0.0.1", NOW)
    known = Identifiers("1.2", "1.2.3", "1.2.3.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")
    assert intake.keep(association, "CTSIM", known, (b"head", b"data"), NOW) is Recorded.NEW
    (path,) = (tmp_path / "spool" / "received").rglob("*.dcm")
    if is_gone:
        path.unlink()
        path.parent.rmdir()
    assert intake.keep(association, "CTSIM", known, (b"head", b"data"), NOW) is Recorded.DUPLICATE
    assert list((tmp_path / "spool" / "received").rglob("*.dcm")) == [path]
    assert path.read_bytes() == b"headdata"


def test_senders_that_try_again_at_once_do_not_keep_out_a_database_that_is_back(crowd: Crowd) -> None:
    """Each refusal owes the store an entry: where they came faster than they are paid, nothing was taken any more."""
    crowd.store.gate.set()
    identifiers, association = crowd.receipt(0).arrival, crowd.receipt(1).association_id
    is_down, refused = threading.Event(), threading.Event()
    is_down.set()

    def slow_or_gone(_size: int) -> None:
        if is_down.is_set():
            raise StoreUnavailable("the database is gone")
        threading.Event().wait(0.02)

    crowd.store.fault = slow_or_gone
    deadline = time.monotonic() + WAIT_S / 4
    named = Identifiers(**{field.name: getattr(identifiers, field.name) for field in fields(Identifiers)})

    def send() -> Recorded | None:
        while time.monotonic() < deadline:
            try:
                return crowd.intake.keep(association, "CTSIM", named, (b"instance",), NOW)
            except StoreUnavailable:
                crowd.intake.commit_later(Closing(association, True, NOW), object())
                refused.set()
                time.sleep(0.005)
        return None

    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(send)
        assert refused.wait(WAIT_S)
        is_down.clear()
        assert answer.result(WAIT_S) is Recorded.NEW
