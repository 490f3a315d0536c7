"""Series as scanners, brokers and routers really write them, from their files to a proven result of a real model."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless

from models import load_bundle
from models.testing import write_tiny_bundle
from models.translator import Translator
from node.dicom.derived_plan import EquipmentIdentity
from node.dicom.elements import element_bytes, put_items, raw_element, tag_of
from node.dicom.headers import load_dataset, read_header
from node.dicom.quiet import quiet_pydicom
from node.errors import UnreadableInstance
from node.receive.eligibility import Accept, EligibilityPolicy, Skip, judge
from node.translate.job import JobOptions, JobResult, run_job
from tests.builders import make_series, put_raw
from tests.conftest import require_program

IDENTITY = ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "AccessionNumber", "StudyID")
_FOREIGN = re.compile("Referenced SOP Instance UID.*Leading zeroes")
ROOT = "1.2.826.0.1.3680043.8.1055.1.20111103111149651.05453119"


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    folder = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(folder)
    return load_bundle(folder)


def run(paths: list[Path], out_dir: Path, translator: Translator) -> JobResult:
    out_dir.mkdir()
    equipment = EquipmentIdentity(software_version="0.1.0", installation_uid="2.25.77")
    options = JobOptions(equipment=equipment, produced_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    return run_job(paths, translator, options, out_dir)


def errors(path: Path) -> set[str]:
    """Error lines of dciodvfy, without values; a reference to a UID is as wrong as the UID itself."""
    program = require_program("dciodvfy", str(Path(sys.executable).with_name("dciodvfy")), "dciodvfy")
    report = subprocess.run([program, str(path)], capture_output=True, text=True, errors="replace", check=False)
    lines = (report.stdout + report.stderr).splitlines()
    return {re.sub(r"<[^>]*>", "<>", line) for line in lines if line.startswith("Error") and not _FOREIGN.search(line)}


def item(**values: bytes) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        put_raw(ds, keyword, value)
    return ds


def broker(ds: Dataset, _z: int) -> None:
    """What brokers leave: empty items, codes without a meaning, an ID without its type."""
    step = item(ScheduledProcedureStepDescription=b"CT, CHEST, W/O CONTRAST", RequestedProcedureID=b"1")
    with quiet_pydicom():
        put_items(step, "ScheduledProtocolCodeSequence", [item(CodeValue=b"CTCHWO", CodeMeaning=b"")])
        put_items(ds, "RequestAttributesSequence", [step, Dataset()])
        code = item(CodeValue=b"52100062", CodingSchemeDesignator=b"BROKER", CodeMeaning=b"")
        put_items(ds, "ProcedureCodeSequence", [code, item(CodeMeaning=b"Thorax")])
        put_items(ds, "OtherPatientIDsSequence", [item(PatientID=b"X1")])


def leading_zeros(ds: Dataset, z: int) -> None:
    for number, keyword in enumerate(("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")):
        put_raw(ds, keyword, f"{ROOT}.0{number}".encode())
    put_raw(ds, "SOPInstanceUID", f"{ROOT}.04.{z + 1:03d}"[:64].encode())


def spaces(ds: Dataset, _z: int) -> None:
    for number, keyword in enumerate(("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")):
        ds[tag_of(keyword)] = raw_element(tag_of(keyword), "LO", f"1.2.3.{number}.".encode()[:7] + b" ")


def un(ds: Dataset, _z: int) -> None:
    for keyword in ("ImagePositionPatient", "PixelSpacing", "PatientID", "RescaleIntercept"):
        ds[tag_of(keyword)] = raw_element(tag_of(keyword), "UN", element_bytes(ds, tag_of(keyword)) or b"")


def half_padded(ds: Dataset, z: int) -> None:
    if z % 2:
        put_raw(ds, "PixelData", (element_bytes(ds, tag_of("PixelData")) or b"") + b"\0\0")


RUSSIAN = "Иванов^Иван".encode("cp1251")
CASES: dict[str, dict[str, Any]] = {
    "leading zeros": {"edit": leading_zeros},
    "UIDs padded with spaces": {"edit": spaces},
    "sequences of a broker": {"edit": broker},
    "values as UN": {"edit": un},
    "GB 18030 with a backslash byte": {
        "raw": {
            "SpecificCharacterSet": b"GB18030",
            "PatientName": "Wang^XiaoDong=王^小东".encode("gb18030") + b"\x81\x5c",
            "StudyDescription": "胸部".encode("gb18030") + b"\x95\x5c",
        }
    },
    "half-width kana": {
        "raw": {
            "SpecificCharacterSet": b"ISO 2022 IR 13\\ISO 2022 IR 87",
            "PatientName": b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
        }
    },
    "long text": {
        "raw": {
            "AccessionNumber": b"HOSP20261125-CT-00012345",
            "StudyID": b"12345678901234567890",
            "PatientID": b"9" * 70,
            "StudyDescription": b"RT planning CT thorax left breast DIBH arms up breast board 10 degrees, no contrast",
            "PatientName": b"Van der Berg^Anna^M^^^^^x",
            "InstitutionName": b"University Medical Centre, Department of Radiation Oncology, Building 5, Room 2",
        }
    },
    "type 2 absent": {
        "absent": ["StudyID", "AccessionNumber", "StudyTime", "PatientSex", "KVP", "SliceThickness", "Manufacturer"]
    },
    "an unknown extension": {
        "raw": {
            "SpecificCharacterSet": b"ISO 2022 IR 6\\IS",
            "PatientName": RUSSIAN,
            "StudyDescription": "Грудь".encode("cp1251"),
        }
    },
    "a misspelt set": {"raw": {"SpecificCharacterSet": b"ISO-IR 144", "PatientName": "Иван".encode("iso8859_5")}},
    "excess bytes": {"edit": half_padded},
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_accepted_translated_and_proven_with_its_identity_kept(
    tmp_path: Path, translator: Translator, case: str
) -> None:
    paths = make_series(tmp_path / "source", slices=8, **CASES[case])
    assert isinstance(judge([read_header(path) for path in paths], EligibilityPolicy()), Accept)
    result = run(paths, tmp_path / "out", translator)
    assert result.held_reason is None
    assert len(result.files) == 8
    source, derived = load_dataset(paths[0]), load_dataset(result.files[0].path)
    for keyword in IDENTITY:
        assert (element_bytes(derived, tag_of(keyword)) or b"") == (element_bytes(source, tag_of(keyword)) or b"")
    (image,) = derived.SourceImageSequence
    assert element_bytes(image, tag_of("ReferencedSOPInstanceUID")) == element_bytes(source, tag_of("SOPInstanceUID"))
    assert errors(result.files[0].path) <= errors(paths[0])


def test_what_was_not_simply_kept_is_remarked_without_patient_data(tmp_path: Path, translator: Translator) -> None:
    paths = make_series(tmp_path / "source", slices=8, **CASES["long text"])
    assert run(paths, tmp_path / "out", translator).remarks[1:] == (
        "AccessionNumber is longer than 16 characters: kept",
        "InstitutionName is longer than 64 characters: cut",
        "PatientID is longer than 64 characters: kept",
        "StudyDescription is longer than 64 characters: cut",
        "StudyID is longer than 16 characters: kept",
    )


@pytest.mark.parametrize("name", [b"Schmidt^Anna", b"M\xfcller^Anna"])
def test_text_in_an_unknown_set_is_held_unless_it_is_ascii(tmp_path: Path, translator: Translator, name: bytes) -> None:
    raw = {"SpecificCharacterSet": b"WINDOWS-1252", "PatientName": name}
    result = run(make_series(tmp_path / "source", slices=8, raw=raw), tmp_path / "out", translator)
    if name.isascii():
        assert result.held_reason is None
    else:
        assert "the character set 'WINDOWS-1252' (SpecificCharacterSet) is unknown" in (result.held_reason or "")
    assert element_bytes(load_dataset(result.files[0].path), tag_of("PatientName")) == name


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"])
def test_a_uid_that_is_too_long_is_named_and_crashes_nothing(
    tmp_path: Path, translator: Translator, keyword: str
) -> None:
    paths = make_series(tmp_path / "source", slices=8, raw={keyword: b"1.2." + b"9" * 64})
    verdict = judge([read_header(path) for path in paths], EligibilityPolicy())
    assert isinstance(verdict, Skip)
    assert f"{keyword} is longer than 64 characters (PS3.5 9.1)" in verdict.reason
    assert run(paths, tmp_path / "out", translator).files


def test_a_slice_with_too_few_pixels_is_named(tmp_path: Path, translator: Translator) -> None:
    def shorten(ds: Dataset, z: int) -> None:
        if z == 4:
            put_raw(ds, "PixelData", (element_bytes(ds, tag_of("PixelData")) or b"")[:-200])

    paths = make_series(tmp_path / "source", slices=8, edit=shorten)
    with pytest.raises(UnreadableInstance, match=r"InstanceNumber 5 and SOP .* has 1848 of 2048 bytes of pixel data"):
        run(paths, tmp_path / "out", translator)


def test_the_same_series_sent_in_another_form_gives_the_same_uids_and_pixels(
    tmp_path: Path, translator: Translator
) -> None:
    paths = make_series(tmp_path / "a", slices=8, patient_name="Meyer^Zoe")
    first = run(paths, tmp_path / "first", translator)

    def other(ds: Dataset, z: int) -> None:
        put_raw(ds, "PatientName", b"Meyer^Zoe^^ ")
        put_raw(ds, "SpecificCharacterSet", b"ISO_IR 192")
        put_raw(ds, "SliceThickness", b"3.000")
        half_padded(ds, z)

    again = make_series(tmp_path / "b", slices=8, edit=other)
    for number, path in enumerate(again):
        ds = dcmread(path)
        ds.PixelData = ds.PixelData[: 32 * 32 * 2]
        ds.compress(RLELossless if number % 2 else JPEGLSLossless, generate_instance_uid=False)
        ds.save_as(path)
    second = run(again, tmp_path / "second", translator)
    assert second.series_uid == first.series_uid
    for one, two in zip(first.files, second.files, strict=True):
        assert one.sop_instance_uid == two.sop_instance_uid
        pixels = [element_bytes(load_dataset(made.path), tag_of("PixelData")) for made in (one, two)]
        assert pixels[0] == pixels[1]
