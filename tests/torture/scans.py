"""Small phantom series, each with UIDs of its own, and a scanner that sends them until every instance was taken."""

import functools
import hashlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.filereader import read_file_meta_info

from models.phantom import make_patient
from node.dicom.synthetic_scan import ScanIdentity, write_scan
from tests.peers.raw_peer import RELEASE, RawPeer, Rejected
from tests.torture.ledger import Ledger

SLICES = 8  # as few as a series may have
_ROWS = 64
_SPACING_MM = (5.0, 5.0, 5.0)
_WRITTEN_MM = (3.0, 1.0, 1.0)  # too little tissue for the gate to ask the random bundle for anatomy
_BETWEEN_TRIES_S = 0.2


@dataclass(frozen=True)
class Slice:
    """One instance as it is sent: `data` is the data set without the file's head."""

    uid: str
    data: bytes

    @property
    def sha256(self) -> str:
        """Of the data set."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Scan:
    """One series of a scanner."""

    study_uid: str
    series_uid: str
    slices: tuple[Slice, ...]


@functools.cache
def _phantom() -> Any:
    return make_patient(1, slices=SLICES, rows=_ROWS, spacing_mm=_SPACING_MM).ncct_hu


def make_scan(folder: Path, seed: str) -> Scan:
    """A new series; the same seed gives the same UIDs and bytes. Its files stay in `folder`."""
    folder.mkdir(parents=True)
    paths = write_scan(_phantom(), _WRITTEN_MM, folder, ScanIdentity("TORT-1", "Torture^Person", seed))
    return read_scan(paths)


def read_scan(paths: list[Path]) -> Scan:
    """The files of one series as a scanner sends them."""
    slices = []
    for path in paths:
        head = read_file_meta_info(path)
        begin = 128 + 4 + 12 + int(head.FileMetaInformationGroupLength)
        slices.append(Slice(str(head.MediaStorageSOPInstanceUID), path.read_bytes()[begin:]))
    first = dcmread(paths[0], stop_before_pixels=True)
    return Scan(str(first.StudyInstanceUID), str(first.SeriesInstanceUID), tuple(slices))


class Scanner:
    """Sends one series in a thread of its own, again and again until every instance was answered with 0x0000.

    Each yes is written into the ledger. `acknowledged(count)` is an event that is set with the count-th yes.
    """

    def __init__(
        self, port: int, scan: Scan, ledger: Ledger, *, calling: str = "CTSIM", give_up_s: float = 120.0
    ) -> None:
        self.scan = scan
        self._port, self._ledger, self._calling, self._give_up_s = port, ledger, calling, give_up_s
        self._yes: set[str] = set()
        self.answers: list[tuple[float, int]] = []  # each with the seconds for which it was waited
        self._changed = threading.Condition()
        self._quit = threading.Event()
        self.finished_at: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"scanner-{calling}", daemon=True)
        ledger.expect(scan.series_uid, len(scan.slices))
        self._thread.start()

    def wait_for(self, count: int, timeout_s: float) -> bool:
        """Wait until so many instances were acknowledged."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._yes) >= count, timeout_s)

    def join(self, timeout_s: float) -> bool:
        """Wait until the scanner is done; whether every instance was taken."""
        self._thread.join(timeout_s)
        return len(self._yes) == len(self.scan.slices)

    def quit(self) -> None:
        """Send nothing any more."""
        self._quit.set()
        self._thread.join(20.0)

    def _run(self) -> None:
        deadline = time.monotonic() + self._give_up_s
        while time.monotonic() < deadline and not self._quit.is_set():
            try:
                if self._send():
                    break
            except (OSError, Rejected, ValueError):  # cut off, rejected, or an answer without a status
                pass
            self._quit.wait(_BETWEEN_TRIES_S)
        self.finished_at = time.monotonic()

    def _send(self) -> bool:
        """One association for what is missing; whether nothing is missing any more."""
        with RawPeer(self._port, calling=self._calling, timeout_s=30.0) as peer:
            for each in self.scan.slices:
                if each.uid in self._yes:
                    continue
                begun = time.monotonic()
                status = peer.store(each.uid.encode(), each.data)
                self.answers.append((time.monotonic() - begun, status))
                if status == 0x0000:
                    self._ledger.acknowledge(self.scan.series_uid, each.uid, each.data)
                    with self._changed:
                        self._yes.add(each.uid)
                        self._changed.notify_all()
            peer.connection.sendall(RELEASE)
            peer.connection.recv(16)
        return len(self._yes) == len(self.scan.slices)
