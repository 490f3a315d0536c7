"""Values of a source in the derived slice: foreign ones are kept, items are validated, and nothing goes unremarked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.dicom.derived import build_slice
from node.dicom.elements import element_bytes, put_items, raw_element, seal, tag_of, write_part10
from node.dicom.quiet import quiet_pydicom
from node.dicom.source_values import MAX_REMARKS, Note, Remarks, doubt_of_text
from node.dicom.synthetic_scan import put_number
from node.dicom.volume import read_volume
from tests.builders import make_series, put_raw
from tests.unit.node.dicom.test_derived import PLAN

YAMADA = b"Yamada=\x1b$B;3ED\x1b(B"


def derive(folder: Path, **series: Any) -> tuple[Dataset, Dataset, tuple[str, ...]]:
    """The derived slice as read back, the source slice, and the remarks on it."""
    volume = read_volume(make_series(folder / "source", slices=2, **series))
    remarks = Remarks()
    write_part10(build_slice(PLAN, volume.slices[0], volume.stored[0], remarks), folder / "derived.dcm")
    with quiet_pydicom():
        return dcmread(folder / "derived.dcm"), volume.slices[0].dataset, remarks.lines()


def value(ds: Dataset, keyword: str) -> bytes | None:
    return element_bytes(ds, tag_of(keyword))


def item(*inner: tuple[str, list[Dataset]], **values: bytes) -> Dataset:
    ds = Dataset()
    for keyword, raw in values.items():
        put_raw(ds, keyword, raw)
    for keyword, items in inner:
        put_items(ds, keyword, items)
    return seal(ds)


def with_items(keyword: str, *items: Dataset) -> Callable[[Dataset, int], None]:
    def edit(ds: Dataset, _z: int) -> None:
        with quiet_pydicom():
            put_items(ds, keyword, list(items))

    return edit


CODE = {"CodeValue": b"1", "CodingSchemeDesignator": b"99X", "CodeMeaning": b"Thorax"}


@pytest.mark.parametrize(
    "uid", [b"1.2.05453119.04", b"1.2.826.0.00", b"0.0.01", b"1..2", b"1.2.3.", b"1" * 64], ids=lambda uid: uid.decode()
)
def test_a_foreign_uid_is_referred_to_as_it_came(tmp_path: Path, uid: bytes) -> None:
    uids = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")

    def edit(ds: Dataset, z: int) -> None:
        for keyword in uids:
            put_raw(ds, keyword, uid)
        if z == 0:
            put_raw(ds, "SOPInstanceUID", uid)

    ds, _, remarks = derive(tmp_path, edit=edit)
    (image,), (series,), (related,) = ds.SourceImageSequence, ds.ReferencedSeriesSequence, ds.RelatedSeriesSequence
    found = [
        value(ds, "StudyInstanceUID"),
        value(ds, "FrameOfReferenceUID"),
        value(image, "ReferencedSOPInstanceUID"),
        value(series, "SeriesInstanceUID"),
        value(series.ReferencedInstanceSequence[0], "ReferencedSOPInstanceUID"),
        value(related, "StudyInstanceUID"),
        value(related, "SeriesInstanceUID"),
    ]
    assert found == [uid] * 7
    assert remarks == ()


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"])
def test_a_uid_that_is_too_long_or_ends_with_a_space_breaks_nothing(tmp_path: Path, keyword: str) -> None:
    for number, uid in enumerate((b"1.2." + b"9" * 64, b"1.2." + b"9" * 124)):
        derive(tmp_path / str(number), raw={keyword: uid})

    def spaced(ds: Dataset, _z: int) -> None:
        ds[tag_of(keyword)] = raw_element(tag_of(keyword), "LO", b"1.2.3 ")

    ds, _, _ = derive(tmp_path / "spaced", edit=spaced)
    if keyword != "SeriesInstanceUID":
        assert value(ds, keyword) == b"1.2.3"
    assert value(ds.ReferencedSeriesSequence[0], "SeriesInstanceUID")


def test_values_that_a_router_sent_as_un_are_read_and_written_with_their_vr(tmp_path: Path) -> None:
    sent = {"ImagePositionPatient": b"1\\2\\0", "RescaleIntercept": b"-1024", "PatientID": b"X1", "Rows": b"\x20\0"}

    def unknown(ds: Dataset, z: int) -> None:
        for keyword, raw in sent.items():
            ds[tag_of(keyword)] = raw_element(tag_of(keyword), "UN", raw)
        if z:
            ds[tag_of("ImagePositionPatient")] = raw_element(tag_of("ImagePositionPatient"), "UN", b"1\\2\\3")

    ds, _, remarks = derive(tmp_path, edit=unknown)
    assert {keyword: value(ds, keyword) for keyword in sent} == sent
    assert [ds[keyword].VR for keyword in sent] == ["DS", "DS", "LO", "US"]
    assert remarks == ()


@pytest.mark.parametrize(
    ("sequence", "items", "missing"),
    [
        ("ProcedureCodeSequence", [item(CodeValue=b"1", CodingSchemeDesignator=b"X", CodeMeaning=b"")], "CodeMeaning"),
        ("ProcedureCodeSequence", [item(CodeValue=b"1", CodeMeaning=b"X")], "CodingSchemeDesignator"),
        ("ProcedureCodeSequence", [item(CodingSchemeDesignator=b"X", CodeMeaning=b"X")], "CodeValue"),
        ("DeidentificationMethodCodeSequence", [item(CodeMeaning=b"X")], "CodeValue"),
        ("OtherPatientIDsSequence", [item(PatientID=b"X1")], "TypeOfPatientID"),
        ("OtherPatientIDsSequence", [item(PatientID=b"", TypeOfPatientID=b"TEXT")], "PatientID"),
        ("OtherPatientIDsSequence", [item(PatientID=b"X1", TypeOfPatientID=b"text!")], "TypeOfPatientID"),
        ("IssuerOfAccessionNumberSequence", [item(UniversalEntityIDType=b"DNS")], "LocalNamespaceEntityID"),
        ("RequestAttributesSequence", [Dataset()], "content"),
    ],
)
def test_an_item_without_what_it_needs_is_left_out(
    tmp_path: Path, sequence: str, items: list[Dataset], missing: str
) -> None:
    ds, _, remarks = derive(tmp_path, edit=with_items(sequence, *items))
    assert tag_of(sequence) not in ds
    assert f"An item of {sequence} has no {missing}: left out" in remarks


def test_whole_items_are_kept_and_empty_inner_sequences_too(tmp_path: Path) -> None:
    whole = item(("ScheduledProtocolCodeSequence", [item(**CODE)]), ScheduledProcedureStepDescription=b"CT, CHEST")
    broken = item(
        ("ScheduledProtocolCodeSequence", [item(CodeValue=b"CTCHWO", CodeMeaning=b"")]), RequestedProcedureID=b"R1"
    )
    ds, _, remarks = derive(tmp_path, edit=with_items("RequestAttributesSequence", whole, broken, Dataset()))
    first, second = ds.RequestAttributesSequence
    assert first.ScheduledProtocolCodeSequence[0].CodeMeaning == "Thorax"
    assert second.RequestedProcedureID == "R1"
    assert "ScheduledProtocolCodeSequence" not in second
    assert len(remarks) == 2


def test_values_in_items_are_validated_like_optional_ones(tmp_path: Path) -> None:
    long_uid, odd_uid = b"1" * 66, b"1.02.3"
    sent = item(
        ("ReferencedStudySequence", [item(ReferencedSOPClassUID=b"1.2", ReferencedSOPInstanceUID=long_uid)]),
        StudyInstanceUID=odd_uid,
        RequestedProcedureID=b"R" * 20,
        RequestedProcedureDescription=b"d" * 70,
        ScheduledProcedureStepStartDate=b"tomorrow",
    )
    ds, _, remarks = derive(tmp_path, edit=with_items("RequestAttributesSequence", sent))
    (kept,) = ds.RequestAttributesSequence
    assert value(kept, "StudyInstanceUID") == odd_uid
    assert value(kept, "RequestedProcedureID") == b"R" * 20
    assert value(kept, "RequestedProcedureDescription") == b"d" * 64
    assert "ScheduledProcedureStepStartDate" not in kept
    assert "ReferencedStudySequence" not in kept
    assert remarks == (
        "An item of ReferencedStudySequence has no ReferencedSOPInstanceUID: left out",
        "ReferencedSOPInstanceUID in ReferencedStudySequence is longer than 64 characters: left out",
        "RequestedProcedureDescription in RequestAttributesSequence is longer than 64 characters: cut",
        "RequestedProcedureID in RequestAttributesSequence is longer than 16 characters: kept",
        "ScheduledProcedureStepStartDate in RequestAttributesSequence is no valid DA (PS3.5 6.2): left out",
    )


@pytest.mark.parametrize(
    ("received", "written"),
    [
        (b"ISO_IR_192", b"ISO_IR 192"),
        (b"utf-8", b"ISO_IR 192"),
        (b"ISO_IR 192\\ISO 2022 IR 87", b"ISO_IR 192"),
        (b"ISO 2022 IR 6\\IS", b"ISO 2022 IR 6\\IS"),
        (b"NONSENSE-THAT-IS-LONGER-THAN-A-CS", b"NONSENSE-THAT-IS-LONGER-THAN-A-CS"),
        (b"\\ISO 2022 IR 87", b"\\ISO 2022 IR 87"),
    ],
)
def test_a_character_set_is_mended_or_kept_and_never_dropped(tmp_path: Path, received: bytes, written: bytes) -> None:
    name = "Müller^Jürgen".encode()
    described = item(RequestedProcedureDescription=name)
    raw = {"SpecificCharacterSet": received, "PatientName": name, "StudyDescription": name}
    _, source, remarks = derive(tmp_path, raw=raw, edit=with_items("RequestAttributesSequence", described))
    assert value(source, "SpecificCharacterSet") == received
    data = (tmp_path / "derived.dcm").read_bytes()
    assert data.count(name) == 3
    assert written in data
    assert any("SpecificCharacterSet" in line for line in remarks) is (written != b"\\ISO 2022 IR 87")


def test_an_item_with_a_character_set_of_its_own_is_read_in_it(tmp_path: Path) -> None:
    text = "ä".encode() * 70
    described = item(SpecificCharacterSet=b"UTF-8", RequestedProcedureDescription=text)
    ds, _, _ = derive(tmp_path, edit=with_items("RequestAttributesSequence", described))
    (kept,) = ds.RequestAttributesSequence
    assert value(kept, "SpecificCharacterSet") == b"ISO_IR 192"
    assert value(kept, "RequestedProcedureDescription") == "ä".encode() * 64


@pytest.mark.parametrize(
    ("raw", "held"),
    [
        ({"SpecificCharacterSet": b"NONSENSE", "PatientName": b"M\xfcller"}, "NONSENSE"),
        ({"SpecificCharacterSet": b"WINDOWS-1251", "InstitutionAddress": b"\xc8"}, "InstitutionAddress"),
        ({"SpecificCharacterSet": b"ISO_IR 100\\ISO_IR 192", "StudyDescription": b"\xc8"}, "StudyDescription"),
        ({"SpecificCharacterSet": b"ISO 2022 IR 6\\JIS", "PatientName": YAMADA}, "PatientName"),
        ({"SpecificCharacterSet": b"NONSENSE"}, None),
        ({"SpecificCharacterSet": b"ISO-IR 144", "PatientName": b"\xc8"}, None),
        ({"SpecificCharacterSet": b"ISO 2022 IR 6\\IS", "PatientName": b"\xc8\xe2"}, None),
        ({"SpecificCharacterSet": b"ISO_IR 192", "PatientName": b"\xc8\xe2"}, None),
        ({"SpecificCharacterSet": b"", "PatientName": b"\xc8\xe2"}, None),
    ],
)
def test_text_in_an_unknown_set_is_doubted_unless_it_is_ascii(
    tmp_path: Path, raw: dict[str, bytes], held: str | None
) -> None:
    volume = read_volume(make_series(tmp_path, slices=2, raw=raw))
    doubt = doubt_of_text(source.dataset for source in volume.slices)
    assert (doubt is None) is (held is None)
    if held and doubt:
        assert held in doubt
        assert "Müller" not in doubt


def test_text_of_an_item_is_doubted_too_and_an_odd_set_is_printed_harmlessly(tmp_path: Path) -> None:
    described = item(**{**CODE, "CodeMeaning": b"Br\xfcst"})

    def edit(ds: Dataset, z: int) -> None:
        put_raw(ds, "SpecificCharacterSet", b"\x1b[31m<b>" + b"X" * 80)
        with_items("ProcedureCodeSequence", described)(ds, z)

    volume = read_volume(make_series(tmp_path, slices=2, edit=edit))
    doubt = doubt_of_text(source.dataset for source in volume.slices) or ""
    assert "'??31m?b?XXX" in doubt
    assert "ProcedureCodeSequence" in doubt
    assert len(doubt) < 250


@pytest.mark.parametrize(("own", "held"), [(b"LATIN17", True), (b"ISO_IR 100", False), (b"", False)])
def test_an_item_that_names_a_character_set_of_its_own_is_judged_by_it(tmp_path: Path, own: bytes, held: bool) -> None:
    described = item(**{**CODE, "CodeMeaning": b"Br\xfcst", "SpecificCharacterSet": own})

    def edit(ds: Dataset, z: int) -> None:
        put_raw(ds, "SpecificCharacterSet", b"ISO_IR 100")
        with_items("ProcedureCodeSequence", described)(ds, z)

    volume = read_volume(make_series(tmp_path, slices=2, edit=edit))
    assert bool(doubt_of_text(source.dataset for source in volume.slices)) is held


def test_what_depends_on_an_absent_value_goes_with_it(tmp_path: Path) -> None:
    def mark(ds: Dataset, _z: int) -> None:
        put_raw(ds, "LossyImageCompression", b"yes")
        put_raw(ds, "LossyImageCompressionRatio", b"10")
        put_raw(ds, "LossyImageCompressionMethod", b"ISO_10918_1")
        put_number(ds, "PixelPaddingRangeLimit", 7)

    ds, _, remarks = derive(tmp_path, edit=mark)
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "PixelPaddingRangeLimit"):
        assert keyword not in ds
    assert remarks == (
        "LossyImageCompression is no valid CS (PS3.5 6.2): left out",
        "LossyImageCompressionMethod was left out: there is no LossyImageCompression",
        "LossyImageCompressionRatio was left out: there is no LossyImageCompression",
        "PixelPaddingRangeLimit was left out: there is no PixelPaddingValue",
    )


@pytest.mark.parametrize(
    ("keyword", "sent", "written"),
    [
        ("StudyDescription", b"RT planning " * 8, (b"RT planning " * 8)[:64].rstrip()),
        ("InstitutionName", b"Klinik " * 12, (b"Klinik " * 12)[:64].rstrip()),
        ("IssuerOfPatientID", b"I" * 70, b"I" * 70),
        ("AccessionNumber", b"HOSP20261125-CT-00012345", b"HOSP20261125-CT-00012345"),
        ("PatientID", b"9" * 70, b"9" * 70),
        ("PatientName", b"A" * 70 + b"^B^^^^^x", b"A" * 70 + b"^B^^^^^x"),
        ("TimezoneOffsetFromUTC", b"+0100 and a long text", b"+0100 and a long text"),
        ("TimezoneOffsetFromUTC", "+0100 é".encode(), "+0100 é".encode()),
        ("BodyPartExamined", b"the chest", None),
        ("SliceLocation", b"12.34567890123456789", None),
        ("PatientAge", b"45Y", None),
    ],
)
def test_what_identifies_is_kept_what_describes_is_cut_and_codes_are_left_out_with_a_remark(
    tmp_path: Path, keyword: str, sent: bytes, written: bytes | None
) -> None:
    ds, _, remarks = derive(tmp_path, raw={keyword: sent})
    assert value(ds, keyword) == written
    assert any(line.startswith(f"{keyword} ") for line in remarks) is (written is None or len(sent) > 16)
    assert not any(sent.decode() in line for line in remarks)


def test_remarks_say_of_how_many_slices_and_are_few() -> None:
    remarks = Remarks()
    for z in range(4):
        notes = {Note("StudyID", "is longer than 16 characters: kept")}
        if z == 2:
            notes.add(Note("ProtocolName", "is longer than 64 characters: cut"))
        remarks.add_slice(notes)
    assert remarks.lines() == (
        "ProtocolName of 1 slice is longer than 64 characters: cut",
        "StudyID is longer than 16 characters: kept",
    )
    for number in range(30):
        remarks.add_slice({Note(f"Keyword{number:02}", "is odd: kept")})
    lines = remarks.lines()
    assert len(lines) == MAX_REMARKS
    assert lines[-1] == "and 13 more"


def test_a_plain_source_gives_no_remark(tmp_path: Path) -> None:
    assert derive(tmp_path)[2] == ()
