"""What fuzzing found, a test for each kind; those of single modules stand with the other tests of these.

`tests/unit/node/dicom/test_patterns.py`: a site's pattern that took for ever. `tests/component/web/test_login.py`: an
address behind the login that `urlsplit` does not take. Values of settings: `test_a_settings_file_gives_sentences`.
"""

import base64
import logging
import struct
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom.dsutils import decode

from config.load import ConfigError, load_settings
from models.bundle import BundleError, read_card
from node.dicom.charsets import MAX_ESCAPES, decode_exactly, decode_text
from node.dicom.elements import raw_element
from node.dicom.geometry import Flaw, FlawKind, SlicePlane, describe_stack
from node.dicom.identity import refuse_costly_request
from node.errors import UnreadableInstance
from node.network import status
from node.network.commitment import (
    PUSH_INSTANCE,
    REQUEST,
    UnreadableReferences,
    read_report,
    read_request,
)
from node.network.procedure_step import UnreadableStep, read_changes, read_created
from node.ops.certificates import validity
from node.ops.log_lines import line_formatter
from node.query.keys import asked_to_find
from node.query.matching import BadKey, matcher
from node.receive.commitment import CommitmentService
from tests.fuzz.hostile import CORPUS


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('_env_file = "x"', "_env_file is not a setting; allowed here: node, "),  # an option of pydantic-settings
        ("_cli_parse_args = true", "_cli_parse_args is not a setting"),
        ("[AskedPeer]\nx = 1", "AskedPeer is not a setting"),
        ("str = 1", "str is not a setting"),
        ('[completion.count_from]\nae_title = "A"\nhost = "h"\nstr = 1', "completion.count_from.str is not a setting"),
        ('"a\\nb" = 1', "a\\nb is not a setting"),
        ('[scp]\n"\\u202e" = 1', "scp.\\u202e is not a setting"),
        ('[node]\ndata_dir = "\\u0000"', "node.data_dir = '\\x00' is not allowed: it should be one line"),
        (
            '[[eligibility.rules]]\nkeyword = "KVP"\nop = "one_of"\nvalues = ["a\\nb"]\nreason = "r"',
            "values = ['a\\nb'] is not",
        ),
        ("a = " + "9" * 5000, "not valid TOML"),
        ("[scp]\nport = 0x" + "f" * 5000, "scp.port = a number of too many digits is not allowed"),
        ("[scp]\nport = " + "1" * 4000, "..."),
        ("a = " + "[" * 5000, "not valid TOML: lists or tables lie too deep in each other"),
    ],
)
def test_a_settings_file_gives_sentences(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "node.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert sentence in str(caught.value)
    assert all(len(mistake) < 1500 and mistake.isprintable() for mistake in caught.value.mistakes)


@pytest.mark.parametrize("z_mm", [1.1e6, 1e19, 1e25, -9.9e29])
def test_a_slice_beyond_every_scanner_is_a_flaw_and_no_overflow(z_mm: float) -> None:
    axial = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    planes = [SlicePlane((0.0, 0.0, z), axial, (1.0, 1.0), 8, 8) for z in (0.0, 3.0, 6.0, z_mm)]
    found = describe_stack(planes, 0.15)
    assert isinstance(found, Flaw)
    assert found.kind is FlawKind.INVALID_PLANE


def test_a_card_that_nests_without_end_is_no_card(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("[" * 100_000)
    with pytest.raises(BundleError, match="cannot be read as JSON"):
        read_card(tmp_path)


@pytest.mark.parametrize("name", ["certificate", "revoked"])
def test_a_certificate_that_is_cut_off_is_a_value_error(tmp_path: Path, name: str) -> None:
    head, body = (CORPUS / f"{name}.pem").read_text().split("-----\n", 1)
    text, tail = body.split("-----END", 1)
    path, whole = tmp_path / "cut.pem", base64.b64decode(text)
    for size in range(0, len(whole), 3):
        path.write_text(f"{head}-----\n{base64.b64encode(whole[:size]).decode()}\n-----END{tail}")
        with suppress(ValueError):  # nothing else, such as an IndexError
            validity(path)


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize(
    "text", ["\x9b2J", "\u202e", "\u2028", "\x85", "\u200b", "a\nb", "\x00", "\ud800", "\U000e0001"]
)
def test_no_character_acts_in_a_line_of_the_log(form: Any, text: str) -> None:
    record = logging.makeLogRecord({"name": "node", "msg": f"said {text}", "calling_ae": text})
    assert line_formatter(form, "receive").format(record).isprintable()


def test_a_text_of_escapes_costs_no_more_than_another() -> None:
    raw = b"\x1b" * 65_534
    begun = time.process_time()
    for _ in range(20):
        decode_text(raw, ("", "ISO 2022 IR 87"))
    assert time.process_time() - begun < 0.5
    assert decode_exactly(raw, ("", "ISO 2022 IR 87")) is None
    name = b"\x1b$B;3\x1b(B" * (MAX_ESCAPES // 2)
    assert decode_exactly(name, ("", "ISO 2022 IR 87")) == "山" * (MAX_ESCAPES // 2)


def _references(value: bytes, vr: str = "SQ") -> Dataset:
    made = Dataset()
    for element in (0x1199, 0x1198):
        made[Tag(0x0008, element)] = raw_element(Tag(0x0008, element), vr, value)
    return made


@pytest.mark.parametrize(
    ("value", "vr"), [(b"\0\0\0", "SQ"), (b"abc", "SS"), (b"ab", "\x53\xe8"), (b"\xfe\xff\0\xe0abc", "SQ")]
)
def test_references_that_pydicom_stumbles_over_are_unreadable(value: bytes, vr: str) -> None:
    for read in (read_request, read_report):
        with pytest.raises(UnreadableReferences):
            read(_references(value, vr))


def test_a_request_that_pydicom_stumbles_over_is_an_invalid_argument_and_its_bytes_are_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Event:
        request = SimpleNamespace(RequestedSOPInstanceUID=PUSH_INSTANCE, ActionTypeID=REQUEST)
        assoc = SimpleNamespace(dul=SimpleNamespace(session=SimpleNamespace(calling_ae="CT")))

        @property
        def action_information(self) -> Dataset:
            raise struct.error("DOE^JANE")

    service = CommitmentService(SimpleNamespace(commitment="fail_all"), SimpleNamespace(destinations=()))  # type: ignore
    assert service._asked(Event())[0] == status.INVALID_ARGUMENT
    assert "malformed (error)" in caplog.text
    assert "DOE" not in caplog.text


def _implicit(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


@pytest.mark.parametrize(
    "costly",
    [
        _implicit(0x00081199, b"\xfe\xff\x00\xe0\0\0\0\0" * 400_000),  # empty items
        _implicit(0x00200011, b"1\\" * 1_500_000),
        _implicit(0x0020000D, b"1\\" * 1_500_000),
        b"\xff" * 3_000_000,
    ],
    ids=["items", "numbers", "UIDs", "no data set"],
)
def test_a_request_that_pydicom_parses_for_seconds_ends_its_association(costly: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(UnreadableInstance):
        refuse_costly_request(costly, implicit_vr=True)
    assert time.process_time() - begun < 2


def test_references_to_20000_instances_and_a_list_of_their_uids_are_taken_and_so_is_what_its_service_refuses() -> None:
    uids = [f"1.2.826.0.1.3680043.10.1234.{10**29 + number}".encode() for number in range(20_000)]
    begin, end = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0"
    named = _implicit(0x00081150, b"1.2.840.10008.5.1.4.1.1.2\0"), _implicit(0x00081197, b"\x10\x01")
    items = b"".join(begin + named[0] + _implicit(0x00081155, uid + b"\0") + named[1] + end for uid in uids)
    refuse_costly_request(_implicit(0x00081198, items), implicit_vr=True)
    refuse_costly_request(_implicit(0x0020000D, b"\\".join(uids)), implicit_vr=True)
    refuse_costly_request(b"\xff" * 60_000, implicit_vr=True)


def test_the_guard_looks_at_the_whole_data_set_of_a_request() -> None:
    from tests.fuzz.wire_targets import FIND_CONTEXT, find_command, take_messages
    from tests.peers.raw_peer import LAST, p_data

    data = _implicit(0x0020000D, b"1\\" * 500_000) + _implicit(0x00200011, b"1\\" * 100_000)
    parts = [data[at : at + 100_000] for at in range(0, len(data), 100_000)]
    pdus = [p_data(FIND_CONTEXT, LAST if part is parts[-1] else 0, part) for part in parts]
    guard, events = take_messages(find_command() + b"".join(pdus))
    assert events == ["Evt19"]
    assert guard.msg_queue.empty()


def test_what_a_query_does_not_answer_is_not_decoded() -> None:
    asked = Dataset()
    asked.QueryRetrieveLevel, asked.PatientID = "PATIENT", "1"
    tag = Tag(0x0020, 0x0011)  # of another level
    asked[tag] = raw_element(tag, "IS", b"no number")
    assert [key.keyword for key in asked_to_find(asked, patient_root=True).keys] == ["PatientID"]


def test_a_key_of_many_values_is_none() -> None:
    for value in (["a*"] * 101, "*a" * 5121):
        key = DataElement(0x00100020, "LO", value, validation_mode=IGNORE)
        with pytest.raises(BadKey):
            matcher(key)


def test_a_value_that_is_no_number_matches_no_number_and_ends_no_query() -> None:
    key = Dataset()
    key.SeriesNumber = 3
    fits = matcher(key["SeriesNumber"])
    assert not fits(["three"])
    assert fits(["three", "3"])


def test_a_performed_step_that_is_malformed_is_refused_in_our_own_words() -> None:
    told = decode(BytesIO(b"\x40\x00\x52\x02ZZ\x04\x00ABCD"), False, True)  # a VR that does not exist
    for read in (read_created, read_changes):
        with pytest.raises(UnreadableStep, match="it is malformed") as caught:
            read(told)
        assert caught.value.code == status.PROCESSING_FAILURE
