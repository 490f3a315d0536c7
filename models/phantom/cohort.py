"""The making of a phantom cohort: which patients it has, how they are scanned, how they move."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.cohort import Cohort, CohortWriter, PatientRecord, assign_splits, store_patient
from models.displacement import upsample_field, warp
from models.phantom.misregistration import LARGEST_SI_MM, NODE_STEP_PX, Motion, draw_field
from models.phantom.patient import PhantomPatient, make_patient
from models.phantom.scanner import blur_in_plane, with_noise
from models.phantom.teaching import make_teaching_patient

GENERATOR_VERSION = 1
ANATOMIES = ("thorax", "teaching")
"""`thorax` as make_patient makes it; `teaching` as make_teaching_patient, which draws spacing and level itself."""
_TEACHING_DATA = "procedural teaching phantom (models.phantom.teaching); no real patient"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Site:
    """How scans of a hospital differ beside its injection (HOSPITALS): mean and SD of the field of view, of a softer
    kernel's additional blur (sigma, and nothing below 0), and of the calibration, which shifts both scans alike."""

    fov_mm: tuple[float, float]
    blur_mm: tuple[float, float]
    shift_hu: tuple[float, float]


SITES = {
    "internal": Site(fov_mm=(500.0, 10.0), blur_mm=(0.0, 0.0), shift_hu=(0.0, 1.0)),
    "external": Site(fov_mm=(600.0, 15.0), blur_mm=(0.5, 0.1), shift_hu=(0.0, 3.0)),
}


@dataclass(frozen=True)
class PhantomTask:
    """All that decides one patient of a cohort, down to the bit."""

    id: str
    seed: int
    hospital: str
    split: str
    slices: int
    rows: int
    slice_spacing_mm: float
    misregistration: bool
    anatomy: str = "thorax"


def write_phantom_cohort(
    out: str | Path,
    patients: int,
    seed: int,
    *,
    slices: int = 32,
    rows: int = 512,
    slice_spacing_mm: float = 5.0,
    external_share: float = 0.2,
    misregistration: bool = True,
    anatomy: str = "thorax",
    workers: int = 1,
    progress: Progress | None = None,
) -> Cohort:
    """Write a cohort of invented patients to the folder `out` and open it; the same arguments give the same bits.

    `external_share` of the patients (rounded) come from the second hospital, with another field of view (600 instead of
    500 mm), kernel and contrast dose; those of the first are split 70/30 into development and test. `misregistration`
    False leaves both scans in register. Patients do not depend on `workers`, the number of processes, nor on each
    other, but on their place: patient n of a seed is the same in a larger cohort, its hospital and split need not be.
    `anatomy` is one of ANATOMIES; patients of "teaching" draw their own spacing, all belong to the first hospital, and
    `slice_spacing_mm` and `external_share` do not count. progress(done, total) counts patients. Raises ValueError for
    fewer than two internal patients and for another anatomy, CohortError where `out` is a cohort.
    """
    tasks = plan_cohort(
        patients,
        seed,
        slices=slices,
        rows=rows,
        slice_spacing_mm=slice_spacing_mm,
        external_share=external_share,
        misregistration=misregistration,
        anatomy=anatomy,
    )
    provenance: dict[str, object] = {
        "data": "procedural thorax phantom (models.phantom); no real patient",
        "generator_version": GENERATOR_VERSION,
        "seed": seed,
        "patients": patients,
        "slices": slices,
        "rows": rows,
        "slice_spacing_mm": slice_spacing_mm,
        "external_share": external_share,
        "misregistration": misregistration,
        "sites": {name: asdict(site) for name, site in SITES.items()},
    }
    if anatomy != "thorax":
        del provenance["slice_spacing_mm"], provenance["external_share"], provenance["sites"]
        provenance |= {"data": _TEACHING_DATA, "anatomy": anatomy, "misregistration": False}
    writer = CohortWriter(Path(out), kind="phantom", provenance=provenance)
    for done, record in enumerate(_made(tasks, Path(out), workers), 1):
        writer.register(record)
        if progress is not None:
            progress(done, len(tasks))
    return writer.close()


def plan_cohort(
    patients: int,
    seed: int,
    *,
    slices: int,
    rows: int,
    slice_spacing_mm: float = 5.0,
    external_share: float = 0.2,
    misregistration: bool = True,
    anatomy: str = "thorax",
) -> list[PhantomTask]:
    """The patients of a cohort before they are made; arguments as in write_phantom_cohort."""
    if anatomy not in ANATOMIES:
        raise ValueError(f"anatomy is {anatomy!r}; allowed are {', '.join(ANATOMIES)}")
    external = round(external_share * patients) if anatomy == "thorax" else 0
    ids = [f"P{number:04d}" for number in range(patients)]
    splits = assign_splits(ids[: patients - external], seed) | dict.fromkeys(ids[patients - external :], "external")
    return [
        PhantomTask(
            id=name,
            seed=_patient_seed(seed, number),
            hospital="external" if splits[name] == "external" else "internal",
            split=splits[name],
            slices=slices,
            rows=rows,
            slice_spacing_mm=slice_spacing_mm,
            misregistration=misregistration,
            anatomy=anatomy,
        )
        for number, name in enumerate(ids)
    ]


def make_cohort_patient(task: PhantomTask) -> tuple[PatientRecord, dict[str, NDArray[np.generic]]]:
    """Make one patient with all arrays of ARRAY_TYPES (models.cohort), float32 or uint8, and the record."""
    if task.anatomy == "teaching":
        return _make_teaching(task)
    rng = np.random.Generator(np.random.Philox([task.seed, 2]))
    site = SITES[task.hospital]
    fov_mm, blur_mm, shift_hu = (float(rng.normal(*pair)) for pair in (site.fov_mm, site.blur_mm, site.shift_hu))
    centre_z_mm = float(rng.normal(-25, 12))
    motion = Motion.draw(rng) if task.misregistration else None
    spacing_mm = (task.slice_spacing_mm, fov_mm / task.rows, fov_mm / task.rows)
    margin = int(np.ceil(LARGEST_SI_MM / spacing_mm[0])) if motion else 0
    patient = make_patient(
        task.seed,
        slices=task.slices + 2 * margin,
        rows=task.rows,
        spacing_mm=spacing_mm,
        hospital=task.hospital,
        centre_z_mm=centre_z_mm,
    )
    patient = _rescanned(patient, max(blur_mm, 0.0), shift_hu)
    inner = slice(margin, margin + task.slices)
    arrays: dict[str, NDArray[np.generic]] = {
        "ncct": patient.ncct_hu[inner],
        "cect": patient.cect_hu[inner],
        "cect_registered": patient.cect_hu[inner],
        "cect_clean": patient.cect_clean_hu[inner],
        "enhancement": patient.enhancement_hu[inner],
        "labels": patient.labels[inner],
    }
    if motion is not None:
        nodes = draw_field(rng, motion, patient.labels[inner], spacing_mm, centre_z_mm)
        arrays |= {"cect": _displaced(patient, nodes, inner), "displacement": nodes}
    record = PatientRecord(
        id=task.id,
        hospital=task.hospital,
        split=task.split,
        shape=(task.slices, task.rows, task.rows),
        spacing_mm=spacing_mm,
        e_hu=patient.e_hu,
        displacement_step_px=NODE_STEP_PX,
        facts={
            "seed": task.seed,
            "centre_z_mm": centre_z_mm,
            "blur_mm": max(blur_mm, 0.0),
            "shift_hu": shift_hu,
            "motion": None if motion is None else {k: _listed(v) for k, v in asdict(motion).items()},
        },
    )
    return record, arrays


def _make_teaching(task: PhantomTask) -> tuple[PatientRecord, dict[str, NDArray[np.generic]]]:
    """A teaching patient, whose scans lie in register: its motion would need levels that only its maker knows."""
    patient = make_teaching_patient(task.seed, slices=task.slices, rows=task.rows)
    arrays: dict[str, NDArray[np.generic]] = {
        "ncct": patient.ncct_hu,
        "cect": patient.cect_hu,
        "cect_registered": patient.cect_hu,
        "cect_clean": patient.cect_clean_hu,
        "enhancement": patient.enhancement_hu,
        "labels": patient.labels,
    }
    record = PatientRecord(
        id=task.id,
        hospital=task.hospital,
        split=task.split,
        shape=(task.slices, task.rows, task.rows),
        spacing_mm=patient.spacing_mm,
        e_hu=patient.e_hu,
        facts={"seed": task.seed, "anatomy": task.anatomy, "motion": None},
    )
    return record, arrays


def _rescanned(patient: PhantomPatient, blur_mm: float, shift_hu: float) -> PhantomPatient:
    """The patient on another scanner: softer kernel, which blurs truth and noise alike, and shifted calibration."""

    def seen(volume: NDArray[np.float32]) -> NDArray[np.float32]:
        blurred = blur_in_plane(volume, blur_mm, patient.spacing_mm[1]) if blur_mm > 0 else volume
        return blurred + np.float32(shift_hu)

    return replace(
        patient,
        ncct_hu=np.clip(seen(patient.ncct_hu), -1024, 3071),
        cect_hu=np.clip(seen(patient.cect_hu), -1024, 3071),
        ncct_clean_hu=seen(patient.ncct_clean_hu),
        cect_clean_hu=seen(patient.cect_clean_hu),
        enhancement_hu=seen(patient.enhancement_hu) - np.float32(shift_hu),
    )


def _displaced(patient: PhantomPatient, nodes: NDArray[np.float32], inner: slice) -> NDArray[np.float32]:
    """The second scan after the patient moved: its truth is warped, its noise, which belongs to the scanner, stays."""
    rows, columns = patient.labels.shape[1:]
    field = upsample_field(nodes, rows, columns, NODE_STEP_PX)
    moved = warp(patient.cect_clean_hu, field, patient.spacing_mm, first_slice=inner.start)
    clean = patient.cect_clean_hu[inner]
    noise = patient.cect_hu[inner] - clean
    # with_noise halves noise in air; undone here, since air and body changed places.
    return with_noise(moved, np.where(clean < -950, 2 * noise, noise))


def _made(tasks: list[PhantomTask], out: Path, workers: int) -> Iterator[PatientRecord]:
    """Records in the order of the tasks, made here or by worker processes."""
    if workers <= 1:
        yield from (_make_and_store(task, out) for task in tasks)
        return
    # Started afresh, not forked: a forked process would inherit the locks of torch's threads.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_make_and_store, tasks, [out] * len(tasks))


def _make_and_store(task: PhantomTask, out: Path) -> PatientRecord:
    record, arrays = make_cohort_patient(task)
    return store_patient(out, record, arrays)


def _patient_seed(seed: int, number: int) -> int:
    """53 bits, which JSON readers keep exactly and which no small hand-chosen seed meets."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> np.uint64(11))


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
