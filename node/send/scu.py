"""The Storage SCU of one destination: one association, one status for each instance; it remembers nothing."""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from config.settings import DestinationSettings
from node.dicom.constants import CT_IMAGE_STORAGE
from node.network.contexts import VERIFICATION
from node.network.no_association import NoAssociation, Outcome
from node.network.requestor import Timeouts, associate
from node.network.status import SUCCESS, Reading, Verdict, classify

REACTIONS = {  # to what a peer says of an instance that it did not store
    Verdict.TRANSIENT: Outcome.TRANSIENT,
    Verdict.UNCLEAR: Outcome.UNCLEAR,
    Verdict.PERMANENT: Outcome.PERMANENT,
}


@dataclass(frozen=True)
class SendReport:
    """What one association achieved. `accepted` are the SOP Instance UIDs that the peer answered as stored.

    `reason` is a sentence for an administrator; empty only where everything went without a remark. `reached` is whether
    the peer answered; None where it was not asked. `wait_s`: how long the peer asks to be left alone, 0 where it
    does not say.
    """

    outcome: Outcome
    reason: str
    accepted: tuple[str, ...]
    reached: bool | None = None
    wait_s: float = 0.0


@dataclass(frozen=True)
class EchoResult:
    """Whether a destination is there and would take CT images; `latency_s` is the C-ECHO's round trip, or 0.

    transfer_syntaxes: the names of those in which it takes CT images.
    """

    ok: bool
    detail: str
    latency_s: float
    transfer_syntaxes: tuple[str, ...] = ()


def nothing(_uid: str, _status: int) -> None:
    """Default of `on_accepted`."""


def never() -> bool:
    """Default of `should_stop`."""
    return False


class StorageScu:
    """Sends instances to one destination under `calling_ae`."""

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
        on_accepted: Callable[[str, int], None] = nothing,
        should_stop: Callable[[], bool] = never,
        *,
        sha256: Mapping[str, str] | None = None,
        sop_class: str = CT_IMAGE_STORAGE,
    ) -> SendReport:
        """Send (SOP Instance UID, file) pairs in one association until all are stored, one is refused or told to stop.

        sop_class: of all of them; no other is offered. sha256: hex, of the files as they were produced, by SOP Instance
        UID; one with other bytes is not sent.

        `on_accepted(sop_instance_uid, status)` is called after each instance that the peer says it stored; what it
        raises ends the association and is passed on. The first refusal ends the sending: the series cannot become
        whole in this association, and a peer in trouble is not sent more.
        """
        accepted: list[str] = []
        remarks: Counter[str] = Counter()
        reached = False
        try:
            with associate(self._destination, self._calling_ae, contexts_for(sop_class), self._timeouts) as association:
                reached = True
                for number, (uid, path) in enumerate(items):
                    if should_stop():
                        return SendReport(Outcome.STOPPED, "the courier was stopped", tuple(accepted), reached)
                    digest, message_id = (sha256 or {}).get(uid, ""), number % 65535 + 1
                    status, reading = store_one(association, uid, path, digest, message_id=message_id)
                    if not reading.stored:
                        reason = f"instance {uid}: {reading.sentence}"
                        return SendReport(REACTIONS[reading.verdict], reason, tuple(accepted), reached)
                    on_accepted(uid, status)
                    accepted.append(uid)
                    if reading.verdict is Verdict.STORED_WITH_WARNING:
                        remarks[reading.sentence] += 1
        except NoAssociation as failure:
            return SendReport(failure.outcome, failure.reason, tuple(accepted), reached)
        reason = "; ".join(f"{count} instances: {sentence}" for sentence, count in remarks.items())
        return SendReport(Outcome.DONE, reason, tuple(accepted), reached)

    def echo(self) -> EchoResult:
        """Associate, look which contexts are accepted, and send a C-ECHO; never raises."""
        try:
            with associate(self._destination, self._calling_ae, echo_contexts(), self._timeouts) as association:
                accepted = {context.abstract_syntax for context in association.accepted_contexts}
                syntaxes = _syntaxes_for_ct(association.accepted_contexts)
                if VERIFICATION not in accepted:
                    return EchoResult(True, "accepts CT images, but no C-ECHO", 0.0, syntaxes)
                begun = time.perf_counter()
                status: int = association.send_c_echo().Status
                latency_s = time.perf_counter() - begun
        except NoAssociation as failure:
            return EchoResult(False, failure.reason, 0.0)
        if status != SUCCESS:
            return EchoResult(False, f"answered C-ECHO with status {status:04X}", latency_s)
        if CT_IMAGE_STORAGE not in accepted:
            return EchoResult(False, "answers C-ECHO, but accepts no CT images (CT Image Storage)", latency_s)
        return EchoResult(True, "answers C-ECHO and accepts CT images", latency_s, syntaxes)


def _syntaxes_for_ct(contexts: Sequence[PresentationContext]) -> tuple[str, ...]:
    """The names of the transfer syntaxes that were accepted for CT images."""
    found = (context.transfer_syntax[0] for context in contexts if context.abstract_syntax == CT_IMAGE_STORAGE)
    return tuple(sorted(syntax.name for syntax in found))


def store_one(
    association: Association,
    uid: str,
    path: Path,
    sha256: str,
    *,
    message_id: int,
    originator: tuple[str, int] | None = None,
) -> tuple[int, Reading]:
    """Send a file by C-STORE and return the status and its meaning.

    sha256: hex, of the file as it was produced, "" to compare nothing. originator: AE title and Message ID of the
    C-MOVE request for which it is sent. Raises NoAssociation where the file is no use or the association ended.
    """
    title, asked_id = originator or (None, None)
    with intact(path, uid, sha256) as file:
        try:
            instance = _instance(file, uid, association.accepted_contexts)
            answer = association.send_c_store(instance, msg_id=message_id, originator_aet=title, originator_id=asked_id)
            status: int = answer.Status
        except OSError as error:
            raise _unreadable(uid, error) from None
        except (ValueError, AttributeError, InvalidDicomError):
            raise NoAssociation(
                Outcome.PERMANENT, f"instance {uid} cannot be sent in any transfer syntax that the peer accepts"
            ) from None
    return status, classify(status)


def _unreadable(uid: str, error: OSError) -> NoAssociation:
    why = error.strerror or type(error).__name__
    return NoAssociation(Outcome.TRANSIENT, f"the file of instance {uid} cannot be read: {why}")


@contextmanager
def intact(path: Path, uid: str, sha256: str) -> Iterator[Path]:
    """A copy of the file in memory, as a path, after its bytes were compared: the peer gets these and no others.

    Raises NoAssociation where they are not those that were produced.
    """
    data = intact_bytes(path, uid, sha256)
    with os.fdopen(os.memfd_create("instance"), "wb") as memory:
        memory.write(data)
        memory.flush()
        yield Path(f"/proc/self/fd/{memory.fileno()}")


def intact_bytes(path: Path, uid: str, sha256: str) -> bytes:
    """The bytes of the file of an instance; raises NoAssociation where they are not those that were produced.

    sha256: hex, "" to compare nothing.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise FileNotFoundError
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NoAssociation(Outcome.DAMAGED, f"the file of instance {uid} is not in the spool") from None
    except OSError as error:
        raise _unreadable(uid, error) from None
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise NoAssociation(Outcome.DAMAGED, f"the file of instance {uid} has other bytes than were produced")
    return data


def _instance(path: Path, uid: str, contexts: Sequence[PresentationContext]) -> Path | Dataset:
    """The file, which goes out as it was written, where the peer takes its syntax; else what is encoded anew.

    Raises NoAssociation where the file holds another instance: the peer's yes would be written down for this one; and
    ValueError, AttributeError or InvalidDicomError where the bytes are no use.
    """
    meta = read_file_meta_info(path)
    if meta.MediaStorageSOPInstanceUID != uid:
        raise NoAssociation(Outcome.PERMANENT, f"the file of instance {uid} holds another instance")
    syntax, sop_class = meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID
    accepted = [context.transfer_syntax[0] for context in contexts if context.abstract_syntax == sop_class]
    if syntax in accepted:
        return path
    if not accepted or syntax.is_compressed:
        raise ValueError("no context of the peer fits")
    dataset = dcmread(path)
    if dataset.SOPInstanceUID != uid:
        raise NoAssociation(Outcome.PERMANENT, f"the file of instance {uid} holds another instance")
    return dataset


def echo_contexts() -> list[PresentationContext]:
    """What is proposed with a C-ECHO: the images, too, so that the answer says whether they would be taken."""
    return [build_context(VERIFICATION, [ExplicitVRLittleEndian, ImplicitVRLittleEndian]), *contexts_for()]


def contexts_for(sop_class: str = CT_IMAGE_STORAGE) -> list[PresentationContext]:
    """What a requestor proposes to store instances of a class as they were written."""
    # One context for each syntax: the peer then accepts both, and the files go out as they were written.
    return [
        build_context(sop_class, [ExplicitVRLittleEndian]),
        build_context(sop_class, [ImplicitVRLittleEndian]),
    ]
