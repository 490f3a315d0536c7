"""What bundles are judged on: real series, and phantoms whose truth is known. Made once, for all bundles of a run."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from bench.derive import Derived, Image, derive
from models import Translator, load_bundle
from models.bundle import LEVELS_HU, BundleCard
from models.doubt import DoubtFigures, doubtful, figures_of, limit_hu, measure_doubt
from models.evaluation.level import LevelPatient
from models.evaluation.regions import Circle, Region, RegionFile, Track
from models.phantom import make_teaching_patient
from models.phantom.cohort import PhantomTask, make_cohort_patient, plan_cohort
from models.phantom.tissues import Label
from models.translator import Device
from node.dicom.orientation import Turn
from node.dicom.synthetic_scan import ScanIdentity, write_scan
from node.dicom.uids import seed_of
from node.dicom.volume import CTVolume, read_volume
from node.translate.second_look import predict

TEACHING = "teaching"
COST_SLICES, COST_RUNS = 8, 5
WINDOW_HU = (-40.0, 400.0)
_MASS_SLICES = 1  # a circle in one slice stands for a mass of at least three


@dataclass(frozen=True)
class Case:
    """A series as the node reads it. labels: values of models.phantom.Label, None where nobody knows any."""

    name: str
    volume: CTVolume
    labels: NDArray[np.uint8] | None = field(repr=False)


@dataclass(frozen=True)
class Looks:
    """What a model says of a case and what it says when it looks again, HU [z, y, x], before the composite."""

    first_hu: Image = field(repr=False)
    second_hu: Image = field(repr=False)

    def doubt_hu(self, case: Case) -> Image:
        """The doubt of each voxel, HU."""
        return measure_doubt(self.first_hu, self.second_hu, inside(case), case.volume.spacing_mm)

    def figures(self, case: Case, level_hu: float | None) -> DoubtFigures:
        """What the doubt of a case amounts to."""
        volume = case.volume
        mask = doubtful(self.doubt_hu(case), limit_hu(level_hu), volume.spacing_mm)
        return figures_of(
            mask, self.first_hu, self.second_hu, volume.hu, inside=inside(case), spacing_mm=volume.spacing_mm
        )


def inside(case: Case) -> NDArray[np.bool_]:
    """Where a result may differ from its source, for a window of soft tissue."""
    low, high = WINDOW_HU
    return np.asarray((case.volume.hu >= low) & (case.volume.hu <= high))


@dataclass(frozen=True)
class Bundle:
    """A bundle loaded for a device, and what it made of the cases so far, so that each is translated once."""

    path: Path
    device: Device = "cpu"
    made: dict[str, Derived] = field(default_factory=dict, repr=False)
    looked: dict[str, Looks] = field(default_factory=dict, repr=False)
    at_level: dict[float | None, Translator] = field(default_factory=dict, repr=False)

    @property
    def card(self) -> BundleCard:
        """The bundle's card."""
        return self._loaded(None).card

    @property
    def loaded(self) -> Translator:
        """The bundle as it draws at the level that it was taught."""
        return self._loaded(None)

    @property
    def takes_level(self) -> bool:
        """Whether the bundle draws blood at a level that is asked for."""
        return self.card.blood_level_hu is not None

    @property
    def level_hu(self) -> float | None:
        """The enhancement of blood that its results are drawn with, HU; None where the bundle has no level."""
        return self._loaded(None).level_hu

    def translate(
        self, hu: NDArray[np.float32], spacing_mm: tuple[float, float, float], level_hu: float | None
    ) -> NDArray[np.float32]:
        """As models.evaluation.level.Translate; a level beyond those that a bundle may draw becomes the nearest one."""
        level_hu = None if level_hu is None else float(np.clip(level_hu, *LEVELS_HU))
        seed = seed_of(hu, self.card.hu_window)
        return self._loaded(level_hu).translate(hu, seed, spacing_mm=spacing_mm[0])

    def result(self, case: Case) -> Derived:
        """What the node would send for a case."""
        if case.name not in self.made:
            self.made[case.name] = derive(case.volume, self.predict(case), self.card.hu_window)
        return self.made[case.name]

    def predict(self, case: Case) -> NDArray[np.float32]:
        """What the model returns for a case, before compositing."""
        turn = Turn.of(case.volume.orientation)
        spacing_mm = turn.spacing_of(case.volume.spacing_mm)
        return turn.back(self.translate(turn.forth(case.volume.hu), spacing_mm, None))

    def looks(self, case: Case) -> Looks:
        """Both looks at a case."""
        if case.name not in self.looked:
            volume, loaded = case.volume, self._loaded(None)
            first, second = (predict(volume, loaded, lambda *_: None, again=again) for again in (False, True))
            self.looked[case.name] = Looks(first, second)
        return self.looked[case.name]

    def cost(self, case: Case) -> float:
        """Time of the second look over that of the first: medians of COST_RUNS turns on COST_SLICES slices."""
        volume, loaded = case.volume, self._loaded(None)
        hu, spacing_mm = volume.hu[:COST_SLICES], volume.spacing_mm[0]
        seconds: dict[str, list[float]] = {"translate": [], "second_look": []}
        for _ in range(COST_RUNS):
            for name, spent in seconds.items():
                begun = time.perf_counter()
                getattr(loaded, name)(hu, 0, spacing_mm=spacing_mm)
                spent.append(time.perf_counter() - begun)
        return median(seconds["second_look"]) / median(seconds["translate"])

    def _loaded(self, level_hu: float | None) -> Translator:
        if level_hu not in self.at_level:
            loaded = load_bundle(self.path, device=self.device, precision="fp32", blood_level_hu=level_hu)
            self.at_level[level_hu] = loaded
        return self.at_level[level_hu]


def read_case(data: Path, series: str, named: RegionFile, slices: slice = slice(None)) -> Case:
    """A real series of the data folder; `slices` cuts it. Its labels know nothing but the masses of the regions."""
    folder = data / series
    files = [header.path for header in read_volume(sorted(folder.glob("*.dcm"))).headers]
    volume = read_volume(files[slices])
    _, rows, columns = volume.hu.shape
    labels = np.zeros(volume.hu.shape, np.uint8)
    y, x = np.ogrid[:rows, :columns]
    for region in named.of(series).regions:
        if region.kind == "mass":
            c = region.circle
            disc = (x - c.x_px) ** 2 + (y - c.y_px) ** 2 <= c.radius_px**2
            labels[max(0, c.slice - _MASS_SLICES) : c.slice + _MASS_SLICES + 1, disc] = Label.LUNG_MASS
    return Case(series, volume, labels)


def cut_regions(named: RegionFile, slices: slice) -> RegionFile:
    """What lies in slices that were cut out of a series, by their new numbers."""
    start: int = slices.start
    stop: int = slices.stop

    def moved(circle: Circle) -> Circle:
        return replace(circle, slice=circle.slice - start)

    def inside(circle: Circle) -> bool:
        return start <= circle.slice < stop

    regions: list[Region] = [replace(r, circle=moved(r.circle)) for r in named.regions if inside(r.circle)]
    tracks: list[Track] = []
    for track in named.tracks:
        circles = tuple(moved(circle) for circle in track.circles if inside(circle))
        tracks += [replace(track, circles=circles)] if circles else []
    return RegionFile(tuple(regions), tuple(tracks))


def level_patients(count: int, seed: int, *, slices: int, rows: int, anatomy: str = "thorax") -> list[LevelPatient]:
    """Phantom patients of a seed that no training used, in register, half of them of the other hospital.

    anatomy: one of models.phantom.cohort.ANATOMIES; all of "teaching" count as a hospital of that name.
    """
    tasks = plan_level_patients(count, seed, slices=slices, rows=rows, anatomy=anatomy)
    return [make_level_patient(task) for task in tasks]


def plan_level_patients(count: int, seed: int, *, slices: int, rows: int, anatomy: str) -> list[PhantomTask]:
    """The patients of `level_patients` before they are made."""
    return plan_cohort(
        count,
        seed,
        slices=slices,
        rows=rows,
        external_share=0 if anatomy == TEACHING else (count // 2) / count,
        misregistration=False,
        anatomy=anatomy,
    )


def make_level_patient(task: PhantomTask) -> LevelPatient:
    """One of the patients of `level_patients`."""
    record, arrays = make_cohort_patient(task)
    return LevelPatient(
        record.id,
        TEACHING if task.anatomy == TEACHING else record.hospital,
        record.spacing_mm,
        np.rint(arrays["ncct"]).astype(np.float32),
        np.asarray(arrays["labels"], np.uint8),
        np.asarray(arrays["enhancement"], np.float32),
    )


def shoulder_patients(count: int, seed: int, *, slices: int, rows: int) -> list[LevelPatient]:
    """Teaching patients between axilla and neck, 90 to 150 mm above the carina, 5 mm between slices."""
    found = []
    for number, level_mm in enumerate(np.linspace(90, 150, count)):
        pixel_mm = 400 / rows
        made = make_teaching_patient(
            seed + number, slices=slices, rows=rows, spacing_mm=(5.0, pixel_mm, pixel_mm), centre_z_mm=float(level_mm)
        )
        hu = np.rint(made.ncct_hu)
        found.append(
            LevelPatient(f"shoulder {number}", "teaching", made.spacing_mm, hu, made.labels, made.enhancement_hu)
        )
    return found


def phantom_cases(patients: Sequence[LevelPatient]) -> Iterator[Case]:
    """Phantom patients as series, through DICOM files as everything else."""
    for patient in patients:
        with TemporaryDirectory() as folder:
            identity = ScanIdentity(patient.id, f"Invented^{patient.id}", f"trust {patient.id}")
            write_scan(patient.ncct_hu, patient.spacing_mm, Path(folder), identity)
            volume = read_volume(sorted(Path(folder).glob("*.dcm")))
        yield Case(f"phantom {patient.hospital} {patient.id}", volume, patient.labels)
