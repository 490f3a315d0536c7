"""An instance is stored where the answer to its request says so by its name, and nowhere else."""

import json
from typing import Any

import pytest

from node.network.dicomweb import Answer
from node.network.status import Verdict
from node.network.store_answer import readings

A, B = "1.2.1", "1.2.2"
GOOD, WARNED, SOON, UNCLEAR, NEVER = (
    Verdict.STORED,
    Verdict.STORED_WITH_WARNING,
    Verdict.TRANSIENT,
    Verdict.UNCLEAR,
    Verdict.PERMANENT,
)


def item(uid: Any, tag: str = "", number: Any = None) -> dict[str, Any]:
    found = {"00081155": {"vr": "UI", "Value": [uid]}}
    return found | {tag: {"vr": "US", "Value": [number]}} if tag else found


def failed(uid: Any, number: Any) -> dict[str, Any]:
    return item(uid, "00081197", number)


def warned(uid: Any, number: Any) -> dict[str, Any]:
    return item(uid, "00081196", number)


def module(*stored: Any, failures: Any = (), others: Any = ()) -> bytes:
    sequences = {"00081199": stored, "00081198": failures, "0008119A": others}
    return json.dumps({tag: {"vr": "SQ", "Value": list(items)} for tag, items in sequences.items() if items}).encode()


@pytest.mark.parametrize(
    ("status", "body", "verdicts", "words"),
    [
        (200, module(item(A), item(B)), (GOOD, GOOD), ""),
        (200, b"[" + module(item(A), item(B)) + b"]", (GOOD, GOOD), ""),
        (200, b"\xef\xbb\xbf\r\n" + module(item(A), item(B)), (GOOD, GOOD), ""),
        (409, module(item(A), failures=[failed(B, 0xA700)]), (GOOD, SOON), "status A700: the peer is out of resources"),
        (202, module(warned(A, 0xB000), item(B)), (WARNED, GOOD), "the peer changed data elements (coercion)"),
        (202, module(warned(A, 0x1234), item(B)), (WARNED, GOOD), "warning reason 1234"),
        (202, module(item(A), failures=[failed(B, "43264")]), (GOOD, NEVER), "does not match the SOP class"),
        (409, module(failures=[failed(A, 0x0111), failed(B, 45070)]), (WARNED, WARNED), "the server has it already"),
        (409, module(failures=[failed(A, 45071), failed(B, 0)]), (UNCLEAR, UNCLEAR), "B00F: not defined for a failure"),
        (409, module(failures=[item(A), failed(B, -1)]), (UNCLEAR, UNCLEAR), "without a reason"),
        (409, module(others=[failed(A, 0xC122)]), (NEVER, NEVER), "C122: the peer cannot understand"),
        (202, module(item(A), failures=[failed(A, 0x0110)]), (UNCLEAR, UNCLEAR), "processing failure at the peer"),
        (200, module(item("1.2.3"), item(1)), (UNCLEAR, UNCLEAR), "the answer 200 does not name it"),
        (400, module(item(A), item(B)), (UNCLEAR, UNCLEAR), "the answer 400 does not name it"),
        (200, module(), (UNCLEAR, UNCLEAR), "the answer 200 is no Store Instances Response"),
        (200, b"", (UNCLEAR, UNCLEAR), "the answer 200 is no Store Instances Response"),
        (200, b"null", (UNCLEAR, UNCLEAR), "the answer 200 is no Store Instances Response"),
        (200, b'{"00081199": 3, "00081198": {"Value": 4}}', (UNCLEAR, UNCLEAR), "does not name it"),
        (200, b'{"00081199": {"Value": [3, {"00081155": {"Value": []}}]}}', (UNCLEAR, UNCLEAR), "does not name it"),
        (200, b"[" * 100_000, (UNCLEAR, UNCLEAR), "the answer 200 is no Store Instances Response"),
        (200, b"<!DOCTYPE html><html><body>Log in</body></html>", (UNCLEAR, UNCLEAR), "is no Store Instances Response"),
        (200, b"<html><body>Log in</body></html>", (UNCLEAR, UNCLEAR), "is no Store Instances Response"),
        (200, b"<a>" * 100_000, (UNCLEAR, UNCLEAR), "the answer 200 is no Store Instances Response"),
        (200, b"\xff\xfe\x00{", (UNCLEAR, UNCLEAR), "the answer 200 is no Store Instances Response"),
    ],
)
def test_what_a_server_says_of_each_instance(
    status: int, body: bytes, verdicts: tuple[Verdict, Verdict], words: str
) -> None:
    said = readings(Answer(status, body), [A, B])
    assert list(said) == [A, B]
    assert tuple(reading.verdict for _, reading in said.values()) == verdicts
    assert not words or any(words in reading.sentence for _, reading in said.values())


def test_the_number_of_a_warning_is_kept() -> None:
    said = readings(Answer(202, module(warned(A, 0xB007), item(B))), [A, B])
    assert [number for number, _ in said.values()] == [0xB007, 0]


XML = """<?xml version="1.0" encoding="UTF-8"?>{doctype}
<NativeDicomModel{namespace}>
  <DicomAttribute tag="00081198" vr="SQ" keyword="FailedSOPSequence">
    <Item number="1">
      <DicomAttribute tag="00081155" vr="UI"><Value number="1">1.2.2</Value></DicomAttribute>
      <DicomAttribute tag="00081197" vr="US"><Value number="1">42752</Value></DicomAttribute>
    </Item>
  </DicomAttribute>
  <DicomAttribute tag="00081199" vr="SQ" keyword="ReferencedSOPSequence">
    <Item number="1">
      <DicomAttribute tag="00081155" vr="UI"><Value number="1">{first}</Value></DicomAttribute>
    </Item>
    <Value number="1" />
  </DicomAttribute>
</NativeDicomModel>"""


@pytest.mark.parametrize("namespace", ["", ' xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM"'])
def test_an_answer_in_xml_is_read_too(namespace: str) -> None:
    said = readings(Answer(202, XML.format(doctype="", namespace=namespace, first=A).encode()), [A, B])
    assert [reading.verdict for _, reading in said.values()] == [GOOD, SOON]


def test_entities_of_xml_are_not_expanded() -> None:
    entity = f'<!DOCTYPE a [<!ENTITY uid "{A}">]>'
    said = readings(Answer(200, XML.format(doctype=entity, namespace="", first="&uid;").encode()), [A, B])
    assert [reading.verdict for _, reading in said.values()] == [UNCLEAR, UNCLEAR]
