"""A worker as a process of its own, whose device never answers for one series: `hanging_worker HOW FOLDER DATABASE`."""

import ctypes
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from node.beats import Heart
from node.dicom.derived_plan import EquipmentIdentity
from node.ops.processes import starter
from node.ops.supervised import Link, previous_end, stop_event
from node.translate import device_record as record_module
from node.translate import worker as worker_module
from node.translate.job import DerivedFile, JobOptions, JobResult, Progress
from node.translate.worker import Worker
from storage.database import Database
from storage.jobs import JobStore
from storage.spool import Spool

HANGING = "hangs"  # the name of the received file for which the device never answers
LIMIT_S = 2.0


def wait_for_ever() -> None:
    """In C, with the interpreter's lock given away, as torch waits for a device."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def wait_for_ever_and_hold_the_interpreter() -> None:
    """In C, so that no thread of the process runs any more."""
    ctypes.PyDLL(None).pause()


HOW: dict[str, Callable[[], None]] = {"waits": wait_for_ever, "holds": wait_for_ever_and_hold_the_interpreter}


class HangingExecutor:
    """Makes a file of each series and never comes back for one; `once`: only before the next measure was taken."""

    bundle, description, spare_devices = "demo", "a device that hangs", 0

    def __init__(self, how: str, faults: int) -> None:
        kind, _, times = how.partition("-")
        self._hang = HOW[kind] if times != "once" or faults == 0 else lambda: None

    def run(self, paths: Sequence[Path], options: JobOptions, out_dir: Path, progress: Progress) -> JobResult:
        progress("translate", 1, 2)
        name = paths[0].name
        if name == HANGING:
            self._hang()
        path = out_dir / "0001.dcm"
        path.write_bytes(b"derived")
        uid = "9.1" if name == HANGING else "9.2"
        return JobResult(uid, "1.2", (DerivedFile(f"{uid}.1", f"{name}.1", path, "0" * 64),), None, {})


def main(how: str, folder: str, database: str) -> None:
    stop = stop_event(supervised=True)
    limits = {"IDLE_LIMIT_S": LIMIT_S, "LONG_LIMIT_S": LIMIT_S, "FIRST_LIMIT_S_PER_SLICE": 0.0}
    for name, limit_s in limits.items():
        for module in (worker_module, record_module):
            setattr(module, name, limit_s)

    def open_executor(_bundle: str, faults: int) -> HangingExecutor:
        with (Path(folder) / "opened").open("a") as log:
            log.write(f"{faults}\n")
        return HangingExecutor(how, faults)

    Worker(
        JobStore(Database(database), starter()),
        Spool(Path(folder) / "spool"),
        open_executor,  # type: ignore[arg-type]
        lambda _job, produced_at: JobOptions(EquipmentIdentity("0"), produced_at),
        [],
        name="work-1@here",
        beat=Heart(Link().beats).beat,
        previous_end=previous_end(),
    ).run(stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
