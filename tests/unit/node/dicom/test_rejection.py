"""Rejection notes: what an archive and a foreign reader find in them, with and without the files of the series."""

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from highdicom.ko import KeyObjectSelectionDocument
from pydicom import dcmread
from pydicom.dataset import Dataset

from node.dicom.companions.make import CompanionMaker
from node.dicom.companions.rejection import TITLES, Withdrawn, build_note
from node.dicom.elements import element_bytes, tag_of, write_part10
from node.dicom.quiet import quiet_pydicom
from node.dicom.uids import UidFactory
from tests.conftest import require_program
from tests.derived import Made, derived_series

DECIDED_AT = datetime(2026, 11, 26, 22, 30, 15, tzinfo=UTC)
# A name that no single-byte reader takes for the same.
JAPANESE = {"SpecificCharacterSet": b"\\ISO 2022 IR 87", "PatientName": b"Yamada^Tarou=\x1b$B;3ED\x1b(B^"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return derived_series(
        tmp_path_factory.mktemp("rejected"), attributes={"TimezoneOffsetFromUTC": "+0900"}, raw=JAPANESE
    )


def withdrawn(made: Made, **changes: Any) -> Withdrawn:
    first = made.slices[0]
    known = Withdrawn(
        str(first.StudyInstanceUID),
        str(first.SeriesInstanceUID),
        [str(ds.SOPInstanceUID) for ds in made.slices],
        made.folder,
        series_number=301,
        description="sCE-CT AI Thorax",
        patient={"PatientName": "Müller^Änne", "PatientID": "P1", "PatientSex": "F", "PatientBirthDate": "19600229"},
        device_serial_number="2.25.5",
    )
    return replace(known, **changes)


def note(said: Withdrawn, code: str = "113037") -> Dataset:
    return build_note(said, UidFactory(), code, DECIDED_AT, UTC)


def written(ds: Dataset, folder: Path) -> Path:
    path = folder / "note.dcm"
    write_part10(ds, path)
    return path


def named(ds: Dataset) -> list[str]:
    """The instances of the evidence, as an archive reads them; the content tree names the same."""
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    evidence = [
        str(one.ReferencedSOPInstanceUID) for x in study.ReferencedSeriesSequence for one in x.ReferencedSOPSequence
    ]
    items = [item for item in ds.ContentSequence if item.ValueType in ("IMAGE", "COMPOSITE")]
    assert sorted(str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in items) == sorted(evidence)
    return evidence


@pytest.mark.parametrize("has_files", [True, False])
@pytest.mark.parametrize("code", TITLES)
def test_a_note_conforms_and_names_what_is_rejected_and_why(
    made: Made, tmp_path: Path, code: str, has_files: bool
) -> None:
    said = withdrawn(made) if has_files else withdrawn(made, folder=None)
    path = written(note(said, code), tmp_path)
    read = dcmread(path)
    program = require_program("dciodvfy", str(Path(sys.executable).with_name("dciodvfy")), "dciodvfy")
    answer = subprocess.run([program, str(path)], capture_output=True, text=True, errors="replace", check=False)
    assert "Error" not in answer.stdout + answer.stderr
    document = KeyObjectSelectionDocument.from_dataset(read)
    assert document.content[0].name.value == code
    assert document.content[0].name.meaning == TITLES[code].meaning
    assert named(read) == list(said.sop_instance_uids)
    assert {document.resolve_reference(uid)[:2] for uid in said.sop_instance_uids} == {
        (said.study_uid, said.series_uid)
    }
    assert read.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.59"
    assert (read.Modality, read.Manufacturer, read.SyntheticData) == ("KO", "syncect", "YES")
    assert read.SeriesInstanceUID != said.series_uid
    assert read.SeriesDescription.endswith(" - rejection note")


def test_whose_it_is_stands_in_the_bytes_of_the_series(made: Made, tmp_path: Path) -> None:
    read = dcmread(written(note(withdrawn(made)), tmp_path))
    for keyword in ("PatientName", "PatientID", "SpecificCharacterSet", "StudyInstanceUID", "DeviceSerialNumber"):
        assert element_bytes(read, tag_of(keyword)) == element_bytes(made.slices[0], tag_of(keyword)), keyword
    assert (read.ContentDate, read.ContentTime) == ("20261127", "073015"), "in the time of the series"


def test_without_files_the_store_says_whose_it_is(made: Made, tmp_path: Path) -> None:
    read = dcmread(written(note(withdrawn(made, folder=None)), tmp_path))
    assert (str(read.PatientName), read.PatientID, read.PatientSex) == ("Müller^Änne", "P1", "F")
    assert read.SpecificCharacterSet == "ISO_IR 192"
    assert (read.SeriesNumber, read.DeviceSerialNumber) == (1_000_000 + 3019, "2.25.5")


def test_the_same_withdrawal_has_one_uid_and_another_one_another(made: Made) -> None:
    uids = {
        str(note(said, code).SOPInstanceUID)
        for said, code in (
            (withdrawn(made), "113037"),
            (withdrawn(made), "113037"),
            (withdrawn(made), "113001"),
            (withdrawn(made, sop_instance_uids=withdrawn(made).sop_instance_uids[:2]), "113037"),
        )
    }
    assert len(uids) == 3


def test_companions_that_lie_on_the_disk_are_rejected_with_the_images(made: Made, tmp_path: Path) -> None:
    report = CompanionMaker(made.folder, UidFactory()).make("report")
    said = withdrawn(made, companions=("report", "presentation"))
    uids = named(dcmread(written(note(said), tmp_path)))
    assert sorted(uids) == sorted([*said.sop_instance_uids, report.sop_instance_uid]), "there is no presentation state"


@pytest.mark.parametrize("has_files", [True, False])
def test_a_study_uid_of_a_careless_scanner_is_kept(made: Made, tmp_path: Path, has_files: bool) -> None:
    said = withdrawn(made, study_uid="1.2.03.4") if has_files else withdrawn(made, study_uid="1.2.03.4", folder=None)
    read = dcmread(written(note(said), tmp_path))
    with quiet_pydicom():
        assert str(read.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID) == "1.2.03.4"


def test_a_damaged_file_ends_no_recall(made: Made, tmp_path: Path) -> None:
    (tmp_path / "0001.dcm").write_bytes(b"no DICOM")
    read = dcmread(written(note(withdrawn(made, folder=tmp_path)), tmp_path))
    assert read.PatientID == "P1"
