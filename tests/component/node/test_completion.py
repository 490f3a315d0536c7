"""When a series is complete: closed associations, quiet, no gap; and what a broken-off transfer leaves behind."""

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from pydicom import dcmread

from config.settings import CompletionSettings
from config.syntax import COMPLETED, DISCONTINUED, IN_PROGRESS
from node.receive.completion import Completion
from node.receive.eligibility import EligibilityPolicy
from node.receive.performed_steps import PerformedSteps, StepPeers
from node.translate.native_contrast import NativeContrast
from storage.database import Database
from storage.jobs import JobStore
from storage.overview import Overview
from storage.performed_steps import PerformedStepStore, StepReport
from storage.series import Arrival, JobRequest, SeriesStore
from storage.spool import Spool
from storage.tables import Sender
from tests.builders import make_series
from tests.damages import a_folder, a_pipe, deleted, truncated, zeroed

T0 = datetime(2026, 1, 31, 12, tzinfo=UTC)
SETTINGS = CompletionSettings(quiet_s=5, give_up_s=60)


class Bench:
    """A store and a spool in which series arrive, and a clock that is set by hand."""

    def __init__(self, tmp_path, sqlite_file):
        self.now = T0
        self.tmp_path = tmp_path
        self.database = database = Database(f"sqlite:///{sqlite_file}")
        self.series, self.overview = SeriesStore(database), Overview(database)
        self.spool = Spool(tmp_path / "spool")
        self.enhanced_ml = 0.0
        self.completion = Completion(
            self.series,
            self.spool,
            SETTINGS,
            EligibilityPolicy(),
            lambda headers, _call: JobRequest(key=f"{len(headers)}".ljust(64, "0"), bundle="demo"),
            name="complete-1@here",
            why_enhanced=self.why_enhanced,
            steps=PerformedSteps(PerformedStepStore(database), StepPeers(())),
            clock=lambda: self.now,
        )

    def why_enhanced(self, _paths):
        seen = NativeContrast(self.enhanced_ml, 120.0)
        return seen.reason if seen.is_enhanced else None

    def receive(self, paths, *, released=True, close=True, ae="CTSIM", series_uid="1.2.3"):
        association = self.series.open_association("r", ae, "h", self.now)
        for path in paths:
            data = path.read_bytes()
            name = self.spool.keep((data,), self.now)
            arrival = Arrival("1.2", series_uid, path.name, "c", "t", sha256(data).hexdigest(), name, len(data))
            self.series.record(association, ae, arrival, self.now)
        if close:
            self.series.close_association(association, released=released, now=self.now)

    def step(self, state, files=None, *, ae="CTSIM"):
        """The scanner begins its step, and then lists these files as images of the series."""
        steps = PerformedStepStore(self.database)
        steps.create("1.9", ae, "", StepReport(IN_PROGRESS, "1.2"), self.now)
        if state != IN_PROGRESS:
            listed = None if files is None else {"1.2.3": [path.name for path in files]}
            steps.change("1.9", ae, "", StepReport(state, series=listed), scanners=(ae,), now=self.now)

    def after(self, seconds):
        """The case's state and reason after a tick at that time."""
        self.now = T0 + timedelta(seconds=seconds)
        self.completion.tick()
        (case, *_) = self.overview.cases()
        return case.state, case.reason


@pytest.fixture
def bench(tmp_path, sqlite_file, monkeypatch):
    # This bench records made-up UIDs; `test_two_parsers` is about those that are compared.
    monkeypatch.setattr("node.receive.completion._refuse_other_identity", lambda *_: None)
    return Bench(tmp_path, sqlite_file)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Twelve slices that every test reads and none changes."""
    return make_series(tmp_path_factory.mktemp("scan"), slices=12)


def test_each_instance_is_opened_and_parsed_once(bench, files, monkeypatch):
    bench.receive(files)
    opened, parsed = Counter[Path](), list[object]()
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.update([path]) or read_bytes(path))

    def parse(stream):
        parsed.append(stream)
        return dcmread(stream)

    monkeypatch.setattr("node.dicom.headers.dcmread", parse)
    assert bench.after(6)[0] == "QUEUED"
    assert sorted(opened.values()) == [1] * len(files)
    assert len(parsed) == len(files)


def test_quiet_and_gap_free_is_queued(bench, files):
    bench.receive(files)
    assert bench.after(4)[0] == "RECEIVING"
    assert bench.after(6)[0] == "QUEUED"
    assert bench.overview.cases()[0].patient_id == "TEST-1"


def test_an_open_association_is_waited_for_and_given_up(bench, files):
    bench.receive(files, close=False)
    assert bench.after(30)[0] == "RECEIVING"
    state, reason = bench.after(61)
    assert state == "INCOMPLETE"
    assert "silent for more than 60 s" in reason


@pytest.mark.parametrize("arrived", [slice(0, 9), slice(0, 3), slice(0, 1)], ids=["gap-free", "few", "one"])
def test_what_an_aborted_association_left_is_never_taken_for_the_series(bench, files, arrived):
    bench.receive(files[arrived], released=False)
    assert bench.after(30)[0] == "RECEIVING"
    state, reason = bench.after(61)
    assert state == "INCOMPLETE"
    assert "aborted" in reason
    bench.now = T0 + timedelta(seconds=70)
    bench.receive(files)
    assert bench.after(76)[0] == "QUEUED"


def test_scattered_slices_of_an_aborted_association_are_incomplete_not_irregular(bench, files):
    bench.receive([files[k] for k in (0, 2, 5, 6, 7, 8, 9, 11)], released=False)
    assert bench.after(61)[0] == "INCOMPLETE"


def test_a_peer_whose_series_take_long_to_judge_delays_itself_only(bench, files, monkeypatch):
    for number in range(3):
        bench.receive(files, ae="SLOW", series_uid=f"1.2.3.{number}")
    bench.receive(files, ae="OTHER", series_uid="1.2.4")
    judged, decide, passed = [], Completion._decide, [0.0]

    def take_long(completion, series, word, *, vouched):
        judged.append(series.calling_ae)
        passed[0] += 10.0 if series.calling_ae == "SLOW" else 0.1
        return decide(completion, series, word, vouched=vouched)

    monkeypatch.setattr(Completion, "_decide", take_long)
    monkeypatch.setattr("node.receive.completion.time.monotonic", lambda: passed[0])
    bench.after(6)
    assert judged == ["SLOW"]
    bench.receive(files, ae="THIRD", series_uid="1.2.5")
    bench.after(12)
    assert judged == ["SLOW", "OTHER", "THIRD", "SLOW"]
    bench.after(13)
    assert judged[4:] == ["SLOW"]


def test_a_series_that_cannot_be_judged_delays_no_other_of_its_peer(bench, files, monkeypatch):
    bench.receive(files, series_uid="1.2.3.1")
    bench.receive(files[:-1], series_uid="1.2.3.2")
    judged, passed = [], [0.0]

    def fail(_completion, series, _word, *, vouched):
        judged.append(series.series_uid)
        passed[0] += 10.0
        raise RuntimeError(vouched)

    monkeypatch.setattr(Completion, "_decide", fail)
    monkeypatch.setattr("node.receive.completion.time.monotonic", lambda: passed[0])
    monkeypatch.setattr(bench.series, "hold_incomplete", lambda *_: False)
    for seconds in (6, 7, 8):
        bench.after(seconds)
    assert judged == ["1.2.3.1", "1.2.3.2", "1.2.3.1"]


GAP = (
    "1 image is missing inside the series, the first between z = 12.0 and z = 18.0 mm, where the distance is 6.00 mm "
    "instead of 3.00 mm"
)


def test_a_gap_is_incomplete_until_its_slice_comes(bench, files):
    bench.receive([*files[:5], *files[6:]])
    assert bench.after(6) == ("INCOMPLETE", GAP)
    bench.receive([files[5]])
    assert bench.after(20)[0] == "QUEUED"


def test_a_gap_in_an_enhanced_scan_needs_nobody(bench, files):
    bench.enhanced_ml = 300.0
    bench.receive([*files[:5], *files[6:]])
    state, reason = bench.after(6)
    assert state == "SKIPPED"
    assert "contrast agent had been given" in reason
    assert "missing" in reason


def test_a_person_may_vouch_for_an_aborted_series_but_not_for_a_gap(bench, files):
    bench.receive(files[:9], released=False)
    bench.after(61)
    bench.series.complete_by_operator(1, "operator", "checked", bench.now)
    assert bench.after(62)[0] == "QUEUED"


def test_a_gap_stays_a_gap_whoever_vouches(bench, files):
    bench.receive([*files[:5], *files[6:]])
    bench.after(6)
    bench.series.complete_by_operator(1, "operator", "checked", bench.now)
    state, reason = bench.after(12)
    assert state == "SKIPPED"
    assert reason.startswith("completed by hand, but 1 image is missing")


def test_a_late_slice_makes_a_new_job(bench, files):
    bench.receive(files[:10])
    bench.after(6)
    bench.receive(files[10:])
    bench.after(20)
    assert [(case.id, case.state) for case in bench.overview.cases()] == [("1-2", "QUEUED"), ("1", "SUPERSEDED")]


def test_a_localizer_of_an_aborted_association_is_skipped_all_the_same(bench, tmp_path):
    scout = make_series(tmp_path / "scout", slices=1, attributes={"ImageType": "ORIGINAL\\PRIMARY\\LOCALIZER"})
    bench.receive(scout, released=False)
    assert bench.after(61)[0] == "SKIPPED"


@pytest.mark.parametrize("damage", [deleted, truncated, zeroed, a_folder, a_pipe])
def test_a_file_damaged_in_the_spool_is_waited_for_and_comes_again(bench, files, damage):
    bench.receive(files)
    path = bench.spool.path(bench.series.sources(1)[3].spool_name)
    damage(path)
    assert bench.after(6)[0] == "RECEIVING"
    state, reason = bench.after(61)
    assert state == "INCOMPLETE"
    assert re.search(f"1 instance of this series was (gone from|damaged in) the spool.*: {files[3].name}; send", reason)
    bench.receive(files)
    name = bench.spool.keep((files[3].read_bytes(),), bench.now)
    bench.spool.restore(name, bench.series.sources(1)[3].spool_name)
    assert bench.after(130)[0] == "QUEUED"


def test_a_damaged_file_skips_its_series_and_no_other(bench, files, tmp_path):
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(files[3].read_bytes()[:300])
    bench.receive([*files[:3], damaged, *files[4:]])
    state, reason = bench.after(6)
    assert state == "SKIPPED"
    assert "unreadable" in reason


def test_what_a_person_must_look_at_stands_with_the_job(bench, tmp_path):
    """The gate's doubt is stored when the job is queued, so that the worker holds its result."""
    bench.receive(make_series(tmp_path / "scan", slices=10, attributes={"SeriesDescription": "Thorax C+ iMAR"}))
    assert bench.after(6)[0] == "QUEUED"
    job = JobStore(bench.database).claim("w", 60, bench.now)
    assert job is not None
    assert [words in job.doubt for words in ("SeriesDescription names C+", "names IMAR")] == [True, True]


def test_a_step_in_progress_is_waited_for_and_given_up(bench, files):
    bench.step(IN_PROGRESS)
    bench.receive(files)
    assert bench.after(59)[0] == "RECEIVING"
    assert bench.after(61)[0] == "QUEUED"


def test_images_that_a_completed_step_lists_are_waited_for_and_named(bench, files):
    bench.step(COMPLETED, files)
    bench.receive(files[:10])
    assert bench.after(30)[0] == "RECEIVING"
    state, reason = bench.after(61)
    assert state == "INCOMPLETE"
    assert reason.startswith(
        f"the scanner's performed step lists 12 images, 10 arrived, without {files[10].name}, {files[11].name}; send"
    )
    bench.receive(files[10:])
    assert bench.after(67)[0] == "QUEUED"


def test_no_pause_and_no_aborted_association_is_waited_for_once_all_listed_images_are_there(bench, files):
    with bench.database.write() as session:
        session.add(Sender(calling_ae="CTSIM", pause_s=25.0, measured_at=T0))
    bench.step(COMPLETED, files)
    bench.receive(files, released=False)
    assert bench.after(4)[0] == "RECEIVING", "quiet_s is waited for in any case"
    assert bench.after(6)[0] == "QUEUED"


def test_an_open_association_is_waited_for_whatever_a_step_says(bench, files):
    bench.step(COMPLETED, files)
    bench.receive(files, close=False)
    assert bench.after(30)[0] == "RECEIVING"


def test_a_step_that_lists_fewer_images_does_not_excuse_an_aborted_association(bench, files):
    bench.step(COMPLETED, files[:8])
    bench.receive(files[:9], released=False)
    assert bench.after(30)[0] == "RECEIVING"
    assert "aborted" in bench.after(61)[1]


def test_a_completed_step_makes_no_series_of_slices_with_a_gap(bench, files):
    with_gap = [*files[:5], *files[6:]]
    bench.step(COMPLETED, with_gap)
    bench.receive(with_gap)
    assert bench.after(6) == ("INCOMPLETE", GAP)


def test_the_step_of_another_peer_says_nothing(bench, files):
    bench.step(DISCONTINUED, files, ae="OTHER")
    bench.receive(files)
    assert bench.after(6)[0] == "QUEUED"


def test_a_discontinued_step_holds_its_series_until_a_person_says_so(bench, files):
    bench.step(DISCONTINUED, files)
    bench.receive(files)
    state, reason = bench.after(6)
    assert state == "INCOMPLETE"
    assert reason.startswith("the scanner discontinued the performed step of this series")
    bench.series.complete_by_operator(1, "operator", "checked", bench.now)
    assert bench.after(7)[0] == "QUEUED"
