"""The cohort folder: pairs of scans as memory-mapped arrays and their manifest.

Layout: `manifest.json`, written last, and `patients/<id>/<array>.npy`. Ids are pseudonyms; the manifest knows no name.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.displacement import node_count, upsample_field
from models.errors import ModelsError

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
SPLITS = ("train", "validation", "internal", "external")
"""`internal` is the held-out test set of the training hospital, `external` that of the others."""

# Scans are stored as a scanner stores them, in whole HU; truths, which no scanner rounds, in half precision.
ARRAY_TYPES: dict[str, str] = {
    "ncct": "int16",
    "cect": "int16",
    "cect_registered": "int16",
    "cect_clean": "float16",
    "enhancement": "float16",
    "labels": "uint8",
    "displacement": "float16",
}
_REQUIRED = ("ncct", "cect")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class CohortError(ModelsError):
    """A cohort folder is missing, incomplete, damaged, or already there."""


@dataclass(frozen=True)
class PatientRecord:
    """What the manifest says of one patient.

    `id`: pseudonym of letters, digits, - and _. `shape`: (z, y, x). `spacing_mm`: (z, y, x). `displacement_step_px`:
    rows and columns between two nodes of the stored displacement field. `e_hu`: true blood-pool enhancement, where
    known. `facts`: anything else worth keeping, plain JSON values. `arrays`: array name -> SHA-256 of its file.
    """

    id: str
    hospital: str
    split: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    e_hu: float | None = None
    displacement_step_px: int = 1
    facts: Mapping[str, object] | None = None
    arrays: Mapping[str, str] | None = None


class CohortPatient:
    """One patient of an opened cohort; arrays are read when asked for and only as far as asked for.

    Arrays [z, y, x], z towards the head: `ncct` the source scan; `cect` the second scan as it was taken (for a phantom
    displaced and noisy, for real patients after registration); and where known `cect_registered` (the same second scan
    with the same noise, had the patient not moved), `cect_clean` (registered, without noise), `enhancement`
    (cect_clean - NCCT without noise), `labels` (of the NCCT, values of models.phantom.Label).
    """

    def __init__(self, root: Path, record: PatientRecord) -> None:
        """Describe a patient below the cohort folder `root`; opens no file."""
        self.record = record
        self._folder = _patient_folder(root, record.id)

    @property
    def id(self) -> str:
        """The pseudonym."""
        return self.record.id

    @property
    def has_virtual_source(self) -> bool:
        """Whether `ncct` was calculated from a scan with contrast agent (virtual non-contrast), not measured."""
        return bool((self.record.facts or {}).get("virtual_source"))

    def has(self, name: str) -> bool:
        """Whether the cohort holds this array of the patient."""
        return name in (self.record.arrays or {})

    def stored(self, name: str) -> NDArray[Any]:
        """The memory-mapped, read-only array as stored (ARRAY_TYPES); raises CohortError if absent or damaged."""
        file = self._folder / f"{name}.npy"
        if not self.has(name):
            raise CohortError(f"patient {self.id} has no {name}")
        try:
            array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise CohortError(f"{file} cannot be read: {error}.") from error
        if array.dtype != ARRAY_TYPES[name] or array.shape != _stored_shape(self.record, name):
            raise CohortError(f"{file} holds {array.dtype} {array.shape}, not what {MANIFEST_FILE} says.")
        return array

    def hu(self, name: str, slices: slice = slice(None)) -> NDArray[np.float32]:
        """Slices of "ncct", "cect", "cect_registered", "cect_clean" or "enhancement" as float32 HU [z, y, x]."""
        if name in ("labels", "displacement"):
            raise ValueError(f"{name} is not in HU")
        return np.asarray(self.stored(name)[slices], dtype=np.float32)

    def labels(self, slices: slice = slice(None)) -> NDArray[np.uint8]:
        """Label map uint8 [z, y, x]."""
        return np.asarray(self.stored("labels")[slices], dtype=np.uint8)

    def displacement_mm(self, slices: slice = slice(None)) -> NDArray[np.float32]:
        """Field u float32 [3, z, y, x] in mm, components (z, y, x): cect at p shows what lies at p + u(p) in the NCCT.

        Interpolated linearly between the stored nodes, which is the field's definition.
        """
        _, rows, columns = self.record.shape
        nodes = np.asarray(self.stored("displacement")[:, slices], dtype=np.float32)
        return upsample_field(nodes, rows, columns, self.record.displacement_step_px)

    def verify(self) -> None:
        """Check every array's checksum; raises CohortError for the first that differs."""
        for name, expected in (self.record.arrays or {}).items():
            if _sha256(self._folder / f"{name}.npy") != expected:
                raise CohortError(f"{name} of patient {self.id} is not the array that {MANIFEST_FILE} names.")


@dataclass(frozen=True)
class Cohort:
    """An opened cohort. `kind`: "phantom" or "dicom". `excluded`: (pseudonym, reason) of who was left out and why."""

    path: Path
    kind: str
    provenance: Mapping[str, object]
    patients: tuple[CohortPatient, ...]
    excluded: tuple[tuple[str, str], ...]

    def split(self, name: str) -> tuple[CohortPatient, ...]:
        """Patients of one of SPLITS, in the order of the manifest; raises ValueError for another name."""
        if name not in SPLITS:
            raise ValueError(f"split is {name!r}; allowed are {', '.join(SPLITS)}")
        return tuple(p for p in self.patients if p.record.split == name)

    @property
    def digest(self) -> str:
        """SHA-256 over all patients' records, checksums of their arrays among them."""
        plain = [_plain(p.record) for p in self.patients]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


class CohortWriter:
    """Writes a cohort folder: patients and exclusions first, the manifest at last, so that a cut-off run is no cohort.

    `kind` and `provenance` say where the data come from: plain JSON values, no patient data. Raises CohortError where
    `path` already is a cohort.
    """

    def __init__(self, path: Path, *, kind: str, provenance: Mapping[str, object]) -> None:
        """Make the folder."""
        if (path / MANIFEST_FILE).exists():
            raise CohortError(f"{path} already is a cohort; name another folder.")
        path.mkdir(parents=True, exist_ok=True)
        self._path, self._kind, self._provenance = path, kind, dict(provenance)
        self._records: list[PatientRecord] = []
        self._excluded: list[tuple[str, str]] = []

    def add(self, record: PatientRecord, arrays: Mapping[str, NDArray[Any]]) -> PatientRecord:
        """Store a patient's arrays (HU arrays are rounded to their stored type) and enter the record."""
        stored = store_patient(self._path, record, arrays)
        self.register(stored)
        return stored

    def register(self, record: PatientRecord) -> None:
        """Enter a record that `store_patient` returned, perhaps in another process."""
        if any(record.id == known.id for known in self._records):
            raise CohortError(f"patient {record.id} is there twice")
        self._records.append(record)

    def exclude(self, patient_id: str, reason: str) -> None:
        """Note who was left out, and why."""
        self._excluded.append((patient_id, reason))

    def close(self) -> Cohort:
        """Write the manifest and open the cohort."""
        manifest = {
            "format": "syncect-cohort",
            "schema_version": SCHEMA_VERSION,
            "kind": self._kind,
            "provenance": self._provenance,
            "counts": _counts(self._records, len(self._excluded)),
            "patients": [_plain(record) for record in self._records],
            "excluded": [{"id": name, "reason": reason} for name, reason in self._excluded],
        }
        (self._path / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        return open_cohort(self._path)


def store_patient(path: Path, record: PatientRecord, arrays: Mapping[str, NDArray[Any]]) -> PatientRecord:
    """Write one patient's arrays below the cohort folder `path`; returns the record with their checksums.

    Needs "ncct" and "cect"; others of ARRAY_TYPES where known. Safe to call from several processes for different
    patients. Raises ValueError for an unknown array, a wrong shape, an unknown split or an unsafe id.
    """
    _check(record, arrays)
    folder = _patient_folder(path, record.id)
    folder.mkdir(parents=True, exist_ok=True)
    checksums = {}
    for name, array in arrays.items():
        stored = np.dtype(ARRAY_TYPES[name])
        values = np.clip(np.rint(array), -32768, 32767) if stored.kind == "i" else array
        np.save(folder / f"{name}.npy", np.ascontiguousarray(values, dtype=stored), allow_pickle=False)
        checksums[name] = _sha256(folder / f"{name}.npy")
    return PatientRecord(**{f.name: getattr(record, f.name) for f in fields(record)} | {"arrays": checksums})


def open_cohort(path: str | Path) -> Cohort:
    """Open a cohort folder; reads the manifest only. Raises CohortError."""
    root = Path(path)
    file = root / MANIFEST_FILE
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["schema_version"]
        if version != SCHEMA_VERSION:
            raise CohortError(f"{file}: schema_version is {version!r}; this version reads {SCHEMA_VERSION}.")
        records = [_parse_record(values) for values in manifest["patients"]]
        excluded = tuple((str(e["id"]), str(e["reason"])) for e in manifest["excluded"])
        kind, provenance = str(manifest["kind"]), dict(manifest["provenance"])
    except FileNotFoundError:
        raise CohortError(f"{root} is no cohort: it has no {MANIFEST_FILE}.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CohortError(f"{file} cannot be read as a cohort manifest: {error!r}.") from error
    return Cohort(root, kind, provenance, tuple(CohortPatient(root, r) for r in records), excluded)


def assign_splits(ids: Sequence[str], seed: int, *, test_share: float = 0.3) -> dict[str, str]:
    """Split patients of the training hospital: `test_share` to `internal`, of the rest a tenth to `validation`.

    By patient and drawn from the seed. The study's 70/30 leaves 70 per cent for training, from which validation is
    taken, so that nothing is chosen on the test set. At least one patient is tested and one trained on; validation
    needs four or more to train with. Raises ValueError for fewer than two patients.
    """
    if len(ids) < 2:
        raise ValueError("a split needs at least two patients")
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(ids))
    tested = min(len(ids) - 1, max(1, round(test_share * len(ids))))
    developed = len(ids) - tested
    validated = max(1, round(developed / 10)) if developed >= 4 else 0
    names = ["internal"] * tested + ["validation"] * validated + ["train"] * (developed - validated)
    assigned = {ids[int(k)]: name for k, name in zip(order, names, strict=True)}
    return {name: assigned[name] for name in ids}


def _stored_shape(record: PatientRecord, name: str) -> tuple[int, ...]:
    if name != "displacement":
        return record.shape
    slices, rows, columns = record.shape
    step = record.displacement_step_px
    return 3, slices, node_count(rows, step), node_count(columns, step)


def _check(record: PatientRecord, arrays: Mapping[str, NDArray[Any]]) -> None:
    if record.split not in SPLITS:
        raise ValueError(f"split is {record.split!r}; allowed are {', '.join(SPLITS)}")
    if missing := [name for name in _REQUIRED if name not in arrays]:
        raise ValueError(f"patient {record.id} has no {missing[0]}")
    for name, array in arrays.items():
        if name not in ARRAY_TYPES:
            raise ValueError(f"unknown array {name}; known are {', '.join(ARRAY_TYPES)}")
        if array.shape != _stored_shape(record, name):
            raise ValueError(f"{name} of patient {record.id} is {array.shape}, not {_stored_shape(record, name)}")


def _patient_folder(root: Path, patient_id: str) -> Path:
    if not _ID.fullmatch(patient_id):
        raise ValueError("a patient's id must be 1 to 64 letters, digits, - or _")
    return root / "patients" / patient_id


def _parse_record(values: Mapping[str, Any]) -> PatientRecord:
    plain = dict(values) | {key: tuple(values[key]) for key in ("shape", "spacing_mm")}
    record = PatientRecord(**plain)
    if record.split not in SPLITS or not _ID.fullmatch(record.id) or set(record.arrays or {}) - set(ARRAY_TYPES):
        raise ValueError("a patient has an unknown split, an unsafe id or an unknown array")
    return record


def _plain(record: PatientRecord) -> dict[str, object]:
    values = asdict(record)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _counts(records: Iterable[PatientRecord], excluded: int) -> dict[str, object]:
    patients: dict[str, int] = dict.fromkeys(SPLITS, 0)
    slices: dict[str, int] = dict.fromkeys(SPLITS, 0)
    for record in records:
        patients[record.split] += 1
        slices[record.split] += record.shape[0]
    return {"patients": patients, "slices": slices, "excluded": excluded}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
