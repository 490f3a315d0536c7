"""Makes a cohort from a hospital's DICOM export: pair, register, store, split; no name is kept.

One patient is in memory at a time. The manifest holds pseudonyms and figures only.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from models import alignment
from models.alignment import Alignment, AlignmentError, Grid
from models.cohort import MANIFEST_FILE, Cohort, CohortError, CohortWriter, PatientRecord, assign_splits, store_patient
from models.phantom.tissues import Label
from node.cohorts.key import check_key_file, write_key_file
from node.cohorts.pairs import Excluded, Pair, Why, choose_pair
from node.cohorts.scans import (
    Inventory,
    Scan,
    SeriesFiles,
    Unusable,
    plain_text,
    read_oriented,
    read_scan,
    take_inventory,
)
from node.cohorts.structures import read_labels, read_structure_table
from node.dicom.headers import PatientIdentity, read_header
from node.dicom.uids import join_parts
from node.dicom.volume import UnusableSeries
from node.errors import UnreadableInstance
from node.receive.eligibility import DEFAULT_MIN_SLICES
from node.version import software_version

Progress = Callable[[str, int, int], None]
Volume = NDArray[np.float32]

# A slice is covered where nearly all of the patient in it has a counterpart; corners turn out of any grid.
COVERED_SHARE: Final = 0.99
_PATIENT_HU: Final = -500.0


class Align(Protocol):
    """What registers; `models.alignment.align` is the one that is used."""

    def __call__(
        self, fixed_hu: Volume, moving_hu: Volume, fixed: Grid, moving: Grid, *, deformable: bool
    ) -> Alignment:
        """Bring the moving scan onto the grid of the fixed one."""


@dataclass(frozen=True, slots=True)
class _Person:
    """Somebody in the export under a pseudonym. shares_id: another identity has the same ID at the same site."""

    pseudonym: str
    identity: PatientIdentity = field(repr=False)
    series: tuple[SeriesFiles, ...] = field(repr=False)
    shares_id: bool


@dataclass(frozen=True, slots=True)
class _Stored:
    """A patient whose arrays are on disk; hospital and split are not decided before the last one is."""

    record: PatientRecord
    site: str = field(repr=False)


def build_cohort(
    dicom_dir: Path,
    out: Path,
    *,
    seed: int = 1,
    deformable: bool = False,
    any_grid: bool = False,
    vnc: bool = False,
    training_site: str = "",
    test_share: float = 0.3,
    key_file: Path | None = None,
    structures: Path | None = None,
    align: Align | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Pair, register and store the patients whose scans lie below `dicom_dir`; the same files give the same cohort.

    The scan with contrast agent is registered to the native one (`deformable`: after the rigid step also bent), and
    slices at the ends that it does not cover are cut off. Patients of `training_site`, by default of the institution
    with the most pairs, are split by `assign_splits`, those of all others are "external"; a lone patient trains. `vnc`:
    virtual non-contrast images of spectral scanners may stand in for a native scan; such patients are marked, and
    measured apart. Everybody else is in the manifest with the reason, a code of `pairs.Why` and a sentence. `key_file`
    gets who is who, readable by its owner only. `structures`: a table (`read_structure_table`) by which contours and
    segmentations on native scans become labels. progress(stage, done, total) counts files, then patients.

    Raises CohortError where `out` is a cohort or cannot be written, there is no series, or no file names the training
    site; Refused for a key file that exists or lies inside `out`, or a table that cannot be read.
    """
    report = progress or _silent
    if (out / MANIFEST_FILE).exists():
        raise CohortError(f"{out} already is a cohort; name another folder.")
    if key_file is not None:
        check_key_file(key_file, out)
    table = read_structure_table(structures) if structures else {}
    inventory = take_inventory(dicom_dir, lambda done, total: report("reading headers", done, total))
    if not inventory.series:
        raise CohortError(f"{dicom_dir} holds no DICOM series.")
    site = plain_text(training_site)
    if site and not any(site in series.sites for series in inventory.series):
        raise CohortError("no file names the training site as its institution.")
    people = _people(inventory, seed)
    stored: list[_Stored] = []
    excluded: list[tuple[str, Excluded]] = []
    verdicts: Counter[str] = Counter()
    for done, person in enumerate(people, 1):
        scans = [read_scan(series.paths, vnc=vnc) for series in person.series]
        verdicts.update(_verdict(scan) for scan in scans)
        aligner = align or alignment.align
        result = _one(person, scans, out, any_grid=any_grid, deformable=deformable, align=aligner, table=table)
        if isinstance(result, Excluded):
            excluded.append((person.pseudonym, result))
        else:
            stored.append(result)
        report("pairing and registering", done, len(people))
    options = {"seed": seed, "deformable": deformable, "any_grid": any_grid, "vnc": vnc, "test_share": test_share}
    provenance = {
        "data": "pairs of CT scans from DICOM files",
        "program": f"syncect {software_version()}",
        "options": options | {"training_site": "named" if site else "most pairs"},
        "files": {"all": inventory.files, "unreadable": inventory.unreadable, "copies": inventory.copies},
        "series": dict(sorted(verdicts.items())),
    }
    writer = CohortWriter(out, kind="dicom", provenance=provenance)
    for record in _placed(stored, site, seed, test_share):
        writer.register(record)
    for pseudonym, why in excluded:
        writer.exclude(pseudonym, str(why))
    if key_file is not None:
        write_key_file(key_file, {person.pseudonym: person.identity.patient_id for person in people})
    return writer.close()


def _people(inventory: Inventory, seed: int) -> list[_Person]:
    """Everybody in the export, in an order that neither the files' places nor the alphabet decide.

    A series with images of several people belongs to each of them, and is refused for each.
    """
    series: dict[PatientIdentity, list[SeriesFiles]] = defaultdict(list)
    same_id: dict[tuple[str, str, str], set[PatientIdentity]] = defaultdict(set)
    for one in inventory.series:
        for patient in one.patients:
            series[patient].append(one)
            for site in one.sites:
                same_id[patient.patient_id, patient.issuer, site].add(patient)
    shared = {patient for patients in same_id.values() if len(patients) > 1 for patient in patients}
    order = sorted(series, key=lambda p: _digest(str(seed), p.patient_id, p.issuer, p.name, p.birth_date, p.sex))
    return [
        _Person(f"P{number:04d}", patient, tuple(series[patient]), patient in shared)
        for number, patient in enumerate(order, 1)
    ]


def _one(
    person: _Person,
    scans: Sequence[Scan | Unusable],
    out: Path,
    *,
    any_grid: bool,
    deformable: bool,
    align: Align,
    table: Mapping[str, Label],
) -> _Stored | Excluded:
    """One patient from files to stored arrays."""
    if not person.identity.patient_id:
        return Excluded(Why.UNUSABLE, "no_patient_id: the images name no patient ID, so nothing says whose they are")
    if person.shares_id:
        return Excluded(
            Why.AMBIGUOUS, "another name, birth date or sex goes with the same patient ID at the same institution"
        )
    pair = choose_pair(scans, any_grid=any_grid)
    if isinstance(pair, Excluded):
        return pair
    try:
        native, fixed = read_oriented(pair.native.paths)
        contrast, moving = read_oriented(pair.contrast.paths)
        aligned = align(native, contrast, fixed, moving, deformable=deformable)
    except AlignmentError as error:
        return Excluded(Why.NOT_REGISTERED, str(error))
    except (UnreadableInstance, UnusableSeries, OSError):
        return Excluded(Why.UNUSABLE, "unreadable: a file that could be read before could not be read again")
    if aligned.quality.reason:
        return Excluded(Why.NOT_REGISTERED, aligned.quality.reason)
    inner = _covered_slices(native, aligned.covered)
    count = inner.stop - inner.start
    if count < DEFAULT_MIN_SLICES:
        return Excluded(Why.DIFFERENT_POSITIONS, f"only {count} slices lie in both scans")
    arrays: dict[str, NDArray[Any]] = {"ncct": native[inner], "cect": aligned.registered_hu[inner]}
    labels = _labels(person, pair, native, fixed, table)
    if labels is not None:
        arrays["labels"] = labels[inner]
    record = PatientRecord(
        id=person.pseudonym,
        hospital="H1",
        split="train",
        shape=(count, native.shape[1], native.shape[2]),
        spacing_mm=fixed.spacing_mm,
        facts={
            **({"virtual_source": True} if pair.native.virtual else {}),
            "same_study": pair.same_study,
            "same_frame_of_reference": pair.same_frame,
            "slices_cut_off": [inner.start, len(native) - inner.stop],
            "registration": aligned.quality.to_mapping(),
            "labels": [] if labels is None else [Label(int(n)).name.lower() for n in np.unique(labels) if n],
            "ncct": pair.native.facts,
            "cect": pair.contrast.facts,
        },
    )
    try:
        stored = store_patient(out, record, arrays)
    except OSError as error:
        raise CohortError(f"{out} cannot be written: {error.strerror}.") from error
    return _Stored(stored, pair.native.site)


def _labels(
    person: _Person, pair: Pair, native: Volume, grid: Grid, table: Mapping[str, Label]
) -> NDArray[np.uint8] | None:
    """What was drawn on the native scan, on its grid; None without a table or a drawing."""
    if not table:
        return None
    drawn = [series.paths for series in person.series if series.drawn]
    return read_labels(drawn, table, read_header(pair.native.paths[0]).series_uid, native.shape, grid)


def _covered_slices(native_hu: Volume, covered: NDArray[np.bool_]) -> slice:
    """From the first to the last slice in which the other scan covers the patient; empty where it covers none."""
    patient = native_hu > _PATIENT_HU
    inside = (patient & covered).sum(axis=(1, 2)) >= COVERED_SHARE * patient.sum(axis=(1, 2))
    whole = np.flatnonzero(inside & covered.any(axis=(1, 2)))
    return slice(int(whole[0]), int(whole[-1]) + 1) if whole.size else slice(0, 0)


def _placed(stored: Sequence[_Stored], training_site: str, seed: int, test_share: float) -> list[PatientRecord]:
    """Records with their hospital's pseudonym and their split; H1 is the training hospital."""
    if not stored:
        return []
    count = Counter(one.site for one in stored)
    order = sorted(count, key=lambda site: (-count[site], _digest(str(seed), site)))
    home = training_site or order[0]
    names = {site: f"H{n}" for n, site in enumerate([home, *(site for site in order if site != home)], 1)}
    ids = [one.record.id for one in stored if one.site == home]
    splits: Mapping[str, str] = (
        assign_splits(ids, seed, test_share=test_share) if len(ids) > 1 else dict.fromkeys(ids, "train")
    )
    return [
        replace(one.record, hospital=names[one.site], split=splits.get(one.record.id, "external")) for one in stored
    ]


def _verdict(scan: Scan | Unusable) -> str:
    return f"unusable: {scan.code}" if isinstance(scan, Unusable) else str(scan.role)


def _digest(*parts: str) -> str:
    return hashlib.sha256(join_parts(parts).encode(errors="surrogateescape")).hexdigest()


def _silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""
