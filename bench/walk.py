"""Which files and functions of this project run for one piece of work: `make walk`.

Looked at are a slice from the connection to the answer of its first C-STORE; a phantom series through receiver,
completion, worker and courier to the TPS; `syncect jobs ls`; and a training step.

Counted is every function of `config`, `models`, `node` and `storage` that is entered meanwhile, in every thread. Not
counted are the start of each part, files that hold data only, comprehensions (functions in some versions of Python
only), and the networks of a model: a translator that adds a constant takes their place. The fewer there are, the sooner
somebody who reads the code has seen them all. The figures have limits in `tests/peers/test_walk.py` and
`tests/component/models/test_training_walk.py`.
"""

import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from typer.testing import CliRunner

from bench.listing import configure, fill
from config.load import load_settings
from config.settings import CompletionSettings, DestinationSettings, ScpSettings
from models import BundleCard, Envelope
from models.cohort import CohortWriter, PatientRecord
from models.phantom import make_patient
from models.training import TrainOptions
from models.training.loop import Run, Silent
from models.training.slices import read_batches
from models.translator import Progress
from node.cli.commands import app
from node.cli.jobs_ls import list_jobs
from node.dicom.derived_plan import EquipmentIdentity
from node.dicom.synthetic_scan import ScanIdentity, write_scan
from node.dicom.uids import job_key
from node.receive.completion import Completion
from node.receive.eligibility import EligibilityPolicy
from node.receive.receiver import Receiver
from node.send.courier import Courier
from node.translate.job import Executor, JobOptions
from node.translate.worker import Worker
from storage.database import Database
from storage.jobs import JobStore
from storage.outbox import OutboxStore
from storage.peers import PeerStore
from storage.refusals import RefusalStore
from storage.schema import ensure_schema
from storage.series import JobRequest, SeriesStore
from storage.spool import Spool
from tests.builders import SureTranslator

ROOT = Path(__file__).parents[1]
OURS = tuple(f"{ROOT / folder}/" for folder in ("config", "models", "node", "storage"))
SLICES = 10
STAGES = ("receiver", "completion", "worker", "courier")


@dataclass
class Walk:
    """Files below the project's folder and functions in them, which were entered while it was traced."""

    files: set[str] = field(default_factory=set)
    functions: set[tuple[str, str]] = field(default_factory=set)

    def note(self, frame: FrameType, event: str, _argument: Any) -> None:
        """What `sys.setprofile` calls."""
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(OURS) and not frame.f_code.co_name.endswith(("comp>", "genexpr>")):
            self.files.add(name.removeprefix(f"{ROOT}/"))
            self.functions.add((name, frame.f_code.co_qualname))

    @contextmanager
    def traced(self) -> Iterator[None]:
        """Note what runs in this thread, and in those that start, until the block ends."""
        threading.setprofile(self.note)
        sys.setprofile(self.note)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


def first_answer(folder: Path) -> Walk:
    """From the connection to the end of an association that stored one instance, without the start of the receiver."""
    database = _database(folder)
    walk = _through_the_receiver(database, Spool(folder / "spool"), [_instance()])
    database.close()
    return walk


def to_the_tps(folder: Path) -> dict[str, Walk]:
    """The walk of a phantom series of 10 slices through each of STAGES; raises AssertionError where one stops it."""
    database, spool = _database(folder), Spool(folder / "spool")
    scan = folder / "scan"
    scan.mkdir()
    hu = make_patient(1, slices=SLICES, rows=64, spacing_mm=(5.0, 5.0, 5.0)).ncct_hu
    paths = write_scan(hu, (5.0, 5.0, 5.0), scan, ScanIdentity("WALK", "Walk^Series", "walk"))
    walks = {"receiver": _through_the_receiver(database, spool, [dcmread(path) for path in paths])}
    walks |= {stage: Walk() for stage in STAGES[1:]}

    completion = Completion(
        SeriesStore(database),
        spool,
        CompletionSettings(),
        EligibilityPolicy(),
        lambda headers, _call: JobRequest(key=job_key(headers, "0" * 64, "walk"), bundle="walk"),
        name="complete-1@here",
        why_enhanced=lambda _paths: None,
        clock=_later,
    )
    with walks["completion"].traced():
        assert completion.tick() == 1

    executor = Executor("walk", _Brighter())
    worker = Worker(
        JobStore(database),
        spool,
        lambda _bundle, _faults: executor,
        lambda job, produced_at: JobOptions(EquipmentIdentity("walk"), produced_at, run=job.repeat + 1),
        ["tps"],
        name="walk",
        clock=_later,
    )
    with walks["worker"].traced():
        assert worker.run_once(threading.Event())

    with _tps() as (port, received):
        tps = DestinationSettings(name="tps", ae_title="TPS", host="127.0.0.1", port=port)
        courier = Courier(
            OutboxStore(database),
            spool,
            [tps],
            peers=PeerStore(database),
            calling_ae="SYNCECT",
            name="walk",
            clock=_later,
        )
        with walks["courier"].traced():
            assert courier.run_once(tps)
    assert len(received) == SLICES
    database.close()
    return walks


class _Brighter(SureTranslator):
    """A translator without torch, which adds 60 HU to soft tissue."""

    device, precision, description, arithmetic = "none", "fp32", "adds 60 HU", "walk"
    level_hu = None
    card: BundleCard = cast(
        BundleCard,
        SimpleNamespace(
            name="walk",
            version="1",
            method="constant",
            digest="0" * 64,
            metrics=(),
            weights_sha256="0" * 64,
            hu_window=(-40.0, 400.0),
            envelope=Envelope(pixel_spacing_mm=(0.5, 10.0)),
        ),
    )

    def translate(
        self, hu: NDArray[np.float32], seed: int, *, spacing_mm: float | None = None, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        if progress is not None:
            progress(len(hu), len(hu))
        brighter: NDArray[np.float32] = np.clip(hu + np.float32(60.0), -40.0, 400.0)
        return brighter


def _later() -> datetime:
    """A time at which the series is quiet."""
    return datetime.now(UTC) + timedelta(hours=1)


def _database(folder: Path) -> Database:
    database = Database(f"sqlite:///{folder / 'node.sqlite3'}")
    ensure_schema(database)
    return database


def _through_the_receiver(database: Database, spool: Spool, instances: list[Dataset]) -> Walk:
    receiver = Receiver(
        ScpSettings(host="127.0.0.1", allowed_peers=({"ae_title": "SCANNER", "host": "127.0.0.1"},)),  # type: ignore[arg-type]
        spool,
        SeriesStore(database),
        RefusalStore(database),
        name="walk",
        port=0,
    )
    walk = Walk()
    threading.setprofile(walk.note)  # the thread that accepts connections starts with the receiver
    try:
        receiver.start()
        walk.files.clear()
        walk.functions.clear()
        store(receiver.port, instances)
        receiver.stop()
    finally:
        threading.setprofile(None)
    return walk


def store(port: int, instances: list[Dataset]) -> None:
    """Send CT instances in one association; raises AssertionError where one is not stored."""
    ae = AE(ae_title="SCANNER")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="SYNCECT")
    assert association.is_established
    for instance in instances:
        assert association.send_c_store(instance).Status == 0x0000
    association.release()


def training_step(folder: Path) -> Walk:
    """One optimisation step of SynDiff at its smallest preset, on a CPU, in the loop that `syncect train` runs.

    Counted is all that runs in this thread from `Run.take_step(batch)`, which the loop calls with a batch on its
    device, until it returns: learning rates, the discriminators' steps with R1, the generators' step, and the moving
    averages. Building networks and run, reading, cropping and moving the batch, losses.jsonl and checkpoints are not.
    """
    scan_hu = np.random.default_rng(1).normal(60, 60, (2, 32, 32)).astype(np.float32)
    writer = CohortWriter(folder / "cohort", kind="phantom", provenance={})
    record = PatientRecord("P0", "H1", "train", scan_hu.shape, (5.0, 1.5, 1.5))
    writer.add(record, {"ncct": scan_hu, "cect": scan_hu + 50})
    options = TrainOptions("syndiff", preset="tiny", device="cpu", precision="fp32", without_validation=True)
    run = Run(writer.close(), folder / "run", options, resume=False, observer=Silent())
    (batch,) = read_batches(run.slices, run.plan, epoch=0, start=0)
    walk = Walk()
    sys.setprofile(walk.note)
    try:
        run.take_step(batch, epoch=0.0)
    finally:
        sys.setprofile(None)
    return walk


def _instance() -> Dataset:
    instance = Dataset()
    instance.SOPClassUID, instance.SOPInstanceUID = CTImageStorage, generate_uid()
    instance.StudyInstanceUID, instance.SeriesInstanceUID = generate_uid(), generate_uid()
    instance.Modality = "CT"
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return instance


def jobs_ls(folder: Path) -> Walk:
    """`syncect jobs ls` over a few jobs, from the first line of its function to the end of the command.

    What Typer calls before that, to find the command and to keep `--config`, is not counted, nor what only an import
    runs.
    """
    config = configure(folder)
    database = Database(load_settings(config).node.url())
    ensure_schema(database)
    fill(database, jobs=3)
    database.close()
    walk = Walk()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if walk.files or frame.f_code is list_jobs.__code__:
            walk.note(frame, event, argument)

    sys.setprofile(note)
    try:
        result = CliRunner().invoke(app, ["--config", str(config), "jobs", "ls"])
    finally:
        sys.setprofile(None)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("3 CT CHEST") == 3, result.stdout  # three jobs, each with its series
    return walk


@contextmanager
def _tps() -> Iterator[tuple[int, list[str]]]:
    """A storage SCP that takes every CT instance: its port, and the SOP Instance UIDs that it was sent."""
    received: list[str] = []

    def keep(event: Any) -> int:
        received.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    ae = AE(ae_title="TPS")
    ae.add_supported_context(CTImageStorage, ExplicitVRLittleEndian)
    server: Any = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    try:
        yield server.server_address[1], received
    finally:
        server.shutdown()


def main() -> None:
    """Print the walks."""
    for name, trace in (
        ("to the first answer", first_answer),
        ("syncect jobs ls", jobs_ls),
        ("a training step", training_step),
    ):
        with tempfile.TemporaryDirectory(prefix="syncect-walk-") as folder:
            _print(name, trace(Path(folder)))
    with tempfile.TemporaryDirectory(prefix="syncect-walk-") as folder:
        stages = to_the_tps(Path(folder))
    for stage, walk in stages.items():
        _print(f"to the TPS: {stage}", walk)
    files = set[str]().union(*(walk.files for walk in stages.values()))
    functions = set[tuple[str, str]]().union(*(walk.functions for walk in stages.values()))
    sys.stdout.write(f"to the TPS in all: {len(files)} files, {len(functions)} functions\n")


def _print(name: str, walk: Walk) -> None:
    sys.stdout.write(f"{name}: {len(walk.files)} files, {len(walk.functions)} functions\n")
    sys.stdout.write("".join(f"  {name}\n" for name in sorted(walk.files)))


if __name__ == "__main__":
    main()
