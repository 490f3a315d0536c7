"""The derived slice: what it takes from its source, what it says of itself, and what must never be in it."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from highdicom.sr import CodedConcept
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from node.dicom.content import COPIED
from node.dicom.derived import build_slice
from node.dicom.derived_plan import DerivedSeriesPlan, EquipmentIdentity, ModelIdentity, SeriesOptions
from node.dicom.elements import element_bytes, put, put_items, seal, tag_of, write_part10
from node.dicom.quiet import quiet_pydicom
from node.dicom.synthetic_scan import put_number
from node.dicom.uids import UidFactory
from node.dicom.volume import SourceSlice, read_volume
from tests.builders import make_series, put_raw

PLAN = DerivedSeriesPlan(
    series_uid="2.25.1",
    series_number=301,
    series_description="sCE-CT AI Thorax",
    uids=UidFactory(),
    equipment=EquipmentIdentity(software_version="0.1.0", installation_uid="2.25.77"),
    model=ModelIdentity(
        name="demo",
        version="3",
        method="syndiff",
        weights_sha256="a" * 64,
        device="cpu",
        precision="fp32",
        hu_window_hu=(-40.0, 400.0),
    ),
    produced_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    slice_spacing_mm=3.0,
)


def derive(folder: Path, plan: DerivedSeriesPlan = PLAN, **series: object) -> tuple[Dataset, SourceSlice]:
    """Make a source series, derive its first slice with unchanged pixels, and read it back from its file."""
    volume = read_volume(make_series(folder / "source", slices=2, **series))  # type: ignore[arg-type]
    source = volume.slices[0]
    path = folder / "derived.dcm"
    write_part10(build_slice(plan, source, volume.stored[0]), path)
    with quiet_pydicom():
        return dcmread(path), source


def same(ds: Dataset, source: SourceSlice, keyword: str) -> bool:
    return element_bytes(ds, tag_of(keyword)) == element_bytes(source.dataset, tag_of(keyword))


def test_it_says_what_it_is(tmp_path: Path) -> None:
    ds, source = derive(tmp_path)
    assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert (ds.SyntheticData, ds.ContentQualification, ds.Modality) == ("YES", "RESEARCH", "CT")
    assert (ds.Manufacturer, ds.ManufacturerModelName, ds.StationName) == ("syncect", "syncect", "SYNCECT")
    assert (ds.SeriesDescription, ds.SeriesNumber) == ("sCE-CT AI Thorax", 301)
    assert (ds.RescaleType, ds.WindowCenter, ds.WindowWidth, ds.BurnedInAnnotation) == ("HU", 60, 400, "NO")
    for words in ("demo", "version 3", "syndiff", "a" * 64, "0.1.0", "fp32 on cpu", "Not for dose", "-40 to 400 HU"):
        assert words in ds.DerivationDescription
    assert "Not for dose calculation" in str(element_bytes(ds, tag_of("ImageComments")))
    assert len(ds.DerivationDescription) <= 1024
    assert ds.SeriesInstanceUID == "2.25.1"
    assert ds.SOPInstanceUID == PLAN.uids.instance_uid("2.25.1", source.header.sop_instance_uid)
    assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID
    assert ds.InstanceCreatorUID == "2.25.77"


def test_it_names_its_source_and_who_contributed(tmp_path: Path) -> None:
    ds, source = derive(tmp_path)
    (image,) = ds.SourceImageSequence
    assert image.ReferencedSOPInstanceUID == source.header.sop_instance_uid
    assert image.SpatialLocationsPreserved == "YES"
    assert image.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert ds.ReferencedSeriesSequence[0].SeriesInstanceUID == source.header.series_uid
    references = ds.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert [item.ReferencedSOPInstanceUID for item in references] == [source.header.sop_instance_uid]
    assert ds.RelatedSeriesSequence[0].StudyInstanceUID == source.header.study_uid
    assert len(ds.RelatedSeriesSequence[0].PurposeOfReferenceCodeSequence) == 0
    scanner, model = ds.ContributingEquipmentSequence
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert (scanner.Manufacturer, scanner.StationName) == ("Phantom scanner", "PHANTOM")
    assert model.PurposeOfReferenceCodeSequence[0].CodeValue == "109100"
    assert list(model.SoftwareVersions) == ["3", "a" * 64]


def test_geometry_strings_are_copied_not_reprinted(tmp_path: Path) -> None:
    odd = {
        "ImagePositionPatient": b"-1.234500e+02\\6.8359375e-1\\-0.000",
        "ImageOrientationPatient": b"1.000000\\0\\-0\\0.0\\+1\\0e0",
        "PixelSpacing": b"0.68359375\\6.8359375e-1",
        "SliceThickness": b"3.000",
        "SliceLocation": b" 12.50",
    }

    def place(ds: Dataset, z: int) -> None:
        for keyword, value in odd.items():
            put_raw(ds, keyword, value)
        if z:
            put_raw(ds, "ImagePositionPatient", b"-1.234500e+02\\6.8359375e-1\\3.0")

    ds, _ = derive(tmp_path, edit=place)
    for keyword, value in odd.items():
        assert element_bytes(ds, tag_of(keyword)) == value


def test_pixels_and_their_description_are_the_sources(tmp_path: Path) -> None:
    ds, source = derive(tmp_path)
    stored = read_volume([source.header.path]).stored[0]
    np.testing.assert_array_equal(ds.pixel_array, stored)
    for keyword in ("BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"):
        assert same(ds, source, keyword)


def test_same_plan_and_source_give_the_same_bytes(tmp_path: Path) -> None:
    derive(tmp_path / "a")
    derive(tmp_path / "b")
    assert (tmp_path / "a/derived.dcm").read_bytes() == (tmp_path / "b/derived.dcm").read_bytes()


NEVER = {
    "ContrastBolusAgent": "",
    "ContrastBolusRoute": "IV",
    "ContrastBolusVolume": "100",
    "CTDIvol": None,
    "Exposure": "100",
    "XRayTubeCurrent": "200",
    "ConvolutionKernel": "B40",
    "FilterType": "0",
    "OperatorsName": "Somebody",
    "PerformedProcedureStepID": "1",
    "SmallestImagePixelValue": None,
    "WindowCenterWidthExplanation": "LUNG",
    "RequestedContrastAgent": "IODINE",
    "DerivationCodeSequence": None,
    "ReferencedImageSequence": None,
}


def test_nothing_but_the_allow_list_comes_over(tmp_path: Path) -> None:
    def add(ds: Dataset, _z: int) -> None:
        for keyword, value in NEVER.items():
            if value is not None:
                put(ds, keyword, value)
        put_number(ds, "SmallestImagePixelValue", 0)
        ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", b"xx")
        ds.add_new(0x60000010, "US", 2)

    ds, source = derive(tmp_path, edit=add)
    assert not [keyword for keyword in NEVER if keyword in ds]
    assert not [element.tag for element in ds.iterall() if element.tag.is_private or element.tag.group == 0x6000]
    own = {
        "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription",
        "InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime", "ContentDate", "ContentTime",
        "InstanceCreatorUID", "Manufacturer", "ManufacturerModelName", "StationName", "DeviceSerialNumber",
        "SoftwareVersions", "ImageType", "SyntheticData", "ContentQualification", "BurnedInAnnotation", "ImageComments",
        "DerivationDescription", "RescaleType", "WindowCenter", "WindowWidth", "SourceImageSequence", "PixelData",
        "ReferencedSeriesSequence", "RelatedSeriesSequence", "ContributingEquipmentSequence", "Laterality",
        "SpacingBetweenSlices", "SpecificCharacterSet",
    }  # fmt: skip
    assert {element.keyword for element in ds} <= own | {keyword for keyword, _ in COPIED}
    assert same(ds, source, "PatientID")


@pytest.mark.parametrize(
    ("body_part", "laterality", "written"),
    [
        ("CHEST", None, None),
        ("CHEST", b"", None),
        ("HEADNECK", b"L", None),
        ("THORAX", None, ""),
        ("", None, ""),
        ("BREAST", b"L", "L"),
        ("BREAST", b"", ""),
        ("BREAST", b"nonsense", ""),
    ],
)
def test_laterality(tmp_path: Path, body_part: str, laterality: bytes | None, written: str | None) -> None:
    raw = {} if laterality is None else {"Laterality": laterality}
    ds, _ = derive(tmp_path, attributes={"BodyPartExamined": body_part}, raw=raw)
    assert ds.get("Laterality") == written


@pytest.mark.parametrize(("sent", "kept"), [("3", True), ("3.005", True), ("5", False), ("-3", False), ("0", False)])
def test_spacing_between_slices_only_where_it_is_true(tmp_path: Path, sent: str, kept: bool) -> None:
    ds, _ = derive(tmp_path, attributes={"SpacingBetweenSlices": sent})
    assert ("SpacingBetweenSlices" in ds) is kept


def test_optional_text_that_breaks_its_vr_is_cut_or_dropped_and_a_required_one_is_kept(tmp_path: Path) -> None:
    raw = {
        "StudyDescription": b"x" * 80,
        "ProtocolName": b"",
        "BodyPartExamined": b"not a code string!",
        "PatientAge": b"old",
        "StudyID": b"y" * 30,
        "StudyDate": b"yesterday",
        "PatientSex": b"female",
        "AccessionNumber": b"A" * 40,
        "KVP": b"120 kV",
        "InstanceNumber": b"99999999999999",
    }
    ds, source = derive(tmp_path, raw=raw)
    for keyword in ("ProtocolName", "BodyPartExamined", "PatientAge"):
        assert tag_of(keyword) not in ds
    assert ds.StudyDescription == "x" * 64
    for keyword in ("StudyID", "StudyDate", "PatientSex", "AccessionNumber", "KVP", "InstanceNumber"):
        assert same(ds, source, keyword)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (b"ISO_IR 192", "Müller^Jürgen=山田".encode()),
        (b"ISO_IR 100", b"M\xfcller"),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
        (b"NONSENSE", b"M\xfc\xfe\x00ller"),
        (b"ISO_IR 192", b"broken \xc3("),
        (b"", b"\xff\xfe"),
    ],
)
def test_text_is_copied_byte_for_byte_in_any_character_set(tmp_path: Path, charset: bytes, name: bytes) -> None:
    raw = {"SpecificCharacterSet": charset, "PatientName": name, "InstitutionName": name, "StationName": name[:10]}
    ds, source = derive(tmp_path, raw=raw)
    for keyword in ("PatientName", "PatientID", "InstitutionName"):
        assert same(ds, source, keyword)
    if charset:
        assert b"\\".join(str(part).encode() for part in _values(ds)) == charset


def _values(ds: Dataset) -> list[str]:
    with quiet_pydicom():
        value = ds.get("SpecificCharacterSet", "")
    return [value] if isinstance(value, str) else list(value)


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        (b"ISO_IR 144", "Томограф".encode("iso8859_5")),
        (b"ISO_IR 13", "ﾄｳｼﾊﾞ".encode("shift_jis")),
        (b"\\ISO 2022 IR 87", b"Toshiba=\x1b$B;3ED\x1b(B"),
        (b"ISO_IR 192", "山田病院".encode()),
        (b"GB18030", "医院".encode("gb18030")),
        (b"NONSENSE", b"\xd2\xde"),
        (b"ISO_IR 100\\NONSENSE", b"\xd2\xde"),
    ],
)
def test_the_scanner_keeps_its_name_in_the_sources_character_set(tmp_path: Path, charset: bytes, text: bytes) -> None:
    named = ("Manufacturer", "InstitutionName", "InstitutionAddress", "ManufacturerModelName")
    ds, source = derive(tmp_path, raw={"SpecificCharacterSet": charset, **dict.fromkeys(named, text)})
    scanner, model = ds.ContributingEquipmentSequence
    for keyword in named:
        assert element_bytes(scanner, tag_of(keyword)) == element_bytes(source.dataset, tag_of(keyword)) == text
    assert model.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Synthesizing Equipment"
    assert model.Manufacturer == "syncect"


@pytest.mark.parametrize(
    ("keyword", "sent", "written"),
    [
        ("Manufacturer", b"", b"UNKNOWN"),
        ("Manufacturer", b"  ", b"UNKNOWN"),
        ("Manufacturer", b"m" * 65, b"m" * 64),
        ("Manufacturer", b"one\\two", b"one\\two"),
        ("StationName", b"s" * 20, b"s" * 16),
        ("StationName", b"s" * 16, b"s" * 16),
        ("InstitutionAddress", b"a" * 1025, b"a" * 1024),
        ("InstitutionAddress", b"Street 1\r\n12345 Town\\Ward 2", b"Street 1\r\n12345 Town\\Ward 2"),
        ("SoftwareVersions", b"\\".join([b"v" * 64] * 20), b"\\".join([b"v" * 64] * 20)),
        ("SoftwareVersions", b"1\\\\2", b"1\\\\2"),
        ("DeviceSerialNumber", b"", None),
        ("DeviceSerialNumber", b"9" * 65, b"9" * 65),
        ("AcquisitionDateTime", b"yesterday", None),
        ("AcquisitionUID", b"1.2.not-a-uid", None),
        ("FrameOfReferenceUID", b"1.02.malformed", None),
    ],
)
def test_odd_values_of_a_scanner_are_kept_or_left_out_and_never_fail(
    tmp_path: Path, keyword: str, sent: bytes, written: bytes | None
) -> None:
    ds, source = derive(tmp_path, raw={keyword: sent})
    scanner, _ = ds.ContributingEquipmentSequence
    assert element_bytes(scanner, tag_of(keyword)) == written
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert same(ds, source, "FrameOfReferenceUID")


def test_codes_and_contributing_equipment_are_those_that_highdicom_accepts(tmp_path: Path) -> None:
    ds, _ = derive(tmp_path)
    scanner, model = ds.ContributingEquipmentSequence
    (image,) = ds.SourceImageSequence
    purposes = [item.PurposeOfReferenceCodeSequence[0] for item in (scanner, model, image)]
    meant = (
        codes.DCM.AcquisitionEquipment,
        codes.DCM.SynthesizingEquipment,
        codes.DCM.SourceImageForImageProcessingOperation,
    )
    for item, code in zip(purposes, meant, strict=True):
        assert CodedConcept.from_dataset(item) == code
        assert [element.keyword for element in item] == ["CodeValue", "CodingSchemeDesignator", "CodeMeaning"]
    assert [element.keyword for element in model] == [
        "Manufacturer",
        "ManufacturerModelName",
        "SoftwareVersions",
        "ContributionDateTime",
        "ContributionDescription",
        "PurposeOfReferenceCodeSequence",
    ]
    assert str(model.ContributionDateTime) == "20260102030405+0000"


def test_sequences_are_copied_without_private_elements(tmp_path: Path) -> None:
    def add(ds: Dataset, _z: int) -> None:
        item = Dataset()
        put(item, "ScheduledProcedureStepID", "S1")
        put_raw(item, "RequestedProcedureDescription", b"M\xfcnchen")
        item.private_block(0x0009, "X", create=True).add_new(1, "LO", "secret")
        code = Dataset()
        put(code, "CodeValue", "1")
        put(code, "CodingSchemeDesignator", "99X")
        put(code, "CodeMeaning", "Something")
        item.RequestedProcedureCodeSequence = [code]
        ds.RequestAttributesSequence = [item]
        ds.ProcedureCodeSequence = []

    ds, _ = derive(tmp_path, edit=add)
    (item,) = ds.RequestAttributesSequence
    assert item.ScheduledProcedureStepID == "S1"
    assert item.RequestedProcedureDescription == "München"
    assert item.RequestedProcedureCodeSequence[0].CodeMeaning == "Something"
    assert not [element for element in item if element.tag.is_private]
    assert "ProcedureCodeSequence" not in ds


def test_items_keep_text_of_another_alphabet(tmp_path: Path) -> None:
    text = "Грудная клетка".encode("iso8859_5")

    def add(ds: Dataset, _z: int) -> None:
        put_raw(ds, "SpecificCharacterSet", b"ISO_IR 144")
        item, code = Dataset(), Dataset()
        put_raw(item, "RequestedProcedureDescription", text)
        put(code, "CodeValue", "1")
        put(code, "CodingSchemeDesignator", "99X")
        put_raw(code, "CodeMeaning", text)
        put_items(item, "RequestedProcedureCodeSequence", [seal(code)])
        put_items(ds, "RequestAttributesSequence", [seal(item)])

    derive(tmp_path, edit=add)
    source, derived = (tmp_path / "source" / "0001.dcm", tmp_path / "derived.dcm")
    assert derived.read_bytes().count(text) == 2 == source.read_bytes().count(text)


def test_missing_type_2_attributes_are_written_empty(tmp_path: Path) -> None:
    absent = [
        "StudyID",
        "ReferringPhysicianName",
        "AccessionNumber",
        "PositionReferenceIndicator",
        "KVP",
        "Manufacturer",
    ]
    ds, _ = derive(tmp_path, absent=absent)
    for keyword in absent[:-1]:
        assert tag_of(keyword) in ds
        assert not ds[keyword].value
    assert ds.ContributingEquipmentSequence[0].Manufacturer == "UNKNOWN"


def test_lossy_history_and_padding_are_kept(tmp_path: Path) -> None:
    def mark(ds: Dataset, _z: int) -> None:
        put(ds, "LossyImageCompression", "01")
        put(ds, "LossyImageCompressionRatio", "10")
        put_number(ds, "PixelPaddingValue", 24)

    ds, _ = derive(tmp_path, edit=mark)
    assert (ds.LossyImageCompression, ds.LossyImageCompressionRatio, ds.PixelPaddingValue) == ("01", 10, 24)
    assert ds["PixelPaddingValue"].VR == "US"


@pytest.mark.parametrize(
    ("offset", "zone", "date", "time"),
    [
        (None, UTC, "20260102", "030405"),
        (None, timezone(timedelta(hours=2)), "20260102", "050405"),
        ("-0500", UTC, "20260101", "220405"),
        ("+0530", timezone(timedelta(hours=2)), "20260102", "083405"),
        ("+9999", UTC, "20260102", "030405"),
    ],
)
def test_own_times_follow_the_sources_offset(
    tmp_path: Path, offset: str | None, zone: timezone, date: str, time: str
) -> None:
    values = {field: getattr(PLAN, field) for field in PLAN.__dataclass_fields__} | {"site_timezone": zone}
    attributes = {"TimezoneOffsetFromUTC": offset} if offset else {}
    ds, _ = derive(tmp_path, plan=DerivedSeriesPlan(**values), attributes=attributes)
    for moment in ("Series", "Content", "InstanceCreation"):
        assert (ds[f"{moment}Date"].value, ds[f"{moment}Time"].value) == (date, time)
    assert ("TimezoneOffsetFromUTC" in ds) is (offset is not None)


def test_pixels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = read_volume(make_series(tmp_path, slices=2)).slices[0]
    with pytest.raises(ValueError, match="do not fit"):
        build_slice(PLAN, source, np.zeros((32, 31), np.uint16))
    with pytest.raises(ValueError, match="do not fit"):
        build_slice(PLAN, source, np.zeros((32, 32), np.int16))


@pytest.mark.parametrize(
    "options", [{"description_prefix": "sCÉ"}, {"description_prefix": "a\\bcd"}, {"number_rule": "9"}]
)
def test_bad_series_options(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be"):
        SeriesOptions(**options)


@pytest.mark.parametrize(
    "equipment", [{"device_serial_number": "x" * 65}, {"device_serial_number": ""}, {"installation_uid": "1.a"}]
)
def test_bad_equipment(equipment: dict[str, str]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - two sources of the message, one of them pydicom
        EquipmentIdentity(software_version="1", **equipment)
