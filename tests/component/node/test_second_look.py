"""The doubt of a job: kept beside the slices, measured, and a reason to hold where there is too much of it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.settings import ModelSettings, Settings
from node.bootstrap.release import release_held
from node.bootstrap.worker import job_options
from node.dicom.derived_plan import EquipmentIdentity
from node.dicom.doubt_file import DOUBT_FILE, read_doubt, write_doubt
from node.translate.job import JobOptions, JobResult, run_job
from tests.builders import FakeTranslator, body_hu, make_series
from tests.departments import START

SURE, UNSURE = FakeTranslator(), FakeTranslator(contradicted_hu=60.0)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A series with enough tissue for a doubt that counts."""
    return make_series(tmp_path_factory.mktemp("source"), hu=body_hu(4, 48, 48), spacing_mm=(5.0, 8.0, 8.0))


def run(paths: list[Path], out_dir: Path, translator: FakeTranslator, **changes: Any) -> JobResult:
    out_dir.mkdir()
    made = JobOptions(EquipmentIdentity(software_version="0.1.0"), datetime(2026, 1, 2, tzinfo=UTC), **changes)
    return run_job(paths, translator, made, out_dir)


def test_a_model_that_contradicts_itself_is_held_and_its_doubt_is_kept(paths: list[Path], tmp_path: Path) -> None:
    result = run(paths, tmp_path / "out", UNSURE)
    doubt = read_doubt(tmp_path / "out")
    assert doubt is not None
    assert result.doubt is not None
    assert np.array_equal(doubt.mask, result.doubt.mask)
    assert doubt.mask.shape == (4, 48, 48)
    assert doubt.mask[:, 20:28, 20:28].all()
    assert not doubt.mask[:, :10].any()
    assert doubt.doubt_hu[2, 24, 24] > 40
    assert result.measurements["doubtful_ml"] > 100
    assert "doubtful_z_mm" in result.measurements
    assert "the model contradicts itself in" in (result.held_reason or "")


def test_a_model_that_agrees_with_itself_is_not_held(paths: list[Path], tmp_path: Path) -> None:
    result = run(paths, tmp_path / "out", SURE)
    doubt = read_doubt(tmp_path / "out")
    assert result.held_reason is None
    assert doubt is not None
    assert not doubt.mask.any()
    assert result.measurements["doubtful_ml"] == 0
    assert result.measurements["brightened_ml"] > 10
    assert "doubtful_z_mm" not in result.measurements


def test_the_setting_decides_what_becomes_of_doubt_and_no_pixel_or_uid_changes(
    paths: list[Path], tmp_path: Path
) -> None:
    held, marked, once = (run(paths, tmp_path / mode, UNSURE, doubt=mode) for mode in ("hold", "mark", "off"))
    assert marked.held_reason is None
    assert marked.measurements == held.measurements
    assert (tmp_path / "mark" / DOUBT_FILE).read_bytes() == (tmp_path / "hold" / DOUBT_FILE).read_bytes()
    assert once.held_reason is None
    assert once.doubt is None
    assert "doubtful_ml" not in once.measurements
    assert read_doubt(tmp_path / "off") is None
    assert [made.sha256 for made in held.files] == [made.sha256 for made in once.files]


def test_the_settings_reach_the_job() -> None:
    assert job_options(Settings(), START).doubt == "hold"
    assert job_options(Settings(model=ModelSettings(doubt="mark")), START).doubt == "mark"


def test_a_released_result_keeps_its_doubt(department, paths: list[Path], tmp_path: Path) -> None:
    case = department.node.overview.case(department.held())
    doubt = run(paths, tmp_path / "out", UNSURE).doubt
    assert doubt is not None
    write_doubt(department.node.spool.path(case.product_dir), doubt)
    release_held(department.node, case, "operator mia", "seen by Dr Wu", START)
    after = department.node.overview.case(case.id)
    kept = read_doubt(department.node.spool.path(after.product_dir))
    assert after.product_dir != case.product_dir
    assert kept is not None
    assert np.array_equal(kept.mask, doubt.mask)
