"""Asks a DICOMweb server by QIDO-RS (PS3.18 10.6) what it holds of a series or a patient; `query.py` asks by C-FIND."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from pydicom.datadict import tag_for_keyword

from config.destinations import DicomwebSettings
from node.dicom.constants import IMPLEMENTATION_CLASS_UID
from node.dicom.same_person import COMPARED
from node.network.bounded_http import NoAnswer
from node.network.dicomweb import connect
from node.network.no_association import Outcome
from node.network.requestor import Timeouts

_PAGE: Final = 100  # answers that are asked for at once; a server may give fewer
_MAX_PAGES: Final = 200
_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")  # of a name, PS3.18 F.2.2


def find_instances(server: DicomwebSettings, study_uid: str, series_uid: str, timeouts: Timeouts) -> frozenset[str]:
    """SOP Instance UIDs that the server lists for a series. Raises NoAnswer."""
    with connect(server, timeouts) as service:
        pages = _pages(
            server, timeouts.answers_s, lambda offset: service.search_instances(study_uid, series_uid, _PAGE, offset)
        )
        return frozenset(
            _text(found, "SOPInstanceUID") for found in pages if _text(found, "SeriesInstanceUID") in ("", series_uid)
        )


def find_patients(server: DicomwebSettings, patient_id: str, timeouts: Timeouts) -> list[dict[str, str]]:
    """What the server has of the patient in each of the studies that it lists for a PatientID: values by keyword.

    The keywords are COMPARED. patient_id: one value that is not empty. Answers about another PatientID are left out;
    one that names none counts. Raises NoAnswer.
    """
    with connect(server, timeouts) as service:
        return [
            {keyword: _text(found, keyword) for keyword in COMPARED}
            for found in _pages(
                server,
                timeouts.answers_s,
                lambda offset: service.search_studies({"PatientID": patient_id}, _PAGE, offset),
            )
            if _text(found, "PatientID") in ("", patient_id)
        ]


def ask(server: DicomwebSettings, timeouts: Timeouts) -> None:
    """Ask for a study that nobody has, so that no patient is told of. Raises NoAnswer."""
    with connect(server, timeouts) as service:
        service.search_studies({"StudyInstanceUID": IMPLEMENTATION_CLASS_UID}, 1, 0)


def _pages(
    server: DicomwebSettings, answers_s: float, page: Callable[[int], list[dict[str, Any]]]
) -> Iterator[Mapping[str, Any]]:
    """The answers of all pages, each once: a server may ignore the offset, or give fewer than it was asked for."""
    seen: set[str] = set()
    offset, deadline_s = 0, time.monotonic() + answers_s
    for _ in range(_MAX_PAGES):
        found = page(offset)
        fresh = {key: one for one in found if (key := repr(one)) not in seen}
        if not fresh:
            return
        yield from fresh.values()
        seen.update(fresh)
        offset += len(found)
        if time.monotonic() > deadline_s:
            break
    raise NoAnswer(Outcome.TRANSIENT, f"{server.url} comes to no end of its answers to a query", reached=True)


def _text(found: Mapping[str, Any], keyword: str) -> str:
    """A value as PS3.18 F.2 writes it; "" where it is missing, "?" where it cannot be read."""
    try:
        values = found.get(f"{tag_for_keyword(keyword):08X}", {}).get("Value") or []
        return "\\".join(_one(value) for value in values).strip()
    except (AttributeError, TypeError):
        return "?"


def _one(value: Any) -> str:
    if isinstance(value, dict):
        return "=".join(str(value.get(group, "")) for group in _GROUPS).rstrip("=")
    return "" if value is None else str(value)
