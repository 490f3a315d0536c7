"""A lost database is made anew of the spool: what was acknowledged is there again, and nothing goes out by itself."""

import os
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from config.load import load_settings
from node.beats import no_beat
from node.bootstrap.rebuild import _arrival
from node.bootstrap.roles import make_completion
from node.bootstrap.store import Node, open_store
from node.bootstrap.worker import make_worker
from storage.intake import Intake
from storage.series import Identifiers
from storage.tables import Delivery, Instance, Job, Product, Series
from tests.builders import make_series
from tests.multi_frame import enhanced

LATER = datetime.now(UTC) + timedelta(days=1)
AN_HOUR_AGO = datetime.now(UTC) - timedelta(hours=1)


def keep(node: Node, paths: list[Path]) -> None:
    """As the receiver keeps what comes."""
    intake, now = Intake(node.spool, node.series), AN_HOUR_AGO
    association = node.series.open_association("r", "CTSIM", "h", now)
    for path in paths:
        one = _arrival(path, "")
        uids = Identifiers(
            one.study_uid, one.series_uid, one.sop_instance_uid, one.sop_class_uid, one.transfer_syntax_uid
        )
        intake.keep(association, "CTSIM", uids, (path.read_bytes(),), now)
    node.series.close_association(association, released=True, now=now)
    for path in (node.spool.root / "received").rglob("*.dcm"):
        os.utime(path, (now.timestamp(), now.timestamp()))


def judge(node: Node) -> None:
    make_completion(node).tick()


def translate(node: Node) -> None:
    worker = make_worker(node, "1", lambda _words: None, no_beat)
    while worker.run_once(threading.Event()):
        pass


def instances(node: Node) -> set[tuple[str, str, str, str]]:
    query = select(Series.series_uid, Instance.sop_instance_uid, Instance.sha256, Instance.spool_name)
    with node.database.read() as session:
        return set(session.execute(query.join(Instance, Instance.series_id == Series.id)).tuples())


def jobs(node: Node) -> dict[str, tuple[int, str, str | None, str]]:
    """Number, state, derived series and key of the job of each series."""
    with node.database.read() as session:
        rows = session.execute(select(Series.series_uid, Job).join(Job, Job.id == Series.job_id)).all()
        return {uid: (job.id, str(job.state), job.derived_series_uid, job.job_key) for uid, job in rows}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("scans")
    kinds = {"sent": {}, "cancelled": {}, "gap": {"missing": (4,)}, "few": {"slices": 2}, "queued": {}}
    return {name: make_series(folder / name, seed=name, **kind) for name, kind in kinds.items()}  # type: ignore[arg-type]


@pytest.fixture
def busy(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of a node of this test's own, with series in many states."""
    shutil.copytree(once.parent, tmp_path / "node")
    monkeypatch.setenv("SYNCECT_CONFIG", str(tmp_path / "node" / "node.toml"))
    return tmp_path / "node" / "node.toml"


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, scans: dict[str, list[Path]]) -> Path:
    config = tmp_path_factory.mktemp("node") / "node.toml"
    config.write_text(
        f'[model]\nbundle = "{tiny_bundle}"\ndevice = "cpu"\n'
        '[[destination]]\nname = "tps"\nae_title = "TPS"\nhost = "127.0.0.1"\nport = 1\n'
    )
    with open_store(load_settings(config)) as node:
        for name in ("sent", "cancelled"):
            keep(node, scans[name])
        judge(node)
        translate(node)
        for job_id in (1, 2):
            with node.database.read() as session:
                job = session.get_one(Job, job_id)
            if job.state == "HELD":
                node.jobs.release(job.id, ["tps"], "operator", "good", datetime.now(UTC))
        claimed = node.outbox.claim("c", "tps", 60, LATER)
        assert claimed is not None
        for one in claimed.missing:
            node.outbox.record_accepted(claimed.id, "c", one.product_id, 0, lease_s=60, now=LATER)
        node.outbox.finish_sent(claimed.id, "c", "", datetime.now(UTC))
        node.jobs.cancel(2, "operator", "wrong patient", datetime.now(UTC))
        for name in ("gap", "few", "queued"):
            keep(node, scans[name])
        judge(node)
    return config


def lose(config: Path) -> None:
    for path in (config.parent / "syncect-data").glob("syncect.sqlite3*"):
        path.unlink()


def test_what_was_acknowledged_is_there_again_and_nothing_is_due(run, busy: Path) -> None:
    with open_store(load_settings(busy)) as node:
        before, jobs_before = instances(node), jobs(node)
    lose(busy)
    code, _, err = run("db", "rebuild", "--dry-run")
    assert (code, "found 41 received files and 2 results" in err) == (0, True)
    code, _, err = run("db", "rebuild", "--yes")
    assert (code, "0 that cannot be read" in err) == (0, True), err
    assert "no file has the users of the page, what was paused" in err
    with open_store(load_settings(busy)) as node:
        assert instances(node) == before
        after = jobs(node)
        assert after.keys() == jobs_before.keys()
        for uid, (number, state, derived, key) in after.items():
            old = jobs_before[uid]
            if derived is None:
                assert (state, key) == ("QUEUED", old[3])
            else:
                assert (number, state, derived, key) == (old[0], "HELD", old[2], old[3])
        cases = node.overview.cases()
        assert {case.state for case in cases} == {"HELD", "QUEUED", "INCOMPLETE", "SKIPPED"}
        assert {(case.facts.get("modality"), case.patient_id) for case in cases} == {("CT", "TEST-1")}
        translate(node)
        assert {state for _, state, _, _ in jobs(node).values()} == {"HELD"}
        with node.database.read() as session:
            assert session.scalars(select(Delivery)).all() == []
            assert len(session.scalars(select(Product)).all()) == 30


def test_the_same_series_sent_again_makes_no_second_result(run, busy: Path, scans: dict[str, list[Path]]) -> None:
    lose(busy)
    assert run("db", "rebuild", "--yes")[0] == 0
    with open_store(load_settings(busy)) as node:
        before = jobs(node)
        keep(node, scans["sent"])
        judge(node)
        assert jobs(node) == before


def test_a_rebuilt_result_can_be_released_and_is_sent(run, busy: Path) -> None:
    lose(busy)
    assert run("db", "rebuild", "--yes")[0] == 0
    with open_store(load_settings(busy)) as node:
        held = next(case for case in node.overview.cases() if case.state == "HELD")
        assert "whether this result was sent, rejected or recalled is not known" in held.reason
    assert run("jobs", "release", held.id, "--reason", "it is not there")[0] == 0
    with open_store(load_settings(busy)) as node:
        assert node.outbox.claim("c", "tps", 60, LATER) is not None


def test_the_old_file_is_kept_and_is_not_taken_for_the_store_again(run, busy: Path) -> None:
    data = busy.parent / "syncect-data"
    (data / "syncect.sqlite3").write_bytes(b"garbage" * 1000)
    assert run("db", "rebuild", "--yes")[0] == 0
    (aside,) = data.glob("syncect.sqlite3.before-*")
    assert aside.read_bytes() == b"garbage" * 1000
    assert aside.stat().st_mode & 0o077 == 0


def test_it_is_refused_while_the_node_runs_and_without_a_yes(run, busy: Path) -> None:
    from node.ops.processes import process_lock

    with process_lock(busy.parent / "syncect-data" / "run", "receive", "1"):
        assert run("db", "rebuild", "--yes")[0] == 4
    assert run("db", "rebuild")[0] == 2


def test_a_spool_without_one_readable_file_gets_an_empty_store(run, busy: Path) -> None:
    lose(busy)
    spool = busy.parent / "syncect-data" / "spool"
    for file in (*spool.glob("received/*/*.dcm"), *spool.glob("derived/*/*.dcm")):
        file.write_bytes(b"not DICOM")
    assert run("db", "rebuild", "--yes")[0] == 0
    code, _, err = run("jobs", "ls")
    assert code == 0, err


def test_files_that_are_damaged_are_named_and_left_where_they_are(run, busy: Path) -> None:
    lose(busy)
    broken = next((busy.parent / "syncect-data" / "spool" / "received").glob("*/*.dcm"))
    broken.write_bytes(b"not DICOM")
    os.mkfifo(broken.with_name("pipe.dcm"))
    broken.with_name("endless.dcm").symlink_to("/dev/zero")
    folder = broken.parents[2] / "derived" / "99-1"
    folder.mkdir()
    os.mkfifo(folder / "0001.dcm")
    code, _, err = run("db", "rebuild", "--yes")
    assert code == 0
    assert all(name in err for name in (broken.name, "pipe.dcm", "endless.dcm", folder.name))
    assert broken.exists()


def test_a_multi_frame_source_and_its_result_are_found_again_and_can_be_computed_again(
    run, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, source = tmp_path / "node.toml", tmp_path / "enhanced.dcm"
    config.write_text(f'[model]\nbundle = "{tiny_bundle}"\ndevice = "cpu"\n')
    monkeypatch.setenv("SYNCECT_CONFIG", str(config))
    enhanced(make_series(tmp_path / "scan", edit=lambda ds, _z: setattr(ds, "KVP", "120")), source)
    with open_store(load_settings(config)) as node:
        keep(node, [source])
        judge(node)
        translate(node)
        before = jobs(node)
    lose(config)
    code, _, err = run("db", "rebuild", "--yes")
    assert (code, "found 1 received files and 1 results" in err) == (0, True), err
    with open_store(load_settings(config)) as node:
        assert {uid: (row[0], *row[2:]) for uid, row in jobs(node).items()} == {
            uid: (row[0], *row[2:]) for uid, row in before.items()
        }
    assert run("replay", "1")[0] == 0
