"""What neighbours say beside images: performed procedure steps of scanners, and answers of DICOMweb servers."""

import json
from typing import Any, Final

from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from config.syntax import COMPLETED, DISCONTINUED, FOREIGN_UID, IN_PROGRESS, UID_ALPHABET, WRONG_WORKLIST_ENTRY
from node.network.dicomweb import Answer
from node.network.procedure_step import (
    MAX_REFERENCES,
    MAX_SERIES,
    UnreadableStep,
    read_changes,
    read_created,
)
from node.network.store_answer import readings
from tests.fuzz.dicom_targets import data_set
from tests.fuzz.target import KB, Target, always

_SENT: Final = ("1.2.3.1", "1.2.3.2", "1.2.3.3")


def _step(data: bytes) -> None:
    """An N-CREATE or an N-SET; whatever is read of it can be stored and shown."""
    kind = data[0] if data else 0
    told = data_set(data[1:], implicit_vr=bool(kind & 1))
    if told is None:
        return
    step = read_created(told) if kind & 2 else read_changes(told)
    assert step.state in ("", IN_PROGRESS, COMPLETED, DISCONTINUED), f"no status: {step.state!r}"
    assert not step.study_uid or FOREIGN_UID.fullmatch(step.study_uid), f"no UID: {step.study_uid!r}"
    assert step.discontinued_for in ("", WRONG_WORKLIST_ENTRY), "another reason: "
    series = step.series or {}
    assert len(series) <= MAX_SERIES, "too many series: "
    assert sum(map(len, series.values())) <= MAX_REFERENCES, "too many instances: "
    assert all(FOREIGN_UID.fullmatch(uid) for uid in series), "no UID of a series: "
    assert all(UID_ALPHABET.fullmatch(uid) for uids in series.values() for uid in uids), "no UID of an image: "


def _steps() -> list[bytes]:
    image, series, scheduled, code = (Dataset() for _ in range(4))
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
    series.SeriesInstanceUID, series.ReferencedImageSequence = "1.2.3", [image, image]
    scheduled.StudyInstanceUID = "1.2"
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = WRONG_WORKLIST_ENTRY, "DCM", "wrong entry"
    found = []
    for state in (IN_PROGRESS, COMPLETED, DISCONTINUED):
        told = Dataset()
        told.PerformedProcedureStepStatus = state
        told.ScheduledStepAttributesSequence, told.PerformedSeriesSequence = [scheduled], [series, series]
        told.PerformedProcedureStepDiscontinuationReasonCodeSequence = [code]
        for kind in range(4):
            found.append(bytes([kind]) + (encode(told, bool(kind & 1), True) or b""))
    return found


def _stored(data: bytes) -> None:
    """The answer to a store request: something is said of each instance that was sent, and of no other."""
    status = (200, 202, 409, 400)[data[0] % 4 if data else 0]
    said = readings(Answer(status, data[1:]), _SENT)
    assert list(said) == list(_SENT), "not each of them: "
    for number, reading in said.values():
        assert 0 <= number <= 0xFFFF, f"no status of 16 bits: {number}"
        assert reading.sentence.isprintable(), f"no line: {reading.sentence!r}"
        assert not (status == 400 and reading.stored and number == 0), "a bad request stored something: "


def _answers() -> list[bytes]:
    def item(uid: str, **numbers: Any) -> dict[str, Any]:
        named = {"00081155": {"vr": "UI", "Value": [uid]}}
        return named | {tag: {"vr": "US", "Value": [value]} for tag, value in numbers.items()}

    module = {
        "00081199": {"vr": "SQ", "Value": [item(_SENT[0]), item(_SENT[1], **{"00081196": 0xB000})]},
        "00081198": {"vr": "SQ", "Value": [item(_SENT[2], **{"00081197": 0x0111})]},
    }
    xml = (
        '<?xml version="1.0"?><NativeDicomModel><DicomAttribute tag="00081199" vr="SQ"><Item number="1">'
        f'<DicomAttribute tag="00081155" vr="UI"><Value number="1">{_SENT[0]}</Value></DicomAttribute>'
        "</Item></DicomAttribute></NativeDicomModel>"
    )
    bodies = [json.dumps(module), json.dumps([module]), xml, "{}", "[]", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"]
    return [bytes([kind]) + body.encode() for body in bodies for kind in range(4)]


NEIGHBOURS: Final = (
    Target("step", always(_step), _steps, (UnreadableStep,), (b"IN PROGRESS", b"COMPLETED", b"\xff\xff\xff\xff")),
    Target(
        "stored",
        always(_stored),
        _answers,
        tokens=(
            b'"Value"',
            b'"00081199"',
            b'"00081198"',
            b"<Item>",
            b"</Item>",
            b"[[",
            b"{}",
            b"null",
            b"65536",
            b"-1",
        ),
        max_bytes=64 * KB,
    ),
)
