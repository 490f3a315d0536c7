"""A cohort in an object store: shards of whole patients of one split, their checksums, and the way back to a folder.

Below a URL: `manifest.json`, the cohort's own; `shards/*.tar` with `<patient>/<array>.npy`; and `index.json`, written
last, so that a cut-off upload is no cohort.
"""

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from models.cohort import MANIFEST_FILE, SPLITS, Cohort, CohortError, CohortPatient, open_cohort
from node.bootstrap.places import Place, read

INDEX_KEY: Final = "index.json"
TRAINED_ON: Final = ("train", "validation")
"""The splits that a training reads: it does not even fetch the others."""
_FORMAT, _VERSION = "syncect-cohort-shards", 1
_NAME = re.compile(r"[a-z]{1,20}-[0-9]{5}-[0-9a-f]{12}\.tar")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_AT_ONCE = 8 << 20  # bytes of a request: what an interrupted fetch loses at most
_MENDED: Final = "`syncect cohort shard` with the same cohort and URL puts it there again"
_PATIENTS, _FETCHING = "patients", ".fetching"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Shard:
    """One object: whole patients of one split."""

    name: str
    split: str
    size_bytes: int
    sha256: str
    patients: tuple[str, ...]


@dataclass(frozen=True)
class Index:
    """What the store holds of a cohort: its digest (`Cohort.digest`), the SHA-256 of its manifest, and its shards."""

    digest: str
    manifest_sha256: str
    shards: tuple[Shard, ...]


def write_shards(cohort: Cohort, place: Place, *, shard_bytes: int, progress: Progress) -> Index:
    """Put a cohort into a store; one that was cut off goes on, since shards that are there are not sent again.

    Where all of it lies already, every shard is read, and one that was damaged there is sent anew. A shard has patients
    of one split, up to about `shard_bytes` or one larger patient. Raises CohortError for arrays that are not those of
    the manifest and where another cohort lies, ObjectsUnavailable, OSError.
    """
    if (known := _read_index(place)) is not None and known.digest != cohort.digest:
        raise CohortError("another cohort lies at this URL; name another prefix.")
    shards = []
    groups = [(split, group) for split in SPLITS for group in _groups(cohort, split, shard_bytes)]
    for number, (split, patients) in enumerate(groups):
        progress("shards", number, len(groups))
        data = _pack(cohort, patients)
        digest = hashlib.sha256(data).hexdigest()
        name = f"{split}-{number:05d}-{digest[:12]}.tar"
        if not _lies_there(place, _key(name), data, compare=known is not None):
            place.put(_key(name), data)
        shards.append(Shard(name, split, len(data), digest, tuple(patient.id for patient in patients)))
    progress("shards", len(groups), len(groups))
    manifest = (cohort.path / MANIFEST_FILE).read_bytes()
    index = Index(cohort.digest, hashlib.sha256(manifest).hexdigest(), tuple(shards))
    place.put(MANIFEST_FILE, manifest)
    plain = {"format": _FORMAT, "schema_version": _VERSION, **asdict(index)}
    place.put(INDEX_KEY, (json.dumps(plain, indent=1) + "\n").encode())
    return index


def fetch_cohort(place: Place, cache: Path, splits: Collection[str], progress: Progress) -> Cohort:
    """The cohort as a folder below `cache`, with the arrays of the patients of these splits.

    Only what is not there, or not whole any more, is fetched, and a shard that was cut off goes on; every array that
    comes has the checksum of the manifest. Processes of one host wait for each other. Raises CohortError,
    ObjectsUnavailable, OSError.
    """
    index = _read_index(place)
    if index is None:
        raise CohortError(f"no cohort lies at this URL: it has no {INDEX_KEY}, which is written last.")
    folder = cache / index.digest[:32]
    for made in (folder, folder / _FETCHING):  # patient data
        made.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_one(folder):
        cohort = _take_manifest(place, index, folder)
        wanted = [shard for shard in _checked(index, cohort) if shard.split in splits]
        whole = {patient.id for patient in cohort.patients if _is_there(patient)}
        missing = [shard for shard in wanted if not whole.issuperset(shard.patients)]
        _find_room(folder, missing)
        for number, shard in enumerate(missing):
            progress("shards", number, len(missing))
            _unpack(_fetch(place, shard, folder), shard, cohort)
        progress("shards", len(missing), len(missing))
    return cohort


def lacks_patients(folder: Path) -> bool:
    """Whether this is a fetched cohort that lacks some of its patients; raises CohortError for a damaged one."""
    if not (folder / _FETCHING).is_dir():
        return False
    return not all((folder / _PATIENTS / patient.id).is_dir() for patient in open_cohort(folder).patients)


def _is_there(patient: CohortPatient) -> bool:
    """Whether every array lies in the cache, at its length: what cleans a disk takes files away one by one."""
    try:
        for name in patient.record.arrays or {}:
            patient.stored(name)
    except CohortError:
        return False
    return True


def default_cache() -> Path:
    """Where fetched cohorts lie unless a folder is named; they are patient data."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "syncect" / "cohorts"


def _lies_there(place: Place, key: str, data: bytes, *, compare: bool) -> bool:
    """Whether an object has the length of these bytes and, to `compare` them, the same ones."""
    there = place.head(key)
    if there is None or there.size_bytes != len(data):
        return False
    parts = (data[at : at + _AT_ONCE] for at in range(0, len(data), _AT_ONCE)) if compare else ()
    return all(place.get(key, number * _AT_ONCE, len(part)) == part for number, part in enumerate(parts))


def _groups(cohort: Cohort, split: str, shard_bytes: int) -> Iterator[list[CohortPatient]]:
    group: list[CohortPatient] = []
    size = 0
    for patient in cohort.split(split):
        own = sum(file.stat().st_size for file in _files(cohort.path, patient))
        if group and size + own > shard_bytes:
            yield group
            group, size = [], 0
        group.append(patient)
        size += own
    if group:
        yield group


def _files(root: Path, patient: CohortPatient) -> list[Path]:
    return [root / _PATIENTS / patient.id / f"{name}.npy" for name in sorted(patient.record.arrays or {})]


def _pack(cohort: Cohort, patients: Sequence[CohortPatient]) -> bytes:
    """A tar of these patients that has the same bytes each time."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for patient in patients:
            patient.verify()
            for file in _files(cohort.path, patient):
                member = tarfile.TarInfo(f"{patient.id}/{file.name}")
                member.size = file.stat().st_size
                with file.open("rb") as stream:
                    tar.addfile(member, stream)
    return packed.getvalue()


def _key(name: str) -> str:
    return f"shards/{name}"


def _read_index(place: Place) -> Index | None:
    text = read(place, INDEX_KEY)
    if not text:
        return None
    try:
        plain = json.loads(text)
        if (plain["format"], plain["schema_version"]) != (_FORMAT, _VERSION):
            raise ValueError("another format")
        shards = tuple(Shard(**one | {"patients": tuple(one["patients"])}) for one in plain["shards"])
        index = Index(str(plain["digest"]), str(plain["manifest_sha256"]), shards)
        safe = all(_NAME.fullmatch(one.name) and isinstance(one.size_bytes, int) for one in shards)
        safe = safe and all(isinstance(patient, str) for one in shards for patient in one.patients)
        if not (safe and _DIGEST.fullmatch(index.digest)):
            raise ValueError("an unsafe name")
    except (ValueError, KeyError, TypeError) as error:
        raise CohortError(f"{INDEX_KEY} at this URL is not one that this version reads.") from error
    return index


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Let one process of this host fetch; the others wait and find everything there."""
    with (folder / _FETCHING / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _take_manifest(place: Place, index: Index, folder: Path) -> Cohort:
    file = folder / MANIFEST_FILE
    if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != index.manifest_sha256:
        manifest = read(place, MANIFEST_FILE)
        if hashlib.sha256(manifest).hexdigest() != index.manifest_sha256:
            raise CohortError(f"{MANIFEST_FILE} at this URL is not the one that {INDEX_KEY} names.")
        partial = folder / _FETCHING / MANIFEST_FILE
        partial.write_bytes(manifest)
        partial.replace(file)
    cohort = open_cohort(folder)
    if cohort.digest != index.digest:
        raise CohortError(f"{MANIFEST_FILE} at this URL is not of the cohort that {INDEX_KEY} names.")
    return cohort


def _checked(index: Index, cohort: Cohort) -> tuple[Shard, ...]:
    """The shards, whose patients are those of the manifest, each once and in its own split."""
    theirs = sorted((one, shard.split) for shard in index.shards for one in shard.patients)
    if theirs != sorted((patient.id, patient.record.split) for patient in cohort.patients):
        raise CohortError(f"{INDEX_KEY} has other patients or splits than {MANIFEST_FILE}.")
    return index.shards


def _find_room(folder: Path, missing: Sequence[Shard]) -> None:
    """For what is missing, and for one shard more, which lies there twice while it is unpacked."""
    needed = sum(shard.size_bytes for shard in missing) + max((shard.size_bytes for shard in missing), default=0)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CohortError(f"{folder} has room for {free / 1e9:.1f} GB, and this cohort needs {needed / 1e9:.1f} GB.")


def _fetch(place: Place, shard: Shard, folder: Path) -> Path:
    """The shard as a file, whole and checked; what was fetched of it before counts."""
    file = folder / _FETCHING / shard.name
    with file.open("ab") as partial:
        while (done := partial.tell()) < shard.size_bytes:
            part = place.get(_key(shard.name), done, min(_AT_ONCE, shard.size_bytes - done))
            if not part:
                raise CohortError(f"shard {shard.name} is not at this URL, or not whole; {_MENDED}.")
            partial.write(part)
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != shard.sha256:
        file.unlink()
        raise CohortError(f"shard {shard.name} is not the one that {INDEX_KEY} names, and was not kept; {_MENDED}.")
    return file


def _unpack(file: Path, shard: Shard, cohort: Cohort) -> None:
    """Every patient's folder comes whole and checked, or not at all."""
    fresh = file.parent / "unpacked"
    shutil.rmtree(fresh, ignore_errors=True)
    patients = [patient for patient in cohort.patients if patient.id in shard.patients]
    expected = {
        f"{p.id}/{path.name}": fresh / _PATIENTS / p.id / path.name for p in patients for path in _files(fresh, p)
    }
    try:
        with tarfile.open(file) as tar:
            for member in tar:
                fits = member.isreg() and member.size < shard.size_bytes  # a sparse member may be larger than its tar
                stream = tar.extractfile(member) if fits else None
                if stream is None or member.name not in expected:
                    raise CohortError(f"shard {shard.name} holds what {MANIFEST_FILE} does not name.")
                expected[member.name].parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                with expected[member.name].open("wb") as array:
                    shutil.copyfileobj(stream, array)
    except tarfile.TarError as error:
        raise CohortError(f"shard {shard.name} is no tar.") from error
    for patient in patients:
        if not all(path.exists() for path in _files(fresh, patient)):
            raise CohortError(f"shard {shard.name} lacks an array of patient {patient.id}.")
        CohortPatient(fresh, patient.record).verify()
    (cohort.path / _PATIENTS).mkdir(exist_ok=True, mode=0o700)
    for patient in patients:
        if _is_there(patient):  # perhaps a training reads it
            continue
        place = cohort.path / _PATIENTS / patient.id
        shutil.rmtree(place, ignore_errors=True)
        (fresh / _PATIENTS / patient.id).rename(place)
    file.unlink()
