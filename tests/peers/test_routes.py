"""One receiver with two AE titles: what is sent to each is translated by its own bundle and goes to its own TPS."""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from config.routes import ConditionSettings, RouteSettings
from config.settings import (
    DestinationSettings,
    EligibilitySettings,
    ModelSettings,
    NodeSettings,
    RetentionSettings,
    ScpSettings,
    Settings,
)
from node.beats import no_beat
from node.bootstrap.replay import replay
from node.bootstrap.roles import make_completion, make_courier
from node.bootstrap.store import Node, open_store
from node.bootstrap.worker import make_worker
from node.receive.receiver import Receiver
from storage.overview import Case
from tests.builders import make_series


@pytest.fixture
def two_bundles(tiny_bundle: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The bundle of the settings, and one that a route names; they differ by their names alone."""
    other = tmp_path / "neck"
    shutil.copytree(tiny_bundle, other)
    card = json.loads((other / "bundle.json").read_text())
    (other / "bundle.json").write_text(json.dumps(card | {"name": "neck"}))
    return tiny_bundle, other


@pytest.fixture
def tpses(make_tps: Callable[..., Any]) -> dict[str, Any]:
    return {name: make_tps() for name in ("tps", "tps2", "sim")}


@pytest.fixture
def node(two_bundles: tuple[Path, Path], tpses: dict[str, Any], tmp_path: Path, sqlite_file: Path) -> Iterator[Node]:
    main, neck = two_bundles
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    sqlite_file.rename(data_dir / "syncect.sqlite3")
    titles = {"tps": "TPS", "tps2": "TPS2", "sim": "CTSIM2"}
    settings = Settings(
        node=NodeSettings(data_dir=data_dir),
        scp=ScpSettings(host="127.0.0.1", more_ae_titles=("SYNCECT_NECK",)),
        eligibility=EligibilitySettings(min_slices=4),
        model=ModelSettings(
            bundle=str(main), device="cpu", doubt="off", allow_unproven=("tiny", "neck"), outside_envelope="warn"
        ),
        retention=RetentionSettings(min_free_gb=0),
        destination=tuple(
            DestinationSettings(name=name, ae_title=titles[name], host="127.0.0.1", port=tps.port)
            for name, tps in tpses.items()
        ),
        route=(
            RouteSettings(name="neck", called_ae=("SYNCECT_NECK",), bundle=str(neck), destinations=("tps2",)),
            RouteSettings(
                name="back",
                calling_ae=("CTSIM2", "CTSIM3"),
                rules=(ConditionSettings(keyword="BodyPartExamined", op="equals", values=("CHEST",)),),
                destinations=("@sender",),
            ),
            RouteSettings(name="rest", destinations=("tps",)),
        ),
    )
    with open_store(settings) as opened:
        opened.__dict__["clock"] = lambda: datetime.now(UTC) + timedelta(minutes=1)  # everything is quiet
        yield opened


@pytest.fixture
def receiver(node: Node) -> Iterator[Receiver]:
    started = Receiver(node.settings.scp, node.spool, node.series, node.refusals, name="receive-1", port=0)
    started.start()
    yield started
    started.stop(grace_s=0.0)


@pytest.fixture
def send(receiver: Receiver, peer_program: Callable[[str], str], tmp_path: Path) -> Callable[[str, str, str], None]:
    """Let DCMTK send a small series under a name of its own."""

    def run(seed: str, calling: str, called: str) -> None:
        folder = tmp_path / seed
        make_series(folder, slices=4, seed=seed)
        program = peer_program("/usr/bin/storescu")
        titles = ["-aet", calling, "-aec", called]
        subprocess.run([program, *titles, "+sd", "127.0.0.1", str(receiver.port), str(folder)], check=True, timeout=60)

    return run


def work(node: Node, tpses: dict[str, Any]) -> dict[str, Case]:
    """Judge, translate and send all there is; the cases by who sent them and the title they called."""
    make_completion(node).tick()
    worker, stop = make_worker(node, "1", lambda _words: None, no_beat), threading.Event()
    while worker.run_once(stop):
        continue
    courier = make_courier(node, "1")
    for destination in node.settings.destination:
        while courier.run_once(destination):
            continue
    return {f"{case.calling_ae} {case.called_ae}": case for case in node.overview.cases()}


def series_at(tps: Any) -> set[str]:
    return {str(pydicom.dcmread(BytesIO(data), force=True).SeriesInstanceUID) for data in tps.datasets.values()}


def test_two_titles_lead_to_two_bundles_and_two_systems_and_a_sender_gets_its_own(
    node: Node, tpses: dict[str, Any], send: Callable[[str, str, str], None]
) -> None:
    send("one", "CTSIM", "SYNCECT")
    send("two", "CTSIM", "SYNCECT_NECK")
    send("three", "CTSIM2", "SYNCECT")
    send("four", "CTSIM3", "SYNCECT")
    found = work(node, tpses)

    assert {key: (case.state, case.route, (case.bundle or "").split()[0]) for key, case in found.items()} == {
        "CTSIM SYNCECT": ("SENT", "rest", "tiny"),
        "CTSIM SYNCECT_NECK": ("SENT", "neck", "neck"),
        "CTSIM2 SYNCECT": ("SENT", "back", "tiny"),
        "CTSIM3 SYNCECT": ("HELD", "back", "tiny"),
    }
    lost = found["CTSIM3 SYNCECT"]
    assert lost.reason == ("route back returns the result to the sender, and no destination has its AE title, CTSIM3")
    derived = {key: case.derived_series_uid for key, case in found.items()}
    assert series_at(tpses["tps"]) == {derived["CTSIM SYNCECT"]}
    assert series_at(tpses["tps2"]) == {derived["CTSIM SYNCECT_NECK"]}
    assert series_at(tpses["sim"]) == {derived["CTSIM2 SYNCECT"]}
    assert replay(node, found["CTSIM SYNCECT_NECK"], lambda *_: None).is_same, "by its own bundle"


@pytest.mark.parametrize(("called", "is_there"), [("SYNCECT", True), ("SYNCECT_NECK", True), ("SYNCECT_BRAIN", False)])
def test_the_node_answers_under_each_of_its_titles_and_under_no_other(
    receiver: Receiver, called: str, is_there: bool
) -> None:
    ae = AE("PEER")
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", receiver.port, ae_title=called)
    assert association.is_established is is_there
    if is_there:
        assert association.send_c_echo().Status == 0x0000
        association.release()
