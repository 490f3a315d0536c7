"""A cohort in an object store comes back as it was, with nobody's patients mixed up, after any stop."""

import hashlib
import io
import json
import os
import tarfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from config.spool import SpoolSettings
from models.cohort import SPLITS, Cohort, CohortError, CohortWriter, PatientRecord
from node.bootstrap.places import Folder, Place, open_place
from node.cli.cohort import fetch_from
from node.cohorts import shards
from node.cohorts.shards import TRAINED_ON, fetch_cohort, write_shards
from node.errors import Misconfigured, Retryable

PATIENTS = ("train", "train", "internal", "train", "validation", "external")


def silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    writer = CohortWriter(tmp_path / "cohort", kind="phantom", provenance={})
    for number, split in enumerate(PATIENTS):
        ncct = np.full((2, 16, 16), number, dtype=np.float32)
        writer.add(
            PatientRecord(f"P{number}", "H1", split, ncct.shape, (5.0, 1.5, 1.5)), {"ncct": ncct, "cect": ncct + 1}
        )
    return writer.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def objects(place: Path) -> Place:
    return open_place(f"file://{place}", SpoolSettings())


def send(cohort: Cohort, objects: Place, shard_bytes: int = 5000) -> shards.Index:
    return write_shards(cohort, objects, shard_bytes=shard_bytes, progress=silent)


def test_a_training_fetches_the_patients_of_its_splits_and_no_others(
    cohort: Cohort, objects: Place, tmp_path: Path
) -> None:
    index = send(cohort, objects)
    assert [(shard.split, shard.patients) for shard in index.shards] == [
        ("train", ("P0", "P1")),
        ("train", ("P3",)),
        ("validation", ("P4",)),
        ("internal", ("P2",)),
        ("external", ("P5",)),
    ]
    fetched = fetch_cohort(objects, tmp_path / "cache", TRAINED_ON, silent)
    assert fetched.digest == cohort.digest
    assert sorted(path.name for path in (fetched.path / "patients").iterdir()) == ["P0", "P1", "P3", "P4"]
    for patient in fetched.split("train"):
        patient.verify()
    with pytest.raises(CohortError, match="cannot be read"):
        fetched.split("internal")[0].hu("ncct")
    fetch_cohort(objects, tmp_path / "cache", SPLITS, silent).split("internal")[0].verify()
    assert (tmp_path / "cache" / index.digest[:32]).stat().st_mode & 0o077 == 0


class Counted(Folder):
    """Counts what is moved, and breaks off when it is told to."""

    def __init__(self, root: Path, *, breaks_after: int | None = None) -> None:
        super().__init__(root)
        self.sent: list[str] = []
        self.fetched = 0
        self.breaks_after = breaks_after

    def put(self, key: str, data: bytes) -> None:
        if self.breaks_after is not None and len(self.sent) >= self.breaks_after:
            raise Retryable("broken off")
        self.sent.append(key)
        super().put(key, data)

    def get(self, key: str, start: int, length: int) -> bytes | None:
        if key.startswith("shards/"):
            if self.breaks_after is not None and self.fetched >= self.breaks_after:
                raise Retryable("broken off")
            self.fetched += length
        return super().get(key, start, length)


def test_what_was_cut_off_goes_on_where_it_stopped(
    cohort: Cohort, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_AT_ONCE", 1000)
    with pytest.raises(Retryable):
        send(cohort, Counted(place, breaks_after=2))
    with pytest.raises(CohortError, match="written last"):
        fetch_cohort(Folder(place), tmp_path / "cache", SPLITS, silent)
    again = Counted(place)
    index = send(cohort, again)
    assert len(again.sent) == 3 + 2  # the other shards, manifest and index
    whole = sum(shard.size_bytes for shard in index.shards)
    cut = Counted(place, breaks_after=whole // 2)
    with pytest.raises(Retryable):
        fetch_cohort(cut, tmp_path / "cache", SPLITS, silent)
    rest = Counted(place)
    fetch_cohort(rest, tmp_path / "cache", SPLITS, silent)
    assert cut.fetched + rest.fetched == whole
    assert not list((tmp_path / "cache" / index.digest[:32] / ".fetching").glob("*.tar"))


def test_other_bytes_than_those_of_the_index_are_not_kept(
    cohort: Cohort, objects: Place, place: Path, tmp_path: Path
) -> None:
    index = send(cohort, objects)
    file = place / "shards" / index.shards[0].name
    whole = file.read_bytes()
    file.write_bytes(whole[:600] + bytes([whole[600] ^ 1]) + whole[601:])
    with pytest.raises(CohortError, match=r"not the one that .*cohort shard"):
        fetch_cohort(objects, tmp_path / "cache", TRAINED_ON, silent)
    again = Counted(place)
    send(cohort, again)
    assert again.sent == [f"shards/{index.shards[0].name}", "manifest.json", "index.json"]
    assert file.read_bytes() == whole
    assert fetch_cohort(objects, tmp_path / "cache", TRAINED_ON, silent).split("train")[0].hu("ncct").max() == 0


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: os.truncate(file, 200)], ids=["removed", "cut"])
def test_what_was_taken_from_the_cache_is_fetched_again_and_nothing_else(
    harm: Callable[[Path], None], cohort: Cohort, objects: Place, place: Path, tmp_path: Path
) -> None:
    index = send(cohort, objects)
    fetched = fetch_cohort(objects, tmp_path / "cache", TRAINED_ON, silent)
    there = fetched.path / "patients" / "P1" / "ncct.npy"
    inode = there.stat().st_ino
    harm(fetched.path / "patients" / "P0" / "cect.npy")
    harm(fetched.path / "manifest.json")
    counted = Counted(place)
    fetch_cohort(counted, tmp_path / "cache", TRAINED_ON, silent).split("train")[0].verify()
    assert counted.fetched == index.shards[0].size_bytes
    assert there.stat().st_ino == inode  # a training may be reading it


def rewrite(place: Path, **changes: object) -> None:
    file = place / "index.json"
    plain = json.loads(file.read_text())
    plain["shards"][0] |= changes
    file.write_text(json.dumps(plain))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"split": "internal"}, "other patients or splits"),
        ({"patients": ["P0", "P2"]}, "other patients or splits"),
        ({"patients": ["P0", 1]}, "not one that this version reads"),
        ({"name": "../../train-00000-000000000000.tar"}, "not one that this version reads"),
        ({"size_bytes": "many"}, "not one that this version reads"),
    ],
)
def test_an_index_that_moves_a_patient_or_a_name_is_refused(
    cohort: Cohort, objects: Place, place: Path, tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    send(cohort, objects)
    rewrite(place, **changes)
    with pytest.raises(CohortError, match=told):
        fetch_cohort(objects, tmp_path / "cache", TRAINED_ON, silent)


@pytest.mark.parametrize("name", ["../../../outside.npy", "P2/ncct.npy", "/tmp/outside.npy"])
def test_a_shard_writes_nothing_that_the_manifest_does_not_name(
    cohort: Cohort, objects: Place, place: Path, tmp_path: Path, name: str
) -> None:
    index = send(cohort, objects)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    data = packed.getvalue()
    (place / "shards" / index.shards[0].name).write_bytes(data)
    rewrite(place, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(CohortError, match="does not name"):
        fetch_cohort(objects, tmp_path / "cache", TRAINED_ON, silent)
    assert not list(tmp_path.rglob("outside.npy"))


def test_another_cohort_is_not_written_over_and_a_damaged_one_not_sent(
    cohort: Cohort, objects: Place, tmp_path: Path
) -> None:
    send(cohort, objects)
    (cohort.path / "patients" / "P0" / "ncct.npy").write_bytes(b"damaged")
    with pytest.raises(CohortError, match="not the array"):
        send(cohort, Folder(tmp_path / "elsewhere"))
    writer = CohortWriter(tmp_path / "other", kind="phantom", provenance={})
    ncct = np.zeros((1, 16, 16), dtype=np.float32)
    record = PatientRecord("P0", "H1", "train", ncct.shape, (5.0, 1.5, 1.5))
    writer.add(record, {"ncct": ncct, "cect": ncct})
    with pytest.raises(CohortError, match="another cohort"):
        send(writer.close(), objects)


@pytest.mark.parametrize("url", ["bucket/prefix", "gs://bucket", "s3://", "http://server/x"])
def test_other_places_are_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(Misconfigured, match="s3://BUCKET/PREFIX"):
        open_place(url, SpoolSettings())


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[SpoolSettings]:
    """A bucket `cohorts` of moto's server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/cohorts", method="PUT"), timeout=10).close()
    yield SpoolSettings(endpoint=f"http://{host}:{port}")
    server.stop()


def test_a_cohort_goes_through_s3(s3: SpoolSettings, cohort: Cohort, tmp_path: Path) -> None:
    url = "s3://cohorts/thorax/1"
    send(cohort, open_place(url, s3))
    fetched = fetch_cohort(open_place(url, s3), tmp_path / "cache", TRAINED_ON, silent)
    assert fetched.split("train")[2].hu("cect").max() == 4
    with pytest.raises(CohortError, match="no cohort lies"):
        fetch_cohort(open_place(f"{url}/empty", s3), tmp_path / "cache", TRAINED_ON, silent)
    away = s3.model_copy(update={"endpoint": "http://127.0.0.1:1"})
    with pytest.raises(Retryable, match=r"the object store takes no connection.* goes on with what was moved so far"):
        fetch_from(url, away, tmp_path / "cache", TRAINED_ON)
