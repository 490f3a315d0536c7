"""The data sets of the Modality Performed Procedure Step (PS3.4 annex F), read with bounds; it knows no store.

Read is what a receiver of images can use: the status, the study, and which images the step lists. The other attributes
that PS3.4 table F.7.2-1 demands are left to the scanner and its RIS: many a scanner leaves some of them out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext

from config.syntax import (
    COMPLETED,
    DISCONTINUED,
    FOREIGN_UID,
    IN_PROGRESS,
    UID_ALPHABET,
    WRONG_WORKLIST_ENTRY,
)
from node.dicom.constants import STORED_CLASSES
from node.network import status

MPPS: Final = "1.2.840.10008.3.1.2.3.3"
MAY_NOT_BE_UPDATED: Final = 0xA710  # Error ID beside status 0110, PS3.4 table F.7.2-2
MAX_SERIES: Final = 500  # in one step
MAX_REFERENCES: Final = 20_000  # in one step
_REFERENCES: Final = ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")


class UnreadableStep(ValueError):
    """A request without what is needed here; `code` is the status for it. The text holds nothing of the peer's."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True)
class StepData:
    """What a request says of a step. series: UIDs of the images that are kept here, by series; None where it is silent.

    state, study_uid, discontinued_for: "" where it is silent; `discontinued_for` is WRONG_WORKLIST_ENTRY or "".
    """

    state: str
    study_uid: str
    series: dict[str, tuple[str, ...]] | None
    discontinued_for: str = ""


@contextmanager
def reading() -> Iterator[None]:
    """Raise UnreadableStep for whatever pydicom stumbles over in a data set of a peer, which it decodes late."""
    try:
        yield
    except UnreadableStep:
        raise
    except Exception as error:
        raise UnreadableStep(status.PROCESSING_FAILURE, f"it is malformed ({type(error).__name__})") from None


def step_context() -> PresentationContext:
    """The presentation context of the service."""
    return build_context(MPPS, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])


def read_created(told: Dataset) -> StepData:
    """The Attribute List of an N-CREATE; raises UnreadableStep."""
    with reading():
        if "PerformedProcedureStepStatus" not in told:
            raise UnreadableStep(status.MISSING_ATTRIBUTE, "Performed Procedure Step Status is missing")
        state = _state(told)
        if not state:
            raise UnreadableStep(status.MISSING_VALUE, "Performed Procedure Step Status has no value")
        if state != IN_PROGRESS:
            raise UnreadableStep(status.INVALID_VALUE, "a step begins IN PROGRESS")
        return StepData(state, _study_uid(told), _series(told))


def read_changes(told: Dataset) -> StepData:
    """The Modification List of an N-SET; raises UnreadableStep."""
    with reading():
        state = _state(told)
        reason = _discontinued_for(told) if state == DISCONTINUED else ""
        return StepData(state, "", _series(told), reason)


def _state(told: Dataset) -> str:
    state = str(told.get("PerformedProcedureStepStatus") or "").strip()
    if state not in ("", IN_PROGRESS, COMPLETED, DISCONTINUED):
        raise UnreadableStep(status.INVALID_VALUE, "Performed Procedure Step Status has a value that is not defined")
    return state


def _study_uid(told: Dataset) -> str:
    """The study of the first scheduled step; all of them have one where they were grouped (IHE, group case)."""
    for item in _items(told, "ScheduledStepAttributesSequence"):
        uid = _text(item, "StudyInstanceUID")
        if uid and not FOREIGN_UID.fullmatch(uid):
            raise UnreadableStep(status.INVALID_VALUE, "Study Instance UID is no UID")
        return uid
    return ""


def _series(told: Dataset) -> dict[str, tuple[str, ...]] | None:
    """The images by series; one series may stand in several items."""
    if "PerformedSeriesSequence" not in told:
        return None
    items = _items(told, "PerformedSeriesSequence")
    if len(items) > MAX_SERIES:
        raise UnreadableStep(status.RESOURCE_LIMITATION, f"a step lists at most {MAX_SERIES} series here")
    found: dict[str, dict[str, None]] = {}
    left = MAX_REFERENCES
    for item in items:
        series_uid = _text(item, "SeriesInstanceUID")
        if not FOREIGN_UID.fullmatch(series_uid):
            raise UnreadableStep(status.INVALID_VALUE, "Series Instance UID is missing or no UID")
        images = found.setdefault(series_uid, {})
        for reference in _references(item):
            left -= 1
            if left < 0:
                raise UnreadableStep(status.RESOURCE_LIMITATION, f"a step lists at most {MAX_REFERENCES} instances")
            images.update(_kept(reference))
    return {series_uid: tuple(images) for series_uid, images in found.items()}


def _references(item: Dataset) -> Iterator[Dataset]:
    for keyword in _REFERENCES:
        yield from _items(item, keyword)


def _kept(reference: Dataset) -> dict[str, None]:
    """The instance that is referenced, if it is of a class that the receiver keeps; without a class it counts."""
    uid, sop_class = _text(reference, "ReferencedSOPInstanceUID"), _text(reference, "ReferencedSOPClassUID")
    if not UID_ALPHABET.fullmatch(uid):
        raise UnreadableStep(status.INVALID_VALUE, "Referenced SOP Instance UID is missing or no UID")
    return {uid: None} if not sop_class or sop_class in STORED_CLASSES else {}


def _discontinued_for(told: Dataset) -> str:
    codes = {
        _text(item, "CodeValue")
        for item in _items(told, "PerformedProcedureStepDiscontinuationReasonCodeSequence")
        if _text(item, "CodingSchemeDesignator") == "DCM"
    }
    return WRONG_WORKLIST_ENTRY if WRONG_WORKLIST_ENTRY in codes else ""


def _items(found: Dataset, keyword: str) -> Sequence | tuple[()]:
    items: Any = found.get(keyword)
    if items is None:
        return ()
    if not isinstance(items, Sequence):
        raise UnreadableStep(status.INVALID_VALUE, f"{keyword} is no sequence")
    return items


def _text(found: Dataset, keyword: str) -> str:
    return str(found.get(keyword) or "").rstrip("\0 ")
