"""The data sets of the Storage Commitment Push Model (PS3.4 annex J): made, and read with bounds; it knows no store."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext

from config.syntax import UID_ALPHABET
from node.network.status import PROCESSING_FAILURE

PUSH_MODEL: Final = "1.2.840.10008.1.20.1"
PUSH_INSTANCE: Final = "1.2.840.10008.1.20.1.1"  # well-known, PS3.6 annex A
REQUEST: Final = 1  # Action Type ID, PS3.4 J.3.2
ALL_COMMITTED, SOME_FAILED = 1, 2  # Event Type ID, PS3.4 J.3.3
MAX_REFERENCES: Final = 20_000  # in one request or report
_MAX_US: Final = 0xFFFF  # of the VR US


class UnreadableReferences(ValueError):
    """A request or a report without what the standard demands; the text holds nothing of the peer's."""


@dataclass(frozen=True)
class Reference:
    """One instance that a request or a report names."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class EventReport:
    """What a peer reports: the SOP Instance UIDs committed to, and the failed ones with their Failure Reason."""

    transaction_uid: str
    committed: frozenset[str]
    failed: dict[str, int]


@contextmanager
def reading() -> Iterator[None]:
    """Raise UnreadableReferences for whatever pydicom stumbles over in a data set of a peer, which it decodes late."""
    try:
        yield
    except UnreadableReferences:
        raise
    except Exception as error:
        raise UnreadableReferences(f"it is malformed ({type(error).__name__})") from None


def commitment_context() -> PresentationContext:
    """The presentation context of the service, without roles."""
    return build_context(PUSH_MODEL, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])


def request_of(transaction_uid: str, sop_class_uid: str, sop_instance_uids: Iterable[str]) -> Dataset:
    """The Action Information that asks for commitment to these instances."""
    asked = Dataset()
    asked.TransactionUID = transaction_uid
    asked.ReferencedSOPSequence = [_item(Reference(sop_class_uid, uid)) for uid in sorted(sop_instance_uids)]
    return asked


def all_failed(transaction_uid: str, references: Iterable[Reference], reason: int) -> Dataset:
    """The Event Information that commits to nothing; reason: Failure Reason (0008,1197) of each instance."""
    told = Dataset()
    told.TransactionUID = transaction_uid
    told.FailedSOPSequence = [_item(reference) for reference in references]
    for item in told.FailedSOPSequence:
        item.FailureReason = reason
    return told


def read_request(asked: Dataset) -> tuple[str, list[Reference]]:
    """Transaction UID and instances of a request; raises UnreadableReferences."""
    with reading():
        references = [reference for reference, _ in _references(asked, "ReferencedSOPSequence")]
        if not references:
            raise UnreadableReferences("it names no instance")
        return _uid(asked, "TransactionUID"), references


def read_report(told: Dataset) -> EventReport:
    """What a report says; raises UnreadableReferences. An instance in both of its lists has failed."""
    with reading():
        committed = {reference.sop_instance_uid for reference, _ in _references(told, "ReferencedSOPSequence")}
        failed = {}
        for reference, item in _references(told, "FailedSOPSequence"):
            reason: Any = item.get("FailureReason")
            is_reason = isinstance(reason, int) and 0 <= reason <= _MAX_US
            failed[reference.sop_instance_uid] = reason if is_reason else PROCESSING_FAILURE
        return EventReport(_uid(told, "TransactionUID"), frozenset(committed - failed.keys()), failed)


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _references(found: Dataset, keyword: str) -> Iterator[tuple[Reference, Dataset]]:
    items: Any = found.get(keyword)
    if items is None:
        return
    if not isinstance(items, Sequence) or len(items) > MAX_REFERENCES:
        raise UnreadableReferences(f"{keyword} is no sequence of at most {MAX_REFERENCES} items")
    for item in items:
        yield Reference(_uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID")), item


def _uid(found: Dataset, keyword: str) -> str:
    text = str(found.get(keyword) or "").rstrip("\0 ")
    if not UID_ALPHABET.fullmatch(text):
        raise UnreadableReferences(f"{keyword} is missing or no UID")
    return text
