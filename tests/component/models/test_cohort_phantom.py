"""Promises of the phantom cohort: the same seed gives the same files, motion is what it claims, truth stays truth."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.cohort import Cohort, CohortError, open_cohort
from models.displacement import upsample_field, warp
from models.phantom import Label
from models.phantom.cohort import make_cohort_patient, plan_cohort, write_phantom_cohort
from models.phantom.misregistration import LARGEST_SI_MM, Motion, draw_field

SMALL: dict[str, Any] = {"slices": 4, "rows": 64}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return write_phantom_cohort(tmp_path_factory.mktemp("phantom") / "c", 3, 11, **SMALL)


def quiet_motion(**changes: object) -> Motion:
    still = {"shift_mm": (0.0, 0.0, 0.0), "angle_deg": 0.0, "smooth_rms_mm": 0.0, "correlation_mm": 30.0}
    return Motion(**(still | {"breathing_mm": 0.0, "cardiac_mm": 0.0, "couch_mm": (0.0, 0.0, 0.0)} | changes))  # type: ignore[arg-type]


def labels_of_a_body() -> np.ndarray:
    labels = np.full((8, 96, 96), Label.AIR, np.uint8)
    labels[:, 20:70, 16:80] = Label.MUSCLE
    labels[:, 35:55, 40:60] = Label.LEFT_VENTRICLE
    labels[:, 74:80, 10:86] = Label.COUCH_FOAM
    return labels


def test_the_same_seed_gives_the_same_bits_whoever_makes_them(cohort: Cohort, tmp_path: Path) -> None:
    again = write_phantom_cohort(tmp_path / "again", 3, 11, **SMALL, workers=2)
    assert again.digest == cohort.digest
    assert plan_cohort(3, 12, **SMALL)[0].seed != plan_cohort(3, 11, **SMALL)[0].seed
    cohort.patients[0].verify()


def test_patients_are_split_and_the_last_come_from_the_other_hospital(cohort: Cohort) -> None:
    assert sorted(p.record.split for p in cohort.patients) == ["external", "internal", "train"]
    (external,) = cohort.split("external")
    assert (external.id, external.record.hospital) == ("P0002", "external")
    internal_px = cohort.split("internal")[0].record.spacing_mm[1]
    assert external.record.spacing_mm[1] > internal_px
    tasks = plan_cohort(50, 1, **SMALL)
    assert [sum(t.split == s for t in tasks) for s in ("train", "validation", "internal", "external")] == [
        25,
        3,
        12,
        10,
    ]
    assert len({t.seed for t in tasks}) == 50


def test_a_patient_is_the_same_in_a_larger_cohort() -> None:
    small, large = plan_cohort(5, 1, **SMALL), plan_cohort(20, 1, **SMALL)
    assert [t.seed for t in small] == [t.seed for t in large[:5]]


def test_truth_is_in_register_and_adds_up(cohort: Cohort) -> None:
    patient = cohort.patients[0]
    clean, registered = patient.hu("cect_clean"), patient.hu("cect_registered")
    inside = (clean > -300) & (clean < 300)
    residual = (registered - clean)[inside]
    assert abs(residual.mean()) < 0.5
    assert residual.std() < 8
    blood = np.isin(patient.labels(), (Label.AORTA, Label.LEFT_VENTRICLE, Label.RIGHT_VENTRICLE))
    assert patient.hu("enhancement")[blood].max() == pytest.approx(patient.record.e_hu, rel=0.2)


def test_the_second_scan_is_the_truth_moved_by_the_field_plus_noise() -> None:
    task = plan_cohort(3, 11, slices=6, rows=64)[0]
    record, made = make_cohort_patient(task)
    arrays = {name: np.asarray(array, np.float32) for name, array in made.items()}
    assert not np.array_equal(arrays["cect"], arrays["cect_registered"])
    nodes = arrays["displacement"]
    assert nodes.shape == (3, 6, 17, 17)
    still = make_cohort_patient(plan_cohort(3, 11, slices=6, rows=64, misregistration=False)[0])[1]
    assert "displacement" not in still
    assert np.array_equal(still["cect"], still["cect_registered"])
    field = upsample_field(nodes, 64, 64, 4)
    moved = warp(arrays["cect_clean"], field, record.spacing_mm)
    # The outermost slices took anatomy from a margin that is not stored.
    error = (arrays["cect"] - moved)[2:4]
    unmoved = (arrays["cect"] - arrays["cect_clean"])[2:4]
    assert np.abs(error).mean() < 0.6 * np.abs(unmoved).mean()


def test_smooth_motion_has_its_rms_and_its_correlation_length() -> None:
    labels = np.full((6, 512, 512), Label.AIR, np.uint8)
    motion = quiet_motion(smooth_rms_mm=2.0, correlation_mm=30.0)
    field = draw_field(np.random.Generator(np.random.Philox(3)), motion, labels, (5.0, 1.0, 1.0), 0.0)
    upper = field[:, :, :100]  # the lower rows follow the couch
    assert np.sqrt((upper**2).sum(axis=0).mean()) == pytest.approx(2.0, rel=0.25)
    assert not upper[0].any()
    x = upper[2]
    apart = (x[:, :, :-8] * x[:, :, 8:]).mean() / (x**2).mean()  # 8 nodes are 32 mm
    near = (x[:, :, :-2] * x[:, :, 2:]).mean() / (x**2).mean()
    assert near > 0.85
    assert 0.1 < apart < 0.6


def test_breathing_grows_from_nothing_at_the_apex_to_all_of_it_at_the_dome() -> None:
    motion, rng = quiet_motion(breathing_mm=10.0), np.random.Generator(np.random.Philox(0))
    high = draw_field(rng, motion, labels_of_a_body(), (5.0, 4.0, 4.0), 90.0)
    low = draw_field(rng, motion, labels_of_a_body(), (5.0, 4.0, 4.0), -140.0)
    assert not high.any()
    middle = low[0, :, 11, 12]
    assert np.allclose(middle, 10, atol=0.2)
    assert low[0].max() <= LARGEST_SI_MM
    assert np.abs(low[0, :, 5, 1]).max() < 1.0  # outside the chest nothing moves along it
    assert not low[1:].any()


def test_a_larger_heart_shows_at_its_border_what_lay_further_in() -> None:
    motion, rng = quiet_motion(cardiac_mm=2.0), np.random.Generator(np.random.Philox(0))
    field = draw_field(rng, motion, labels_of_a_body(), (5.0, 2.5, 2.5), 0.0)
    middle = 12  # of the nodes, near the heart's centre
    assert field[2, 4, 11, middle + 5] == pytest.approx(-2.0, abs=0.2)
    assert field[2, 4, 11, middle - 5] == pytest.approx(2.0, abs=0.2)
    without = labels_of_a_body()
    without[without == Label.LEFT_VENTRICLE] = Label.MUSCLE
    assert not draw_field(rng, motion, without, (5.0, 2.5, 2.5), 0.0).any()


def test_the_couch_moves_as_one_piece() -> None:
    motion = quiet_motion(couch_mm=(0.0, 3.0, -1.0), smooth_rms_mm=2.0)
    field = draw_field(np.random.Generator(np.random.Philox(1)), motion, labels_of_a_body(), (5.0, 4.0, 4.0), 0.0)
    couch = field[:, :, 19:21]  # rows 76 to 80
    assert np.all(couch[1] == 3.0)
    assert np.all(couch[2] == -1.0)
    assert field[1, :, 5:10].std() > 0.3


def test_a_folder_with_a_cohort_and_too_few_patients_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="already"):
        write_phantom_cohort(cohort.path, 3, 11, **SMALL)
    with pytest.raises(ValueError, match="two"):
        write_phantom_cohort(tmp_path / "one", 1, 0, **SMALL)
    assert open_cohort(cohort.path).digest == cohort.digest


def test_progress_counts_patients(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_phantom_cohort(tmp_path, 2, 0, slices=1, rows=32, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
