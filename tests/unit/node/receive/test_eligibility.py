"""judge: which series is translated, and the reason for every other one."""

from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from node.dicom.attribute_rules import Rule
from node.dicom.headers import SliceHeader, read_header
from node.dicom.synthetic_scan import put_number
from node.receive.eligibility import Accept, EligibilityPolicy, Incomplete, Skip, judge
from node.receive.rules import RULES
from tests.builders import make_series, put_raw

POLICY = EligibilityPolicy()


def headers_of(folder: Path, policy: EligibilityPolicy = POLICY, **series: Any) -> list[SliceHeader]:
    paths = make_series(folder, rows=8, columns=8, **series)
    return [read_header(path, keywords=policy.keywords) for path in paths]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[SliceHeader]:
    """Headers of a series that is accepted."""
    return headers_of(tmp_path_factory.mktemp("plain"))


def with_slice_3(plain: list[SliceHeader], folder: Path, **series: Any) -> list[SliceHeader]:
    """The accepted series with its slice 3 replaced by one that differs."""
    return [*plain[:3], *headers_of(folder, only=[3], **series), *plain[4:]]


def test_a_plain_scan_is_accepted(plain: list[SliceHeader]) -> None:
    assert judge(plain, POLICY) == Accept(slices=10, spacing_mm=3.0)


@pytest.mark.parametrize(
    ("series", "code"),
    [
        ({"attributes": {"NumberOfFrames": "20"}}, "several_frames"),
        ({"attributes": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}}, "screen_capture"),
        ({"attributes": {"ImageType": "DERIVED\\SECONDARY\\SCREEN SAVE"}}, "screen_capture"),
        ({"attributes": {"ImageType": "DERIVED\\SECONDARY\\OTHER\\CT_SOM5 PROT"}}, "screen_capture"),
        ({"attributes": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}}, "not_ct_image"),
        ({"attributes": {"Modality": "PT"}}, "not_ct_image"),
        ({"attributes": {"SyntheticData": "YES"}}, "synthetic"),
        ({"attributes": {"Manufacturer": "syncect"}}, "synthetic"),
        ({"attributes": {"ImageType": "ORIGINAL\\PRIMARY\\LOCALIZER\\CT_SOM5 TOP"}}, "localizer"),
        ({"attributes": {"ImageType": "DERIVED\\PRIMARY\\LOCALIZER"}}, "localizer"),
        ({"attributes": {"ImageType": "DERIVED\\PRIMARY\\AXIAL\\CT_SOM5 MPR"}}, "derived"),
        ({"attributes": {"ImageType": "ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 MIP"}}, "derived"),
        ({"attributes": {"ImageType": "DERIVED\\SECONDARY\\AXIAL"}}, "derived"),
        ({"attributes": {"ImageType": "ORIGINAL\\PRIMARY\\CORONAL"}}, "not_original_axial"),
        ({"absent": ["ImageType"]}, "not_original_axial"),
        ({"attributes": {"ContrastBolusAgent": "ULTRAVIST 370"}}, "contrast_agent"),
        ({"attributes": {"MultienergyCTAcquisition": "YES"}}, "multi_energy"),
        ({"attributes": {"RescaleType": "US"}}, "not_hu"),
        ({"absent": ["RescaleIntercept"]}, "not_hu"),
        ({"attributes": {"RescaleSlope": "0"}}, "not_hu"),
        ({"attributes": {"PhotometricInterpretation": "MONOCHROME1"}}, "pixel_format"),
        ({"raw": {"BitsStored": b"\x08\x00", "HighBit": b"\x07\x00"}}, "pixel_format"),
        ({"raw": {"BitsAllocated": b"\x20\x00"}}, "pixel_format"),
        ({"absent": ["ImagePositionPatient"]}, "no_geometry"),
        ({"raw": {"PixelSpacing": b"wide"}}, "no_geometry"),
        ({"attributes": {"PatientPosition": "LFP"}}, "patient_position"),
        ({"attributes": {"PatientPosition": "SITTING"}}, "patient_position"),
        ({"raw": {"PixelRepresentation": b"\x01\x00"}}, "mixed_pixel_format"),
        ({"attributes": {"PatientID": "TEST-2"}}, "mixed_patients"),
        ({"attributes": {"PatientName": "Other^Person"}}, "mixed_patients"),
        ({"attributes": {"PatientBirthDate": "19700101"}}, "mixed_patients"),
        ({"attributes": {"StudyInstanceUID": "1.2.3"}}, "mixed_studies"),
        ({"attributes": {"SeriesInstanceUID": "1.2.3"}}, "mixed_series"),
        ({"attributes": {"FrameOfReferenceUID": "1.2.3"}}, "frame_of_reference"),
        ({"attributes": {"ImageOrientationPatient": "0\\1\\0\\0\\0\\-1"}}, "mixed_orientation"),
        ({"attributes": {"PixelSpacing": "1.1\\1.1"}}, "mixed_pixel_spacing"),
        ({"shifted_mm": {3: 0.7}}, "irregular_spacing"),
    ],
)
def test_one_slice_decides_and_why(tmp_path: Path, plain: list[SliceHeader], series: dict[str, Any], code: str) -> None:
    verdict = judge(with_slice_3(plain, tmp_path, **series), POLICY)
    assert isinstance(verdict, Skip)
    assert verdict.code == code
    assert verdict.reason


@pytest.mark.parametrize(
    ("series", "code"),
    [
        ({"slices": 7}, "too_few_slices"),
        ({"repeated": [4]}, "duplicate_position"),
        ({"absent": ["FrameOfReferenceUID"]}, "frame_of_reference"),
        ({"tilt_deg": 18.5}, "sheared"),
        ({"orientation": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)}, "not_transverse"),
        ({"orientation": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0), "missing": [4]}, "not_transverse"),
        ({"orientation": (0.866, 0.5, 0.0, -0.5, 0.866, 0.0)}, "not_transverse"),
    ],
)
def test_the_series_decides_and_why(tmp_path: Path, series: dict[str, Any], code: str) -> None:
    verdict = judge(headers_of(tmp_path, **series), POLICY)
    assert isinstance(verdict, Skip)
    assert verdict.code == code


@pytest.mark.parametrize(
    "series",
    [
        {"attributes": {"ImageType": "ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 SPI"}},
        {"attributes": {"ImageType": "ORIGINAL\\PRIMARY\\AXIAL\\HELIX"}},
        {"attributes": {"ImageType": "ORIGINAL\\SECONDARY\\AXIAL"}},
        {"attributes": {"ImageType": "ORIGINAL\\PRIMARY"}},
        {"attributes": {"ContrastBolusAgent": ""}},
        {"attributes": {"SyntheticData": "NO", "MultienergyCTAcquisition": "NO"}},
        {"absent": ["RescaleType", "Manufacturer", "KVP"]},
        {"attributes": {"LossyImageCompression": "01"}},
    ],
)
def test_ordinary_variants_of_a_slice_are_accepted(
    tmp_path: Path, plain: list[SliceHeader], series: dict[str, Any]
) -> None:
    assert isinstance(judge(with_slice_3(plain, tmp_path, **series), POLICY), Accept)


def bits_by_slice(ds: Dataset, z: int) -> None:
    """BitsStored that follows the maximum of each slice, as some scanners write it."""
    bits = 12 + z % 3
    put_number(ds, "BitsStored", bits)
    put_number(ds, "HighBit", bits - 1)


@pytest.mark.parametrize(
    "series",
    [
        {"orientation": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0), "attributes": {"PatientPosition": "HFP"}},
        {"orientation": (0.0, 1.0, 0.0, -1.0, 0.0, 0.0), "attributes": {"PatientPosition": "HFDR"}},
        {"orientation": (0.0, -1.0, 0.0, 1.0, 0.0, 0.0), "attributes": {"PatientPosition": "FFDL"}},
        {"attributes": {"PatientPosition": ""}},
        {"absent": ["PatientPosition"]},
        {"edit": bits_by_slice},
        {"raw": {"PixelRepresentation": b"\x01\x00", "BitsStored": b"\x10\x00", "HighBit": b"\x0f\x00"}},
    ],
)
def test_ordinary_variants_of_a_series_are_accepted(tmp_path: Path, series: dict[str, Any]) -> None:
    assert isinstance(judge(headers_of(tmp_path, **series), POLICY), Accept)


def test_an_interior_gap_is_incomplete_and_says_how_many_and_where(plain: list[SliceHeader]) -> None:
    verdict = judge([*plain[:4], *plain[6:]], POLICY)
    assert isinstance(verdict, Incomplete)
    assert "2 images are missing" in verdict.reason
    assert "between z = 9.0 and z = 18.0 mm" in verdict.reason
    assert "1 image is missing" in judge([*plain[:4], *plain[5:]], POLICY).reason  # type: ignore[union-attr]


def test_a_change_of_spacing_is_refused_with_both_distances_and_positions(tmp_path: Path) -> None:
    shifts = {z: 3.0 * (z - 7) for z in range(8, 12)}
    verdict = judge(headers_of(tmp_path, slices=12, shifted_mm=shifts), POLICY)
    assert verdict == Skip(
        "changed_spacing",
        "the distance between the images changes from 3.00 mm to 6.00 mm between z = 21.0 and z = 27.0 mm",
        depends_on_count=True,
    )


def test_the_tolerance_of_positions_is_the_sites(tmp_path: Path) -> None:
    headers = headers_of(tmp_path, shifted_mm={4: 0.12})
    assert isinstance(judge(headers, POLICY), Accept)
    strict = judge(headers, EligibilityPolicy(position_tolerance_mm=0.05))
    assert isinstance(strict, Skip)
    assert strict.code == "irregular_spacing"


def test_a_sideways_shift_is_told_as_it_was_measured(tmp_path: Path) -> None:
    def move(ds: Dataset, z: int) -> None:
        if z >= 5:
            put_raw(ds, "ImagePositionPatient", f"11.5\\-3.5\\{3 * z}".encode())

    verdict = judge(headers_of(tmp_path, edit=move), POLICY)
    assert isinstance(verdict, Skip)
    assert verdict.reason == "the images are shifted sideways by 15.0 mm between the slices at z = 12.0 and z = 15.0 mm"
    assert "tilt" not in judge(headers_of(tmp_path / "tilted", tilt_deg=18.5), POLICY).reason  # type: ignore[union-attr]


def test_a_part_of_the_series_that_breaks_a_rule_is_counted(tmp_path: Path, plain: list[SliceHeader]) -> None:
    verdict = judge(with_slice_3(plain, tmp_path, attributes={"ContrastBolusAgent": "X"}), POLICY)
    assert isinstance(verdict, Skip)
    assert verdict.reason.endswith("(1 of 10 images)")


def test_a_lossy_transfer_syntax(tmp_path: Path) -> None:
    (path,) = make_series(tmp_path, rows=8, columns=8, only=[3])
    ds = dcmread(path)
    ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.91")
    ds.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x02\0\0\0ab\xfe\xff\xdd\xe0\0\0\0\0"
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path)
    verdict = judge([read_header(path)], POLICY)
    assert isinstance(verdict, Skip)
    assert verdict.code == "transfer_syntax"


def test_the_same_file_twice_is_named(plain: list[SliceHeader]) -> None:
    verdict = judge([*plain, plain[0]], POLICY)
    assert isinstance(verdict, Skip)
    assert verdict.code == "repeated_instance"


def test_no_images_at_all() -> None:
    assert isinstance(judge([], POLICY), Skip)


def test_site_rules_decide_last_and_give_their_own_reason(tmp_path: Path) -> None:
    policy = EligibilityPolicy(
        min_slices=5,
        rules=(
            Rule("BodyPartExamined", "one_of", ("CHEST", "THORAX"), "only thorax scans are translated"),
            Rule("SliceThickness", "at_most", ("2.5",), "slices are thicker than 2.5 mm"),
        ),
    )
    assert policy.keywords == ("BodyPartExamined", "SliceThickness")
    verdict = judge(headers_of(tmp_path / "a", policy), policy)
    assert verdict == Skip("site_rule", "slices are thicker than 2.5 mm")
    thin = headers_of(tmp_path / "b", policy, attributes={"SliceThickness": "2"}, slices=5)
    assert isinstance(judge(thin, policy), Accept)
    head = headers_of(tmp_path / "c", policy, attributes={"BodyPartExamined": "HEAD", "ContrastBolusAgent": "X"})
    assert judge(head, policy).code == "contrast_agent"  # type: ignore[union-attr]


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"])
@pytest.mark.parametrize("length", [65, 68, 128])
def test_a_uid_that_is_too_long_is_named(tmp_path: Path, keyword: str, length: int) -> None:
    verdict = judge(headers_of(tmp_path, raw={keyword: b"1.2." + b"9" * (length - 4)}), POLICY)
    assert isinstance(verdict, Skip)
    assert verdict.reason == f"the {keyword} is longer than 64 characters (PS3.5 9.1)"


def test_reasons_hold_no_patient_data_and_are_clauses(tmp_path: Path) -> None:
    codes = [rule.code for rule in RULES]
    assert len(codes) == len(set(codes))
    for rule in RULES:
        assert rule.reason[0].islower()
        assert not rule.reason.endswith(".")
    secret = {"PatientName": b"Secret^Name", "PatientID": b"SECRET", "ContrastBolusAgent": b"Secret"}

    def edit(ds: Dataset, _z: int) -> None:
        for keyword, value in secret.items():
            put_raw(ds, keyword, value)

    assert "secret" not in judge(headers_of(tmp_path, edit=edit, slices=1), POLICY).reason.lower()  # type: ignore[union-attr]


def test_a_policy_without_geometry_is_refused() -> None:
    with pytest.raises(ValueError, match="min_slices"):
        EligibilityPolicy(min_slices=1)
