"""What the receiver recorded of a file is what completion reads in it, or nothing is made of the series."""

import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import select

from node.dicom.headers import read_header
from node.dicom.identity import read_identity
from node.receive.completion import Completion
from node.receive.eligibility import EligibilityPolicy
from node.receive.routing import Call
from storage.jobs import JobStore
from storage.overview import Case
from storage.series import Arrival, JobRequest
from storage.tables import Instance
from tests.builders import make_series
from tests.component.node.test_completion import SETTINGS, T0, Bench

Change = Callable[[bytes], bytes]


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def before(tag: int, more: bytes) -> Change:
    """These bytes in front of an element of the data set."""

    def change(data: bytes) -> bytes:
        at = data.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 340)
        return data[:at] + more + data[at:]

    return change


SEQUENCE = struct.pack("<HH2sHL", 0x0018, 0x9346, b"SQ", 0, 0xFFFFFFFF)
ITEM, ITEM_END, END = (
    struct.pack("<HHL", 0xFFFE, tag, n) for tag, n in ((0xE000, 0xFFFFFFFF), (0xE00D, 0), (0xE0DD, 0))
)


class TwoParsers(Bench):
    def receive_as_the_receiver_does(self, paths: list[Path]) -> None:
        association = self.series.open_association("r", "CTSIM", "h", self.now)
        for path in paths:
            data = path.read_bytes()
            begin = 144 + int.from_bytes(data[140:144], "little")
            seen = read_identity(data[begin:], implicit_vr=False)
            name = self.spool.keep((data,), self.now)
            uids = (seen.study_uid, seen.series_uid, seen.sop_instance_uid, seen.sop_class_uid)
            self.series.record(
                association, "CTSIM", Arrival(*uids, "t", sha256(data).hexdigest(), name, len(data)), self.now
            )
        self.series.close_association(association, released=True, now=self.now)

    def judged(self, tmp_path: Path, change: Change) -> Case:
        paths = make_series(tmp_path / "scan", slices=12)
        paths[5].write_bytes(change(paths[5].read_bytes()))
        self.receive_as_the_receiver_does(paths)
        self.after(6)
        return self.overview.cases()[0]


@pytest.fixture
def bench(tmp_path: Path, sqlite_file: Path) -> TwoParsers:
    return TwoParsers(tmp_path, sqlite_file)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (before(0x7FE00010, element(0x0020000E, b"UI", b"1.2.3\0")), "(0020,000E) twice"),
        (before(0x7FE00010, element(0x00100020, b"LO", b"OTHER ")), "(0010,0020) twice"),
        (before(0x7FE00010, element(0x00080018, b"UI", b"1.2.3\0")), "(0008,0018) twice"),
        (before(0x7FE00010, element(0x00000002, b"UI", b"1.2.3\0")), "(0000,0002)"),
        (before(0x7FE00010, element(0x00020003, b"UI", b"1.2.3\0")), "(0002,0003)"),
    ],
)
def test_what_is_said_twice_fails_its_series_with_the_attribute_named(
    bench: TwoParsers, tmp_path: Path, change: Change, named: str
) -> None:
    require_failed(bench.judged(tmp_path, change), named)


def require_failed(case: Case, named: str) -> None:
    """The reason names the attribute, and nothing of the other patient."""
    assert case.state == "FAILED"
    assert named in case.reason
    assert "OTHER" not in case.reason


OTHER_PATIENT = element(0x00100020, b"LO", b"OTHER ")
# A reader that looks for the first delimiter takes what follows it for an element, which hides what comes behind.
HIDES = END + struct.pack("<HH2sHL", 0x7FE1, 0x1010, b"OB", 0, len(END + OTHER_PATIENT))


def compressed(fragment: bytes, behind: bytes = b"") -> Change:
    """Pixel data of one fragment in the place of the pixels, and other bytes behind them."""

    def change(data: bytes) -> bytes:
        at = data.index(struct.pack("<HH", 0x7FE0, 0x0010), 340)
        pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
        items = struct.pack("<HHLHHL", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, len(fragment))
        return data[:at] + pixels + items + fragment + END + behind

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (compressed(bytes(8) + HIDES, OTHER_PATIENT), "(0010,0020)"),
        (before(0x7FE00010, ITEM_END), "(7FE0,0010)"),  # pydicom takes it for the end of the data set
    ],
)
def test_what_one_reader_sees_and_another_does_not_fails_its_series(
    bench: TwoParsers, tmp_path: Path, change: Change, named: str
) -> None:
    require_failed(bench.judged(tmp_path, change), named)


def test_the_bytes_of_a_delimiter_inside_a_fragment_are_pixels(tmp_path: Path) -> None:
    """RLE data are any bytes: of 500 slices of 200 kB, one series in 40 has these four somewhere."""
    (path,) = make_series(tmp_path, slices=1)
    path.write_bytes(compressed(bytes(9) + END + b"\1\2\3")(path.read_bytes()))
    assert read_header(path, decode=False).patient_id == "TEST-1"


def test_an_instance_of_another_series_than_was_recorded_fails_it(bench: TwoParsers, tmp_path: Path) -> None:
    """However another reader is led to another value, its value is compared."""
    paths = make_series(tmp_path / "scan", slices=12)
    bench.receive_as_the_receiver_does(paths)
    name = bench.series.sources(1)[5].spool_name
    stored = bench.spool.path(name)
    data = stored.read_bytes()
    uid = str(dcmread(stored).SeriesInstanceUID).encode()
    other = uid[:-1] + (b"1" if uid[-1:] != b"1" else b"2")
    stored.chmod(0o600)
    changed = data.replace(uid, other)
    stored.write_bytes(changed)
    with bench.database.write() as session:  # else the file would count as damaged
        session.scalars(select(Instance).where(Instance.spool_name == name)).one().sha256 = sha256(changed).hexdigest()
    state, reason = bench.after(6)
    assert state == "FAILED"
    assert f"SeriesInstanceUID (0020,000E) {uid.decode()}, and the whole header gives {other.decode()}" in reason


def test_a_patient_id_in_a_sequence_is_nobodys(bench: TwoParsers, tmp_path: Path) -> None:
    other = element(0x00100020, b"LO", b"OTHER ")
    case = bench.judged(tmp_path, before(0x0020000D, SEQUENCE + ITEM + other + ITEM_END + END))
    assert (case.state, case.patient_id) == ("QUEUED", "TEST-1")


def test_a_person_who_retries_gets_the_same_answer_once_more(bench: TwoParsers, tmp_path: Path) -> None:
    case = bench.judged(tmp_path, before(0x7FE00010, element(0x0020000E, b"UI", b"1.2.3\0")))
    assert case.job_id is not None
    JobStore(bench.database).retry(case.job_id, "operator", "", bench.now)
    assert bench.after(20)[0] == "FAILED"
    assert [one.state for one in bench.overview.cases()] == ["FAILED", "SUPERSEDED"]


class Killed(BaseException):
    """A process ends."""


def test_a_series_over_which_completion_died_twice_is_left_alone_and_others_go_on(
    bench: TwoParsers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.receive_as_the_receiver_does(make_series(tmp_path / "deadly", slices=12, seed="deadly"))
    bench.receive_as_the_receiver_does(make_series(tmp_path / "good", slices=12, seed="good"))
    deadly = bench.series.undecided(bench.now.replace(year=2030), 0)[0].series_uid

    def request_for(headers: list, _call: Call) -> JobRequest:  # type: ignore[type-arg]
        if headers[0].series_uid == deadly:
            raise Killed
        return JobRequest(key="k".ljust(64, "0"), bundle="demo")

    monkeypatch.setattr(type(bench.series), "put_down", lambda *_, **__: None)

    def started() -> Completion:
        process = Completion(
            bench.series,
            bench.spool,
            SETTINGS,
            EligibilityPolicy(),
            request_for,
            name="complete-1@here",
            why_enhanced=bench.why_enhanced,
            clock=lambda: T0.replace(year=2027),
        )
        process.begin()
        return process

    for _ in range(2):
        with pytest.raises(Killed):
            started().tick()
    started().tick()
    states = {case.series_uid == deadly: case for case in bench.overview.cases()}
    assert states[True].state == "FAILED"
    assert "2 processes ended while they read it" in states[True].reason
    assert states[False].state == "QUEUED"
