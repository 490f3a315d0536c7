"""Which files and functions of this project run for one piece of work: `make walk`.

Looked at are the way from a connection to the answer of its first C-STORE, `syncect jobs ls`, and a training step. The
fewer there are, the sooner somebody who reads the code has seen them all. The figures have limits in
`tests/peers/test_walk.py` and `tests/contract/models/test_training_walk.py`.
"""

import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from typer.testing import CliRunner

from bench.listing import configure, fill
from config.load import load_settings
from config.settings import ScpSettings
from models.cohort import CohortWriter, PatientRecord
from models.training import TrainOptions
from models.training.loop import Run, Silent
from models.training.slices import read_batches
from node.cli import app
from node.cli.jobs import list_jobs
from node.receive.receiver import Receiver
from storage.database import Database
from storage.refusals import RefusalStore
from storage.series import SeriesStore
from storage.spool import Spool

ROOT = Path(__file__).parents[1]
OURS = tuple(f"{ROOT / folder}/" for folder in ("config", "models", "node", "storage"))


@dataclass
class Walk:
    """Files below the project's folder and functions in them, which were entered while it was traced."""

    files: set[str] = field(default_factory=set)
    functions: set[tuple[str, str]] = field(default_factory=set)

    def note(self, frame: FrameType, event: str, _argument: Any) -> None:
        """What `sys.setprofile` calls."""
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(OURS):
            self.files.add(name.removeprefix(f"{ROOT}/"))
            self.functions.add((name, frame.f_code.co_qualname))


def first_answer(folder: Path) -> Walk:
    """From the connection to the end of an association that stored one instance, without the start of the receiver."""
    database = Database(f"sqlite:///{folder / 'node.sqlite3'}")
    database.ensure_schema()
    receiver = Receiver(
        ScpSettings(host="127.0.0.1", allowed_peers=({"ae_title": "SCANNER", "host": "127.0.0.1"},)),  # type: ignore[arg-type]
        Spool(folder / "spool"),
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
        store_one(receiver.port)
        receiver.stop()
    finally:
        threading.setprofile(None)
        database.close()
    return walk


def store_one(port: int) -> None:
    """Send one small CT instance in one association; raises AssertionError where it is not stored."""
    ae = AE(ae_title="SCANNER")
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="SYNCECT")
    assert association.is_established
    assert association.send_c_store(_instance()).Status == 0x0000
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
    options = TrainOptions("syndiff", preset="tiny", device="cpu", precision="fp32")
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
    database.ensure_schema()
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
    assert len(result.stdout.split("Thorax")) == 4, result.stdout  # three jobs, each with its description
    return walk


def main() -> None:
    """Print the walks."""
    walks = {"to the first answer": first_answer, "syncect jobs ls": jobs_ls, "a training step": training_step}
    for name, trace in walks.items():
        with tempfile.TemporaryDirectory(prefix="syncect-walk-") as folder:
            walk = trace(Path(folder))
        sys.stdout.write(f"{name}: {len(walk.files)} files, {len(walk.functions)} functions\n")
        sys.stdout.write("".join(f"  {file}\n" for file in sorted(walk.files)))


if __name__ == "__main__":
    main()
