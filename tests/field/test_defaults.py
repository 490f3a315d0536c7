"""A node with the settings as they are shipped, and the shipped bundle: what it sends, and what it holds.

The shipped bundle takes half a second of a core for a slice: `make test` sends as few neighbouring slices as these
settings take, `make field` (FIELD_CASES=all) the whole series.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from config.settings import EligibilitySettings, ModelSettings
from node.dicom.geometry import slice_normal
from storage.overview import Case
from tests.field.cases import FieldCase, Pushable, field_cases
from tests.field.checks import Derived, derived_by_series
from tests.field.place import ROOT
from tests.slice.checks import WINDOW_HU
from tests.slice.harness import RunningNode, StoreScp, push, wait_for

CASES = {case.name: case for case in field_cases(ROOT)}
MEAN_DIFFERENCE_HU = 1.0
ALL = os.environ.get("FIELD_CASES") == "all"
SLICES = 64 if ALL else EligibilitySettings().min_slices


@pytest.fixture(scope="module")
def tps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreScp]:
    tps = StoreScp(tmp_path_factory.mktemp("defaults") / "tps").start()
    yield tps
    tps.kill()


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, tps: StoreScp) -> Iterator[RunningNode]:
    node = RunningNode(tmp_path_factory.mktemp("defaults") / "node", ModelSettings().bundle, [tps], completion="")
    yield node.start()
    node.close()
    node.forget()


def ends(node: RunningNode, series: set[str]) -> dict[str, Case]:
    """Wait until all these series have ended; the case of each."""

    def ended() -> dict[str, Case]:
        found = {case.series_uid: case for case in node.cases() if case.series_uid in series}
        done = all(case.state in ("SENT", "HELD", "SKIPPED", "FAILED", "INCOMPLETE") for case in found.values())
        return found if set(found) == series and done else {}

    found: dict[str, Case] = wait_for("the end of all series", ended, 200)
    return found


def neighbours(folder: Path) -> list[Path]:
    """The slices that are sent, in the middle of a series."""
    files = sorted(folder.glob("*.dcm"), key=lambda path: float(dcmread(path).ImagePositionPatient[2]))
    begin = max(0, len(files) - SLICES) // 2
    return files[begin : begin + SLICES]


def pushed(node: RunningNode, case: FieldCase, folder: Path) -> Pushable:
    made = case.make(folder)
    for series in {path.parent for path in made.files()}:
        for path in set(series.glob("*.dcm")).difference(neighbours(series)):
            path.unlink()
    assert made.push(node.port, "CTSIM", lambda: None) == [0]
    return made


@pytest.mark.timeout(400)
def test_the_philips_scan_is_sent_and_the_siemens_scan_only_after_a_release(
    real_data: Path, shipped: RunningNode, tps: StoreScp
) -> None:
    scans = {name: neighbours(real_data / "ct" / f"{name}_chest_ncct") for name in ("philips", "siemens")}
    uids = {name: str(dcmread(files[0]).SeriesInstanceUID) for name, files in scans.items()}
    for files in scans.values():
        assert push(shipped.port, files).returncode == 0
    found = ends(shipped, set(uids.values()))
    assert (found[uids["philips"]].state, found[uids["siemens"]].state) == ("SENT", "HELD")
    held = found[uids["siemens"]]
    for figure in ("0.646", "0.70"):
        assert figure in held.reason
    refused = shipped.run("jobs", "release", held.id)
    assert refused.returncode != 0
    assert "--reason" in refused.stderr
    released = shipped.run("jobs", "release", held.id, "--reason", "compared with the scan by the physicist")
    assert released.returncode == 0, released.stderr
    wait_for(
        "the released series at the TPS", lambda: ends(shipped, {held.series_uid})[held.series_uid].state == "SENT"
    )
    (arrived,) = derived_by_series(tps, [held]).values()
    assert len(arrived) == len(scans["siemens"])
    for slice_ in arrived:
        assert "compared with the scan by the physicist" in slice_.DerivationDescription


@pytest.mark.timeout(400)
def test_scans_unlike_those_of_the_training_are_held(shipped: RunningNode, tmp_path: Path) -> None:
    made = pushed(shipped, CASES["p4_body_part"], tmp_path)
    found = ends(shipped, set(made.ct_series()))
    assert {case.state for case in found.values()} == {"HELD"}
    reasons = " ".join(case.reason for case in found.values())
    for word in ("HEAD", "PELVIS", "body part that is no term of DICOM", "age"):
        assert word in reasons


@pytest.mark.timeout(400)
def test_the_network_sees_every_patient_position_as_it_was_trained(
    shipped: RunningNode, tps: StoreScp, tmp_path: Path
) -> None:
    made = {name: pushed(shipped, CASES[name], tmp_path / name) for name in ("c00_control", "d2_ffs", "d3_hfp")}
    results = {}
    for name, pushable in made.items():
        found = ends(shipped, set(pushable.ct_series()))
        assert {case.state for case in found.values()} == {"SENT"}
        results[name] = _turned_back(derived_by_series(tps, found.values()))
    control = results.pop("c00_control")
    inside = (control > WINDOW_HU[0]) & (control < WINDOW_HU[1])
    for name, turned in results.items():
        assert float(np.abs(turned - control)[inside].mean()) < MEAN_DIFFERENCE_HU, name


def _turned_back(derived: Derived) -> NDArray[np.float64]:
    """HU of the only series, [z, y, x], slices from the feet to the head, rows and columns as in head-first supine."""
    (group,) = derived.values()
    group.sort(key=lambda dataset: float(dataset.ImagePositionPatient[2]))
    planes = []
    for dataset in group:
        assert abs(slice_normal(dataset.ImageOrientationPatient)[2]) == pytest.approx(1)
        hu = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        planes.append(hu[:: int(dataset.ImageOrientationPatient[4]), :: int(dataset.ImageOrientationPatient[0])])
    return np.array(planes)
