"""Promises of the figures in a card: they are the evaluation's, they say on whom, and the model stays the same."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from models import load_bundle, read_card, verify_bundle
from models.bundle import BundleCard, BundleError, write_bundle
from models.card_text import render_card
from models.cohort import Cohort, CohortWriter, PatientRecord
from models.evaluation import Report, evaluate, write_metrics
from models.phantom.cohort import write_phantom_cohort
from models.testing import write_tiny_bundle

KEYS = {
    *("name", "cohort", "cohort_kind", "cohort_digest", "patients", "slices", "psnr_db", "ssim", "nmae"),
    *("blood_pool_bias_hu", "blood_pool_mae_hu", "false_enhancement_mae_hu", "slope", "interslice_jump_hu"),
    *("enhanced_error_hu", "quiet_error_hu", "contrast_gain"),
}


def real_cohort(path: Path) -> Cohort:
    """Two patients of whom nobody knows what is where."""
    writer = CohortWriter(path, kind="dicom", provenance={})
    scan = np.random.Generator(np.random.Philox(1)).normal(50, 30, (2, 32, 32)).astype(np.float32)
    for number, split in enumerate(("train", "internal")):
        record = PatientRecord(f"R{number}", "h", split, scan.shape, (5.0, 1.0, 1.0))
        writer.add(record, {"ncct": scan, "cect": scan + 9})
    return writer.close()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return write_phantom_cohort(tmp_path_factory.mktemp("phantom") / "c", 3, 1, slices=6, rows=64, external_share=0.34)


@pytest.fixture(scope="module")
def report(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report on two bundles of one name."""
    folder = tmp_path_factory.mktemp("report")
    write_tiny_bundle(folder / "a", live=False)
    write_tiny_bundle(folder / "b", seed=1)
    return evaluate(cohort, [folder / "a", folder / "b"], folder / "report", matrix=32)


@pytest.fixture
def measured(report: Report, cohort: Cohort, tmp_path: Path) -> BundleCard:
    """The card of the second of them, a copy in `tmp_path`."""
    write_tiny_bundle(tmp_path / "b", seed=1)
    return write_metrics(tmp_path / "b", report.rows, cohort)


def test_figures_enter_the_card_and_leave_the_model_as_it_was(measured: BundleCard, tmp_path: Path) -> None:
    original = write_tiny_bundle(tmp_path / "original", seed=1)
    weights = [(tmp_path / folder / "weights.safetensors").read_bytes() for folder in ("b", "original")]
    assert weights[0] == weights[1]
    assert measured.digest == original.digest
    assert verify_bundle(tmp_path / "b") == read_card(tmp_path / "b") == load_bundle(tmp_path / "b").card == measured
    assert dataclasses.replace(measured, metrics=()) == original


def test_a_card_has_its_own_row_and_both_baselines_in_every_reading(
    measured: BundleCard, cohort: Cohort, report: Report
) -> None:
    readings = ("internal", "internal_misregistered", "external", "external_misregistered")
    assert {(row["cohort"], row["name"]) for row in measured.metrics} == {
        (reading, name) for reading in readings for name in ("identity", "mean_enhancement", "tiny")
    }
    assert all(set(row) == KEYS for row in measured.metrics)
    assert {(row["cohort_kind"], row["cohort_digest"]) for row in measured.metrics} == {("phantom", cohort.digest)}
    (own,) = [row for row in measured.metrics if (row["cohort"], row["name"]) == ("external", "tiny")]
    # Two bundles are called tiny: the figures are of the one with this digest.
    (true,) = [r for r in report.rows if (r.cohort, r.name) == ("external", f"tiny@{measured.digest[:8]}")]
    assert (own["patients"], own["slices"]) == (1, 6)
    assert own["psnr_db"] == pytest.approx(true.means["psnr_db"], abs=0.005)
    assert own["ssim"] == pytest.approx(true.means["ssim"], abs=5e-5)
    assert own["blood_pool_mae_hu"] == pytest.approx(true.structures["blood_pool"].mae_hu, abs=0.005)
    assert own["blood_pool_bias_hu"] == pytest.approx(true.structures["blood_pool"].bias_hu, abs=0.005)
    assert own["false_enhancement_mae_hu"] == pytest.approx(true.means["false_enhancement_mae_hu"], abs=0.005)


def test_the_card_text_says_on_whom_and_beside_what(measured: BundleCard, cohort: Cohort, tmp_path: Path) -> None:
    text = (tmp_path / "b" / "CARD.md").read_text()
    assert text == render_card(measured)
    assert "invented patients" in text
    assert cohort.digest[:16] in text
    assert "`mean_enhancement` adds" in text
    (row,) = [r for r in measured.metrics if (r["cohort"], r["name"]) == ("internal", "identity")]
    start = f"| internal | identity | 1 | 6 | {row['psnr_db']} | {row['ssim']} | {row['nmae']} |"
    assert start in text
    bias_hu = row["blood_pool_bias_hu"]
    assert isinstance(bias_hu, float)
    assert bias_hu < -50
    assert (row["false_enhancement_mae_hu"], row["slope"]) == (0, 0)


def test_what_real_patients_do_not_tell_stays_empty(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "tiny")
    cohort = real_cohort(tmp_path / "cohort")
    report = evaluate(cohort, [tmp_path / "tiny"], tmp_path / "report", matrix=32)
    card = write_metrics(tmp_path / "tiny", report.rows, cohort)
    assert {row["blood_pool_mae_hu"] for row in card.metrics} == {None}
    json.loads((tmp_path / "tiny" / "bundle.json").read_text(), parse_constant=pytest.fail)
    text = (tmp_path / "tiny" / "CARD.md").read_text()
    assert "real patients" in text
    assert "invented" not in text
    assert "|  |  |  |  |" in text


def test_a_new_evaluation_replaces_the_old_one(measured: BundleCard, report: Report, tmp_path: Path) -> None:
    cohort = real_cohort(tmp_path / "cohort")
    again = write_metrics(tmp_path / "b", [r for r in report.rows if r.cohort == "internal"], cohort)
    assert len(again.metrics) == 3
    assert {row["cohort_digest"] for row in again.metrics} == {cohort.digest}


def test_a_student_stands_beside_its_teacher(report: Report, cohort: Cohort, tmp_path: Path) -> None:
    teacher, card = write_tiny_bundle(tmp_path / "a", live=False), write_tiny_bundle(tmp_path / "b", seed=1)
    lineage = {"teacher": {"name": teacher.name, "version": teacher.version, "digest": teacher.digest}}
    weights = (tmp_path / "b" / "weights.safetensors").read_bytes()
    write_bundle(tmp_path / "b", dataclasses.replace(card, training=lineage), weights, text="")
    rows = {row["name"]: row for row in write_metrics(tmp_path / "b", report.rows, cohort).metrics}
    assert list(rows) == ["identity", "mean_enhancement", "tiny (teacher)", "tiny"]
    assert rows["tiny (teacher)"]["psnr_db"] != rows["tiny"]["psnr_db"]


def test_rows_of_other_bundles_and_damaged_bundles_are_refused(report: Report, cohort: Cohort, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "other", seed=7)
    before = (tmp_path / "other" / "bundle.json").read_bytes()
    with pytest.raises(ValueError, match="no row of tiny"):
        write_metrics(tmp_path / "other", report.rows, cohort)
    (tmp_path / "other" / "weights.safetensors").write_bytes(b"cut")
    with pytest.raises(BundleError, match="do not use it"):
        write_metrics(tmp_path / "other", report.rows, cohort)
    assert (tmp_path / "other" / "bundle.json").read_bytes() == before
