"""Unseen phantoms and what bundles make of them, kept in a folder so that a second calibration takes minutes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.derive import Derived, derive
from bench.trust.cases import Bundle, Case, make_level_patient, plan_level_patients
from models.phantom.cohort import PhantomTask
from node.dicom.synthetic_scan import ScanIdentity, write_scan
from node.dicom.volume import read_volume


def kept_phantoms(keep: Path, count: int, seed: int, *, slices: int, rows: int, anatomy: str) -> Iterator[Case]:
    """The phantoms of a seed, read from `keep` or made and written there."""
    for task in plan_level_patients(count, seed, slices=slices, rows=rows, anatomy=anatomy):
        yield _kept_phantom(keep / f"{anatomy}-{seed}-{slices}x{rows}-{count}" / task.id, task)


def _kept_phantom(folder: Path, task: PhantomTask) -> Case:
    labels = folder / "labels.npy"
    if not labels.is_file():  # written last: a folder without it is not whole
        patient = make_level_patient(task)
        folder.mkdir(parents=True, exist_ok=True)
        identity = ScanIdentity(patient.id, f"Invented^{patient.id}", f"trust {patient.id}")
        write_scan(patient.ncct_hu, patient.spacing_mm, folder, identity)
        np.save(labels, patient.labels)
    volume = read_volume(sorted(folder.glob("*.dcm")))
    return Case(f"{folder.parent.name} {folder.name}", volume, np.load(labels))


def kept_result(keep: Path, bundle: Bundle, case: Case) -> Derived:
    """What the node would send for a case, read from `keep` or translated and written there, in whole HU."""
    path = keep / f"{bundle.card.name}-{bundle.card.digest[:8]}" / f"{case.name.replace('/', '-')}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        predicted = bundle.predict(case)
        np.save(path, np.rint(predicted).astype(np.int16))
    return derive(case.volume, np.load(path).astype(np.float32), bundle.card.hu_window)
