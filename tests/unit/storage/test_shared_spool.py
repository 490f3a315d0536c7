"""Hosts share files through an object store: nothing counts as kept before it is there, or as lost without proof."""

import errno
import hashlib
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storage import shared_spool
from storage.errors import ObjectsUnavailable, SpoolFull
from storage.shared_spool import MANIFEST, MARK, SharedSpool
from storage.spool import Condition, Wanted
from tests.object_stores import FaultyStore

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DATA = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_spool, "_PAUSE_S", 0.0)
    monkeypatch.setattr(shared_spool, "_PART_BYTES", 4096)


@pytest.fixture
def store() -> FaultyStore:
    store = FaultyStore()
    store.open.put(MARK, b"{}")
    return store


def spool_of(
    tmp_path: Path, host: str, store: FaultyStore, target_free_gb: float = 0.0, min_free_gb: float = 0.0
) -> SharedSpool:
    return SharedSpool(tmp_path / host, store.open, target_free_gb=target_free_gb, min_free_gb=min_free_gb)


def wanted(name: str, data: bytes = DATA) -> Wanted:
    return name, hashlib.sha256(data).hexdigest(), len(data)


def down(verb: str, _key: str) -> None:
    raise TimeoutError(verb)


def age(path: Path, seconds: float = 7200.0) -> None:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_a_received_file_is_kept_when_the_object_store_has_it(tmp_path: Path, store: FaultyStore) -> None:
    name = spool_of(tmp_path, "a", store).keep([DATA[:300], DATA[300:]], NOW)
    assert store.bytes_of(name) == DATA


def test_nothing_is_kept_while_the_object_store_does_not_answer(tmp_path: Path, store: FaultyStore) -> None:
    spool, store.before = spool_of(tmp_path, "a", store), down
    with pytest.raises(ObjectsUnavailable):
        spool.keep([DATA], NOW)
    assert [*(tmp_path / "a").rglob("*.dcm"), *(tmp_path / "a").rglob("*.part")] == []


def test_a_large_file_is_not_begun_with_a_server_that_does_not_answer(
    tmp_path: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request may take minutes, for which no scanner waits; a small one is given up after seconds."""
    monkeypatch.setattr(shared_spool, "BYTES_IN_TIME", len(DATA))
    spool = spool_of(tmp_path, "a", store)
    assert store.bytes_of(spool.keep([DATA, b"!"], NOW)) == DATA + b"!"
    store.before, before = down, store.asked["put"]
    with pytest.raises(ObjectsUnavailable):
        spool.keep([DATA, b"!"], NOW)
    assert store.asked["put"] == before


def test_another_host_reads_what_one_received(tmp_path: Path, store: FaultyStore) -> None:
    name = spool_of(tmp_path, "a", store).keep([DATA], NOW)
    other = spool_of(tmp_path, "b", store)
    other.fetch([wanted(name)])
    assert other.path(name).read_bytes() == DATA
    asked = store.asked["get"]
    other.fetch([wanted(name)])
    assert store.asked["get"] == asked, "what is here is not fetched again"


def test_a_fetch_that_breaks_off_goes_on_where_it_stopped(tmp_path: Path, store: FaultyStore) -> None:
    name = spool_of(tmp_path, "a", store).keep([DATA], NOW)
    gets = 0

    def once(verb: str, _key: str) -> None:
        nonlocal gets
        gets += verb == "get"
        if gets == 2:
            gets += 1
            raise ConnectionResetError

    store.before = once
    other = spool_of(tmp_path, "b", store)
    other.fetch([wanted(name)])
    assert other.path(name).read_bytes() == DATA
    assert store.asked["get"] == len(DATA) // 4096 + 1 + 1, "one request more, and not all of them"


def test_wrong_bytes_are_never_used(tmp_path: Path, store: FaultyStore) -> None:
    name = spool_of(tmp_path, "a", store).keep([DATA], NOW)
    other, store.after = spool_of(tmp_path, "b", store), lambda _verb, _key, answer: answer[:-1] + b"!"
    other.fetch([wanted(name)])
    assert not other.path(name).exists()
    assert other.condition(*wanted(name)) is Condition.DAMAGED


@pytest.mark.parametrize("there", [DATA[:5000], DATA[:4096], b"", DATA + b"!"])
def test_an_object_of_another_length_is_damaged_and_not_unavailable(
    tmp_path: Path, store: FaultyStore, there: bytes
) -> None:
    name = spool_of(tmp_path, "a", store).keep([DATA], NOW)
    store.open.put(name, there)
    other = spool_of(tmp_path, "b", store)
    assert other.condition(name, wanted(name)[1]) is Condition.DAMAGED
    expected = Condition.INTACT if there.startswith(DATA) else Condition.DAMAGED
    assert other.condition(*wanted(name)) is expected


def test_a_damaged_file_of_this_host_is_healed(tmp_path: Path, store: FaultyStore) -> None:
    spool = spool_of(tmp_path, "a", store)
    name = spool.keep([DATA], NOW)
    spool.path(name).write_bytes(DATA[:-1] + b"!")
    assert spool.condition(*wanted(name)) is Condition.INTACT
    assert spool.path(name).read_bytes() == DATA


def test_only_an_answer_makes_a_loss(tmp_path: Path, store: FaultyStore) -> None:
    name = spool_of(tmp_path, "a", store).keep([DATA], NOW)
    other, store.before = spool_of(tmp_path, "b", store), down
    assert other.condition(*wanted(name)) is Condition.UNREADABLE
    with pytest.raises(ObjectsUnavailable):
        other.fetch([wanted(name)])
    store.before = lambda _verb, _key: None
    store.open.delete([name])
    assert other.condition(*wanted(name)) is Condition.GONE


def test_a_full_disk_of_one_host_is_no_fault_of_a_file_or_a_job(
    tmp_path: Path, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, other = spool_of(tmp_path, "a", store).keep([DATA], NOW), spool_of(tmp_path, "b", store)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(other, "_download", full)
    with pytest.raises(ObjectsUnavailable, match=r"disk of the host .* takes no file.*: No space left"):
        other.fetch([wanted(name)])
    assert other.condition(*wanted(name)) is Condition.UNREADABLE


def test_in_an_emptied_or_foreign_bucket_nothing_is_lost(tmp_path: Path, store: FaultyStore) -> None:
    name = spool_of(tmp_path, "a", store).keep([DATA], NOW)
    store.open.delete([name, MARK])
    other = spool_of(tmp_path, "b", store)
    assert other.condition(*wanted(name)) is Condition.UNREADABLE
    with pytest.raises(ObjectsUnavailable, match="no mark"):
        other.fetch_folder("derived/7-1-12345678")


def test_after_one_failure_the_rest_is_not_asked_for(tmp_path: Path, store: FaultyStore) -> None:
    names = [spool_of(tmp_path, "a", store).keep([DATA], NOW) for _ in range(60)]
    store.asked.clear()
    store.before = down
    with pytest.raises(ObjectsUnavailable, match=r"cannot be used \(TimeoutError\)"):
        spool_of(tmp_path, "b", store).fetch([wanted(name) for name in names])
    assert store.asked["get"] + store.asked["head"] <= shared_spool.AT_ONCE * 3


def published(spool: SharedSpool, job: int = 7) -> str:
    staged = spool.stage(job, 1)
    for number in (1, 2):
        (staged / f"{number}.dcm").write_bytes(DATA + bytes([number]))
    (staged / "doubt.npz").write_bytes(b"doubt")
    return spool.publish(staged)


def test_a_result_is_published_whole_and_read_by_another_host(tmp_path: Path, store: FaultyStore) -> None:
    name = published(spool_of(tmp_path, "a", store))
    assert store.all_keys() == {MARK, *(f"{name}/{file}" for file in ("1.dcm", "2.dcm", "doubt.npz", MANIFEST))}
    other = spool_of(tmp_path, "b", store)
    other.fetch_folder(name)
    assert sorted(file.name for file in other.path(name).iterdir()) == ["1.dcm", "2.dcm", "doubt.npz"]
    assert (other.path(name) / "2.dcm").read_bytes() == DATA + bytes([2])


@pytest.mark.parametrize(
    "manifest", [b"", b'{"1.dcm": "ab', b"[]", b'{"1.dcm": 1}', b'{"../../store.json": "00"}', b"\xff"]
)
def test_a_damaged_manifest_is_none(
    tmp_path: Path, store: FaultyStore, caplog: pytest.LogCaptureFixture, manifest: bytes
) -> None:
    name = published(spool_of(tmp_path, "a", store))
    store.open.put(f"{name}/{MANIFEST}", manifest)
    other = spool_of(tmp_path, "b", store)
    other.fetch_folder(name)
    assert not other.path(name).exists()
    assert "is damaged" in caplog.text


def test_two_hosts_at_the_same_attempt_write_no_common_folder(tmp_path: Path, store: FaultyStore) -> None:
    one, two = published(spool_of(tmp_path, "a", store)), published(spool_of(tmp_path, "b", store))
    assert one != two
    spool_of(tmp_path, "a", store).unstage(spool_of(tmp_path, "a", store).path(one))
    assert {key.rpartition("/")[0] for key in store.all_keys()} == {"", two}
    assert spool_of(tmp_path, "c", store).shared_results(older_than=datetime.now(UTC) + timedelta(1)) == {two: 7}


def test_a_result_that_cannot_be_put_is_none(tmp_path: Path, store: FaultyStore) -> None:
    spool, store.before = spool_of(tmp_path, "a", store), down
    with pytest.raises(ObjectsUnavailable):
        published(spool)
    assert list((tmp_path / "a" / "derived").iterdir()) == []


def test_what_may_go_goes_here_and_there(tmp_path: Path, store: FaultyStore) -> None:
    spool = spool_of(tmp_path, "a", store)
    name, folder = spool.keep([DATA], NOW), published(spool)
    assert spool.remove([name], [folder]) > 0
    assert store.all_keys() == {MARK}
    name = spool.keep([DATA], NOW)
    store.before = down
    spool.discard(name)  # no error: the sweep finds it
    store.before = lambda _verb, _key: None
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert list(spool.shared_files(older_than=later)) == [[name]]
    assert list(spool.shared_files(older_than=NOW - timedelta(days=9))) == [[]]


def test_for_want_of_space_only_what_the_object_store_has_is_dropped(tmp_path: Path, store: FaultyStore) -> None:
    spool = spool_of(tmp_path, "a", store)
    kept, lacking, fresh = (spool.keep([DATA], NOW) for _ in range(3))
    for name in (kept, lacking):
        age(spool.path(name))
    store.open.delete([lacking])
    spool = spool_of(tmp_path, "a", store, target_free_gb=1e9)
    spool.make_room()
    assert [spool.path(name).exists() for name in (kept, lacking, fresh)] == [False, True, True]
    assert spool.condition(*wanted(kept)) is Condition.INTACT, "it is fetched again"


def test_no_file_is_dropped_while_the_object_store_does_not_answer(tmp_path: Path, store: FaultyStore) -> None:
    spool = spool_of(tmp_path, "a", store, min_free_gb=1e9)
    age(spool.path(super(SharedSpool, spool_of(tmp_path, "a", store)).keep([DATA], NOW)))
    store.before = down
    with pytest.raises(SpoolFull):
        spool.keep([DATA], NOW)
    assert len(list((tmp_path / "a").rglob("*.dcm"))) == 1


def room_is_made() -> None:
    for thread in threading.enumerate():
        if thread.name == "room":
            thread.join(10)


def test_a_receipt_does_not_wait_while_the_object_store_lists_what_may_be_dropped(
    tmp_path: Path, store: FaultyStore
) -> None:
    old, answers = spool_of(tmp_path, "a", store).keep([DATA], NOW), threading.Event()
    spool = spool_of(tmp_path, "a", store, target_free_gb=1e9)
    age(spool.path(old))

    def slow(verb: str, _key: str) -> None:
        assert verb != "list" or answers.wait(10)

    store.before = slow
    spool.keep([DATA], NOW)
    assert spool.path(old).exists(), "the list has not come yet"
    answers.set()
    room_is_made()
    assert not spool.path(old).exists()


def test_room_is_made_where_data_come_and_find_less_than_the_reserve(tmp_path: Path, store: FaultyStore) -> None:
    """The receiver refuses an instance below the reserve before it has a file, on a host where no retention runs."""
    name = spool_of(tmp_path, "a", store).keep([DATA], NOW)
    age(tmp_path / "a" / name)
    assert spool_of(tmp_path, "a", store, min_free_gb=1e9).spare_bytes() < 0
    room_is_made()
    assert not (tmp_path / "a" / name).exists()


def test_files_of_before_are_shared_once(tmp_path: Path, store: FaultyStore) -> None:
    spool = spool_of(tmp_path, "a", store)
    name = super(SharedSpool, spool).keep([DATA], NOW)
    assert spool.share([wanted(name), wanted("received/20260131/none.dcm")]) == 1
    assert spool.share([wanted(name)]) == 0
    assert store.bytes_of(name) == DATA


def test_a_file_that_came_again_takes_the_place_of_the_lost_one_everywhere(tmp_path: Path, store: FaultyStore) -> None:
    spool = spool_of(tmp_path, "a", store)
    lost, again = spool.keep([DATA], NOW), spool.keep([DATA], NOW)
    spool.path(lost).unlink()
    store.open.delete([lost])
    spool.restore(again, lost)
    assert store.bytes_of(lost) == DATA == spool.path(lost).read_bytes()
