"""Promises of the phantom: the same seed gives the same patient, in register, with the physics it claims."""

import numpy as np
import pytest

from models.phantom import HOSPITALS, Label, PhantomPatient, make_patient
from models.phantom.tissues import BLOOD_POOL

SMALL = {"slices": 3, "rows": 128, "spacing_mm": (7.0, 3.9, 3.9), "centre_z_mm": -45.0}


@pytest.fixture(scope="module")
def patient() -> PhantomPatient:
    return make_patient(5, **SMALL)  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_bits_and_another_another_patient(patient: PhantomPatient) -> None:
    again, other = make_patient(5, **SMALL), make_patient(6, **SMALL)  # type: ignore[arg-type]
    for name in ("ncct_hu", "cect_hu", "labels", "enhancement_hu"):
        assert np.array_equal(getattr(again, name), getattr(patient, name))
        assert not np.array_equal(getattr(other, name), getattr(patient, name))


def test_shapes_types_and_ranges(patient: PhantomPatient) -> None:
    for array in (patient.ncct_hu, patient.cect_hu, patient.cect_clean_hu, patient.enhancement_hu):
        assert array.shape == (3, 128, 128)
        assert array.dtype == np.float32
    assert patient.labels.dtype == np.uint8
    assert patient.ncct_hu.min() >= -1024
    assert patient.spacing_mm == (7.0, 3.9, 3.9)


def test_truth_adds_up_and_noise_is_independent(patient: PhantomPatient) -> None:
    np.testing.assert_allclose(patient.ncct_clean_hu + patient.enhancement_hu, patient.cect_clean_hu, atol=1e-3)
    body = patient.labels == Label.MUSCLE
    first, second = (patient.ncct_hu - patient.ncct_clean_hu)[body], (patient.cect_hu - patient.cect_clean_hu)[body]
    assert first.std() > 2
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_noise_of_a_fine_grid_has_the_sd_of_the_hospital() -> None:
    fine = make_patient(1, slices=1, rows=256, spacing_mm=(5.0, 0.9766, 0.9766))
    body = np.isin(fine.labels, (Label.MUSCLE, Label.FAT, *BLOOD_POOL))
    noise = (fine.ncct_hu - fine.ncct_clean_hu)[body]
    assert noise.std() == pytest.approx(HOSPITALS["internal"].noise_sd_hu, rel=0.3)


def test_blood_enhances_by_e_and_air_by_nothing(patient: PhantomPatient) -> None:
    inner = np.isin(patient.labels, BLOOD_POOL) & (patient.enhancement_hu > 0.8 * patient.e_hu)
    assert inner.sum() > 100
    assert patient.enhancement_hu[inner].mean() == pytest.approx(patient.e_hu, rel=0.12)
    outside = np.isin(patient.labels, (Label.COUCH_FOAM, Label.COUCH_SHELL))
    assert outside.any()
    assert np.abs(patient.enhancement_hu[outside]).max() < 0.5


def test_native_blood_is_hard_to_tell_from_muscle(patient: PhantomPatient) -> None:
    blood = np.median(patient.ncct_clean_hu[np.isin(patient.labels, BLOOD_POOL)])
    muscle = np.median(patient.ncct_clean_hu[patient.labels == Label.MUSCLE])
    assert abs(blood - muscle) < 25


def test_head_is_up_and_front_is_first(patient: PhantomPatient) -> None:
    rows_of = {label: np.argwhere(patient.labels == label) for label in (Label.VERTEBRA, Label.RIGHT_VENTRICLE)}
    assert rows_of[Label.VERTEBRA][:, 1].mean() > rows_of[Label.RIGHT_VENTRICLE][:, 1].mean() + 10
    left = np.argwhere(patient.labels == Label.LEFT_VENTRICLE)[:, 2].mean()
    right = np.argwhere(patient.labels == Label.RIGHT_ATRIUM)[:, 2].mean()
    assert left > right  # the patient's left is on the right of the picture
    tall = make_patient(5, slices=24, rows=64, spacing_mm=(10.0, 7.8, 7.8))
    assert np.argwhere(tall.labels == Label.LIVER)[:, 0].max() < np.argwhere(tall.labels == Label.AIRWAY)[:, 0].max()


def test_hospitals_differ_in_enhancement_only_by_the_patients_number() -> None:
    inside, outside = (make_patient(5, hospital=name, **SMALL) for name in ("internal", "external"))  # type: ignore[arg-type]
    assert np.array_equal(inside.ncct_hu, outside.ncct_hu)
    assert inside.e_hu - outside.e_hu == pytest.approx(20, abs=0.01)


def test_impossible_sizes_and_unknown_hospitals_are_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        make_patient(0, slices=1, rows=64, spacing_mm=(5.0, 1.0, 2.0))
    with pytest.raises(KeyError):
        make_patient(0, slices=1, rows=64, hospital="nowhere")
