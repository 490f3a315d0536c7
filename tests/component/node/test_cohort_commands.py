"""`syncect cohort` as a person or a script meets it."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from models.cohort import open_cohort
from tests.builders import make_series

Run = Callable[..., tuple[int, str, str]]
SMALL = ("--slices", "10", "--rows", "96", "--slice-spacing-mm", "8")


@pytest.fixture
def run(run: Run) -> Run:
    return partial(run, "cohort")


def phantom(run: Run, out: Path, *more: str) -> tuple[int, str, str]:
    return run("phantom", "--out", str(out), "--patients", "2", "--seed", "5", *SMALL, *more)


def test_a_phantom_cohort_is_built_again_from_its_own_dicom(run: Run, tmp_path: Path) -> None:
    code, out, _ = phantom(run, tmp_path / "phantom", "--json")
    made = json.loads(out)
    assert code == 0
    assert made["splits"]["train"] == {"patients": 1, "slices": 10}
    assert made["digest"] == open_cohort(tmp_path / "phantom").digest
    dicom, key = str(tmp_path / "phantom" / "dicom"), str(tmp_path / "key.csv")
    code, out, _ = run("build", dicom, "--out", str(tmp_path / "built"), "--key", key, "--json")
    built = json.loads(out)
    assert code == 0
    assert (built["excluded"], built["reasons"]) == ({}, {})
    assert {name: split["patients"] for name, split in built["splits"].items()} == {
        "train": 1,
        "validation": 0,
        "internal": 1,
        "external": 0,
    }
    assert Path(key).read_text().count("PHANTOM-") == 2
    assert Path(built["path"]) == tmp_path / "built"


def test_tables_tell_the_splits_and_why_patients_are_left_out(run: Run, tmp_path: Path) -> None:
    make_series(tmp_path / "in" / "lone", patient_id="SECRET-1")
    make_series(tmp_path / "in" / "scout", patient_id="SECRET-2", seed="b", absent=["FrameOfReferenceUID"])
    code, out, err = run("build", str(tmp_path / "in"), "--out", str(tmp_path / "out"))
    assert code == 1
    assert "no patient has a usable pair" in err
    for word in ("train", "external", "no_contrast_scan", "unusable", "frame_of_reference"):
        assert word in out, word
    assert "SECRET" not in out + err
    assert len(open_cohort(tmp_path / "out").excluded) == 2


def test_phantoms_without_dicom_and_in_register(run: Run, tmp_path: Path) -> None:
    code, out, _ = phantom(run, tmp_path / "c", "--no-dicom", "--in-register")
    cohort = open_cohort(tmp_path / "c")
    assert (code, "internal" in out) == (0, True)
    assert not (tmp_path / "c" / "dicom").exists()
    assert not any(patient.has("displacement") for patient in cohort.patients)


def test_the_teaching_anatomy_draws_its_own_spacings(run: Run, tmp_path: Path) -> None:
    code, _, _ = phantom(run, tmp_path / "c", "--anatomy", "teaching")
    cohort = open_cohort(tmp_path / "c")
    assert (code, cohort.provenance["anatomy"]) == (0, "teaching")
    assert len({patient.record.spacing_mm for patient in cohort.patients}) == 2
    assert len(list((tmp_path / "c" / "dicom").rglob("*.dcm"))) == 40
    code, _, err = phantom(run, tmp_path / "other", "--anatomy", "head")
    assert code == 1
    assert "allowed are thorax, teaching" in " ".join(err.split())


def test_a_folder_that_is_a_cohort_is_an_error_in_one_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    for result in (phantom(run, tmp_path), run("build", str(tmp_path), "--out", str(tmp_path))):
        code, _, err = result
        assert code == 1
        assert " ".join(err.split()).endswith("already is a cohort; name another folder.")


def test_a_split_that_leaves_nobody_to_train_is_an_error(run: Run, tmp_path: Path) -> None:
    code, _, err = phantom(run, tmp_path / "c", "--external-share", "1")
    assert code == 1
    assert "at least two patients" in " ".join(err.split())


def test_usage_errors_have_code_2(run: Run, tmp_path: Path) -> None:
    assert run("phantom", "--out", str(tmp_path / "c"), "--patients", "1", "--seed", "5")[0] == 2
    assert run("build", str(tmp_path / "nowhere"), "--out", str(tmp_path / "c"))[0] == 2


def test_a_key_inside_the_cohort_is_refused(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "c"
    assert run("build", str(tmp_path), "--out", str(out), "--key", str(out / "key.csv"))[0] == 4
