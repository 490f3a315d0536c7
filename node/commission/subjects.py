"""The series on which a bundle is commissioned, and what the node makes of each: a whole job, as for a patient."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.cohort import CohortPatient
from models.phantom.tissues import Label
from models.translator import Translator
from node.cohorts.phantom import write_scans
from node.dicom.derived_plan import EquipmentIdentity
from node.dicom.orientation import Turn
from node.dicom.volume import CTVolume, read_volume
from node.translate.job import JobOptions, JobResult, run_job
from node.version import software_version

Volume = NDArray[np.float32]  # HU [z, y, x]

_STRUCTURES: Final[Mapping[str, tuple[Label, ...]]] = {
    "heart": (
        Label.MYOCARDIUM,
        Label.LEFT_VENTRICLE,
        Label.RIGHT_VENTRICLE,
        Label.LEFT_ATRIUM,
        Label.RIGHT_ATRIUM,
    ),
    "aorta": (Label.AORTA,),
    "liver": (Label.LIVER,),
    "glandular tissue": (Label.GLAND,),
    "lymph nodes": (Label.LYMPH_NODE, Label.METASTATIC_NODE),
}


@dataclass(frozen=True)
class Subject:
    """A series on disk. cect_hu, labels: on its lattice, None where nobody knows them; series: its folder's name."""

    name: str
    paths: tuple[Path, ...]
    cect_hu: Volume | None = field(default=None, repr=False)
    labels: NDArray[np.uint8] | None = field(default=None, repr=False)

    @property
    def folder(self) -> Path:
        """Where its files lie, and no others."""
        return self.paths[0].parent


@dataclass(frozen=True)
class Made:
    """What the node made of a subject. stage_s: seconds of each stage of the job, in their order."""

    subject: Subject
    source: CTVolume = field(repr=False)
    derived: CTVolume = field(repr=False)
    result: JobResult = field(repr=False)
    stage_s: Mapping[str, float] = field(default_factory=dict)

    def turned(self) -> tuple[Volume, Volume, tuple[float, float, float]]:
        """Source and result head first supine, and their spacing (z, y, x), mm."""
        turn = Turn.of(self.source.orientation)
        return turn.forth(self.source.hu), turn.forth(self.derived.hu), turn.spacing_of(self.source.spacing_mm)

    def structures(self) -> dict[str, NDArray[np.bool_]]:
        """Masks by name where the subject is labelled."""
        if self.subject.labels is None:
            return {}
        masks = {name: np.isin(self.subject.labels, labels) for name, labels in _STRUCTURES.items()}
        return {name: mask for name, mask in masks.items() if mask.any()}


def of_patient(patient: CohortPatient, folder: Path) -> Subject:
    """A patient of a cohort, whose scans are written to `folder` as DICOM files."""
    write_scans(patient, folder)
    truth = "cect_registered" if patient.has("cect_registered") else "cect"
    labels = patient.labels() if patient.has("labels") else None
    return Subject(
        f"cohort patient {patient.id}", tuple(sorted((folder / "ncct").glob("*.dcm"))), patient.hu(truth), labels
    )


def of_folder(folder: Path, name: str) -> Subject:
    """A real series: all DICOM files of a folder."""
    return Subject(name, tuple(sorted(folder.glob("*.dcm"))))


def options() -> JobOptions:
    """Those of a node with the settings as they come; the moment of production does not matter here."""
    version = software_version()
    return JobOptions(EquipmentIdentity(software_version=version), produced_at=datetime.now(UTC))


def make(subject: Subject, translator: Translator, out: Path) -> Made:
    """Run one whole job on a subject, with its gates and proofs; its files go to `out`, which is made."""
    out.mkdir(parents=True)
    clock = _Clock()
    result = run_job(subject.paths, translator, options(), out, progress=clock)
    derived = read_volume([made.path for made in result.files])
    return Made(subject, read_volume(subject.paths), derived, result, clock.seconds())


class _Clock:
    """Measures how long each stage of a job took."""

    def __init__(self) -> None:
        self._marks: list[tuple[str, float]] = []
        self._begun_s = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._marks.append((stage, time.monotonic()))

    def seconds(self) -> dict[str, float]:
        """Seconds by stage; what follows the last step is the proof of the files."""
        found: dict[str, float] = {}
        before = self._begun_s
        for stage, at in self._marks:
            found[stage] = found.get(stage, 0.0) + at - before
            before = at
        found["proof"] = time.monotonic() - before
        return found


class Spoiled:
    """A translator whose result is spoiled by `attack(predicted, source)`; all else is that of the real one.

    looks: what the real one made of further looks at the same scan, which all attacks share.
    """

    def __init__(
        self,
        translator: Translator,
        predicted: Volume,
        attack: Callable[[Volume, Volume], Volume],
        looks: dict[str, Volume],
    ) -> None:
        self._translator, self._predicted, self._attack, self._looks = translator, predicted, attack, looks
        self._first = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._translator, name)

    def translate(self, hu: Volume, seed: int, **named: Any) -> Volume:
        """The spoiled result of the scan; further looks that a gate takes are the real ones."""
        if not self._first or hu.shape != self._predicted.shape:
            asked = {key: value for key, value in named.items() if key != "progress"}
            look = f"{hashlib.sha256(np.ascontiguousarray(hu).tobytes()).hexdigest()} {seed} {asked}"
            if look not in self._looks:
                self._looks[look] = self._translator.translate(hu, seed, **named)
            return self._looks[look]
        self._first = False
        low, high = self._translator.card.hu_window
        return np.asarray(np.clip(self._attack(self._predicted, hu), low, high), dtype=np.float32)
