"""Promises of the evaluation: hand-computed figures on drawn patients, and a whole report on a phantom cohort."""

import csv
import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from models.cohort import Cohort, CohortError, CohortWriter, PatientRecord, open_cohort
from models.evaluation import Report, evaluate
from models.evaluation.measure import PatientBench
from models.frame import Frame
from models.phantom import Label
from models.phantom.cohort import write_phantom_cohort
from models.testing import write_tiny_bundle


def drawn_cohort(path: Path, *, splits: tuple[str, ...] = ("train", "internal")) -> Cohort:
    """Patients of 55 HU of muscle around an aorta of 35 HU that gains 110 HU; the CECT is shifted up by 22 HU."""
    writer = CohortWriter(path, kind="phantom", provenance={})
    labels = np.full((3, 64, 64), Label.AIR, np.uint8)
    labels[:, 8:56, 8:56] = Label.MUSCLE
    labels[:, 22:42, 22:42] = Label.AORTA
    ncct = np.select([labels == Label.MUSCLE, labels == Label.AORTA], [55.0, 35.0], -1000.0).astype(np.float32)
    enhancement = np.where(labels == Label.AORTA, np.float32(110), np.float32(0))
    for number, split in enumerate(splits):
        record = PatientRecord(f"D{number}", split, split, ncct.shape, (5.0, 1.0, 1.0))
        truth = ncct + enhancement
        arrays = {"ncct": ncct, "cect_registered": truth, "cect_clean": truth, "enhancement": enhancement}
        writer.add(record, arrays | {"cect": truth + np.float32(22), "labels": labels})
    return writer.close()


def row(report: Report, cohort: str, name: str) -> dict[str, object]:
    rows = json.loads((report.path / "metrics.json").read_text())["rows"]
    (found,) = [r for r in rows if (r["cohort"], r["name"]) == (cohort, name)]
    return dict(found)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("drawn")
    return evaluate(drawn_cohort(folder / "cohort"), [], folder / "report", matrix=64)


def test_identity_has_the_figures_of_the_hand(drawn: Report) -> None:
    identity = row(drawn, "internal", "identity")
    # 400 of 4096 pixels are wrong by a quarter of the window.
    assert identity["nmae"] == pytest.approx(400 / 4096 * 0.25, rel=1e-4)
    assert identity["psnr_db"] == pytest.approx(-10 * math.log10(400 / 4096 / 16), abs=1e-3)
    assert identity["psnr_db_sd"] == pytest.approx(0, abs=1e-6)
    assert identity["structures"]["blood_pool"]["bias_hu"] == pytest.approx(-110)  # type: ignore[index]
    assert identity["structures"]["blood_pool"]["mae_hu"] == pytest.approx(110)  # type: ignore[index]
    assert identity["structures"]["blood_pool"]["voxels"] == 3 * 16 * 16  # type: ignore[index]
    assert identity["structures"]["muscle"]["mae_hu"] == 0  # type: ignore[index]
    assert identity["false_enhancement_mae_hu"] == 0
    assert (identity["slope"], identity["vessel_dice"], identity["psnr_gain_db"]) == (0, 0, 0)
    assert (identity["patients"], identity["slices"]) == (1, 3)
    assert identity["ms_ssim"] is None


def test_the_misregistered_reading_is_held_against_the_scan_as_taken(drawn: Report) -> None:
    identity = row(drawn, "internal_misregistered", "identity")
    assert identity["structures"]["blood_pool"]["bias_hu"] == pytest.approx(-132)  # type: ignore[index]
    assert identity["structures"]["muscle"]["bias_hu"] == pytest.approx(-22)  # type: ignore[index]
    # 48 x 48 pixels of body, 20 x 20 of them 132 HU off and the others 22; air stays clipped.
    assert identity["nmae"] == pytest.approx((400 * 132 + (2304 - 400) * 22) / 440 / 4096, rel=1e-4)


def test_mean_enhancement_knows_what_brightness_and_place_tell(drawn: Report) -> None:
    mean, identity = (row(drawn, "internal", name) for name in ("mean_enhancement", "identity"))
    blood, muscle = (mean["structures"][s] for s in ("blood_pool", "muscle"))  # type: ignore[index]
    assert abs(blood["bias_hu"]) < 25  # the patients are all alike: the table holds almost all of 110 HU
    assert muscle["mae_hu"] < 8
    assert mean["psnr_gain_db"] == pytest.approx(mean["psnr_db"] - identity["psnr_db"])  # type: ignore[operator]
    assert mean["psnr_gain_db"] > 6  # type: ignore[operator]


def test_baselines_learn_from_training_patients_only(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="split train"):
        evaluate(drawn_cohort(tmp_path, splits=("internal", "external")), [], tmp_path / "report", matrix=64)
    with pytest.raises(CohortError, match="split train"):
        evaluate(drawn_cohort(tmp_path / "b", splits=("train", "train")), [], tmp_path / "report", matrix=64)


def test_a_cohort_without_truth_has_pictures_only(tmp_path: Path) -> None:
    writer = CohortWriter(tmp_path / "cohort", kind="dicom", provenance={})
    scan = np.random.Generator(np.random.Philox(1)).normal(50, 30, (2, 32, 48)).astype(np.float32)
    for number, split in enumerate(("train", "internal")):
        writer.add(
            PatientRecord(f"R{number}", "h", split, scan.shape, (5.0, 1.0, 1.0)), {"ncct": scan, "cect": scan + 9}
        )
    report = evaluate(writer.close(), [], tmp_path / "report", matrix=32)
    assert {r.cohort for r in report.rows} == {"internal"}
    identity = row(report, "internal", "identity")
    assert identity["structures"] == {}
    assert identity["false_enhancement_mae_hu"] is None
    # 9 HU, less a little at the window's lower end; a third of the square picture is padding.
    assert identity["nmae"] == pytest.approx(9 / 440 * 32 / 48, rel=0.02)
    assert not list((tmp_path / "report").glob("bland_altman*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("whole")
    cohort = write_phantom_cohort(folder / "cohort", 2, 1, slices=6, rows=64)
    write_tiny_bundle(folder / "tiny<b>")
    write_tiny_bundle(folder / "still", seed=1, live=False)
    return evaluate(cohort, [folder / "tiny<b>", folder / "still"], folder / "report", matrix=64)


def test_bundles_stand_beside_both_baselines_in_both_readings(whole: Report) -> None:
    names = {(r.cohort, r.name) for r in whole.rows}
    for cohort in ("internal", "internal_misregistered"):
        rows = [n for c, n in names if c == cohort]
        assert {"identity", "mean_enhancement"} < set(rows)
        assert sum(n.startswith("tiny@") for n in rows) == 2  # both cards say "tiny": the digest tells them apart
    still, moved = sorted(
        (r for r in whole.rows if r.cohort == "internal" and r.name.startswith("tiny@")),
        key=lambda r: abs(r.gains["psnr_gain_db"]),
    )
    assert still.gains["psnr_gain_db"] == pytest.approx(0, abs=1e-3)
    assert still.means["false_enhancement_mae_hu"] == pytest.approx(0, abs=0.01)
    assert abs(moved.gains["psnr_gain_db"]) > 0.1
    assert moved.means["false_enhancement_mae_hu"] > 1


def test_every_promised_file_is_there_and_can_be_read(whole: Report) -> None:
    for name in ("metrics.json", "report.json", "table_internal.json", "structures.json", "comparisons.json"):
        json.loads((whole.path / name).read_text(), parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    with (whole.path / "table_internal.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["cohort"] for line in lines] == ["internal"] * 4 + ["internal_misregistered"] * 4
    assert "±" in lines[0]["PSNR [dB]"]
    for name in ("panel_internal.png", "bland_altman_internal.png"):
        assert (whole.path / name).read_bytes().startswith(b"\x89PNG")
    with (whole.path / "slices.csv").open(newline="") as file:
        psnr = [
            float(s["psnr_db"]) for s in csv.DictReader(file) if (s["cohort"], s["name"]) == ("internal", "identity")
        ]
    assert len(psnr) == 6
    assert row(whole, "internal", "identity")["psnr_db"] == pytest.approx(np.mean(psnr), abs=1e-4)
    assert all(file.exists() for file in whole.files)


def test_the_page_needs_no_other_file_and_no_script_and_plots_each_figure(whole: Report) -> None:
    page = (whole.path / "report.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page) == []
    assert "<script" not in page
    assert page.count('src="data:image/png;base64,') == 2
    plots = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    figures = {plot.get("aria-label"): plot for plot in plots}
    assert {"PSNR [dB]", "SSIM", "NMAE", "gain over identity [dB]", "predicted / true enhancement"} <= figures.keys()
    svg = "{http://www.w3.org/2000/svg}"
    dots = [float(dot.get("cx", "nan")) for dot in figures["PSNR [dB]"].iter(f"{svg}circle")]
    means = [r.means["psnr_db"] for r in whole.rows]
    assert len(dots) == len(means) == 8
    assert np.argsort(dots, kind="stable").tolist() == np.argsort(means, kind="stable").tolist()
    assert "tiny<b>" not in page


def test_all_figures_stand_in_one_csv(whole: Report) -> None:
    with (whole.path / "metrics.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = json.loads((whole.path / "metrics.json").read_text())["rows"]
    assert len(lines) == len(rows)
    for line, found in zip(lines, rows, strict=True):
        assert line == {key: "" if v is None else str(v) for key, v in found.items() if key != "structures"}


def test_virtual_sources_are_rows_of_their_own(tmp_path: Path) -> None:
    cohort = drawn_cohort(tmp_path / "cohort", splits=("train", "internal", "internal"))
    manifest = json.loads((cohort.path / "manifest.json").read_text())
    manifest["patients"][2]["facts"] = {"virtual_source": True}
    (cohort.path / "manifest.json").write_text(json.dumps(manifest))
    report = evaluate(open_cohort(cohort.path), [], tmp_path / "report", matrix=64)
    counts = {(r.cohort, r.patients) for r in report.rows}
    assert {("internal", 1), ("internal_virtual", 1)} <= counts
    table = json.loads((report.path / "table_internal.json").read_text())["rows"]
    assert "internal_virtual" in {line["cohort"] for line in table}
    assert (report.path / "panel_internal_virtual.png").exists()


def test_report_says_what_was_measured_on_what(whole: Report) -> None:
    report = json.loads((whole.path / "report.json").read_text())
    assert report["cohort"]["provenance"]["seed"] == 1
    assert len(report["bundles"]) == 2
    assert all(len(b["digest"]) == 64 for b in report["bundles"].values())
    tests = [t for t in report["tests"] if (t["cohort"], t["metric"], t["unit"]) == ("internal", "psnr_db", "slice")]
    assert len(tests) == 6  # every pair of four rows
    assert all(t["p"] <= t["p_holm"] <= 1 and t["pairs"] == 6 for t in tests)


def test_the_same_bundle_twice_is_refused(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "tiny")
    cohort = drawn_cohort(tmp_path / "cohort")
    with pytest.raises(ValueError, match="twice"):
        evaluate(cohort, [tmp_path / "tiny", tmp_path / "tiny"], tmp_path / "report", matrix=64)


def test_a_cohort_in_register_has_no_misregistered_reading(tmp_path: Path) -> None:
    cohort = write_phantom_cohort(tmp_path / "cohort", 2, 1, slices=1, rows=32, misregistration=False)
    report = evaluate(cohort, [], tmp_path / "report", matrix=32)
    assert {r.cohort for r in report.rows} == {"internal"}


def test_a_quick_look_measures_the_first_patients_of_each_split(tmp_path: Path) -> None:
    cohort = drawn_cohort(tmp_path / "cohort", splits=("train", "internal", "internal", "external", "external"))
    seen: list[tuple[int, int]] = []
    report = evaluate(
        cohort, [], tmp_path / "report", matrix=64, patients=1, progress=lambda *counts: seen.append(counts)
    )
    assert {(r.cohort, r.patients) for r in report.rows} == {
        (c, 1) for c in ("internal", "internal_misregistered", "external", "external_misregistered")
    }
    assert seen == [(1, 2), (2, 2)]


def test_the_truth_has_no_error_and_the_identity_misses_what_the_patient_gained(tmp_path: Path) -> None:
    cohort = write_phantom_cohort(tmp_path / "cohort", 2, 1, slices=4, rows=128)
    (patient,) = cohort.split("internal")
    bench = PatientBench(patient, Frame((-40.0, 400.0), 64))
    truth, _ = bench.measure("truth", bench.clean_hu)
    identity, _ = bench.measure("identity", bench.source_hu)
    assert truth.structures["blood_pool"].mae_hu == 0
    assert min(truth.slices["psnr_db"]) > max(identity.slices["psnr_db"]) + 3
    assert patient.record.e_hu is not None
    assert identity.structures["blood_pool"].bias_hu == pytest.approx(-patient.record.e_hu, rel=0.15)
    assert (identity.values["false_enhancement_mae_hu"], identity.values["slope"]) == (0, 0)
