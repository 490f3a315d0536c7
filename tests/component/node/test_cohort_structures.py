"""Promises of labels from contours: the right voxels, of the right scan, and no structure's name kept."""

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from models.alignment import Grid
from models.phantom.cohort import write_phantom_cohort
from models.phantom.tissues import Label
from node.cohorts.build import build_cohort
from node.cohorts.scans import read_oriented
from node.cohorts.structures import read_labels, read_structure_table
from node.dicom.synthetic_scan import ScanIdentity, write_scan
from node.errors import Refused
from tests.component.node.test_cohort_build import in_place

SHAPE, SPACING_MM, FIRST_MM = (4, 20, 24), (5.0, 2.0, 2.0), (-23.0, -19.0, 100.0)
TABLE = {"aorta asc": Label.AORTA, "heart": Label.MYOCARDIUM}


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    folder = tmp_path / "native"
    folder.mkdir()
    write_scan(
        np.zeros(SHAPE, np.float32), SPACING_MM, folder, ScanIdentity("M", "M^N", "x"), first_position_mm=FIRST_MM
    )
    return folder


def square(z: int, rows: tuple[int, int], columns: tuple[int, int]) -> list[float]:
    """The outline of pixels rows[0]..rows[1]-1, half a pixel outside of their centres, in mm."""
    x = [FIRST_MM[0] + SPACING_MM[2] * (edge - 0.5) for edge in columns]
    y = [FIRST_MM[1] + SPACING_MM[1] * (edge - 0.5) for edge in rows]
    z_mm = FIRST_MM[2] + SPACING_MM[0] * z
    return [value for px, py in ((0, 0), (1, 0), (1, 1), (0, 1)) for value in (x[px], y[py], z_mm)]


def write_contours(file: Path, native: Path, rois: dict[str, list[list[float]]], *, series_uid: str = "") -> Path:
    """An RT Structure Set with closed contours of these names on the series in `native`."""
    source = pydicom.dcmread(sorted(native.glob("*.dcm"))[0], stop_before_pixels=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, generate_uid()
    ds = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    for keyword in (
        "PatientID",
        "PatientName",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "InstitutionName",
    ):
        if keyword in source:
            setattr(ds, keyword, source[keyword].value)
    ds.SeriesInstanceUID, ds.Modality = generate_uid(), "RTSTRUCT"
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = series_uid or source.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.RTReferencedStudySequence = [study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), 1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points) // 3
            contour.ContourData = [f"{value:.2f}" for value in points]
            drawn.ContourSequence.append(contour)
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(drawn)
    ds.save_as(file, enforce_file_format=True)
    return file


def labels_of(scan: Path, *files: Path, table: dict[str, Label] = TABLE) -> Any:
    hu, grid = read_oriented(sorted(scan.glob("*.dcm")))
    uid = str(pydicom.dcmread(sorted(scan.glob("*.dcm"))[0]).SeriesInstanceUID)
    return read_labels([files], table, uid, hu.shape, grid)


def expected(*boxes: tuple[Label, int, slice, slice]) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    for label, z, rows, columns in boxes:
        labels[z, rows, columns] = label
    return labels


def test_a_contour_fills_the_pixels_whose_centres_lie_in_it(scan: Path, tmp_path: Path) -> None:
    file = write_contours(tmp_path / "rs.dcm", scan, {"  AORTA  Asc ": [square(1, (3, 7), (5, 11))], "other": []})
    found = labels_of(scan, file)
    np.testing.assert_array_equal(found, expected((Label.AORTA, 1, slice(3, 7), slice(5, 11))))


def test_a_contour_inside_another_is_a_hole(scan: Path, tmp_path: Path) -> None:
    rois = {"Heart": [square(2, (2, 12), (2, 12)), square(2, (5, 8), (5, 8))]}
    found = labels_of(scan, write_contours(tmp_path / "rs.dcm", scan, rois))
    want = expected((Label.MYOCARDIUM, 2, slice(2, 12), slice(2, 12)))
    want[2, 5:8, 5:8] = 0
    np.testing.assert_array_equal(found, want)


def test_where_structures_overlap_the_later_one_of_the_table_counts(scan: Path, tmp_path: Path) -> None:
    rois = {"Heart": [square(0, (2, 10), (2, 10))], "aorta asc": [square(0, (4, 6), (4, 6))]}
    file = write_contours(tmp_path / "rs.dcm", scan, rois)
    assert (labels_of(scan, file)[0, 4:6, 4:6] == Label.MYOCARDIUM).all()
    turned = dict(reversed(TABLE.items()))
    assert (labels_of(scan, file, table=turned)[0, 4:6, 4:6] == Label.AORTA).all()


def test_contours_on_another_series_and_files_that_are_none_are_passed_over(scan: Path, tmp_path: Path) -> None:
    rois = {"Heart": [square(0, (2, 10), (2, 10))]}
    file = write_contours(tmp_path / "rs.dcm", scan, rois, series_uid=generate_uid())
    (tmp_path / "text").write_text("no DICOM")
    assert labels_of(scan, file, tmp_path / "text", *scan.glob("*.dcm")) is None


def test_contours_off_the_scan_or_across_slices_are_passed_over(scan: Path, tmp_path: Path) -> None:
    tilted = square(1, (3, 7), (5, 11))
    tilted[2] += 4
    file = write_contours(tmp_path / "rs.dcm", scan, {"Heart": [square(9, (2, 10), (2, 10)), tilted]})
    assert labels_of(scan, file) is None


def write_segments(file: Path, native: Path, masks: dict[str, np.ndarray]) -> Path:
    """A DICOM Segmentation of these masks [z, y, x] on the series in `native`."""
    sources = [pydicom.dcmread(path) for path in sorted(native.glob("*.dcm"))]
    sources.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    code = CodedConcept("85756007", "SCT", "Tissue")
    described = [
        hd.seg.SegmentDescription(number, name, code, code, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
        for number, name in enumerate(masks, 1)
    ]
    made = hd.seg.Segmentation(
        sources,
        np.stack(list(masks.values()), axis=-1).astype(np.uint8),
        hd.seg.SegmentationTypeValues.BINARY,
        described,
        generate_uid(),
        1,
        generate_uid(),
        1,
        "maker",
        "model",
        "1",
        "1",
    )
    made.save_as(file)
    return file


def test_segments_become_labels_empty_slices_and_overlaps_included(scan: Path, tmp_path: Path) -> None:
    aorta, heart = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    aorta[2, 3:9, 4:9] = True
    heart[1:3, 2:12, 2:12] = True
    file = write_segments(tmp_path / "seg.dcm", scan, {"Aorta ASC": aorta, "Heart": heart, "unnamed": heart})
    found = labels_of(scan, file, table={"heart": Label.MYOCARDIUM, "aorta asc": Label.AORTA})
    want = np.where(heart, np.uint8(Label.MYOCARDIUM), np.uint8(0))
    want[aorta] = Label.AORTA
    np.testing.assert_array_equal(found, want)


def test_a_grid_that_does_not_fit_gives_no_labels(scan: Path, tmp_path: Path) -> None:
    file = write_segments(tmp_path / "seg.dcm", scan, {"Heart": np.ones(SHAPE, bool)})
    uid = str(pydicom.dcmread(sorted(scan.glob("*.dcm"))[0]).SeriesInstanceUID)
    moved = Grid((FIRST_MM[0] + 0.7, *FIRST_MM[1:]), SPACING_MM)
    assert read_labels([[file]], TABLE, uid, SHAPE, moved) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[structures]\n", "needs a table"),
        ('[structures]\n"a" = "vein"\n', "'a' is 'vein', which is no label; allowed are skin, fat"),
        ("[structures\n", "cannot be read"),
    ],
)
def test_a_wrong_table_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(Refused, match=said):
        read_structure_table(tmp_path / "t.toml")


def test_a_cohort_takes_its_labels_from_contours_and_keeps_no_name(tmp_path: Path) -> None:
    (patient, *_) = write_phantom_cohort(tmp_path / "p", 3, 5, slices=10, rows=96, slice_spacing_mm=8.0).patients
    spacing, corner = patient.record.spacing_mm, -(96 - 1) / 2 * patient.record.spacing_mm[1]
    for name in ("ncct", "cect"):
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        agent = {"ContrastBolusAgent": "x"} if name == "cect" else {}
        identity = ScanIdentity("MRN-1", "Doe^One", name, study_seed="s", attributes={"InstitutionName": "A"} | agent)
        write_scan(patient.stored(name), spacing, folder, identity, first_position_mm=(corner, corner, 0.0))
    z_mm = 4 * spacing[0]
    points = [value for x, y in ((-30, -30), (30, -30), (30, 30), (-30, 30)) for value in (x, y, z_mm)]
    write_contours(tmp_path / "in" / "rs.dcm", tmp_path / "in" / "ncct", {"Doe's aorta": [points]})
    (tmp_path / "t.toml").write_text('[structures]\n"doe\'s AORTA" = "aorta"\n')
    cohort = build_cohort(tmp_path / "in", tmp_path / "out", structures=tmp_path / "t.toml", align=in_place)
    (built,) = cohort.patients
    labels = built.labels()
    assert np.unique(labels).tolist() == [0, Label.AORTA]
    # Centres lie at half pixels from the middle; 60 mm hold 12 of them.
    assert (labels[4] == Label.AORTA).sum() == 12 * 12
    assert np.flatnonzero(labels.any(axis=(1, 2))).tolist() == [4]
    assert built.record.facts is not None
    assert built.record.facts["labels"] == ["aorta"]
    assert "doe" not in (tmp_path / "out" / "manifest.json").read_text().lower()
