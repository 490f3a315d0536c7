"""The report that is signed: made whole, about one bundle, with a contour that lies where it was drawn."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from models.testing import write_tiny_bundle
from node.cohorts.phantom import write_phantom
from node.commission.rtstruct import RT_STRUCTURE_SET, contours_of, overlay, read_structures, write_structures
from node.dicom.volume import read_volume
from tests.builders import make_series

SECTIONS = (
    *("Identity", "Evaluation", "Agreement by structure", "Gates", "Delivered objects", "Time", "Failure drills"),
    "Dose",
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_phantom(folder, 3, 5, slices=4, rows=64, slice_spacing_mm=10.0, in_register=True, dicom=False)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_tiny_bundle(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_whole_report_is_made_accepted_and_void_for_other_weights(run, config, cohort, bundle, tmp_path) -> None:
    out = tmp_path / "report"
    code, said, errors = run("commission", "--bundle", bundle, "--cohort", cohort, "--out", out, "--device", "cpu")
    assert code == 0, errors
    report = json.loads((out / "report.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json", "report.pdf"]
    assert tuple(section["title"] for section in report["sections"]) == SECTIONS
    page = (out / "report.html").read_text()
    assert report["contents_sha256"] in page
    assert "http" not in page.replace("https", "http").split("<body>")[1], "it needs no other file"
    assert report["files_sha256"]["report.pdf"] in said
    tables = {one["title"]: one["rows"] for section in report["sections"] for one in section["tables"]}
    assert ["largest distance of a point in both series", "0.0 mm"] in tables[
        "Contour drawn on the result, laid over the source"
    ]
    assert {row[2] for row in tables["Drills"]} <= {"refused", "not run"}
    assert len(tables["Spoiled results"]) == 12
    for name in ("report.pdf", "report.html", "report.json"):
        assert run("models", "accept", bundle, "--report", out / name, "--who", "A. Physicist")[0] == 0
    write_tiny_bundle(bundle, seed=1)
    code, _, errors = run("models", "accept", bundle, "--report", out / "report.pdf", "--who", "A. Physicist")
    assert code == 4
    assert "make a report of this bundle" in " ".join(errors.split())


def test_a_folder_with_files_is_not_mixed_with_a_report(run, config, bundle, tmp_path) -> None:
    assert run("commission", "--bundle", bundle, "--out", tmp_path)[0] == 4
    assert run("commission", "--bundle", bundle, "--out", tmp_path / "new", "--data", tmp_path)[0] == 2


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (1, 0, 0, 0, -1, 0), (0, 1, 0, -1, 0, 0)])
def test_a_contour_lies_on_both_series_where_it_was_drawn(tmp_path: Path, orientation) -> None:
    for name in ("source", "derived"):
        make_series(tmp_path / name, slices=5, seed=name, orientation=orientation)
    volume = read_volume(sorted((tmp_path / "derived").glob("*.dcm")))
    mask = np.zeros(volume.hu.shape, bool)
    mask[1:4, 8:20, 6:16] = True
    mask[2, 12:15, 9:12] = False  # a hole
    contours = contours_of(mask, volume)
    write_structures(tmp_path / "rt.dcm", "X", contours, volume)
    assert dcmread(tmp_path / "rt.dcm").SOPClassUID == RT_STRUCTURE_SET
    read = read_structures(tmp_path / "rt.dcm")
    found = overlay(read, tmp_path / "source", tmp_path / "derived", mask)
    assert (found.contours, found.largest_mm, found.unequal_voxels, found.unequal_to_drawn_voxels) == (4, 0.0, 0, 0)
    assert found.voxels == mask.sum()
    moved = [points + np.array([3.0, 0, 0]) for points in read]
    assert overlay(moved, tmp_path / "source", tmp_path / "derived", mask).unequal_to_drawn_voxels > 0
