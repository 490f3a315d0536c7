"""A PostgreSQL server that hangs or stops under a receiver: nothing waits for it without end, nothing is lost."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.receive.receiver import Receiver
from storage.database import Database
from storage.errors import StoreUnavailable
from storage.jobs import JobStore
from storage.outbox import OutboxStore
from storage.peers import PeerStore
from storage.refusals import RefusalStore
from storage.schema import ensure_schema
from storage.series import SeriesStore
from storage.spool import Condition, Spool
from tests.conftest import PostgresCluster
from tests.peers.conftest import MakeCt, StartReceiver, Store
from tests.peers.test_receiver_storing import association, store_one

SOON_S = 8.0  # a connection that hangs is given up, and then one to connect
BACK_S = 15.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    with PostgresCluster() as cluster:
        database = Database(cluster.url())
        ensure_schema(database)
        database.close()
        yield cluster


@pytest.fixture
def store(tmp_path: Path, cluster: PostgresCluster) -> Iterator[Store]:
    """As the usual one, on PostgreSQL; each test has a series of its own in it."""
    database = Database(cluster.url())
    kinds: Any = (SeriesStore, JobStore, OutboxStore, RefusalStore, PeerStore)
    series, *others = (kind(database) for kind in kinds)
    yield Store(database, Spool(tmp_path / "spool"), series, *others)
    database.close()


def send_until(receiver: Receiver, ds: Any, status: int) -> None:
    deadline = time.monotonic() + BACK_S
    while store_one(receiver, ds).Status != status:
        assert time.monotonic() < deadline, f"the answer did not become {status:04X}"


def test_a_server_that_hangs_is_answered_soon_and_ends_by_itself(
    store: Store, start_receiver: StartReceiver, make_ct: MakeCt, cluster: PostgresCluster, caplog: Any
) -> None:
    receiver = start_receiver()
    with association(receiver) as link:
        assert link.send_c_store(make_ct(instance=1)).Status == 0x0000
        with cluster.hung():
            for instance in (2, 3):
                began_s = time.monotonic()
                answer = link.send_c_store(make_ct(instance=instance))
                assert time.monotonic() - began_s < SOON_S
                assert answer.Status == 0xA700
                assert answer.ErrorComment == "the database cannot be used; try again"
    for instance in (2, 3):
        send_until(receiver, make_ct(instance=instance), 0x0000)
    rows = [row for row in store.instances() if row.is_current]
    assert len(rows) == 3
    assert all(store.spool.condition(row.spool_name, row.sha256) is Condition.INTACT for row in rows)
    assert "Traceback" not in caplog.text


def test_a_command_on_a_server_that_hangs_ends_with_a_sentence(
    cluster: PostgresCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.postgresql.BoundedConnection.silence_s", 1.0)
    reader = Database(cluster.url(), read_only=True)
    with reader.read() as session:
        session.connection()
        with cluster.hung(), pytest.raises(StoreUnavailable, match="the server did not answer for 1 s"):
            session.connection().exec_driver_sql("SELECT 1")
    with cluster.hung(), pytest.raises(StoreUnavailable, match="cannot be read: "):
        reader.current_revision()
    assert reader.current_revision() is not None
    reader.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_stops_while_instances_come_loses_none(
    store: Store, start_receiver: StartReceiver, make_ct: MakeCt, cluster: PostgresCluster, mode: str, caplog: Any
) -> None:
    receiver = start_receiver()
    elements = {"SeriesInstanceUID": f"1.2.{len(mode)}"}
    answers: list[tuple[str, int]] = []
    ends = threading.Event()

    def send(sender: int) -> None:
        number = sender
        while not ends.is_set():
            ds = make_ct(instance=number, **elements, SOPInstanceUID=f"1.2.{len(mode)}.{number}")
            answer = int(store_one(receiver, ds).Status)
            answers.append((ds.SOPInstanceUID, answer))
            number += 10 if answer == 0x0000 else 0

    def wait_for(what: Any) -> None:
        deadline = time.monotonic() + BACK_S
        while not what():
            assert time.monotonic() < deadline
            ends.wait(0.02)

    def acknowledged() -> set[str]:
        return {uid for uid, status in list(answers) if status == 0x0000}

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(1, 4)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(acknowledged()) > 5)
        cluster.stop(mode)
        wait_for(lambda: any(status == 0xA700 for _, status in list(answers)))
        before = len(acknowledged())
        cluster.start()
        wait_for(lambda: len(acknowledged()) > before + 5)
    finally:
        ends.set()
        for thread in threads:
            thread.join()
    assert {status for _, status in answers} == {0x0000, 0xA700}
    rows = {row.sop_instance_uid: row for row in store.instances() if row.is_current}
    for uid in acknowledged():
        assert store.spool.condition(rows[uid].spool_name, rows[uid].sha256) is Condition.INTACT
    assert "Traceback" not in caplog.text
