"""What several measurements share: a scan to send, DCMTK's sender, a clock; it measures nothing by itself."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from models.phantom import make_patient
from node.dicom.synthetic_scan import ScanIdentity, write_scan
from tests.slice.harness import dcmtk

# Without it the last small segment of an instance waits 40 ms for the acknowledgement of the one before.
NO_DELAY = {"TCP_NODELAY": "1"}


def make_scan(folder: Path, slices: int, repeat: int) -> Path:
    """A phantom series of 512 x 512 slices with UIDs of its own; a few planes repeat, only their size matters."""
    planes = make_patient(1, slices=4, rows=512, spacing_mm=(5.0, 0.9766, 0.9766)).ncct_hu
    hu = planes[[number % 4 for number in range(slices)]]
    folder.mkdir()
    seed = f"bench-{time.time_ns()}-{repeat}"
    write_scan(hu, (3.0, 0.9766, 0.9766), folder, ScanIdentity("BENCH", "Bench^Series", seed))
    return folder


def split(scan: Path, parts: int) -> list[Path]:
    """Deal the files of a folder out to `parts` folders below it."""
    files = sorted(scan.glob("*.dcm"))
    folders = [scan / f"part{number}" for number in range(parts)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        for path in files[number::parts]:
            path.rename(folder / path.name)
    return folders


def sender(port: int, scan: Path) -> list[str]:
    """DCMTK's storescu for one association."""
    return [dcmtk("storescu"), "-aet", "CTSIM", "-aec", "SYNCECT", "+sd", "127.0.0.1", str(port), str(scan)]


def send(port: int, scan: Path) -> None:
    """Send a folder in one association; raises CalledProcessError where an instance was not taken."""
    subprocess.run(sender(port, scan), check=True, env={**os.environ, **NO_DELAY}, capture_output=True)


def send_at_once(port: int, folders: list[Path]) -> int:
    """Send each folder in an association of its own, all at once; returns how many associations failed."""
    environment = {**os.environ, **NO_DELAY}
    running = [subprocess.Popen(sender(port, folder), env=environment, stdout=-3, stderr=-3) for folder in folders]
    return sum(process.wait() != 0 for process in running)


def echo(port: int) -> bool:
    """Whether something answers a C-ECHO there."""
    command = [dcmtk("echoscu"), "-aec", "SYNCECT", "127.0.0.1", str(port)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def timed(call: Callable[..., object], *arguments: object) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


@contextmanager
def environment(**changes: str) -> Iterator[None]:
    """Environment variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
