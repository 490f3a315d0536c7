"""Promises about virtual non-contrast images: taken only where a site says so, marked, and after a measured scan."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from models.cohort import Cohort
from models.phantom.cohort import write_phantom_cohort
from node.cohorts.build import build_cohort
from node.dicom.elements import put
from node.dicom.synthetic_scan import ScanIdentity, write_scan

Customise = Callable[[Dataset, int], None]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("phantoms") / "cohort"
    return write_phantom_cohort(folder, 2, 5, slices=10, rows=96, slice_spacing_mm=8.0, external_share=0.0)


def add(
    folder: Path, cohort: Cohort, who: str, array: str, *, say: str = "Thorax", image_type: tuple[str, ...] = ()
) -> None:
    """Write a scan as a spectral scanner does: an agent in all its headers, and what kind of image it is."""

    def customise(dataset: Dataset, _number: int) -> None:
        put(dataset, "MultienergyCTAcquisition", "YES")
        if image_type:
            put(dataset, "ImageType", *image_type)

    patient = cohort.patients[0]
    place = folder / who / f"{array} {say}"
    place.mkdir(parents=True)
    agent = {"ContrastBolusAgent": "Iomeprol", "InstitutionName": "Saint Elsewhere"}
    identity = ScanIdentity(
        f"MRN-{who}", f"Doe^{who}", f"{who} {array} {say}", study_seed=who, series_description=say, attributes=agent
    )
    write_scan(patient.stored(array), patient.record.spacing_mm, place, identity, customise=customise)


VNC = ("DERIVED", "SECONDARY", "AXIAL", "VNC")


def test_a_virtual_source_is_taken_where_the_site_says_so_and_marked(phantoms: Cohort, tmp_path: Path) -> None:
    add(tmp_path / "in", phantoms, "a", "ncct", image_type=VNC)
    add(tmp_path / "in", phantoms, "a", "cect")
    refused = build_cohort(tmp_path / "in", tmp_path / "without")
    assert not refused.patients
    assert refused.provenance["series"] == {"unusable: multi_energy": 1, "unusable: spectral_image": 1}
    cohort = build_cohort(tmp_path / "in", tmp_path / "with", vnc=True)
    (patient,) = cohort.patients
    assert patient.has_virtual_source
    assert cohort.provenance["series"] == {"contrast": 1, "virtual_native": 1}
    assert cohort.provenance["options"]["vnc"] is True  # type: ignore[index]
    assert patient.record.facts is not None
    assert patient.record.facts["ncct"]["virtual"] is True  # type: ignore[index]


@pytest.mark.parametrize(
    ("say", "image_type", "verdict"),
    [
        ("Thorax virtual unenhanced", ("DERIVED", "SECONDARY", "AXIAL"), "virtual_native"),
        ("Thorax", ("DERIVED", "PRIMARY", "AXIAL", "MAT_REMOVED", "VNC"), "virtual_native"),
        ("Water(Iodine) VUE", ("DERIVED", "SECONDARY", "AXIAL", "GSI"), "unusable: spectral_image"),
        ("Thorax", ("DERIVED", "SECONDARY", "AXIAL", "VNCA"), "unusable: spectral_image"),
        ("Thorax VNC", ("DERIVED", "SECONDARY", "MPR"), "unusable: derived"),
        ("Mono 70 keV VNC", ("DERIVED", "SECONDARY", "AXIAL", "VMI"), "unusable: spectral_image"),
    ],
)
def test_only_what_is_named_virtual_non_contrast_and_nothing_else_is_one(
    say: str, image_type: tuple[str, ...], verdict: str, phantoms: Cohort, tmp_path: Path
) -> None:
    add(tmp_path / "in", phantoms, "a", "ncct", say=say, image_type=image_type)
    cohort = build_cohort(tmp_path / "in", tmp_path / "out", vnc=True)
    assert cohort.provenance["series"] == {verdict: 1}


def test_one_that_still_shows_contrast_is_none(phantoms: Cohort, tmp_path: Path) -> None:
    add(tmp_path / "in", phantoms, "a", "cect", image_type=VNC)
    cohort = build_cohort(tmp_path / "in", tmp_path / "out", vnc=True)
    assert cohort.provenance["series"] == {"unusable: virtual_enhanced": 1}


def test_a_measured_native_scan_counts_more(phantoms: Cohort, tmp_path: Path) -> None:
    patient = phantoms.patients[0]
    place = tmp_path / "in" / "a" / "native"
    place.mkdir(parents=True)
    identity = ScanIdentity(
        "MRN-a", "Doe^a", "native", study_seed="a", attributes={"InstitutionName": "Saint Elsewhere"}
    )
    write_scan(patient.stored("ncct"), patient.record.spacing_mm, place, identity)
    add(tmp_path / "in", phantoms, "a", "ncct", image_type=VNC)
    add(tmp_path / "in", phantoms, "a", "cect")
    (found,) = build_cohort(tmp_path / "in", tmp_path / "out", vnc=True).patients
    assert not found.has_virtual_source
