"""`syncect evaluate` as a physicist meets it: a table, a report, figures in a card, and words where it cannot."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from models import read_card
from models.cohort import Cohort
from models.phantom.cohort import write_phantom_cohort
from models.testing import write_tiny_bundle
from node.bootstrap.places import Folder
from node.cohorts.shards import TRAINED_ON, fetch_cohort, write_shards

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run: Run) -> Run:
    return partial(run, "evaluate")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Five patients in register: two train, one tests, two are of the second hospital."""
    folder = tmp_path_factory.mktemp("phantom") / "cohort"
    return write_phantom_cohort(folder, 5, 2, slices=2, rows=64, external_share=0.4, misregistration=False)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    write_tiny_bundle(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_table_a_report_and_figures_in_the_card(run: Run, cohort: Cohort, tiny: Path, tmp_path: Path) -> None:
    digest, report = read_card(tiny).digest, tmp_path / "report"
    code, out, _ = run("--cohort", cohort.path, "--bundle", tiny, "--out", report, "--device", "cpu", "--write-card")
    assert code == 0
    rows = json.loads((report / "metrics.json").read_text())["rows"]
    assert {(row["cohort"], row["name"]) for row in rows} == {
        (c, n) for c in ("internal", "external") for n in ("identity", "mean_enhancement", "tiny")
    }
    for row in rows:
        (line,) = [x.split() for x in out.splitlines() if x.split()[:2] == [row["cohort"], row["name"]]]
        assert line[2:6] == [
            f"{row['psnr_db']:.2f}", f"{row['ssim']:.4f}", f"{row['nmae']:.4f}", f"{row['psnr_gain_db']:+.2f}"
        ]  # fmt: skip
        blood = row["structures"].get("blood_pool")
        assert line[6:8] == ([f"{blood['bias_hu']:+.1f}", f"{blood['mae_hu']:.1f}"] if blood else ["-", "-"])
        assert line[8] == f"{row['false_enhancement_mae_hu']:.1f}"
    assert any("blood_pool" in row["structures"] for row in rows)
    assert str(report / "report.html") in out
    card = read_card(tiny)
    assert card.digest == digest
    assert {row["name"] for row in card.metrics} == {"identity", "mean_enhancement", "tiny"}


def test_json_for_programs_and_the_first_patients_for_a_quick_look(
    run: Run, cohort: Cohort, tiny: Path, tmp_path: Path
) -> None:
    arguments = ("--cohort", cohort.path, "--bundle", tiny, "--out", tmp_path / "report", "--patients", 1, "--json")
    code, out, _ = run(*arguments)
    result = json.loads(out, parse_constant=pytest.fail)
    assert code == 0
    assert result["report"] == str(tmp_path / "report" / "report.html")
    assert result["cohort_digest"] == cohort.digest
    assert result["cards"] == []
    assert result["rows"] == json.loads((tmp_path / "report" / "metrics.json").read_text())["rows"]
    assert {row["patients"] for row in result["rows"]} == {1}
    assert json.loads((tmp_path / "report" / "report.json").read_text())["patients_of_each_split"] == 1
    assert read_card(tiny).metrics == ()


def test_a_report_is_never_mixed_with_other_files(run: Run, cohort: Cohort, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "panel_external.png").write_bytes(b"of another cohort")
    code, _, err = run("--cohort", cohort.path, "--out", tmp_path / "report")
    assert (code, len(list((tmp_path / "report").iterdir()))) == (4, 1)
    assert "is not empty" in err


def test_a_folder_that_is_no_cohort_and_a_cohort_without_test_patients_are_one_sentence(
    run: Run, cohort: Cohort, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run("--cohort", tmp_path / "empty", "--out", tmp_path / "report")
    assert code == 1
    assert "is no cohort" in err
    shutil.copytree(cohort.path, tmp_path / "training")
    manifest = json.loads((tmp_path / "training" / "manifest.json").read_text())
    manifest["patients"] = [p for p in manifest["patients"] if p["split"] == "train"]
    (tmp_path / "training" / "manifest.json").write_text(json.dumps(manifest))
    code, _, err = run("--cohort", tmp_path / "training", "--out", tmp_path / "report")
    assert code == 1
    assert "split train and in internal or external" in err
    assert len(err.strip().splitlines()) == 1


def test_a_cohort_that_was_fetched_for_a_training_is_told_how_to_get_the_rest(
    run: Run, cohort: Cohort, tmp_path: Path
) -> None:
    place = Folder(tmp_path / "store")
    write_shards(cohort, place, shard_bytes=1, progress=lambda *_: None)
    fetched = fetch_cohort(place, tmp_path / "cache", TRAINED_ON, lambda *_: None)
    code, _, err = run("--cohort", fetched.path, "--out", tmp_path / "report")
    assert code == 1
    assert "syncect cohort fetch URL --all" in err


def test_cards_that_cannot_be_written_are_refused_before_anything_is_measured(
    run: Run, cohort: Cohort, tmp_path: Path
) -> None:
    arguments = ("--cohort", cohort.path, "--out", tmp_path / "report", "--write-card")
    code, _, err = run(*arguments, "--bundle", "demo")
    assert code == 2
    assert "shipped bundle" in err
    code, _, err = run(*arguments)
    assert code == 2
    assert "no bundle" in err
    assert not (tmp_path / "report").exists()


def test_the_same_model_twice_and_no_model_at_all_are_refused(
    run: Run, cohort: Cohort, tiny: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "copy")
    arguments = ("--cohort", cohort.path, "--out", tmp_path / "report", "--bundle", tiny, "--bundle")
    code, _, err = run(*arguments, tmp_path / "copy")
    assert code == 2
    assert "given twice" in err
    code, _, err = run(*arguments, tmp_path / "nowhere")
    assert code == 1
    assert "No bundle" in err
