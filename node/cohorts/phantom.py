"""A phantom cohort on disk together with the DICOM scans that show the same invented patients."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from models.cohort import Cohort, CohortError, CohortPatient
from models.phantom.cohort import write_phantom_cohort
from node.dicom.synthetic_scan import ScanIdentity, write_scan

Progress = Callable[[str, int, int], None]

DICOM_FOLDER: Final = "dicom"
# What a header tells of the scan of each hospital (models.phantom.cohort.SITES).
_HOSPITAL_ATTRIBUTES: Final = {
    "internal": {"InstitutionName": "Phantom hospital A", "DeviceSerialNumber": "1", "ConvolutionKernel": "B40"},
    "external": {"InstitutionName": "Phantom hospital B", "DeviceSerialNumber": "2", "ConvolutionKernel": "B31"},
}


def write_phantom(
    out: Path,
    patients: int,
    seed: int,
    *,
    slices: int = 32,
    rows: int = 512,
    slice_spacing_mm: float = 5.0,
    external_share: float = 0.2,
    in_register: bool = False,
    anatomy: str = "thorax",
    dicom: bool = True,
    workers: int = 1,
    progress: Progress | None = None,
) -> Cohort:
    """Write a phantom cohort to `out` and its scans to `out`/dicom/<patient>/{ncct,cect}/NNNN.dcm.

    Arguments as in write_phantom_cohort; `in_register` leaves out the motion between the scans, `dicom` False the DICOM
    files. progress(stage, done, total) counts patients. Raises CohortError where the numbers make no cohort or `out`
    already is one.
    """
    report = progress or _silent
    try:
        cohort = write_phantom_cohort(
            out,
            patients,
            seed,
            slices=slices,
            rows=rows,
            slice_spacing_mm=slice_spacing_mm,
            external_share=external_share,
            misregistration=not in_register,
            anatomy=anatomy,
            workers=workers,
            progress=lambda done, total: report("making patients", done, total),
        )
    except ValueError as error:
        raise CohortError(f"no phantom cohort can be made: {error}.") from error
    for done, patient in enumerate(cohort.patients if dicom else (), 1):
        write_scans(patient, out / DICOM_FOLDER / patient.id)
        report("writing DICOM", done, len(cohort.patients))
    return cohort


def write_scans(patient: CohortPatient, folder: Path) -> None:
    """Write both scans of a phantom patient below `folder`: one study, one frame of reference, equal slice positions.

    Pixels of "ncct" are those of the cohort. UIDs come from the arrays' checksums: other pixels never share a UID.
    """
    record = patient.record
    checksums = record.arrays or {}
    seed = f"phantom cohort {record.id} {checksums['ncct']} {checksums['cect']}"
    site = _HOSPITAL_ATTRIBUTES[record.hospital]
    series = {
        "ncct": (3, f"Thorax native {site['ConvolutionKernel']}", {}),
        "cect": (4, f"Thorax venous {site['ConvolutionKernel']}", {"ContrastBolusAgent": "Phantom contrast agent"}),
    }
    for name, (number, description, agent) in series.items():
        identity = ScanIdentity(
            patient_id=f"PHANTOM-{record.id}",
            patient_name=f"Invented^{record.id}",
            seed=f"{seed} {name}",
            study_seed=seed,
            series_number=number,
            series_description=description,
            attributes=site | agent,
        )
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_scan(patient.stored(name), record.spacing_mm, folder / name, identity)


def _silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""
