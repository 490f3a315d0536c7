"""Rejection notes on the wire: an archive that acts on them, one that only takes them, one that refuses them."""

import hashlib
import random
import shutil
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import UID

from config.settings import DestinationSettings, NodeSettings, Settings
from node.bootstrap.roles import _note_of
from node.bootstrap.store import Node
from node.dicom.companions.rejection import Withdrawn, build_note
from node.dicom.elements import write_part10
from node.dicom.uids import UidFactory
from node.network.query import find_instances
from node.network.requestor import Timeouts
from node.send.courier import Courier
from node.send.rejection import KEY_OBJECT_SELECTION
from node.send.scu import StorageScu
from storage.jobs import ProducedInstance, ProducedSeries
from storage.overview import Case
from storage.series import Arrival, JobRequest, SeriesFacts
from storage.transitions import LEFTOVER_PAUSE
from tests.derived import derived_series
from tests.slice.harness import Orthanc, wait_for

PATIENT = Timeouts(connection_s=20, acse_s=20, dimse_s=20, send_s=20)  # nothing here waits for one
SCRIPT = Path(__file__).parents[2] / "deploy" / "orthanc" / "rejection_notes.lua"
SLICES = 4


class Killed(BaseException):
    """The process ends here, whatever it was about to do."""


class Bench:
    """Results of one series, one after the other, a courier as a node has it, and a clock that is set by hand."""

    def __init__(self, store: Any, folder: Path, now: datetime) -> None:
        self.store, self.folder, self.now = store, folder, now
        self.node = Node(Settings(node=NodeSettings(data_dir=folder)), store.database, "here", writable=True)
        self.made = 0

    def produce(self) -> Withdrawn:
        """One more result of the series, which supersedes the one before; what a note about it would be made of."""
        self.made += 1
        series, number = self.store.series, self.made
        arrival = Arrival("1.2.3", "1.3.1", f"1.4.{number}", "1.5", "1.6", f"{number}" * 64, f"received/{number}", 1)
        association = series.open_association("r", "SIM", "127.0.0.1", self.now)
        series.record(association, "SIM", arrival, self.now)
        series.close_association(association, released=True, now=self.now)
        (waiting,) = series.undecided(self.now, 0.0)
        assert series.queue(waiting, SeriesFacts("", ""), JobRequest(f"k{number}", "demo 1"), self.now)
        job = self.store.jobs.claim("w", 60, self.now)
        staged = self.store.spool.stage(job.id, job.attempt)
        made = derived_series(self.folder / f"made-{number}", seed=f"result {number}")
        instances = []
        for z, ds in enumerate(made.slices):
            ds.SeriesInstanceUID, ds.StudyInstanceUID = UID(f"1.8.{number}"), UID("1.2.3")
            path = staged / f"{z:04d}.dcm"
            ds.save_as(path, enforce_file_format=True)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            instances.append(ProducedInstance(str(ds.SOPInstanceUID), f"1.4.{z}", path.name, digest))
        product = ProducedSeries(f"1.8.{number}", self.store.spool.publish(staged), tuple(instances), {})
        self.store.jobs.finish(job.id, "w", product, destinations=["tps"], held_reason=None, now=self.now)
        uids = [one.sop_instance_uid for one in instances]
        return Withdrawn("1.2.3", f"1.8.{number}", uids, self.store.spool.path(product.product_dir))

    def courier(self, destination: DestinationSettings) -> Courier:
        return Courier(
            self.store.outbox,
            self.store.spool,
            [destination],
            peers=self.store.peers,
            calling_ae="SYNCECT",
            name="courier-1",
            timeouts=PATIENT,
            notes=(self.node.notes, partial(_note_of, self.node)),
            clock=lambda: self.now,
            rng=random.Random(1),
        )

    def deliver(self, destination: DestinationSettings) -> Courier:
        courier = self.courier(destination)
        assert courier.run_once(destination)
        return courier

    def recall(self, job_id: int = 1) -> None:
        self.later(3600)
        self.node.recalls.recall(job_id, "operator x", "bundle withdrawn", self.now)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def case(self, case_id: str = "1") -> Case:
        return self.node.overview.case(case_id)

    @property
    def note(self) -> Any:
        return self.case().deliveries[0].note


@pytest.fixture
def bench(store: Any, tmp_path: Path, now: datetime) -> Bench:
    return Bench(store, tmp_path, now)


def notes_in(tps: Any) -> list[str]:
    return [uid for uid in tps.stored if KEY_OBJECT_SELECTION.encode() in tps.datasets[uid]]


def test_orthanc_deletes_what_was_recalled_or_replaced_and_what_its_sender_says(bench: Bench, tmp_path: Path) -> None:
    orthanc = Orthanc(tmp_path / "orthanc", settings={"LuaScripts": [str(SCRIPT)]})
    try:
        peer: dict[str, Any] = {"ae_title": orthanc.ae_title, "host": "127.0.0.1", "port": orthanc.port}
        destination = DestinationSettings(name="tps", confirm="find", rejection_notes=True, **peer)

        def held(series_uid: str) -> int:
            return len(find_instances(destination, "SYNCECT", "1.2.3", series_uid))

        first = bench.produce()
        courier = bench.deliver(destination)

        stranger = build_note(first, UidFactory(), "113037", datetime(2026, 1, 1, tzinfo=UTC), None)
        write_part10(stranger, tmp_path / "stranger.dcm")
        item = (str(stranger.SOPInstanceUID), tmp_path / "stranger.dcm")
        assert StorageScu(destination, "STRANGER").send([item], sop_class=KEY_OBJECT_SELECTION).accepted
        wait_for("the script", lambda: b"0 instances deleted, 4 not" in orthanc.log.read_bytes())
        assert held("1.8.1") == SLICES, "a stranger deletes nothing"

        bench.produce()
        assert not courier.reject_once(destination), "a planner would see nothing"
        assert courier.run_once(destination)
        assert courier.reject_once(destination)
        wait_for("the first result's end", lambda: held("1.8.1") == 0)
        assert held("1.8.2") == SLICES
        bench.later(LEFTOVER_PAUSE.total_seconds() + 20)
        assert courier.confirm_once(destination)  # the new result
        assert courier.confirm_once(destination)
        assert (bench.case("1").state, bench.case("1").leftovers, bench.note.code) == ("SUPERSEDED", (), "113001")

        bench.recall(2)
        assert courier.reject_once(destination)
        wait_for("the second result's end", lambda: held("1.8.2") == 0)
        bench.later(20)
        assert courier.confirm_once(destination)
        case = bench.case("1-2")
        assert (case.state, case.reason) == ("RECALLED", "gone from tps; bundle withdrawn")
        kept = [dcmread(path) for path in orthanc.fetch(tmp_path / "fetched")]
    finally:
        orthanc.stop()
    assert {str(ds.SOPClassUID) for ds in kept} == {KEY_OBJECT_SELECTION}, "the notes stay, as a record"
    assert sorted(str(ds.ConceptNameCodeSequence[0].CodeValue) for ds in kept) == ["113001", "113037", "113037"]


def test_a_peer_that_takes_notes_and_does_nothing_leaves_it_to_a_person(bench: Bench, make_tps: Any) -> None:
    tps = make_tps(also=[KEY_OBJECT_SELECTION])
    destination = tps.destination(rejection_notes=True, confirm="find")
    bench.produce()
    courier = bench.deliver(destination)
    bench.recall()
    assert courier.reject_once(destination)
    assert notes_in(tps) == [bench.note.sop_instance_uid]
    bench.later(11)
    assert courier.confirm_once(destination)
    assert bench.case().leftovers == ("tps",)
    assert bench.case().reason.startswith("needs a person: look whether series 1.8.1 is gone from tps")
    assert not courier.reject_once(destination)


def test_a_peer_that_refuses_the_class_is_told_of_by_name(bench: Bench, make_tps: Any) -> None:
    tps = make_tps()
    destination = tps.destination(rejection_notes=True)
    bench.produce()
    courier = bench.deliver(destination)
    bench.recall()
    assert courier.reject_once(destination)
    assert bench.note.state == "FAILED"
    assert "accepts none of the SOP classes" in bench.note.reason
    assert "needs a person: delete series 1.8.1 at tps; tps took no rejection note" in bench.case().reason
    assert not courier.reject_once(destination)


def test_a_peer_that_is_away_gets_its_note_later(bench: Bench, make_tps: Any) -> None:
    tps = make_tps(also=[KEY_OBJECT_SELECTION])
    destination = tps.destination(rejection_notes=True)
    bench.produce()
    courier = bench.deliver(destination)
    tps.stop()
    bench.recall()
    assert courier.reject_once(destination)
    assert (bench.note.state, bench.note.attempts) == ("PENDING", 1)
    assert "is on its way to tps (" in bench.case().reason
    assert not courier.reject_once(destination)
    tps.start()
    bench.later(60)
    assert courier.reject_once(destination)
    assert (bench.note.state, len(notes_in(tps))) == ("SENT", 1)


def test_a_destination_that_did_not_ask_for_notes_gets_none(bench: Bench, make_tps: Any) -> None:
    tps = make_tps(also=[KEY_OBJECT_SELECTION])
    destination = tps.destination()
    bench.produce()
    courier = bench.deliver(destination)
    bench.recall()
    assert not courier.reject_once(destination)
    assert (notes_in(tps), bench.note) == ([], None)


@pytest.mark.parametrize("files", ["kept", "removed"])
def test_a_kill_between_the_sending_and_its_record_makes_no_second_note(
    bench: Bench, make_tps: Any, monkeypatch: pytest.MonkeyPatch, files: str
) -> None:
    tps = make_tps(also=[KEY_OBJECT_SELECTION])
    destination = tps.destination(rejection_notes=True)
    first = bench.produce()
    courier = bench.deliver(destination)
    if files == "removed":
        shutil.rmtree(first.folder or "")
    bench.recall()

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("storage.notes.NoteStore.sent", die)
        with pytest.raises(Killed):
            courier.reject_once(destination)
    assert bench.note.state == "PENDING"
    assert len(notes_in(tps)) == 1
    bench.later(61)
    assert bench.courier(destination).reject_once(destination)
    assert notes_in(tps) == [bench.note.sop_instance_uid] * 2
    assert len({tps.datasets[uid] for uid in notes_in(tps)}) == 1
    assert bench.note.state == "SENT"
