"""The Storage SCU of one destination: one association, one status for each instance; it remembers nothing."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from config.settings import DestinationSettings
from node.delivery.association import NoAssociation, Outcome, Timeouts, associate
from node.dicom.constants import CT_IMAGE_STORAGE
from node.dicom.status import Reading, Verdict, classify

_VERIFICATION = "1.2.840.10008.1.1"

_REACTIONS = {
    Verdict.TRANSIENT: Outcome.TRANSIENT,
    Verdict.UNCLEAR: Outcome.UNCLEAR,
    Verdict.PERMANENT: Outcome.PERMANENT,
}


@dataclass(frozen=True)
class SendReport:
    """What one association achieved. `accepted` are the SOP Instance UIDs that the peer answered as stored.

    `reason` is a sentence for an administrator; empty only where everything went without a remark.
    """

    outcome: Outcome
    reason: str
    accepted: tuple[str, ...]


@dataclass(frozen=True)
class EchoResult:
    """Whether a destination is there and would take CT images; `latency_s` is the C-ECHO's round trip, or 0."""

    ok: bool
    detail: str
    latency_s: float


def _nothing(_uid: str, _status: int) -> None:
    """Default of `on_accepted`."""


def _never() -> bool:
    """Default of `should_stop`."""
    return False


class StorageScu:
    """Sends CT instances to one destination under `calling_ae`."""

    def __init__(
        self,
        destination: DestinationSettings,
        calling_ae: str,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - immutable
    ) -> None:
        self._destination = destination
        self._calling_ae = calling_ae
        self._timeouts = timeouts

    def send(
        self,
        items: Iterable[tuple[str, Path]],
        on_accepted: Callable[[str, int], None] = _nothing,
        should_stop: Callable[[], bool] = _never,
    ) -> SendReport:
        """Send (SOP Instance UID, file) pairs in one association until all are stored, one is refused or told to stop.

        `on_accepted(sop_instance_uid, status)` is called after each instance that the peer says it stored; what it
        raises ends the association and is passed on. The first refusal ends the sending: the series cannot become
        whole in this association, and a peer in trouble is not sent more.
        """
        accepted: list[str] = []
        remarks: Counter[str] = Counter()
        try:
            with associate(self._destination, self._calling_ae, _ct_contexts(), self._timeouts) as link:
                for number, (uid, path) in enumerate(items):
                    if should_stop():
                        return SendReport(Outcome.STOPPED, "the courier was stopped", tuple(accepted))
                    status, reading = self._send_one(link, uid, path, message_id=number % 65535 + 1)
                    if not reading.stored:
                        reason = f"instance {uid}: {reading.sentence}"
                        return SendReport(_REACTIONS[reading.verdict], reason, tuple(accepted))
                    on_accepted(uid, status)
                    accepted.append(uid)
                    if reading.verdict is Verdict.STORED_WITH_WARNING:
                        remarks[reading.sentence] += 1
        except NoAssociation as failure:
            return SendReport(failure.outcome, failure.reason, tuple(accepted))
        reason = "; ".join(f"{count} instances: {sentence}" for sentence, count in remarks.items())
        return SendReport(Outcome.DONE, reason, tuple(accepted))

    def echo(self) -> EchoResult:
        """Associate, look which contexts are accepted, and send a C-ECHO; never raises."""
        contexts = [build_context(_VERIFICATION, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]), *_ct_contexts()]
        try:
            with associate(self._destination, self._calling_ae, contexts, self._timeouts) as link:
                accepted = {str(context.abstract_syntax) for context in link.accepted_contexts}
                if _VERIFICATION not in accepted:
                    return EchoResult(True, "accepts CT images, but no C-ECHO", 0.0)
                begun = time.perf_counter()
                answer = link.send_c_echo()
                latency_s = time.perf_counter() - begun
        except NoAssociation as failure:
            return EchoResult(False, failure.reason, 0.0)
        except (RuntimeError, ValueError):
            return EchoResult(False, "the peer broke the association off", 0.0)
        if answer.get("Status") != 0x0000:
            why = f"answered C-ECHO with status {answer.Status:04X}" if "Status" in answer else "did not answer C-ECHO"
            return EchoResult(False, why, latency_s)
        if CT_IMAGE_STORAGE not in accepted:
            return EchoResult(False, "answers C-ECHO, but accepts no CT images (CT Image Storage)", latency_s)
        return EchoResult(True, "answers C-ECHO and accepts CT images", latency_s)

    def _send_one(self, link: Association, uid: str, path: Path, *, message_id: int) -> tuple[int, Reading]:
        """Status and its meaning; raises NoAssociation where the peer gave none."""
        if not link.is_established:
            raise NoAssociation(Outcome.TRANSIENT, "the peer broke the association off")
        begun = time.monotonic()
        try:
            syntax = read_file_meta_info(path).TransferSyntaxUID
            as_written = any(context.transfer_syntax[0] == syntax for context in link.accepted_contexts)
            answer = link.send_c_store(path if as_written else dcmread(path), msg_id=message_id)
        except FileNotFoundError:
            raise NoAssociation(Outcome.PERMANENT, f"the file of instance {uid} is not in the spool") from None
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise NoAssociation(Outcome.TRANSIENT, f"the file of instance {uid} cannot be read: {why}") from None
        except RuntimeError:
            raise NoAssociation(Outcome.TRANSIENT, "the peer broke the association off") from None
        except (ValueError, AttributeError, InvalidDicomError):
            raise NoAssociation(
                Outcome.PERMANENT, f"instance {uid} cannot be sent in any transfer syntax that the peer accepts"
            ) from None
        if "Status" in answer:
            status = int(answer.Status)
            return status, classify(status)
        if time.monotonic() - begun >= self._timeouts.dimse_s:
            raise NoAssociation(Outcome.TRANSIENT, f"the peer did not answer within {self._timeouts.dimse_s:.0f} s")
        raise NoAssociation(Outcome.TRANSIENT, "the peer broke the association off in the middle of an instance")


def _ct_contexts() -> list[PresentationContext]:
    # One context for each syntax: the peer then accepts both, and the files go out as they were written.
    return [
        build_context(CT_IMAGE_STORAGE, [ExplicitVRLittleEndian]),
        build_context(CT_IMAGE_STORAGE, [ImplicitVRLittleEndian]),
    ]
