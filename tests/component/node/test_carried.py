"""Jobs whose files come as bytes: what an actor does, without Ray."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

import models
from node.dicom.derived_plan import EquipmentIdentity
from node.errors import DamagedInstance, Retryable
from node.translate import carried
from node.translate.carried import BundleAsk, CarriedJobs, Parcel
from node.translate.job import JobOptions, run_job
from node.version import software_version
from tests.builders import make_series

OPTIONS = JobOptions(EquipmentIdentity(software_version="0.1.0"), datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CarriedJobs]:
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(carried, "_MEMORY", tmp_path / "memory")
    jobs = CarriedJobs()
    yield jobs
    jobs.close()
    assert list((tmp_path / "memory").iterdir()) == []


@pytest.fixture
def ask(tiny_bundle: Path) -> BundleAsk:
    digest = models.read_card(tiny_bundle).digest
    return BundleAsk(str(tiny_bundle), "tiny", digest, software_version(), "cpu", "fp32", None, None)


def test_a_carried_job_makes_the_files_that_it_makes_here_and_leaves_none(
    jobs: CarriedJobs, ask: BundleAsk, tiny_bundle: Path, tmp_path: Path
) -> None:
    paths = make_series(tmp_path / "source", slices=4)
    (here := tmp_path / "here").mkdir()
    (there := tmp_path / "there").mkdir()
    run_job(paths, models.load_bundle(tiny_bundle, precision="fp32"), OPTIONS, here)
    result, made = jobs.run("1", ask, OPTIONS, Parcel.of(paths))
    made.unpack(there, flush=True)
    assert {p.name: p.read_bytes() for p in there.iterdir()} == {p.name: p.read_bytes() for p in here.iterdir()}
    assert [one.path.name for one in result.files] == ["0001.dcm", "0002.dcm", "0003.dcm", "0004.dcm"]
    assert [list(folder.iterdir()) for folder in (tmp_path / "memory").iterdir()] == [[]]


def test_a_file_that_is_gone_is_missed_as_it_is_here(jobs: CarriedJobs, ask: BundleAsk, tmp_path: Path) -> None:
    paths = make_series(tmp_path / "source", slices=4)
    digests = dict(zip((path.name for path in paths), Parcel.of(paths).sha256, strict=True))
    paths[2].unlink()
    with pytest.raises(DamagedInstance):
        jobs.run("1", ask, replace(OPTIONS, sha256=digests), Parcel.of(paths))


def test_a_byte_that_changes_on_the_way_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"sixteen bytes...")
    parcel = Parcel.of([tmp_path / "a.dcm"])
    parcel.data[3] ^= 1
    (out := tmp_path / "out").mkdir()
    with pytest.raises(Retryable, match="changed on its way"):
        parcel.unpack(out)
    with pytest.raises(Retryable, match="changed on its way"):
        replace(Parcel.of([tmp_path / "a.dcm"]), names=("../b.dcm",)).unpack(out)
    assert list(out.iterdir()) == []


def test_a_file_is_hashed_once_on_either_side_of_a_job(
    jobs: CarriedJobs, ask: BundleAsk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_series(tmp_path / "source", slices=4)
    digests = dict(zip((path.name for path in paths), Parcel.of(paths).sha256, strict=True))
    hashed: list[str] = []

    def digest(data: memoryview) -> str:
        hashed.append(sha256(data).hexdigest())
        return hashed[-1]

    monkeypatch.setattr(carried, "_digest", digest)
    result, made = jobs.run("1", ask, replace(OPTIONS, sha256=digests), Parcel.of(paths, digests))
    assert len(hashed) == len(made.names) - len(result.files), "the reader compares sources, the writer knows results"
    assert made.is_whole()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_stays(
    jobs: CarriedJobs, ask: BundleAsk, tmp_path: Path
) -> None:
    memory = tmp_path / "memory"
    take = (  # what an actor does, without the seconds that torch needs to load
        "import fcntl, os, sys, tempfile;"
        "name = tempfile.mkdtemp(prefix='syncect-actor-', dir=sys.argv[1]);"
        "fcntl.flock(os.open(name, os.O_RDONLY), fcntl.LOCK_EX); open(name + '/image', 'w').close();"
        "print(os.path.basename(name), flush=True); sys.stdin.read()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", take, str(memory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    names = [process.stdout.readline().strip() for process in processes if process.stdout]
    processes[0].kill()
    processes[0].wait()
    jobs.run("1", ask, OPTIONS, Parcel.of(make_series(tmp_path / "source", slices=4)))
    assert {names[0], names[1]} & {path.name for path in memory.iterdir()} == {names[1]}
    processes[1].communicate()
    (memory / names[1] / "image").unlink()
    (memory / names[1]).rmdir()
