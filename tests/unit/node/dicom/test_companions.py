"""The companions of a derived series: what a foreign reader finds in them, and that they lie where the slices lie."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import highdicom
import numpy as np
import pytest
from pydicom import dcmread

from config.syntax import Companion
from node.dicom.companions.kinds import KINDS
from node.dicom.companions.make import CompanionMaker
from node.dicom.companions.presentation import LABEL
from node.dicom.doubt_file import Doubt, write_doubt
from node.dicom.elements import element_bytes, tag_of
from node.dicom.quiet import quiet_pydicom
from node.dicom.uids import UidFactory
from tests.conftest import require_program
from tests.derived import Made, derived_series

DECISION = "HELD: 120 ml of enhancement. Released by anna: port, seen before"
MEASUREMENTS = {"native_enhanced_ml": 1.25, "shift_hu": -3.3333333333333335, "voxels": 7, "odd": float("nan")}
SHIFT_JIS = {"SpecificCharacterSet": b"\\ISO 2022 IR 87", "PatientName": b"Yamada^Tarou=\x1b$B;3ED\x1b(B^"}
SAME = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "SpecificCharacterSet", "StudyInstanceUID"),
    *("StudyDate", "AccessionNumber", "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "SeriesDate"),
    *("DeviceSerialNumber", "InstanceCreatorUID"),
)


def maker(folder: Path, decision: str = DECISION) -> CompanionMaker:
    return CompanionMaker(folder, UidFactory(), MEASUREMENTS, decision)


def companion(made: Made, kind: Companion) -> Path:
    return maker(made.folder).make(kind).path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return derived_series(tmp_path_factory.mktemp("companions"))


def errors(path: Path) -> list[str]:
    program = require_program("dciodvfy", str(Path(sys.executable).with_name("dciodvfy")), "dciodvfy")
    answer = subprocess.run([program, str(path)], capture_output=True, text=True, errors="replace", check=False)
    said = (answer.stdout + answer.stderr).splitlines()
    assert said, "dciodvfy said nothing"
    return [line for line in said if line.startswith("Error")]


def test_the_settings_name_exactly_the_kinds_that_can_be_made() -> None:
    assert get_args(Companion) == tuple(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_it_conforms_and_says_whose_and_what_it_is(made: Made, kind: Companion) -> None:
    path = companion(made, kind)
    assert errors(path) == []
    ds, first = dcmread(path), made.slices[0]
    for keyword in SAME:
        assert element_bytes(ds, tag_of(keyword)) == element_bytes(first, tag_of(keyword)), keyword
    assert ds.SOPClassUID == KINDS[kind].sop_class_uid == ds.file_meta.MediaStorageSOPClassUID
    assert ds.SyntheticData == "YES"
    assert ds.SeriesDescription == f"sCE-CT AI Thorax - {KINDS[kind].words}"
    assert ds.SeriesInstanceUID != first.SeriesInstanceUID
    assert ds.SeriesNumber not in {301, 302}


@pytest.mark.parametrize(
    "attributes", [{}, {"BodyPartExamined": "THORAX"}, {"BodyPartExamined": "BREAST", "Laterality": "L"}]
)
def test_it_conforms_whatever_the_body_part_is(tmp_path: Path, attributes: dict[str, str]) -> None:
    series = derived_series(tmp_path, attributes=attributes, absent=() if attributes else ("BodyPartExamined",))
    for kind in KINDS:
        assert errors(companion(series, kind)) == [], kind


def test_each_has_a_series_and_a_number_of_its_own(made: Made) -> None:
    every = [dcmread(companion(made, kind)) for kind in KINDS]
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID", "SeriesNumber"):
        assert len({ds[keyword].value for ds in every}) == len(KINDS)


def test_dciodvfy_would_see_an_error(made: Made, tmp_path: Path) -> None:
    ds = dcmread(companion(made, "segmentation"))
    del ds.SegmentSequence
    ds.save_as(tmp_path / "broken.dcm")
    assert errors(tmp_path / "broken.dcm")


def test_a_segmented_voxel_is_the_pixel_of_the_slice(made: Made) -> None:
    seg = highdicom.seg.segread(companion(made, "segmentation"))
    uids = [ds.SOPInstanceUID for ds in made.slices]
    pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    assert np.array_equal(pixels[..., 0].astype(bool), made.mask)
    assert seg.NumberOfFrames == 3
    assert seg.FrameOfReferenceUID == made.slices[0].FrameOfReferenceUID
    for frame in seg.PerFrameFunctionalGroupsSequence:
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        of = made.slices[uids.index(source.ReferencedSOPInstanceUID)]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == of.ImagePositionPatient
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == made.slices[0].PixelSpacing
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == made.slices[0].ImageOrientationPatient
    assert (seg.SegmentationType, len(seg.SegmentSequence)) == ("BINARY", 1)


def test_a_mask_without_a_doubtful_pixel_is_an_empty_mask(made: Made, tmp_path: Path) -> None:
    empty = derived_series(tmp_path)
    (empty.folder / "doubt.npz").unlink()
    write_doubt(empty.folder, Doubt(np.zeros_like(empty.mask), empty.doubt_hu, 30.0))
    path = companion(empty, "segmentation")
    assert errors(path) == []
    seg = highdicom.seg.segread(path)
    assert not seg.get_pixels_by_source_instance([ds.SOPInstanceUID for ds in empty.slices]).any()


def test_the_map_holds_the_doubt_in_hu(made: Made) -> None:
    ds = dcmread(companion(made, "parametric_map"))
    map_of = highdicom.imread(companion(made, "parametric_map")).get_volume(apply_real_world_transform=True)
    series = highdicom.get_volume_from_series(made.slices)
    assert map_of.geometry_equal(series, tol=0.0)
    doubt_by_z = dict(zip((one.ImagePositionPatient[2] for one in made.slices), made.doubt_hu, strict=True))
    planes = enumerate(map_of.get_plane_positions())
    seen = {round(float(plane[0].ImagePositionPatient[2]), 6): z for z, plane in planes}
    assert len(seen) == len(made.slices)
    for z_mm, z in seen.items():
        assert np.array_equal(map_of.array[z], doubt_by_z[z_mm])
    (mapping,) = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "[hnsf'U]"
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert ds.FrameOfReferenceUID == made.slices[0].FrameOfReferenceUID
    assert ds.BurnedInAnnotation == "NO"
    referenced = {item.ReferencedSOPInstanceUID for item in ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referenced == {one.SOPInstanceUID for one in made.slices}


def test_the_report_holds_figures_with_units_and_the_decision(made: Made) -> None:
    report: Any = highdicom.sr.srread(companion(made, "report"))
    (group,) = report.content.get_image_measurement_groups()
    found = {one.name.value: (one.value, one.unit.value) for one in group.get_measurements()}
    assert found == {
        "native_enhanced_ml": (1.25, "mL"),
        "shift_hu": (pytest.approx(-3.3333333333), "[hnsf'U]"),
        "voxels": (7.0, "1"),
    }
    evaluations = {one.name.value: one.value.value for one in group.get_qualitative_evaluations()}
    assert evaluations["REVIEW"] == "RELEASED"
    texts = [item.TextValue for item in group[0].ContentSequence if item.ValueType == "TEXT"]
    assert DECISION in texts
    observers = [item.ConceptCodeSequence[0].CodeValue for item in report.ContentSequence if item.ValueType == "CODE"]
    assert "121007" in observers  # a device
    referenced = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [item.ReferencedSOPInstanceUID for item in referenced] == [ds.SOPInstanceUID for ds in made.slices]


def test_without_a_decision_the_report_names_none(tmp_path: Path) -> None:
    plain = maker(derived_series(tmp_path).folder, decision="").make("report").path
    assert errors(plain) == []
    assert b"RELEASED" not in plain.read_bytes()


def test_the_presentation_says_synthetic_on_every_slice_in_the_window_of_planning(made: Made) -> None:
    ds = dcmread(companion(made, "presentation"))
    uids = [one.SOPInstanceUID for one in made.slices]
    (annotation,) = ds.GraphicAnnotationSequence
    assert [item.ReferencedSOPInstanceUID for item in annotation.ReferencedImageSequence] == uids
    (words,) = annotation.TextObjectSequence
    assert (words.UnformattedTextValue, words.BoundingBoxAnnotationUnits) == (LABEL, "DISPLAY")
    (window,) = ds.SoftcopyVOILUTSequence
    assert (window.WindowCenter, window.WindowWidth) == (60, 400)
    assert [item.ReferencedSOPInstanceUID for item in ds.ReferencedSeriesSequence[0].ReferencedImageSequence] == uids
    assert (ds.RescaleSlope, ds.RescaleIntercept) == (made.slices[0].RescaleSlope, made.slices[0].RescaleIntercept)


def test_the_same_result_gives_the_same_bytes_and_another_content_another_uid(tmp_path: Path) -> None:
    one, two = derived_series(tmp_path / "1"), derived_series(tmp_path / "2")
    for kind in KINDS:
        assert companion(one, kind).read_bytes() == companion(two, kind).read_bytes()
    first = dcmread(companion(one, "report"))
    companion(one, "report").unlink()
    other = dcmread(maker(one.folder, "HELD: x. Released by anna: y").make("report").path)
    assert first.SeriesInstanceUID == other.SeriesInstanceUID
    assert first.SOPInstanceUID != other.SOPInstanceUID


def test_what_was_made_is_kept_and_half_a_file_is_made_again(tmp_path: Path) -> None:
    series = derived_series(tmp_path)
    path = companion(series, "presentation")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert companion(series, "presentation").read_bytes() == whole
    assert [one.name for one in path.parent.iterdir()] == ["presentation.dcm"]
    before = path.stat().st_mtime_ns
    assert maker(series.folder).make("presentation").sop_instance_uid == dcmread(path).SOPInstanceUID
    assert path.stat().st_mtime_ns == before


def test_without_a_kept_doubt_there_is_none_that_shows_it(tmp_path: Path) -> None:
    series = derived_series(tmp_path)
    (series.folder / "doubt.npz").unlink()
    assert maker(series.folder).choose(tuple(KINDS)) == ["report", "presentation"]


def test_a_name_in_another_script_is_kept_byte_by_byte(tmp_path: Path) -> None:
    series = derived_series(tmp_path, raw=SHIFT_JIS)
    for kind in KINDS:
        path = companion(series, kind)
        assert errors(path) == []
        with quiet_pydicom():
            ds = dcmread(path)
            name = element_bytes(ds, tag_of("PatientName"))
        assert name == SHIFT_JIS["PatientName"]


@pytest.mark.parametrize("kind", ["segmentation", "parametric_map"])
def test_a_doubt_of_another_shape_is_refused(tmp_path: Path, kind: Companion) -> None:
    series = derived_series(tmp_path)
    (series.folder / "doubt.npz").unlink()
    write_doubt(series.folder, Doubt(series.mask[:, :-1], series.doubt_hu[:, :-1], 30.0))
    with pytest.raises(ValueError, match="does not fit"):
        companion(series, kind)
