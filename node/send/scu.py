"""The Storage SCU of one destination: one association, one status for each instance; it remembers nothing."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.dsutils import encode
from pynetdicom.presentation import PresentationContext

from config.settings import DestinationSettings
from node.dicom.constants import CT_IMAGE_STORAGE
from node.network.status import SUCCESS, Reading, Verdict, classify
from node.send.association import NoAssociation, Outcome, Timeouts, associate
from node.send.command import Request, Service
from node.send.link import Context, Link

_VERIFICATION = "1.2.840.10008.1.1"
_HEAD_BYTES = 144  # preamble, prefix, and the group length of the file meta information (PS3.10 section 7.1)

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
                    status, reading = _send_one(link, uid, path, message_id=number % 65535 + 1)
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
                accepted = {context.abstract_syntax: context for context in link.contexts}
                if _VERIFICATION not in accepted:
                    return EchoResult(True, "accepts CT images, but no C-ECHO", 0.0)
                begun = time.perf_counter()
                status = link.ask(accepted[_VERIFICATION], Request(Service.ECHO, _VERIFICATION)).status
                latency_s = time.perf_counter() - begun
        except NoAssociation as failure:
            return EchoResult(False, failure.reason, 0.0)
        if status != SUCCESS:
            return EchoResult(False, f"answered C-ECHO with status {status:04X}", latency_s)
        if CT_IMAGE_STORAGE not in accepted:
            return EchoResult(False, "answers C-ECHO, but accepts no CT images (CT Image Storage)", latency_s)
        return EchoResult(True, "answers C-ECHO and accepts CT images", latency_s)


@dataclass(frozen=True)
class _Instance:
    """An instance in the transfer syntax of the context in which it is going to be sent."""

    context: Context
    sop_class_uid: str
    data: bytes | memoryview


def _send_one(link: Link, uid: str, path: Path, *, message_id: int) -> tuple[int, Reading]:
    """Status and its meaning; raises NoAssociation where the file is no use, and Broken."""
    try:
        instance = _read(path, uid, link.contexts)
    except FileNotFoundError:
        raise NoAssociation(Outcome.PERMANENT, f"the file of instance {uid} is not in the spool") from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise NoAssociation(Outcome.TRANSIENT, f"the file of instance {uid} cannot be read: {why}") from None
    except (ValueError, AttributeError, InvalidDicomError):
        raise NoAssociation(
            Outcome.PERMANENT, f"instance {uid} cannot be sent in any transfer syntax that the peer accepts"
        ) from None
    request = Request(Service.STORE, instance.sop_class_uid, uid, message_id)
    status = link.ask(instance.context, request, instance.data).status
    return status, classify(status)


def _read(path: Path, uid: str, contexts: Sequence[Context]) -> _Instance:
    """The bytes as they were written where the peer takes them so, else encoded anew.

    Raises NoAssociation where the file holds another instance: the peer's yes would be written down for this one; and
    ValueError, AttributeError or InvalidDicomError where the bytes are no use.
    """
    meta = read_file_meta_info(path)
    if meta.MediaStorageSOPInstanceUID != uid:
        raise NoAssociation(Outcome.PERMANENT, f"the file of instance {uid} holds another instance")
    syntax, sop_class = meta.TransferSyntaxUID, str(meta.MediaStorageSOPClassUID)
    fitting = [context for context in contexts if context.abstract_syntax == sop_class]
    for context in fitting:
        if context.transfer_syntax == syntax:
            begin = _HEAD_BYTES + meta.FileMetaInformationGroupLength
            return _Instance(context, sop_class, memoryview(path.read_bytes())[begin:])
    if not fitting or syntax.is_compressed:
        raise ValueError("no context of the peer fits")
    data = encode(dcmread(path), fitting[0].transfer_syntax.is_implicit_VR, is_little_endian=True)
    if data is None:
        raise ValueError("the instance cannot be encoded")
    return _Instance(fitting[0], sop_class, data)


def _ct_contexts() -> list[PresentationContext]:
    # One context for each syntax: the peer then accepts both, and the files go out as they were written.
    return [
        build_context(CT_IMAGE_STORAGE, [ExplicitVRLittleEndian]),
        build_context(CT_IMAGE_STORAGE, [ImplicitVRLittleEndian]),
    ]
