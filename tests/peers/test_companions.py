"""What goes out beside the images: to those who want it, behind the images, and never at their cost."""

import hashlib
import io
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import dcmread

from config.settings import DestinationSettings, NodeSettings, Settings
from node.bootstrap.roles import _companion_maker, make_courier
from node.bootstrap.store import Node
from node.dicom.companions.kinds import KINDS, companion_series_uid
from node.dicom.uids import UidFactory
from node.network.requestor import Timeouts
from node.send.companions import MAX_ATTEMPTS
from node.send.courier import Courier
from storage.jobs import ProducedInstance, ProducedSeries
from storage.overview import Case, Overview
from storage.series import Arrival, JobRequest, SeriesFacts
from storage.states import DeliveryState
from storage.transitions import LEFTOVER_PAUSE
from tests.derived import Made, derived_series
from tests.peers.dicomweb_server import Asked, DicomwebServer, Told, item, stored
from tests.slice.harness import Orthanc

PATIENT = Timeouts(connection_s=20, acse_s=20, dimse_s=20, send_s=20)  # nothing here waits for one
WANTED = tuple(KINDS)
CLASSES = [kind.sop_class_uid for kind in KINDS.values()]
SLICES = 4


class Killed(BaseException):
    """The process ends here, whatever it was about to do."""


class Bench:
    """A produced series in the store, a courier as a node has it, and a clock that is set by hand."""

    def __init__(self, store: Any, folder: Path, now: datetime) -> None:
        self.store, self.now = store, now
        self.made = derived_series(folder / "made")
        self.uids = [ds.SOPInstanceUID for ds in self.made.slices]
        settings = Settings(node=NodeSettings(data_dir=folder))
        self.node = Node(settings, store.database, "here", writable=True)
        self.maker_of: Callable[..., Any] = partial(_companion_maker, self.node)

    def produce(self, *, measurements: dict[str, float] | None = None, with_doubt: bool = True) -> None:
        jobs = self.store.jobs
        arrival = Arrival("1.2", "1.3.1", "1.4", "1.5", "1.6", "k" * 64, "received/k", 1)
        association = self.store.series.open_association("r", "SIM", "127.0.0.1", self.now)
        self.store.series.record(association, "SIM", arrival, self.now)
        self.store.series.close_association(association, released=True, now=self.now)
        (waiting,) = self.store.series.undecided(self.now, 0.0)
        assert self.store.series.queue(waiting, SeriesFacts("", ""), JobRequest("k", "demo"), self.now)
        job = jobs.claim("w", 60, self.now)
        staged = self.store.spool.stage(job.id, job.attempt)
        shutil.copytree(self.made.folder, staged, dirs_exist_ok=True)
        if not with_doubt:
            (staged / "doubt.npz").unlink()
        instances = tuple(
            ProducedInstance(ds.SOPInstanceUID, f"1.4.{z}", path.name, hashlib.sha256(path.read_bytes()).hexdigest())
            for z, (ds, path) in enumerate(zip(self.made.slices, sorted(staged.glob("*.dcm")), strict=True))
        )
        series_uid = self.made.slices[0].SeriesInstanceUID
        product = ProducedSeries(series_uid, self.store.spool.publish(staged), instances, measurements or {})
        jobs.finish(job.id, "w", product, destinations=["tps"], held_reason=None, now=self.now)

    def send(self, destination: DestinationSettings) -> bool:
        return self.courier(destination).run_once(destination)

    def courier(self, destination: DestinationSettings) -> Courier:
        return Courier(
            self.store.outbox,
            self.store.spool,
            [destination],
            peers=self.store.peers,
            calling_ae="SYNCECT",
            name="courier-1",
            timeouts=PATIENT,
            companions=self.maker_of,
            clock=lambda: self.now,
            rng=random.Random(1),
        )

    def case(self) -> Case:
        return Overview(self.store.database).case("1")


@pytest.fixture
def bench(store: Any, tmp_path: Path, now: datetime) -> Bench:
    return Bench(store, tmp_path, now)


def kinds_of(tps: Any, made: Made) -> list[str]:
    """The SOP classes of what came behind the images."""
    own = [ds.SOPInstanceUID for ds in made.slices]
    assert tps.stored[: len(own)] == own, "the images are first"
    return [_sop_class(tps.datasets[uid]) for uid in tps.stored[len(own) :]]


def _sop_class(data: bytes) -> str:
    return next(uid for uid in sorted(CLASSES, key=len, reverse=True) if uid.encode() in data)


def test_all_that_is_wanted_goes_behind_the_images_and_slices_stay_slices(bench: Bench, make_tps: Any) -> None:
    tps = make_tps(also=CLASSES)
    bench.produce()
    assert bench.send(tps.destination(companions=WANTED))
    assert bench.store.delivery().state is DeliveryState.SENT
    assert bench.store.delivery().reason == ""
    assert kinds_of(tps, bench.made) == CLASSES
    counts = bench.case().slices
    assert (counts.produced, counts.sent) == (SLICES, SLICES)
    assert not bench.send(tps.destination(companions=WANTED))


def test_a_destination_that_asks_for_none_gets_none(bench: Bench, make_tps: Any) -> None:
    tps = make_tps(also=CLASSES)
    bench.produce()
    bench.send(tps.destination())
    assert tps.stored == bench.uids
    assert not list(bench.store.spool.root.rglob("companions")), "and none is made"


def test_a_peer_that_takes_only_ct_gets_the_images_and_the_refusals_are_told(bench: Bench, make_tps: Any) -> None:
    tps = make_tps()
    bench.produce()
    bench.send(tps.destination(companions=WANTED))
    assert tps.stored == bench.uids
    assert bench.store.delivery().state is DeliveryState.SENT
    (view,) = bench.case().deliveries
    for kind in KINDS.values():
        assert f"no {kind.words}: TPS at 127.0.0.1" in view.reason
    assert bench.case().slices.sent == SLICES
    tps.listed = lambda: tps.stored
    destination = tps.destination(companions=WANTED, confirm="find")
    assert bench.courier(destination).confirm_once(destination)
    (view,) = bench.case().deliveries
    assert view.state == "CONFIRMED"
    assert "no report: " in view.reason, "the refusal can still be read"


def test_a_refusal_of_one_is_no_refusal_of_the_others(bench: Bench, make_tps: Any) -> None:
    tps = make_tps(also=CLASSES)
    tps.answer = lambda number: 0xA900 if number == SLICES + 2 else 0x0000
    bench.produce()
    bench.send(tps.destination(companions=WANTED))
    assert bench.store.delivery().state is DeliveryState.SENT
    assert "A900" in bench.store.delivery().reason
    assert kinds_of(tps, bench.made) == [CLASSES[0], *CLASSES[2:]]


def test_what_may_pass_is_tried_again_without_the_images_but_not_for_ever(
    bench: Bench, make_tps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tps = make_tps(also=CLASSES)
    destination = tps.destination(companions=["report"])
    tps.answer = lambda number: 0xA700 if number > SLICES else 0x0000
    bench.produce()
    for attempt in range(1, MAX_ATTEMPTS):
        assert bench.send(destination)
        assert bench.store.delivery().state is DeliveryState.PENDING, attempt
        assert "the images are there, the report is not" in bench.store.delivery().reason
        bench.now += timedelta(minutes=2)
    bench.send(destination)
    assert bench.store.delivery().state is DeliveryState.SENT
    assert "A700" in bench.store.delivery().reason
    assert tps.stored == bench.uids, "no image went twice"


def test_a_courier_that_is_killed_between_leaves_no_second_copy(bench: Bench, make_tps: Any) -> None:
    tps = make_tps(also=CLASSES)
    destination = tps.destination(companions=WANTED)
    bench.produce()
    whole = bench.maker_of

    class Dying:
        def __init__(self, delivery: Any) -> None:
            self._maker = whole(delivery)
            self.choose = self._maker.choose

        def make(self, kind: Any) -> Any:
            if kind == "report":
                raise Killed
            return self._maker.make(kind)

    bench.maker_of = Dying
    with pytest.raises(Killed):
        bench.send(destination)
    before = dict(tps.datasets)
    assert bench.store.delivery().state is DeliveryState.SENDING
    bench.maker_of = whole
    bench.store.outbox.release_expired(bench.now, dead_courier="courier-1")
    assert bench.send(destination)
    assert bench.store.delivery().state is DeliveryState.SENT
    assert len(tps.datasets) == SLICES + len(WANTED)
    assert before.items() <= tps.datasets.items(), "what came again is the same in every byte"
    assert [tps.stored.count(uid) for uid in bench.uids] == [1] * SLICES


def test_nothing_goes_out_of_a_result_that_is_cancelled_meanwhile(bench: Bench, make_tps: Any) -> None:
    tps = make_tps(also=CLASSES)
    bench.produce()
    whole = bench.maker_of

    def cancelled_meanwhile(delivery: Any) -> Any:
        bench.store.jobs.cancel(1, "operator x", "wrong patient", bench.now)
        return whole(delivery)

    bench.maker_of = cancelled_meanwhile
    bench.send(tps.destination(companions=WANTED))
    assert tps.stored == bench.uids
    assert bench.case().leftovers == ("tps",)


def test_without_a_kept_doubt_the_others_go(bench: Bench, make_tps: Any, caplog: pytest.LogCaptureFixture) -> None:
    tps = make_tps(also=CLASSES)
    bench.produce(with_doubt=False)
    with caplog.at_level("INFO"):
        bench.send(tps.destination(companions=WANTED))
    assert (bench.store.delivery().state, bench.store.delivery().reason) == (DeliveryState.SENT, "")
    assert kinds_of(tps, bench.made) == CLASSES[2:]
    assert "no doubt was kept" in caplog.text


def test_one_that_cannot_be_made_holds_nothing_up(bench: Bench, make_tps: Any) -> None:
    tps = make_tps(also=CLASSES)
    bench.produce()
    (folder,) = (bench.store.spool.root / "derived").iterdir()
    (folder / "doubt.npz").write_bytes(b"half a file")
    bench.send(tps.destination(companions=WANTED))
    assert bench.store.delivery().state is DeliveryState.SENT
    for words in ("doubt mask", "doubt in HU"):
        assert f"no {words}: unexpected ValueError" in bench.store.delivery().reason
    assert kinds_of(tps, bench.made) == CLASSES[2:]


def test_a_withdrawn_result_stands_as_long_as_one_of_its_companions_does(
    bench: Bench, make_tps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tps = make_tps(also=CLASSES)
    destination = tps.destination(companions=["report"], confirm="find")
    bench.produce()
    bench.send(destination)
    bench.store.jobs.cancel(1, "operator x", "wrong patient", bench.now)
    report = companion_series_uid(UidFactory(), bench.made.slices[0].SeriesInstanceUID, "report")
    asked: list[str] = []

    def listed(_destination: Any, _ae: str, _study: str, series_uid: str) -> set[str]:
        asked.append(series_uid)
        return {"1.9"} if series_uid == report and len(asked) < 3 else set()

    monkeypatch.setattr("node.send.confirmation.find_instances", listed)
    for stands in (("tps",), ()):
        bench.now += LEFTOVER_PAUSE + timedelta(seconds=1)
        assert bench.courier(destination).confirm_once(destination)
        assert bench.case().leftovers == stands
    assert asked[:2] == [bench.made.slices[0].SeriesInstanceUID, report]


def test_a_destination_of_dicomweb_gets_them_behind_the_images(bench: Bench) -> None:
    bench.produce(measurements={"native_enhanced_ml": 2.5})
    server = DicomwebServer()

    def without_reports(asked: Asked) -> Told | None:
        classes = {dcmread(io.BytesIO(part)).SOPClassUID for part in asked.parts}
        return stored(failed=(item(asked.uids[0], failure=0x0122),), status=409) if CLASSES[2] in classes else None

    server.on_store = without_reports
    try:
        destination = server.destination(companions=WANTED)
        node_settings = bench.node.settings.model_copy(update={"destination": (destination,)})
        node = Node(node_settings, bench.store.database, "here", writable=True)
        assert make_courier(node, "1").run_once(destination)
    finally:
        server.stop()
    assert bench.store.delivery().state is DeliveryState.SENT
    uid = server.asked[-2].uids[0]
    assert bench.store.delivery().reason.endswith(f"instance {uid}: status 0122: SOP class not supported")
    held = [str(dcmread(io.BytesIO(data)).SOPClassUID) for data in server.held.values()]
    assert held[-3:] == [CLASSES[0], CLASSES[1], CLASSES[3]]
    assert list(server.held)[: len(bench.uids)] == bench.uids


def test_orthanc_keeps_all_four_and_gives_them_back_readable(bench: Bench, tmp_path: Path) -> None:
    bench.produce(measurements={"native_enhanced_ml": 2.5})
    orthanc = Orthanc(tmp_path / "orthanc")
    try:
        destination = DestinationSettings(
            name="tps", ae_title=orthanc.ae_title, host="127.0.0.1", port=orthanc.port, companions=WANTED
        )
        node_settings = bench.node.settings.model_copy(update={"destination": (destination,)})
        node = Node(node_settings, bench.store.database, "here", writable=True)
        assert make_courier(node, "1").run_once(destination)
        assert bench.store.delivery().reason == ""
        files = {str(dcmread(path).SOPClassUID): path for path in orthanc.fetch(tmp_path / "fetched")}
    finally:
        orthanc.stop()
    assert set(CLASSES) < set(files)
    for uid in CLASSES:
        program = str(Path(sys.executable).with_name("dciodvfy"))
        answer = subprocess.run([program, str(files[uid])], capture_output=True, text=True, check=False)
        assert "Error" not in answer.stdout + answer.stderr
    seg = highdicom.seg.segread(files[CLASSES[0]])
    mask = seg.get_pixels_by_source_instance(bench.uids, assert_missing_frames_are_empty=True)
    assert np.array_equal(mask[..., 0].astype(bool), bench.made.mask)
    assert highdicom.imread(files[CLASSES[1]]).number_of_frames == SLICES
    report: Any = highdicom.sr.srread(files[CLASSES[2]])
    (group,) = report.content.get_image_measurement_groups()
    assert [one.value for one in group.get_measurements()] == [2.5]
    assert dcmread(files[CLASSES[3]]).GraphicAnnotationSequence
