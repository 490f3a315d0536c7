"""The sender of one DICOMweb destination (STOW-RS, PS3.18 10.5); it does what `StorageScu` does."""

import io
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pydicom import dcmread

from config.destinations import DicomwebSettings
from node.dicom.constants import CT_IMAGE_STORAGE
from node.network.bounded_http import NoAnswer
from node.network.dicomweb import connect
from node.network.no_association import NoAssociation, Outcome
from node.network.qido import ask
from node.network.requestor import Timeouts
from node.network.status import Verdict
from node.network.store_answer import readings
from node.send.scu import REACTIONS, EchoResult, SendReport, intact_bytes, never, nothing

BATCH_BYTES: Final = 1_000_000
"""Files of one request, unless a single one is larger: nginx, which often stands before such a server, takes 1 MiB."""

_Batch = list[tuple[str, bytes]]


class StowSender:
    """Sends instances to one destination."""

    def __init__(self, destination: DicomwebSettings, timeouts: Timeouts) -> None:
        self._destination, self._timeouts = destination, timeouts

    def send(
        self,
        items: Iterable[tuple[str, Path]],
        on_accepted: Callable[[str, int], None] = nothing,
        should_stop: Callable[[], bool] = never,
        *,
        sha256: Mapping[str, str] | None = None,
        sop_class: str = CT_IMAGE_STORAGE,
    ) -> SendReport:
        """Send (SOP Instance UID, file) pairs, as `StorageScu.send` does, a few in each request.

        An instance is accepted where the answer to its request names it as stored. sop_class: HTTP agrees on none.
        """
        accepted: list[str] = []
        remarks: Counter[str] = Counter()
        reached: bool | None = None
        try:
            with connect(self._destination, self._timeouts) as service:
                for batch in _batches(items, sha256 or {}):
                    if should_stop():
                        return SendReport(Outcome.STOPPED, "the courier was stopped", tuple(accepted), reached)
                    answer = service.store([data for _, data in batch])
                    reached = True
                    said = readings(answer, [uid for uid, _ in batch])
                    for uid, (status, reading) in said.items():
                        if reading.stored:
                            on_accepted(uid, status)
                            accepted.append(uid)
                        if reading.verdict is Verdict.STORED_WITH_WARNING:
                            remarks[reading.sentence] += 1
                    for uid, (_, reading) in said.items():
                        if not reading.stored:
                            reason = f"instance {uid}: {reading.sentence}"
                            return SendReport(REACTIONS[reading.verdict], reason, tuple(accepted), reached)
        except NoAnswer as failure:
            is_there = bool(reached) or failure.reached
            return SendReport(failure.outcome, failure.reason, tuple(accepted), is_there, failure.wait_s)
        except NoAssociation as failure:  # a file of our own is no use
            return SendReport(failure.outcome, failure.reason, tuple(accepted), reached)
        reason = "; ".join(f"{count} instances: {sentence}" for sentence, count in remarks.items())
        return SendReport(Outcome.DONE, reason, tuple(accepted), reached)

    def echo(self) -> EchoResult:
        """Ask a question by QIDO-RS whose answer tells of no patient; never raises."""
        begun_s = time.perf_counter()
        try:
            ask(self._destination, self._timeouts)
        except NoAnswer as failure:
            return EchoResult(False, failure.reason, time.perf_counter() - begun_s if failure.reached else 0.0)
        return EchoResult(True, "answers a query by QIDO-RS", time.perf_counter() - begun_s)


def _batches(items: Iterable[tuple[str, Path]], sha256: Mapping[str, str]) -> Iterator[_Batch]:
    """The files, in order, as many together as fit into `BATCH_BYTES`; raises NoAssociation for one that is no use."""
    batch: _Batch = []
    size_bytes = 0
    for uid, path in items:
        data = intact_bytes(path, uid, sha256.get(uid, ""))
        _require_instance(data, uid)
        if batch and size_bytes + len(data) > BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
        batch.append((uid, data))
        size_bytes += len(data)
    if batch:
        yield batch


def _require_instance(data: bytes, uid: str) -> None:
    """Raise NoAssociation where a file holds another instance: the server's yes would be written down for this one."""
    try:
        head = dcmread(io.BytesIO(data), specific_tags=["SOPInstanceUID"], stop_before_pixels=True)
        held = {str(head.file_meta.MediaStorageSOPInstanceUID), str(head.SOPInstanceUID)}
    except Exception:  # pydicom raises whatever it stumbles over
        raise NoAssociation(Outcome.PERMANENT, f"the file of instance {uid} cannot be read") from None
    if held != {uid}:
        raise NoAssociation(Outcome.PERMANENT, f"the file of instance {uid} holds another instance")
