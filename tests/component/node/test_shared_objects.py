"""What the parts of a node on several hosts do with the object store: they settle, wait, sweep, verify and share."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from config.load import load_settings
from config.settings import RetentionSettings
from node.bootstrap import shared as shared_module
from node.bootstrap import store as store_module
from node.bootstrap.roles import make_courier
from node.bootstrap.store import Node, open_store, read_store
from node.errors import DamagedInstance
from node.network.no_association import NoAssociation
from node.ops.cached import CacheTidy
from node.ops.retention import Retention, remove_files
from node.send import courier as courier_module
from node.send.preflight import Preflight
from node.send.scu import SendReport, intact_bytes
from node.translate.job import DerivedFile, JobResult
from node.translate.worker import Worker
from storage import shared_spool
from storage.errors import ObjectsUnavailable, WrongStore
from storage.retention import Ages
from storage.shared_spool import MARK, SharedSpool
from tests.component.node.test_spool_commands import Kept
from tests.departments import START
from tests.object_stores import FaultyStore

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> FaultyStore:
    """The bucket of every node of this test."""
    store = FaultyStore()
    for module in (shared_module, store_module):
        monkeypatch.setattr(module, "objects_of", lambda _settings: store.open)
    monkeypatch.setattr(shared_spool, "_PAUSE_S", 0.0)
    return store


def down(verb: str, _key: str) -> None:
    raise TimeoutError(verb)


def host(config: Path, name: str = "") -> Path:
    """The settings of a host of one node; the first has the database in its data folder."""
    own = (
        ""
        if not name
        else f'data_dir = "{name}"\ndatabase_url = "sqlite:///{config.parent}/syncect-data/syncect.sqlite3"'
    )
    path = config.with_name(f"host{name}.toml")
    path.write_text(f'[node]\n{own}\n[spool]\nurl = "s3://department/spool"\n{config.read_text()}')
    return path


@pytest.fixture
def kept(config: Path, bucket: FaultyStore) -> Iterator[Kept]:
    with open_store(load_settings(host(config))) as node:
        yield Kept(node)


# -- settling ------------------------------------------------------------------------------------------------------


def test_another_host_takes_the_marks_of_the_bucket(kept: Kept, config: Path, bucket: FaultyStore) -> None:
    case_id = kept.produced()
    settings = load_settings(host(config, "b"))
    with read_store(settings) as before:
        assert before.overview.case(case_id).state == "PRODUCED", "a host that has nothing yet may look"
    with open_store(settings) as other:
        for name in ("store.json", "installation.json"):
            mine, theirs = ((one.settings.node.data_dir).rglob(name) for one in (kept.node, other))
            assert next(mine).read_text() == next(theirs).read_text()
    bucket.before = down
    with open_store(settings):
        pass  # it does not wait for the object store once it has settled


def test_a_host_does_not_begin_with_a_foreign_bucket_or_without_one(
    kept: Kept, config: Path, bucket: FaultyStore
) -> None:
    bucket.before = down
    with pytest.raises(ObjectsUnavailable), open_store(load_settings(host(config, "b"))):
        pass
    bucket.before = lambda _verb, _key: None
    bucket.open.put(MARK, b'{"uid": "2.25.1"}')
    with pytest.raises(WrongStore, match="belongs to another node"), open_store(load_settings(host(config, "b"))):
        pass


def test_a_new_database_does_not_begin_beside_a_full_bucket(kept: Kept, config: Path, tmp_path: Path) -> None:
    kept.arrive()
    path = tmp_path / "new.toml"
    path.write_text('[node]\ndata_dir = "new"\n[spool]\nurl = "s3://department/spool"\n')
    with (
        pytest.raises(WrongStore, match="is new, but s3://department/spool holds files"),
        open_store(load_settings(path)),
    ):
        pass


def test_a_host_whose_settings_lost_the_bucket_does_not_begin_alone(
    kept: Kept, config: Path, bucket: FaultyStore, run: Run
) -> None:
    """What lies only in the bucket would count as lost, and no other host would find what comes."""
    kept.queued()
    alone = ("--config", str(config))
    with (
        pytest.raises(WrongStore, match=r"in s3://department/spool, but spool\.url is not set"),
        open_store(load_settings(config)),
    ):
        pass
    code, out, _ = run(*alone, "status")
    assert (code, "spool.url is not set" in " ".join(out.split())) == (2, True), out
    assert run(*alone, "spool", "repair", "--yes")[0] == 2
    (kept.node.spool.root / "objects.json").unlink()
    with open_store(load_settings(config)):
        pass


def test_files_of_before_are_put_there_by_one_command(config: Path, bucket: FaultyStore, run: Run) -> None:
    with open_store(load_settings(config)) as node:
        Kept(node).produced()
    settings = host(config)
    with pytest.raises(WrongStore, match="`syncect spool share` puts them there"), open_store(load_settings(settings)):
        pass
    code, _, said = run("--config", str(settings), "spool", "share")
    assert (code, "3 received files and 1 results put into s3://department/spool" in said) == (0, True), said
    with open_store(load_settings(host(config, "b"))) as other:
        product = other.overview.products(other.overview.case("1"))[0]
        other.spool.fetch_folder(str(other.overview.case("1").product_dir))
        assert (other.spool.path(str(other.overview.case("1").product_dir)) / product.file_name).exists()


def test_a_damaged_file_of_a_host_never_replaces_the_good_one_of_the_bucket(
    kept: Kept, config: Path, bucket: FaultyStore, run: Run
) -> None:
    """`spool share` may be repeated, also on a host whose disk has cut a file meanwhile."""
    kept.arrive()
    (name, *_) = kept.node.series.spool_names(1)
    whole = bucket.bytes_of(name)
    kept.node.spool.path(name).write_bytes(whole[:-1])
    code, _, said = run("--config", str(host(config)), "spool", "share")
    assert (code, "0 received files" in said) == (0, True), said
    assert bucket.bytes_of(name) == whole


# -- a worker and a courier of another host ------------------------------------------------------------------------


def worker_of(node: Node, now: datetime, ran: list[Path]) -> Worker:
    class Executor:
        bundle, description, spare_devices = "demo 1 (abc)", "fake on nothing", 0

        def run(self, paths: Any, _options: Any, out_dir: Path, _progress: Any) -> JobResult:
            ran.extend(paths)
            if not all(path.exists() for path in paths):
                raise DamagedInstance("a file of the series does not exist any more")
            path = out_dir / "0001.dcm"
            path.write_bytes(b"derived")
            digest = hashlib.sha256(b"derived").hexdigest()
            return JobResult("9", "1.2", (DerivedFile("9.1", "1.2.3.1.0", path, digest),), None, {})

    return Worker(
        node.jobs,
        node.spool,
        lambda _bundle, _faults: Executor(),  # type: ignore[arg-type, return-value]
        lambda _job, _now: None,  # type: ignore[arg-type, return-value]
        ["tps"],
        name="b",
        clock=lambda: now,
    )


def test_a_job_waits_for_an_object_store_that_is_away_and_never_fails_by_it(
    kept: Kept, config: Path, bucket: FaultyStore
) -> None:
    case_id = kept.queued()
    with open_store(load_settings(host(config, "b"))) as other:
        now, ran = START, list[Path]()
        other.spool.fetch(other.series.wanted(other.series.spool_names(1)))
        bucket.before = down
        for _ in range(5):
            assert worker_of(other, now, ran).run_once(threading.Event())
            assert ran == [], "nothing is translated whose result could not be kept, also where its files are here"
            case = other.overview.case(case_id)
            assert (case.state, case.attempts, "object store" in case.reason) == ("QUEUED", 0, True)
            now += timedelta(seconds=31)
        bucket.before = lambda verb, key: down(verb, key) if key.startswith("derived") else None
        assert worker_of(other, now, ran).run_once(threading.Event())
        assert other.overview.case(case_id).state == "QUEUED", "no result counts before the object store has it"
        assert len(ran) == 3
        bucket.before = lambda _verb, _key: None
        assert worker_of(other, now + timedelta(seconds=31), ran).run_once(threading.Event())
        assert other.overview.case(case_id).state == "PRODUCED"
    assert {key.rpartition("/")[2] for key in bucket.all_keys() if key.startswith("derived")} == {
        "0001.dcm",
        "manifest.json",
    }


def test_a_lost_object_is_waited_for_like_a_lost_file(kept: Kept, config: Path, bucket: FaultyStore) -> None:
    case_id = kept.queued()
    name = kept.node.series.sources(1)[1].spool_name
    bucket.open.delete([name])
    with open_store(load_settings(host(config, "b"))) as other:
        assert worker_of(other, START, []).run_once(threading.Event())
        assert "resend of 1 image" in other.overview.case(case_id).reason


def other_bytes(bucket: FaultyStore, name: str) -> bytes:
    """Somebody writes others of the same length over an object; what it had."""
    whole = bucket.bytes_of(name)
    bucket.open.put(name, whole[:-1] + b"!")
    return whole


def lost_by_worker(kept: Kept, config: Path, name: str) -> None:
    with open_store(load_settings(host(config, "b"))) as other:
        assert worker_of(other, START, []).run_once(threading.Event())
    assert kept.node.series.lost_sources(1)[0].spool_name == name


def test_a_resend_puts_the_right_bytes_in_the_place_of_wrong_ones_of_the_bucket(
    kept: Kept, config: Path, bucket: FaultyStore
) -> None:
    """The receiver's own copy is whole, and the object as long as it was."""
    kept.queued()
    name = kept.node.series.sources(1)[1].spool_name
    whole = other_bytes(bucket, name)
    lost_by_worker(kept, config, name)
    for n in range(3):
        kept.send(1, n)
    assert bucket.bytes_of(name) == whole
    kept.requeue()
    with open_store(load_settings(host(config, "b"))) as other:
        assert worker_of(other, START, []).run_once(threading.Event())
    assert kept.node.overview.case("1").state == "PRODUCED"


def test_a_host_that_has_the_file_puts_it_back_by_repair(
    kept: Kept, config: Path, bucket: FaultyStore, run: Run
) -> None:
    kept.queued()
    name = kept.node.series.sources(1)[1].spool_name
    whole = other_bytes(bucket, name)
    lost_by_worker(kept, config, name)
    code, out, said = run("--config", str(host(config)), "spool", "repair", "--yes")
    assert (code, "it counts again" in out) == (0, True), said
    assert bucket.bytes_of(name) == whole


def test_a_delivery_waits_for_an_object_store_that_is_away(kept: Kept, config: Path, bucket: FaultyStore) -> None:
    case_id = kept.produced()
    with open_store(load_settings(host(config, "b"))) as other:
        bucket.before = down
        assert make_courier(other, "b").run_once(other.settings.destination[0])
        case = other.overview.case(case_id)
        assert (case.state, "nothing was sent: the object store" in case.reason) == ("SENDING", True), case
        assert case.attempts == 1, "nobody makes the result again for that"


def test_a_result_that_is_damaged_each_time_it_is_fetched_does_not_keep_the_workers_busy(
    kept: Kept, config: Path, bucket: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network of one host, or the server, gives other bytes."""

    class Sender:
        def send(self, items: Any, *_: Any, sha256: dict[str, str]) -> SendReport:
            (uid, path), *_rest = items
            with pytest.raises(NoAssociation) as failed:
                intact_bytes(path, uid, sha256[uid])
            return SendReport(failed.value.outcome, failed.value.reason, ())

    monkeypatch.setattr(courier_module, "sender_for", lambda *_: Sender())
    monkeypatch.setattr(Preflight, "why_not", lambda *_: None)  # these files are no whole CT images
    case_id = kept.queued()
    assert worker_of(kept.node, START, []).run_once(threading.Event())
    with open_store(load_settings(host(config, "b"))) as other:
        bucket.after = lambda _verb, key, answer: answer[:-1] + b"!" if key.startswith("derived") else answer
        for is_made_at_once in (True, False):
            assert make_courier(other, "b").run_once(other.settings.destination[0])
            case = other.overview.case(case_id)
            assert (case.state, "the result is made again" in case.reason) == ("QUEUED", True), case
            soon = datetime.now(UTC) + timedelta(seconds=30)
            assert worker_of(kept.node, soon, []).run_once(threading.Event()) is is_made_at_once
        assert "2 times in a day" in case.reason
        assert worker_of(kept.node, soon + timedelta(minutes=1), []).run_once(threading.Event())


@pytest.mark.parametrize(("lost", "state"), [(False, "SENDING"), (True, "QUEUED")])
def test_a_file_that_leaves_the_cache_while_it_is_sent_is_fetched_again_and_not_made_again(
    kept: Kept, config: Path, bucket: FaultyStore, monkeypatch: pytest.MonkeyPatch, lost: bool, state: str
) -> None:
    """A slow peer takes longer than a cached file is safe from being dropped for want of space."""
    case_id = kept.produced()

    class SlowSender:
        def send(self, items: Any, *_: Any, sha256: dict[str, str]) -> SendReport:
            (uid, path), *_rest = items
            path.unlink()
            if lost:
                bucket.open.delete([str(path.relative_to(other.spool.root))])
            with pytest.raises(NoAssociation) as failed:
                intact_bytes(path, uid, sha256[uid])
            return SendReport(failed.value.outcome, failed.value.reason, ())

    monkeypatch.setattr(courier_module, "sender_for", lambda *_: SlowSender())
    monkeypatch.setattr(Preflight, "why_not", lambda *_: None)  # these files are no whole CT images
    with open_store(load_settings(host(config, "b"))) as other:
        assert make_courier(other, "b").run_once(other.settings.destination[0])
        case = other.overview.case(case_id)
        assert (case.state, "is not in the spool" in case.reason) == (state, True), case


def test_a_person_releases_on_a_host_that_did_not_make_the_result(
    kept: Kept, config: Path, bucket: FaultyStore, run: Run
) -> None:
    case_id, other = kept.held(), str(host(config, "b"))
    with open_store(load_settings(Path(other))):
        pass
    assert "missing" not in run("--config", other, "jobs", "why", case_id)[1]
    code, _, said = run("--config", other, "jobs", "release", case_id, "--reason", "it is the implant")
    assert (code, kept.node.overview.case(case_id).state) == (0, "PRODUCED"), said
    folder = str(kept.node.overview.case(case_id).product_dir)
    kept.node.spool.fetch_folder(folder)
    assert len(list(kept.node.spool.path(folder).glob("*.dcm"))) == 3


# -- what may go ---------------------------------------------------------------------------------------------------


def test_retention_of_one_host_empties_the_bucket_and_the_caches_of_others(
    kept: Kept, config: Path, bucket: FaultyStore
) -> None:
    case_id = kept.sent()
    with open_store(load_settings(host(config, "b"))) as other:
        spool = other.spool
        assert isinstance(spool, SharedSpool)
        names = other.series.spool_names(1)
        spool.fetch(other.series.wanted(names))
        spool.fetch_folder(str(other.overview.case(case_id).product_dir))
        tidy = CacheTidy(other.retention, other.jobs, spool, clock=lambda: datetime.now(UTC) + timedelta(hours=2))
        tidy.tick()
        assert len(list(spool.root.rglob("*.dcm"))) == 6, "what a row has stays"
        (removal,) = kept.node.retention.purge([1], Ages(datetime.now(UTC), datetime.now(UTC)), "old", START)
        remove_files(kept.node.spool, [removal])
        assert {key for key in bucket.all_keys() if key.startswith(("received", "derived"))} == set()
        tidy.tick()
        assert list(spool.root.rglob("*.dcm")) == []


def in_days(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def test_objects_that_a_killed_process_left_are_swept(kept: Kept, bucket: FaultyStore) -> None:
    kept.produced()
    before = bucket.all_keys()
    bucket.open.put("received/20260101/0123.dcm", b"killed before the commit")
    bucket.open.put("derived/1-1-00000000/0001.dcm", b"killed before the commit")
    for days, left in ((1, {"received/20260101/0123.dcm"}), (40, set())):
        node, settings = kept.node, RetentionSettings()
        Retention(node.retention, node.jobs, node.spool, settings, clock=partial(in_days, days)).tick()
        assert bucket.all_keys() - before == left
        assert before <= bucket.all_keys()


def test_verify_names_what_other_hosts_lack_and_repair_puts_it_there(
    kept: Kept, bucket: FaultyStore, run: Run, config: Path
) -> None:
    kept.produced()
    gone = {key for key in bucket.all_keys() if key.endswith(".dcm")}
    bucket.open.delete(gone)
    code, out, _ = run("--config", str(host(config)), "spool", "verify", "--json")
    found = json.loads(out)["findings"]
    assert (code, {(one["kind"], one["name"]) for one in found}) == (1, {("unshared", name) for name in gone})
    assert run("--config", str(host(config)), "spool", "repair", "--yes")[0] == 0
    assert gone < bucket.all_keys()
    assert run("--config", str(host(config)), "spool", "verify")[0] == 0


def test_verify_keeps_nothing_that_it_fetches_and_ends_where_the_object_store_refuses(
    kept: Kept, bucket: FaultyStore, run: Run, config: Path
) -> None:
    case_id, command = kept.queued(), ("--config", str(host(config)), "spool")
    for file in kept.node.spool.root.rglob("*.dcm"):
        file.unlink()
    assert run(*command, "verify")[::2] == (0, "3 files read; nothing differs\n")
    assert list(kept.node.spool.root.rglob("*.dcm")) == []
    bucket.before = lambda verb, key: down(verb, key) if (verb, key[:8]) == ("get", "received") else None
    code, _, said = run(*command, "repair", "--yes")
    assert (code, "object store" in said) == (1, True), said
    assert kept.node.overview.case(case_id).state == "QUEUED", "nothing is lost because it could not be read"


def test_repair_of_one_file_of_a_result_leaves_the_others_and_the_manifest(
    kept: Kept, bucket: FaultyStore, run: Run, config: Path
) -> None:
    """The cache of the host has lost one of the others since, and cut another."""
    case_id = kept.produced()
    folder = str(kept.node.overview.case(case_id).product_dir)
    before = {key: bucket.bytes_of(key) for key in bucket.all_keys()}
    one, two, three = sorted(kept.node.spool.path(folder).glob("*.dcm"))
    bucket.open.delete([f"{folder}/{one.name}"])
    two.unlink()
    three.write_bytes(b"cut")
    assert run("--config", str(host(config)), "spool", "repair", "--yes")[0] == 0
    assert {key: bucket.bytes_of(key) for key in bucket.all_keys()} == before
