"""Promises of the teaching anatomy: what it shows, what of it lights, and that the older phantom stays what it was."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from models.phantom import Label, PhantomPatient, make_patient, make_teaching_patient
from models.phantom.cohort import write_phantom_cohort
from models.phantom.teaching.scanner import Scanner, draw_noise

# Seed and level in mm of twelve patients who together show everything, and of three whose mass touches the arch.
PATIENTS = (
    (202, -20.0), (205, -190.0), (236, 30.0), (238, 95.0), (208, -70.0), (201, -190.0), (309, 45.0), (314, -60.0),
    (260, -240.0), (261, -150.0), (262, -70.0), (263, -45.0),
)  # fmt: skip
TOUCHING = (1, 21, 23)
_CHAMBERS = (Label.LEFT_VENTRICLE, Label.RIGHT_VENTRICLE, Label.LEFT_ATRIUM, Label.RIGHT_ATRIUM)
_CROSS = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], bool)
PROMISED = {label for label in Label if label not in {Label.STOMACH, Label.COUCH_RAIL}}


@pytest.fixture(scope="module")
def patients() -> list[PhantomPatient]:
    return [
        make_teaching_patient(seed, slices=6, rows=96, spacing_mm=(5.0, 4.3, 4.3), centre_z_mm=level)
        for seed, level in PATIENTS
    ]


def inner(patient: PhantomPatient, *labels: Label) -> NDArray[np.bool_]:
    """Voxels of these labels whose neighbours in plane and in both next slices have them too."""
    mask = np.isin(patient.labels, labels)
    return np.asarray(binary_erosion(binary_erosion(mask, np.ones((3, 1, 1))), _CROSS))


def share(patients: list[PhantomPatient], *labels: Label) -> NDArray[np.float32]:
    """Enhancement as a share of e well inside the labels."""
    return np.concatenate([p.enhancement_hu[inner(p, *labels)] / p.e_hu for p in patients])


def test_the_same_seed_gives_the_same_bits_and_another_another_patient() -> None:
    one, again, other = (make_teaching_patient(seed, slices=2, rows=64) for seed in (3, 3, 4))
    for name in ("ncct_hu", "cect_hu", "ncct_clean_hu", "labels", "enhancement_hu"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))
    assert one.spacing_mm == again.spacing_mm != other.spacing_mm


def test_the_older_phantom_keeps_its_bits() -> None:
    patient = make_patient(5, slices=3, rows=128, spacing_mm=(7.0, 3.9, 3.9), centre_z_mm=-45.0)
    assert patient.e_hu == pytest.approx(141.86070221941992, abs=1e-9)
    # Labels alone: the last bit of a Fourier transform may differ between processors.
    digest = hashlib.sha256(patient.labels.tobytes()).hexdigest()
    assert digest == "6cad61949eefc4f0b990801de3bea0f9422ee6ed0cbc291c81ba187cc14d0222"


def test_shapes_types_and_sums(patients: list[PhantomPatient]) -> None:
    patient = patients[6]
    for array in (patient.ncct_hu, patient.cect_hu, patient.cect_clean_hu, patient.enhancement_hu):
        assert array.shape == (6, 96, 96)
        assert array.dtype == np.float32
    assert patient.labels.dtype == np.uint8
    np.testing.assert_allclose(patient.ncct_clean_hu + patient.enhancement_hu, patient.cect_clean_hu, atol=1e-3)
    assert {int(value) for p in patients for value in np.unique(p.labels)} <= {int(label) for label in Label}


def test_every_promised_structure_occurs(patients: list[PhantomPatient]) -> None:
    seen = set(np.unique(np.concatenate([p.labels.ravel() for p in patients])).tolist())
    assert {label.name for label in PROMISED if label not in seen} == set()


def test_what_a_planner_must_not_see_light_lights_by_at_most_a_fifth(patients: list[PhantomPatient]) -> None:
    for label, most in (
        (Label.LUNG_MASS, 0.16),
        (Label.PLEURAL_EFFUSION, 0.02),
        (Label.GUT_CONTENT, 0.02),
        (Label.ATELECTASIS, 0.21),
        (Label.MUSCLE, 0.11),
    ):
        found = share(patients, label)
        assert len(found) >= 8, label.name
        assert np.percentile(found, 98) <= most, label.name


def test_blood_lights_by_e(patients: list[PhantomPatient]) -> None:
    for label in (Label.AORTA, Label.PULMONARY_ARTERY, Label.RIGHT_ATRIUM, Label.LEFT_VENTRICLE):
        found = share(patients, label)
        assert len(found) >= 8, label.name
        assert np.median(found) == pytest.approx(1.0, abs=0.1), label.name
    assert np.median(share(patients, Label.LIVER)) == pytest.approx(0.45, abs=0.05)
    assert np.median(share(patients, Label.SPLEEN)) == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize("seed", TOUCHING)
def test_an_aorta_keeps_its_blood_next_to_the_mass_that_touches_it(seed: int) -> None:
    patient = make_teaching_patient(seed, slices=3, rows=128, spacing_mm=(4.0, 2.6, 2.6), centre_z_mm=25.0)
    mass = patient.labels == Label.LUNG_MASS
    # Four pixels of 2.6 mm from the mass: the blood beside it, but for the two pixels that partial volume takes.
    near = inner(patient, Label.AORTA) & binary_dilation(mass, _CROSS, iterations=4)
    assert near.sum() >= 5
    lit = patient.enhancement_hu / patient.e_hu
    assert 0.9 < np.median(lit[near]) < 1.1
    assert np.median(lit[inner(patient, Label.LUNG_MASS)]) < 0.16


def test_every_heart_is_full_of_blood_and_every_aorta_is_whole() -> None:
    """Nothing that is painted beside a heart, such as fluid around it, may cover it."""
    for seed in range(704, 712):
        patient = make_teaching_patient(seed, slices=10, rows=64, spacing_mm=(15.0, 7.8, 7.8), centre_z_mm=-77.0)
        pixel_cm2 = 0.78**2
        blood = np.isin(patient.labels, _CHAMBERS).sum(axis=(1, 2)) * pixel_cm2
        assert blood.max() > 25, seed
        aorta = (patient.labels == Label.AORTA).sum(axis=(1, 2)) * pixel_cm2
        assert aorta.min() > 1, seed


def test_hu_alone_tell_no_blood_from_muscle() -> None:
    made = [make_teaching_patient(seed, slices=1, rows=48, centre_z_mm=0.0) for seed in range(12)]
    differences = [
        np.median(p.ncct_clean_hu[p.labels == Label.AORTA]) - np.median(p.ncct_clean_hu[p.labels == Label.MUSCLE])
        for p in made
        if (p.labels == Label.AORTA).any()
    ]
    assert min(differences) < -3
    assert max(differences) > 3
    assert min(p.e_hu for p in made) < 80
    assert max(p.e_hu for p in made) > 160


@pytest.mark.parametrize("seed", range(4))
def test_noise_has_the_sd_of_the_grid(seed: int) -> None:
    scanner = Scanner.draw(np.random.default_rng(seed))
    assert 5 <= scanner.noise_sd_hu <= 35
    made = [
        draw_noise(np.random.default_rng(seed), scanner, (2, rows, rows), 450 / rows, np.zeros(2, np.float32))
        for rows in (256, 512)
    ]
    for noise in made:
        middle = slice(noise.shape[1] // 5, -noise.shape[1] // 5)
        sampled = scanner.sampled_sd_hu(450 / noise.shape[1])
        assert noise[:, middle, middle].std() == pytest.approx(sampled, rel=0.2)
    assert scanner.sampled_sd_hu(450 / 512) == pytest.approx(scanner.noise_sd_hu, rel=0.2)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        make_teaching_patient(0, slices=1, rows=64, spacing_mm=(5.0, 1.0, 2.0))


def test_a_cohort_of_teaching_patients_has_spacings_of_their_own(tmp_path: Path) -> None:
    cohort = write_phantom_cohort(tmp_path, 4, 1, slices=2, rows=48, anatomy="teaching")
    assert len({patient.record.spacing_mm for patient in cohort.patients}) == 4
    assert cohort.split("external") == ()
    patient = cohort.patients[0]
    patient.verify()
    assert np.array_equal(patient.stored("cect"), patient.stored("cect_registered"))
    with pytest.raises(ValueError, match="thorax, teaching"):
        write_phantom_cohort(tmp_path / "other", 4, 1, anatomy="head")
