"""Asks a peer by C-FIND (Study Root) what it holds of a series; it knows no store and no policy."""

import logging
from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from node.dicom.quiet import quiet_pydicom
from node.dicom.same_person import COMPARED
from node.network.no_association import NoAssociation, Outcome, Peer
from node.network.requestor import Timeouts, associate
from node.network.status import SUCCESS

log = logging.getLogger(__name__)

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_PENDING = (0xFF00, 0xFF01)  # PS3.4 table C.4-1


def find_instances(
    peer: Peer,
    calling_ae: str,
    study_uid: str,
    series_uid: str,
    timeouts: Timeouts = Timeouts(),  # noqa: B008
) -> frozenset[str]:
    """SOP Instance UIDs that the peer lists for a series. Raises NoAssociation where it does not answer."""
    with associate(peer, calling_ae, [find_context()], timeouts) as association:
        return _instances(association, study_uid, series_uid)


def count_instances(peer: Peer, calling_ae: str, study_uid: str, series_uid: str, timeouts: Timeouts) -> int:
    """How many instances of a series the peer counts; 0 where it does not know it.

    Number of Series Related Instances (0020,1209) is an optional key: a peer that leaves it out is asked for a list.
    Raises NoAssociation where it does not answer.
    """
    with associate(peer, calling_ae, [find_context()], timeouts) as association:
        query = _series_query("SERIES", study_uid, series_uid)
        query.NumberOfSeriesRelatedInstances = None
        counts = [_count(found) for found in _find(association, query, series_uid)]
        known = [count for count in counts if count is not None]
        if known or not counts:
            return max(known, default=0)
        return len(_instances(association, study_uid, series_uid))


def find_patients(
    peer: Peer,
    calling_ae: str,
    patient_id: str,
    timeouts: Timeouts = Timeouts(),  # noqa: B008
) -> list[dict[str, str]]:
    """What the peer has of the patient in each of the studies that it lists for a PatientID: values by keyword.

    The keywords are COMPARED. patient_id: one value that is not empty. Answers about another PatientID are left out;
    one that names none counts, and a value that cannot be read is "?". Raises NoAssociation where the peer does not
    answer.
    """
    query = Dataset()
    if not patient_id.isascii():
        query.SpecificCharacterSet = "ISO_IR 192"
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", ""
    for keyword in COMPARED:
        setattr(query, keyword, "")
    with quiet_pydicom():  # it would tell the log of an ID that is too long
        query.PatientID = patient_id
    with associate(peer, calling_ae, [find_context()], timeouts) as association:
        return [
            {keyword: _text(found, keyword, unreadable="?") for keyword in COMPARED}
            for found in _answers(association, query)
            if _text(found, "PatientID") in ("", patient_id)
        ]


def takes_questions(peer: Peer, calling_ae: str, timeouts: Timeouts) -> None:
    """Raise NoAssociation unless the peer accepts an association for C-FIND; nothing is asked."""
    with associate(peer, calling_ae, [find_context()], timeouts):
        return


def find_context() -> PresentationContext:
    return build_context(STUDY_ROOT_FIND, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])


def _instances(association: Association, study_uid: str, series_uid: str) -> frozenset[str]:
    query = _series_query("IMAGE", study_uid, series_uid)
    query.SOPInstanceUID = ""
    return frozenset(_text(found, "SOPInstanceUID") for found in _find(association, query, series_uid))


def _series_query(level: str, study_uid: str, series_uid: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    query.StudyInstanceUID, query.SeriesInstanceUID = study_uid, series_uid
    return query


def _find(association: Association, query: Dataset, series_uid: str) -> Iterator[Dataset]:
    """The answers that belong to the series; a peer may ignore a key and list others too."""
    for identifier in _answers(association, query):
        if _text(identifier, "SeriesInstanceUID") in ("", series_uid):
            yield identifier


def _answers(association: Association, query: Dataset) -> Iterator[Dataset]:
    for answer, identifier in association.send_c_find(query, STUDY_ROOT_FIND):
        if answer.Status in _PENDING:
            if identifier is not None:
                yield identifier
        elif answer.Status != SUCCESS:
            raise NoAssociation(Outcome.TRANSIENT, f"the peer refused the query with status {answer.Status:04X}")


def _count(found: Dataset) -> int | None:
    text = _text(found, "NumberOfSeriesRelatedInstances")
    return int(text) if text.isdecimal() and len(text) < 7 else None


def _text(found: Dataset, keyword: str, *, unreadable: str = "") -> str:
    """A value of an answer; "" where it is missing, `unreadable` where it cannot be read."""
    try:
        value = found.get(keyword)
        return "" if value is None else str(value).strip()
    except Exception:  # pydicom raises whatever it stumbles over
        log.warning("an answer to a query cannot be read", extra={"event": "query_answer_unreadable"})
        return unreadable
