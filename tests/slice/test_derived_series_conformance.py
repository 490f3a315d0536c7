"""The derived series of real scans: conformant in every slice, on the source's grid to the character, and marked."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread
from pydicom.dataset import Dataset

from models import load_bundle
from models.testing import write_tiny_bundle
from node.dicom.constants import IMPLEMENTATION_CLASS_UID
from node.dicom.derived_plan import EquipmentIdentity
from node.dicom.elements import element_bytes, tag_of
from node.dicom.headers import read_header, read_headers
from node.dicom.volume import CTVolume, read_volume
from node.receive.eligibility import Accept, EligibilityPolicy, Incomplete, Skip, judge
from node.translate.job import JobOptions, JobResult, run_job
from node.translate.native_contrast import find_native_contrast
from tests.conftest import require_program

STRING_EQUAL = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "FrameOfReferenceUID",
    "StudyInstanceUID",
)
NON_CONTRAST = ("philips_chest_ncct", "siemens_chest_ncct")


@dataclass(frozen=True)
class Pair:
    """A real series and what became of it."""

    paths: list[Path]
    source: CTVolume
    result: JobResult
    source_by_uid: dict[str, Dataset]
    derived: list[Dataset]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(path)
    return path


@pytest.fixture(scope="module", params=NON_CONTRAST)
def pair(
    request: pytest.FixtureRequest, real_data: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    paths = sorted((real_data / "ct" / request.param).iterdir())
    result = process(paths, bundle, tmp_path_factory.mktemp("derived"))
    sources = [dcmread(path) for path in paths]
    return Pair(
        paths=paths,
        source=read_volume(paths),
        result=result,
        source_by_uid={ds.SOPInstanceUID: ds for ds in sources},
        derived=[dcmread(made.path) for made in result.files],
    )


def process(paths: list[Path], bundle: Path, out_dir: Path) -> JobResult:
    options = JobOptions(
        equipment=EquipmentIdentity(software_version="0.1.0", installation_uid="2.25.1234567890"),
        produced_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    return run_job(paths, load_bundle(bundle), options, out_dir)


def each(pair: Pair) -> Iterator[tuple[Dataset, Dataset]]:
    """(derived, source) of every slice, matched by the reference that the derived slice carries."""
    for ds in pair.derived:
        yield ds, pair.source_by_uid[ds.SourceImageSequence[0].ReferencedSOPInstanceUID]


def dciodvfy(path: Path) -> list[str]:
    """Lines of its report; it says Error with exit code 0, so only the text counts."""
    program = require_program("dciodvfy", str(Path(sys.executable).with_name("dciodvfy")), "dciodvfy")
    report = subprocess.run([program, str(path)], capture_output=True, text=True, errors="replace", check=False)
    return (report.stdout + report.stderr).splitlines()


def test_every_slice_passes_dciodvfy(pair: Pair) -> None:
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(dciodvfy, [made.path for made in pair.result.files]))
    assert len(reports) == len(pair.paths)
    assert all("CTImage" in report for report in reports)
    assert [line for report in reports for line in report if line.startswith("Error")] == []


def test_dciodvfy_would_see_an_error(pair: Pair, tmp_path: Path) -> None:
    ds = dcmread(pair.result.files[0].path)
    del ds.AcquisitionNumber
    ds.save_as(tmp_path / "broken.dcm")
    assert [line for line in dciodvfy(tmp_path / "broken.dcm") if line.startswith("Error")]


def test_geometry_is_string_equal_in_every_slice(pair: Pair) -> None:
    assert len({ds.SourceImageSequence[0].ReferencedSOPInstanceUID for ds in pair.derived}) == len(pair.paths)
    for derived, source in each(pair):
        for keyword in (
            *STRING_EQUAL,
            "PatientID",
            "PatientName",
            "SliceThickness",
            "RescaleSlope",
            "RescaleIntercept",
        ):
            assert element_bytes(derived, tag_of(keyword)) == element_bytes(source, tag_of(keyword))
        assert (derived.Rows, derived.Columns, derived.BitsStored) == (source.Rows, source.Columns, source.BitsStored)
        assert (derived.PixelRepresentation, derived.InstanceNumber) == (
            source.PixelRepresentation,
            source.InstanceNumber,
        )


def test_pixels_outside_the_window_are_the_sources_and_inside_they_changed(pair: Pair) -> None:
    changed = 0
    for derived, source in each(pair):
        before = source.pixel_array
        after = derived.pixel_array
        hu = before * float(source.RescaleSlope) + float(source.RescaleIntercept)
        outside = (hu < -40) | (hu > 400)
        np.testing.assert_array_equal(after[outside], before[outside])
        changed += int((after != before).sum())
        assert after[~outside].min() >= 1024 - 40
        assert after[~outside].max() <= 1024 + 400
    assert changed > 0
    assert pair.result.held_reason is None


def test_simpleitk_reads_both_on_the_same_lattice(pair: Pair, tmp_path: Path) -> None:
    for folder, paths in (("source", pair.paths), ("derived", [made.path for made in pair.result.files])):
        (tmp_path / folder).mkdir()
        for number, path in enumerate(paths):
            (tmp_path / folder / f"{number}.dcm").symlink_to(path)
    images = []
    for folder in ("source", "derived"):
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / folder)))
        images.append(reader.Execute())
    source, derived = images
    assert derived.GetSize() == source.GetSize()
    assert derived.GetOrigin() == source.GetOrigin()
    assert derived.GetSpacing() == source.GetSpacing()
    assert derived.GetDirection() == source.GetDirection()


def test_no_slice_can_be_taken_for_a_scan(pair: Pair) -> None:
    """What dciodvfy does not check (a synthetic image that says ORIGINAL passes it)."""
    contrast = {"ContrastBolusAgent", "ContrastBolusAgentSequence", "ContrastBolusRoute", "ContrastBolusVolume"}
    for derived, source in each(pair):
        assert derived.SyntheticData == "YES"
        assert list(derived.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert derived.ContentQualification == "RESEARCH"
        assert "Not for dose calculation" in derived.DerivationDescription
        assert derived.Manufacturer != source.Manufacturer
        assert derived.ManufacturerModelName != source.ManufacturerModelName
        assert derived.SeriesDescription.startswith("sCE-CT AI")
        keywords = {element.keyword for element in derived.iterall()}
        assert not contrast & keywords
        assert not {word for word in keywords if word.startswith(("ContrastBolus", "CTDI", "Exposure", "XRayTube"))}
        assert not [element.tag for element in derived.iterall() if element.tag.is_private]
        assert derived.RescaleType == "HU"
        assert derived.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
        assert derived.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


def test_uids_are_new_unique_and_refer_to_the_source(pair: Pair) -> None:
    uids = [ds.SOPInstanceUID for ds in pair.derived]
    assert len(set(uids)) == len(uids)
    assert not set(uids) & set(pair.source_by_uid)
    assert {ds.SeriesInstanceUID for ds in pair.derived} == {pair.result.series_uid}
    assert pair.result.series_uid != pair.source.headers[0].series_uid
    for derived, source in each(pair):
        (reference,) = derived.ReferencedSeriesSequence
        assert reference.SeriesInstanceUID == source.SeriesInstanceUID
        assert reference.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        purposes = [item.PurposeOfReferenceCodeSequence[0].CodeValue for item in derived.ContributingEquipmentSequence]
        assert purposes == ["109101", "109100"]


def test_a_second_run_gives_the_same_bytes_and_the_gate_refuses_our_own_output(
    pair: Pair, bundle: Path, tmp_path: Path
) -> None:
    again = process(pair.paths[::-1], bundle, tmp_path)
    assert [made.sha256 for made in again.files] == [made.sha256 for made in pair.result.files]
    verdict = judge([read_header(made.path) for made in again.files], EligibilityPolicy())
    assert isinstance(verdict, Skip)
    assert verdict.code == "synthetic"


@pytest.mark.parametrize(
    ("folder", "pattern", "expected"),
    [
        ("ct/philips_chest_ncct", "*", "accept"),
        ("ct/siemens_chest_ncct", "*", "accept"),
        ("ct/ge_abdomen_cect", "*", "contrast_agent"),
        ("ct/siemens_chest_cect_untagged", "*", "incomplete"),  # the excerpt holds 30 of 89 slices
        ("odd/gantry_tilt_philips_head_phantom", "*", "sheared"),
        ("odd/localizer", "siemens*", "localizer"),
        ("odd/localizer", "philips*", "localizer"),
        ("odd/screen_captures_as_ct", "*", "screen_capture"),
        ("odd/enhanced_ct", "*", "spectral_image"),
        ("odd/nema_wg04_compsamples", "CT1*", "derived"),
        ("odd/nema_wg04_compsamples", "CT2*", "derived"),
        ("odd/transfer_syntaxes", "*4.57.dcm", "too_few_slices"),
        ("odd/transfer_syntaxes", "*4.70.dcm", "too_few_slices"),
        ("odd/transfer_syntaxes", "*4.51.dcm", "derived"),
        ("odd/transfer_syntaxes", "*4.91.dcm", "derived"),
        ("odd/transfer_syntaxes", "CTImage.dcm", "too_few_slices"),
    ],
)
def test_the_gate_on_real_series(real_data: Path, folder: str, pattern: str, expected: str) -> None:
    headers = [header for path in sorted((real_data / folder).glob(pattern)) for header in read_headers(path)]
    verdict = judge(headers, EligibilityPolicy())
    names = {Accept: "accept", Incomplete: "incomplete"}
    assert (verdict.code if isinstance(verdict, Skip) else names[type(verdict)]) == expected


@pytest.mark.parametrize("syntax", ["4.57", "4.70", "4.80", "4.90", "5"])
def test_one_image_in_every_lossless_syntax_has_the_same_pixels(real_data: Path, syntax: str) -> None:
    folder = real_data / "odd/transfer_syntaxes"
    (path,) = folder.glob(f"*.1.2.{syntax}.dcm")
    np.testing.assert_array_equal(read_volume([path]).stored, read_volume([folder / "CTImage.dcm"]).stored)


def test_one_image_in_five_uncompressed_syntaxes_has_one_digest(real_data: Path) -> None:
    names = ("*1.2.dcm", "*1.2.1.dcm", "*1.2.1.99.dcm", "*1.2.2.dcm", "CTImage.dcm")
    paths = [path for name in names for path in (real_data / "odd/transfer_syntaxes").glob(name)]
    assert len(paths) == 5
    assert len({read_header(path).content_sha256 for path in paths}) == 1


@pytest.mark.parametrize(
    ("name", "enhanced"), [("philips_chest_ncct", False), ("siemens_chest_ncct", False), ("ge_abdomen_cect", True)]
)
def test_contrast_in_the_pixels_of_real_series(real_data: Path, name: str, enhanced: bool) -> None:
    found = find_native_contrast(read_volume(sorted((real_data / "ct" / name).iterdir())))
    assert found.is_enhanced is enhanced


def test_contrast_that_no_header_names_is_seen_in_the_pixels(real_data: Path) -> None:
    """Only 30 of its 89 slices exist, so they are measured apart from each other: far apart along z."""
    sources = [dcmread(path) for path in (real_data / "ct/siemens_chest_cect_untagged").iterdir()]
    assert not any(ds.get("ContrastBolusAgent") for ds in sources)
    sources.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    hu = np.stack([ds.pixel_array * np.float32(ds.RescaleSlope) + np.float32(ds.RescaleIntercept) for ds in sources])
    apart_mm = 30.0
    rows_mm, columns_mm = (float(step) for step in sources[0].PixelSpacing)
    volume = CTVolume(hu, hu.astype(np.int16), None, (), (apart_mm, rows_mm, columns_mm))
    found = find_native_contrast(volume)
    assert found.enhanced_ml * 3.0 / apart_mm > 100
    assert 110 < found.mean_hu < 140
