"""Promises of a cohort from DICOM: the right pairs, a reason for everybody else, and nobody's name."""

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from models import alignment
from models.alignment import Grid
from models.cohort import Cohort, CohortError, CohortPatient
from models.phantom.cohort import write_phantom_cohort
from node.cohorts.build import build_cohort
from node.cohorts.metal import find_metal
from node.cohorts.phantom import write_phantom
from node.cohorts.scans import read_oriented
from node.dicom.elements import put
from node.dicom.headers import read_header
from node.dicom.synthetic_scan import ScanIdentity, write_scan
from node.dicom.volume import read_volume
from node.errors import Refused
from tests.builders import body_hu, make_series

SLICES, ROWS, STEP_MM = 10, 96, 8.0
AGENT = {"ContrastBolusAgent": "Iomeprol"}
HOME, AWAY = {"InstitutionName": "Saint Elsewhere"}, {"InstitutionName": "Other Clinic"}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("phantoms") / "cohort"
    return write_phantom_cohort(folder, 3, 5, slices=SLICES, rows=ROWS, slice_spacing_mm=STEP_MM, external_share=0.34)


@dataclass(frozen=True)
class Hospital:
    """Writes scans of invented people below `folder`, one folder per series."""

    folder: Path

    def add(
        self,
        who: str,
        name: str,
        hu: np.ndarray,
        patient: CohortPatient,
        *,
        attributes: dict[str, str] | None = None,
        raised_mm: float = 0.0,
        customise: Callable[[Dataset, int], None] | None = None,
    ) -> Path:
        """Write one series of the person `who` with the grid of `patient`; returns its folder."""
        folder = self.folder / who / name
        folder.mkdir(parents=True)
        spacing = patient.record.spacing_mm
        corner = -(ROWS - 1) / 2 * spacing[1]
        identity = ScanIdentity(
            patient_id=f"MRN-{who}",
            patient_name=f"Doe^{who}",
            seed=f"{who} {name}",
            study_seed=who,
            attributes=HOME | (attributes or {}),
        )
        first = (corner, corner, raised_mm)
        write_scan(hu, spacing, folder, identity, first_position_mm=first, customise=customise)
        return folder


def with_implant(hu: np.ndarray) -> np.ndarray:
    """Metal of 40 x 10 mm over 6 slices in the middle of the body, with dark bands beside it."""
    marred = np.array(hu, dtype=np.float32)
    row, column = (int(places.mean()) for places in np.nonzero(marred[5] > -100))
    for z in range(2, 8):
        marred[z, row - 2 : row + 4 : 5, column - 8 : column + 8] = -600
        marred[z, row : row + 2, column - 4 : column + 4] = 3071
    return marred


@pytest.fixture(scope="module")
def hospital(phantoms: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """Three people with a good pair, of whom one was scanned elsewhere, and one for every reason to be left out."""
    made = Hospital(tmp_path_factory.mktemp("hospital"))
    first, second, other = phantoms.patients
    for who, patient, site, agent in (("tagged", first, HOME, AGENT), ("untagged", second, HOME, {})):
        made.add(who, "native", patient.stored("ncct"), patient, attributes=site)
        made.add(who, "venous", patient.stored("cect"), patient, attributes=site | agent)
    made.add("elsewhere", "native", other.stored("ncct"), other, attributes=AWAY)
    made.add("elsewhere", "venous", other.stored("cect"), other, attributes=AWAY | AGENT)

    native, venous = first.stored("ncct"), first.stored("cect")
    for who in ("ambiguous", "different_slices", "different_positions", "not_registered"):
        made.add(who, "native", native, first)
    made.add("no_contrast_scan", "native", native, first)
    made.add("no_contrast_scan", "agent in the header only", native, first, attributes=AGENT)
    made.add("no_native_scan", "venous", venous, first, attributes=AGENT)
    for phase in ("arterial", "venous"):
        made.add("ambiguous", phase, venous, first, attributes=AGENT)
    made.add("different_slices", "venous", venous[:-1], first, attributes=AGENT)
    made.add("different_positions", "venous", venous, first, attributes=AGENT, raised_mm=3.0)
    made.add("metal_artefact", "native", with_implant(native), first)
    made.add("metal_artefact", "venous", with_implant(venous), first, attributes=AGENT)
    made.add("not_registered", "venous", venous[::-1, ::-1, :].copy(), first, attributes=AGENT)
    made.add(
        "unusable",
        "native",
        native,
        first,
        customise=lambda ds, z: put(ds, "ImageType", "ORIGINAL", "PRIMARY", "LOCALIZER"),
    )
    return made


@dataclass(frozen=True)
class Built:
    cohort: Cohort
    ids: dict[str, str]
    """Who (as the fixtures call them) -> pseudonym."""

    def reason(self, who: str) -> str:
        return dict(self.cohort.excluded)[self.ids[who]]

    def patient(self, who: str) -> CohortPatient:
        (found,) = (patient for patient in self.cohort.patients if patient.id == self.ids[who])
        return found


def build(folder: Path, out: Path, **options: Any) -> Built:
    key = out.parent / f"{out.name}.csv"
    cohort = build_cohort(folder, out, key_file=key, **options)
    with key.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return Built(cohort, {row["patient_id"].removeprefix("MRN-"): row["pseudonym"] for row in rows})


@pytest.fixture(scope="module")
def built(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(hospital.folder, tmp_path_factory.mktemp("built") / "cohort", seed=3)


def in_place(fixed_hu: np.ndarray, moving_hu: np.ndarray, fixed: Grid, moving: Grid, *, deformable: bool) -> Any:
    """An aligner that trusts the positions and takes the nearest voxel: fast, where figures do not matter."""
    covered = np.zeros(fixed_hu.shape, dtype=np.bool_)
    places = []
    for axis in range(3):
        at = np.arange(fixed_hu.shape[axis]) * fixed.spacing_mm[axis] + fixed.origin_mm[2 - axis]
        places.append(np.rint((at - moving.origin_mm[2 - axis]) / moving.spacing_mm[axis]).astype(int))
    inside = [(place >= 0) & (place < size) for place, size in zip(places, moving_hu.shape, strict=True)]
    covered[np.ix_(*inside)] = True
    nearest = np.ix_(*(np.clip(place, 0, size - 1) for place, size in zip(places, moving_hu.shape, strict=True)))
    return Found(moving_hu[nearest], covered)


@dataclass(frozen=True)
class Found:
    registered_hu: np.ndarray
    covered: np.ndarray

    @property
    def quality(self) -> "Found":
        return self

    reason = ""

    def to_mapping(self) -> dict[str, object]:
        return {"trusted": True}


def test_good_pairs_are_stored_and_split_by_patient_and_hospital(built: Built) -> None:
    splits = {who: built.patient(who).record.split for who in ("tagged", "untagged", "elsewhere")}
    assert sorted(splits.values()) == ["external", "internal", "train"]
    assert splits["elsewhere"] == "external"
    hospitals = {who: built.patient(who).record.hospital for who in splits}
    assert hospitals == {"tagged": "H1", "untagged": "H1", "elsewhere": "H2"}
    assert len(built.cohort.patients) == 3
    for patient in built.cohort.patients:
        patient.verify()


def test_the_native_scan_is_stored_as_it_was_and_the_other_one_on_its_grid(built: Built, phantoms: Cohort) -> None:
    source, patient = phantoms.patients[0], built.patient("tagged")
    first = patient.record.facts["slices_cut_off"][0]  # type: ignore[index]
    inner = slice(first, first + patient.record.shape[0])
    assert np.array_equal(patient.stored("ncct"), source.stored("ncct")[inner])
    assert patient.record.spacing_mm == pytest.approx(source.record.spacing_mm, rel=1e-6)
    assert patient.stored("cect").shape == patient.stored("ncct").shape


def test_an_enhanced_scan_without_a_named_agent_is_a_contrast_scan_and_the_manifest_says_so(built: Built) -> None:
    named = {who: built.patient(who).record.facts["cect"]["agent_named"] for who in ("tagged", "untagged")}  # type: ignore[index]
    assert named == {"tagged": True, "untagged": False}
    facts = built.patient("untagged").record.facts
    assert facts is not None
    assert facts["cect"]["enhanced_ml"] > 25 > facts["ncct"]["enhanced_ml"]  # type: ignore[index]
    assert (facts["ncct"]["kernel"], facts["ncct"]["kvp"]) == ("B40", "120")  # type: ignore[index]
    registration = facts["registration"]
    assert registration["overlap_after"] >= registration["overlap_before"] > 0.5  # type: ignore[index]


@pytest.mark.parametrize(
    "why",
    [
        "no_contrast_scan",
        "no_native_scan",
        "ambiguous",
        "different_slices",
        "different_positions",
        "metal_artefact",
        "not_registered",
        "unusable",
    ],
)
def test_everybody_else_is_left_out_with_a_code_and_a_sentence(built: Built, why: str) -> None:
    code, _, sentence = built.reason(why).partition(": ")
    assert code == why
    assert len(sentence) > 20


def test_what_explains_a_missing_scan_is_told(built: Built) -> None:
    assert "names an agent that the pixels do not show" in built.reason("no_contrast_scan")
    assert built.reason("unusable").startswith("unusable: localizer: ")
    assert built.cohort.provenance["series"] == {
        "agent_named_but_not_seen": 1,
        "contrast": 10,
        "native": 9,
        "unusable: localizer": 1,
    }


def test_nothing_in_the_cohort_says_who_a_patient_is(built: Built, hospital: Hospital) -> None:
    text = (built.cohort.path / "manifest.json").read_text()
    files = [str(path.relative_to(built.cohort.path)) for path in built.cohort.path.rglob("*")]
    said = "\n".join([text, *files]).lower()
    for secret in ("mrn", "doe", "2.25.", "20200101", "elsewhere", "other clinic", "saint", str(hospital.folder)):
        assert secret.lower() not in said, secret
    assert json.loads(text)["kind"] == "dicom"


def test_the_key_is_for_its_owner_only_and_names_everybody(built: Built) -> None:
    key = built.cohort.path.with_suffix(".csv")
    assert key.stat().st_mode & 0o777 == 0o600
    assert set(built.ids) == {
        "tagged",
        "untagged",
        "elsewhere",
        "no_contrast_scan",
        "no_native_scan",
        "ambiguous",
        "different_slices",
        "different_positions",
        "metal_artefact",
        "not_registered",
        "unusable",
    }
    assert sorted(built.ids.values()) == [f"P{number:04d}" for number in range(1, 12)]


def test_a_key_is_never_overwritten_nor_stored_with_the_cohort(hospital: Hospital, tmp_path: Path) -> None:
    (tmp_path / "key.csv").write_text("somebody's")
    for key in (tmp_path / "key.csv", tmp_path / "out" / "key.csv", tmp_path / "nowhere" / "key.csv"):
        with pytest.raises(Refused):
            build_cohort(hospital.folder, tmp_path / "out", key_file=key, align=in_place)
    assert (tmp_path / "key.csv").read_text() == "somebody's"
    assert not (tmp_path / "out").exists()


def test_the_layout_of_the_folder_does_not_matter(hospital: Hospital, tmp_path: Path) -> None:
    """Everybody's files in one flat folder, under names that say nothing, with copies and rubbish among them."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for who in ("tagged", "untagged", "different_slices"):
        shutil.copytree(hospital.folder / who, tmp_path / "tree" / who)
    sources = sorted((tmp_path / "tree").rglob("*.dcm"))
    for path in sources:
        shutil.copy(path, flat / hashlib.sha256(str(path).encode()).hexdigest())
    shutil.copy(sources[0], flat / "again")
    (flat / "readme.txt").write_text("not DICOM")
    tree, found = (build(tmp_path / name, tmp_path / f"of {name}", align=in_place) for name in ("tree", "flat"))
    assert len(tree.cohort.patients) == 2
    assert found.cohort.digest == tree.cohort.digest
    assert found.cohort.excluded == tree.cohort.excluded
    counts = {"all": len(sources), "unreadable": 0, "copies": 0}
    assert tree.cohort.provenance["files"] == counts
    assert found.cohort.provenance["files"] == {"all": len(sources) + 2, "unreadable": 1, "copies": 1}


def test_any_grid_pairs_scans_with_other_slices(hospital: Hospital, tmp_path: Path) -> None:
    for who in ("different_slices", "different_positions"):
        shutil.copytree(hospital.folder / who, tmp_path / "in" / who)
    found = build(tmp_path / "in", tmp_path / "out", any_grid=True, align=in_place)
    assert not found.cohort.excluded
    # The last slice of the native scan has no counterpart.
    assert found.patient("different_slices").record.shape == (SLICES - 1, ROWS, ROWS)
    assert found.patient("different_slices").record.facts["slices_cut_off"] == [0, 1]  # type: ignore[index]


def test_too_few_covered_slices_leave_a_patient_out(hospital: Hospital, tmp_path: Path) -> None:
    def hardly(*scans: Any, deformable: bool) -> Any:
        found = in_place(*scans, deformable=deformable)
        found.covered[5:] = False
        return found

    found = build(hospital.folder / "tagged", tmp_path / "out", align=hardly)
    assert found.reason("tagged") == "different_positions: only 5 slices lie in both scans"


def test_what_cannot_be_aligned_is_left_out_with_the_reason(hospital: Hospital, tmp_path: Path) -> None:
    def fails(*scans: Any, deformable: bool) -> Any:
        raise alignment.AlignmentError("the scans have nothing in common")

    found = build(hospital.folder / "tagged", tmp_path / "out", align=fails)
    assert found.reason("tagged") == "not_registered: the scans have nothing in common"


def test_a_scan_of_the_same_study_is_preferred(phantoms: Cohort, tmp_path: Path) -> None:
    made, patient = Hospital(tmp_path / "in"), phantoms.patients[0]
    made.add("one", "native", patient.stored("ncct"), patient)
    made.add("one", "venous", patient.stored("cect"), patient, attributes=AGENT)
    other = AGENT | {"StudyInstanceUID": "2.25.7"}
    made.add("one", "another day", patient.stored("cect")[:, ::-1].copy(), patient, attributes=other)
    found = build(tmp_path / "in", tmp_path / "out", align=in_place).patient("one")
    assert np.array_equal(found.stored("cect"), patient.stored("cect"))
    assert found.record.split == "train"


def test_two_people_with_one_patient_id_are_never_one(phantoms: Cohort, tmp_path: Path) -> None:
    made, patient = Hospital(tmp_path / "in"), phantoms.patients[0]
    made.add("one", "native", patient.stored("ncct"), patient, attributes={"PatientBirthDate": "19500101"})
    made.add("one", "venous", patient.stored("cect"), patient, attributes=AGENT | {"PatientBirthDate": "19600101"})
    cohort = build_cohort(tmp_path / "in", tmp_path / "out", align=in_place)
    assert not cohort.patients
    assert [reason.split(":")[0] for _, reason in cohort.excluded] == ["ambiguous", "ambiguous"]


def test_a_series_with_images_of_two_people_is_refused_for_both(phantoms: Cohort, tmp_path: Path) -> None:
    made, patient = Hospital(tmp_path / "in"), phantoms.patients[0]

    def half(ds: Dataset, z: int) -> None:
        put(ds, "PatientID", "MRN-one" if z % 2 else "MRN-two")

    made.add("one", "mixed", patient.stored("ncct"), patient, customise=half)
    cohort = build_cohort(tmp_path / "in", tmp_path / "out", align=in_place)
    assert [reason.split(":")[:2] for _, reason in cohort.excluded] == [["unusable", " mixed_patients"]] * 2


def test_a_patient_without_an_id_is_left_out(phantoms: Cohort, tmp_path: Path) -> None:
    made, patient = Hospital(tmp_path / "in"), phantoms.patients[0]
    for name, scan, agent in (("native", "ncct", {}), ("venous", "cect", AGENT)):
        made.add("one", name, patient.stored(scan), patient, attributes=agent | {"PatientID": ""})
    cohort = build_cohort(tmp_path / "in", tmp_path / "out", align=in_place)
    assert [reason.split(":")[:2] for _, reason in cohort.excluded] == [["unusable", " no_patient_id"]]


def test_the_training_site_can_be_named(hospital: Hospital, tmp_path: Path) -> None:
    for who in ("tagged", "untagged", "elsewhere"):
        shutil.copytree(hospital.folder / who, tmp_path / "in" / who)
    found = build(tmp_path / "in", tmp_path / "out", training_site="OTHER  clinic", align=in_place)
    assert found.patient("elsewhere").record.split == "train"
    assert [found.patient(who).record.split for who in ("tagged", "untagged")] == ["external"] * 2
    with pytest.raises(CohortError, match="training site"):
        build_cohort(tmp_path / "in", tmp_path / "out2", training_site="Nowhere", align=in_place)


def test_a_folder_with_a_cohort_is_refused_before_any_file_is_read(built: Built, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="already"):
        build_cohort(tmp_path, built.cohort.path)


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (1, 0, 0, 0, -1, 0), (-1, 0, 0, 0, 1, 0)]
)
def test_a_scan_is_read_with_its_axes_along_the_patient(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    hu = rng.integers(-100, 100, (9, 20, 30)).astype(np.float32)
    paths = make_series(tmp_path, hu=hu, spacing_mm=(3.0, 2.0, 1.0), orientation=orientation)
    read, grid = read_oriented(paths)
    for source in read_volume(paths).slices:
        x, y, z = source.header.image_position_mm or (0.0, 0.0, 0.0)
        where = (z - grid.origin_mm[2]) / 3, (y - grid.origin_mm[1]) / 2, x - grid.origin_mm[0]
        number = int(source.dataset.InstanceNumber) - 1
        assert read[tuple(round(index) for index in where)] == hu[number, 0, 0]
    assert grid.spacing_mm == (3.0, 2.0, 1.0)


def test_clips_pass_and_an_implant_that_throws_streaks_does_not() -> None:
    """Clips of 4 mm; an implant of 40 x 8 mm over 18 mm; the same without streaks, as a scanner may correct them."""
    spacing = (3.0, 2.0, 2.0)
    body = body_hu(10, 128, 128)
    clips, corrected = body.copy(), body.copy()
    for column in range(50, 80, 6):
        clips[5, 60:62, column : column + 2] = 3071
    corrected[2:8, 60:64, 54:74] = 3071
    streaks = corrected.copy()
    streaks[2:8, 60:62, 40:52] = streaks[2:8, 60:62, 76:88] = -600
    assert [find_metal(hu, spacing).is_severe for hu in (body, clips, corrected, streaks)] == [False] * 3 + [True]
    assert find_metal(streaks, spacing).largest_ml == pytest.approx(5.76)


def test_metal_outside_the_body_does_not_count(phantoms: Cohort) -> None:
    patient = phantoms.patients[0]
    hu = patient.hu("ncct").copy()
    hu[:, 2:6, 40:50] = 3071
    assert find_metal(hu, patient.record.spacing_mm).largest_ml == 0


def test_phantom_scans_on_disk_are_the_pixels_of_the_cohort(tmp_path: Path) -> None:
    cohort = write_phantom(tmp_path, 2, 9, slices=3, rows=48)
    for patient in cohort.patients:
        folder = tmp_path / "dicom" / patient.id
        scans = {name: read_volume(sorted((folder / name).iterdir())) for name in ("ncct", "cect")}
        for name, volume in scans.items():
            assert np.array_equal(volume.hu, patient.hu(name))
        ncct, cect = (scans[name].headers for name in ("ncct", "cect"))
        positions = [[s.dataset.get_item("ImagePositionPatient").value for s in scan.slices] for scan in scans.values()]
        assert positions[0] == positions[1]
        assert {(h.study_uid, h.frame_of_reference_uid, h.patient) for h in (*ncct, *cect)} == {
            (ncct[0].study_uid, ncct[0].frame_of_reference_uid, ncct[0].patient)
        }
        assert ncct[0].series_uid != cect[0].series_uid
        assert (bool(ncct[0].contrast_agent), bool(cect[0].contrast_agent)) == (False, True)


def test_other_phantom_pixels_never_share_a_uid(tmp_path: Path) -> None:
    uids = set()
    for rows in (32, 48):
        write_phantom(tmp_path / str(rows), 2, 9, slices=1, rows=rows)
        for file in (tmp_path / str(rows) / "dicom").rglob("*.dcm"):
            header = read_header(file)
            uids |= {header.study_uid, header.series_uid, header.sop_instance_uid}
    # Two patients in two cohorts with a study, and in it two series of one image.
    assert len(uids) == 4 + 8 + 8
