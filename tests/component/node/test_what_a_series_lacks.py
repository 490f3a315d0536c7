"""A series that the node knows to be short of an instance is not complete, and says of which."""

from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from node.dicom.headers import read_header
from node.receive.completion import Completion, series_facts
from node.receive.eligibility import EligibilityPolicy
from node.receive.expected import Expectation, ExpectedCounts
from storage.series import Arrival, Discard, JobRequest, Loss, Pause
from tests.builders import make_series
from tests.component.node.test_completion import SETTINGS, T0, Bench


class Pacs(ExpectedCounts):
    """A peer that counts what the test says."""

    def __init__(self):
        super().__init__("the peer PACS", lambda study_uid, series_uid: 0)
        self.told = Expectation(None, is_open=False)
        self.asked: list[tuple[str, str]] = []

    def of(self, study_uid, series_uid):
        self.asked.append((study_uid, series_uid))
        return self.told


class Shortfall(Bench):
    """The bench of completion, with what can be lost, thrown away and counted by a peer."""

    def __init__(self, tmp_path, sqlite_file):
        super().__init__(tmp_path, sqlite_file)
        self.pacs = Pacs()
        self.completion = Completion(
            self.series,
            self.spool,
            SETTINGS,
            EligibilityPolicy(),
            lambda headers, _call: JobRequest(key=f"{len(headers)}".ljust(64, "0"), bundle="demo"),
            name="complete-1@here",
            why_enhanced=self.why_enhanced,
            expected=self.pacs,
            clock=lambda: self.now,
        )

    def record(self, entry):
        (answer,) = self.series.record_group([entry])
        assert not isinstance(answer, BaseException)

    def lose(self, uid, reason="refused with status A700 (full)", *, series="1.2.3"):
        association = self.series.open_association("r", "CTSIM", "h", self.now)
        self.record(Loss(association, "CTSIM", "1.2", series, uid, reason, self.now))
        self.series.close_association(association, released=True, now=self.now)

    def replace(self, path, uid):
        """Another image arrives under a UID that is known."""
        association = self.series.open_association("r", "CTSIM", "h", self.now)
        data = path.read_bytes()
        name = self.spool.keep((data,), self.now)
        arrival = Arrival("1.2", "1.2.3", uid, "c", "t", sha256(data).hexdigest(), name, len(data))
        self.series.record(association, "CTSIM", arrival, self.now)
        self.series.close_association(association, released=True, now=self.now)

    def row(self):
        (case, *_) = self.overview.cases()
        return case


@pytest.fixture
def bench(tmp_path, sqlite_file, monkeypatch):
    # This bench records made-up UIDs; `test_two_parsers` is about those that are compared.
    monkeypatch.setattr("node.receive.completion._refuse_other_identity", lambda *_: None)
    return Shortfall(tmp_path, sqlite_file)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    return make_series(tmp_path_factory.mktemp("scan"), slices=12)


# -- refused, cut off, replaced ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [11, 3, 1, 0])
def test_a_series_short_of_a_refused_slice_waits_and_then_says_which(bench, files, count):
    bench.receive(files[:count])
    bench.lose(files[11].name)
    assert bench.after(30)[0] == "RECEIVING"
    state, reason = bench.after(61)
    assert state == "INCOMPLETE"
    assert reason.startswith(
        f"1 instance of this series was refused with status A700 (full): {files[11].name}; send the series again"
    )


def test_it_completes_when_the_slice_comes_or_a_person_vouches(bench, files):
    bench.receive(files[:11])
    bench.lose(files[11].name)
    bench.after(61)
    bench.now = T0 + timedelta(seconds=70)
    bench.receive(files[11:])
    assert bench.after(76)[0] == "QUEUED"


def test_a_person_may_vouch_for_a_series_without_its_refused_slice(bench, files):
    bench.receive(files[:11])
    bench.lose(files[11].name)
    bench.after(61)
    bench.series.complete_by_operator(1, "operator", "checked", bench.now)
    assert bench.after(62)[0] == "QUEUED"


def test_a_gap_names_the_refused_slice_too(bench, files):
    bench.receive([*files[:5], *files[6:]])
    bench.lose(files[5].name)
    state, reason = bench.after(61)
    assert state == "INCOMPLETE"
    assert "1 image is missing inside the series" in reason
    assert f"refused with status A700 (full): {files[5].name}" in reason


def test_a_late_slice_that_is_refused_holds_the_series_and_a_person_lets_its_job_go_on(bench, files):
    bench.receive(files[:11])
    assert bench.after(6)[0] == "QUEUED"
    bench.lose(files[11].name)
    state, reason = bench.after(70)
    assert (state, bench.row().id) == ("INCOMPLETE", "1-2")
    assert files[11].name in reason
    bench.series.complete_by_operator(1, "operator", "checked", bench.now)
    assert bench.after(71)[0] == "QUEUED"
    assert [case.id for case in bench.overview.cases()] == ["1"]


def test_a_refused_instance_of_what_is_no_scan_changes_nothing_of_its_verdict(bench, tmp_path):
    scout = make_series(tmp_path / "scout", slices=1, attributes={"ImageType": "ORIGINAL\\PRIMARY\\LOCALIZER"})
    bench.receive(scout)
    bench.lose("1.2.3.99")
    assert bench.after(61)[0] == "SKIPPED"


def test_two_slices_under_one_uid_are_one_slice_short(bench, files):
    bench.receive(files[:11])
    bench.replace(files[11], files[10].name)
    state, reason = bench.after(6)
    assert state == "INCOMPLETE"
    assert "replaced by another one of the same SOP Instance UID" in reason


# -- what is thrown away --------------------------------------------------------------------------------------------


def test_what_is_thrown_away_does_not_count_against_the_images(bench, files):
    association = bench.series.open_association("r", "CTSIM", "h", T0)
    bench.record(Discard(association, "CTSIM", "1.2", "1.2.3", "RT Plan Storage: nothing", T0))
    bench.series.close_association(association, released=True, now=T0)
    bench.receive(files)
    assert bench.after(6)[0] == "QUEUED"


# -- pauses ---------------------------------------------------------------------------------------------------------


def test_a_sender_that_pauses_is_waited_for_twice_as_long(bench, files):
    bench.record(Pause("CTSIM", 12.0, T0))
    bench.receive(files)
    assert bench.after(23)[0] == "RECEIVING"
    assert bench.after(25)[0] == "QUEUED"


def test_no_pause_holds_a_series_longer_than_the_end_of_all_waiting(bench, files):
    bench.record(Pause("CTSIM", 100.0, T0))
    bench.receive(files)
    assert bench.after(59)[0] == "RECEIVING"
    assert bench.after(61)[0] == "QUEUED"


# -- a peer that counts -----------------------------------------------------------------------------------------------


def test_missing_end_slices_are_waited_for_where_a_peer_counts_more(bench, files):
    bench.receive(files[:10])
    bench.pacs.told = Expectation(12, is_open=False)
    assert bench.after(30)[0] == "RECEIVING"
    assert bench.pacs.asked[0] == ("1.2", "1.2.3")
    state, reason = bench.after(61)
    assert state == "INCOMPLETE"
    assert reason == "the peer PACS counts 12 images of this series, 10 arrived"
    bench.now = T0 + timedelta(seconds=70)
    bench.receive(files[10:])
    assert bench.after(76)[0] == "QUEUED"


@pytest.mark.parametrize("count", [12, 11, None], ids=["as many", "fewer", "not told"])
def test_a_peer_that_counts_no_more_holds_nothing_up(bench, files, count):
    bench.receive(files)
    bench.pacs.told = Expectation(count, is_open=False)
    assert bench.after(6)[0] == "QUEUED"


def test_an_open_question_is_waited_for(bench, files):
    bench.receive(files)
    bench.pacs.told = Expectation(None, is_open=True)
    assert bench.after(6)[0] == "RECEIVING"
    assert bench.after(61)[0] == "QUEUED"


def test_a_series_that_a_person_completed_is_not_asked_for(bench, files):
    bench.receive(files[:10])
    bench.pacs.told = Expectation(12, is_open=False)
    bench.after(30)
    bench.after(61)
    bench.series.complete_by_operator(1, "operator", "checked", bench.now)
    assert bench.after(62)[0] == "QUEUED"


# -- the row of a series that is not decided ---------------------------------------------------------------------------


def test_a_series_shows_patient_and_description_while_it_is_received(bench, files):
    bench.receive(files[:3], close=False)
    assert bench.after(1)[0] == "RECEIVING"
    assert bench.row().patient_id == "TEST-1"
    assert bench.row().description != ""
    assert bench.row().facts == {
        "series_number": 3,
        "modality": "CT",
        "body_part": "CHEST",
        "acquired": "2020-01-01 08:01",
    }


@pytest.mark.parametrize(
    ("raw", "facts"),
    [
        ({"BodyPartExamined": b"MUSTER"}, {"series_number": 3, "modality": "CT", "acquired": "2020-01-01 08:01"}),
        ({"AcquisitionTime": b""}, {"acquired": "2020-01-01"}),
        ({"AcquisitionTime": b"MUSTER"}, {"acquired": "2020-01-01"}),
        ({"AcquisitionDate": b"MUSTER 1"}, {"acquired": None}),
        ({"AcquisitionDate": b"2026", "AcquisitionTime": b"1340"}, {"acquired": None}),
        ({"SeriesNumber": b"MUSTER"}, {"series_number": None}),
        ({"SeriesNumber": b"1e300 "}, {"series_number": None}),
        ({"Modality": b"MUSTER"}, {"modality": None}),
    ],
)
def test_no_typed_text_is_a_fact_of_a_series(tmp_path, raw, facts):
    (path,) = make_series(tmp_path, slices=1, raw=raw)
    found = series_facts([read_header(path)]).facts
    assert {name: found.get(name) for name in facts} == facts
    assert "MUSTER" not in str(found)


def test_a_first_instance_that_cannot_be_read_is_looked_at_once(bench, files, tmp_path, monkeypatch):
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(files[0].read_bytes()[:300])
    bench.receive([damaged], close=False)
    looked: list[str] = []
    path = bench.spool.path

    def look(name):
        looked.append(name)
        return path(name)

    monkeypatch.setattr(bench.spool, "path", look)
    for second in (1, 2, 3):
        assert bench.after(second)[0] == "RECEIVING"
    assert len(looked) == 1
