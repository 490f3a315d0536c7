"""What the derived series on disk say of themselves: the first header of each, read once, and all headers of a few.

Nothing of it is written anywhere: it lives as long as the process.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final

from pydicom import dcmread
from pydicom.dataset import Dataset

from node.network.no_association import NoAssociation
from node.query.keys import IMAGE, PATIENT, SERIES, STUDY, UNIQUE, Asked, known_keys
from node.query.matching import values_of
from node.send.scu import intact
from storage.errors import ObjectsUnavailable
from storage.offered import OfferedInstance, OfferedSeries, OfferedStore
from storage.spool import Spool

log = logging.getLogger(__name__)

MAX_SERIES: Final = 5000  # of which the first header is kept, some 20 kB each
MAX_WHOLE_SERIES: Final = 8  # of which all headers are kept
_KEPT: Final = ("SpecificCharacterSet", *known_keys(IMAGE))

Key = tuple[int, Any]
Look = Callable[[], None]
"""Called before each step; it raises where the query is to end."""


class _Cache:
    """The newest so many entries; threads of several associations share it."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, threading.Lock()
        self._kept: OrderedDict[Key, list[Dataset]] = OrderedDict()

    def get(self, key: Key) -> list[Dataset] | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Key, value: list[Dataset]) -> None:
        with self._lock:
            self._kept[key] = value
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)


class Index:
    """Finds what a checked query may match; what does match, the query itself decides."""

    def __init__(self, offered: OfferedStore, spool: Spool) -> None:
        self._offered, self._spool = offered, spool
        self._first, self._whole = _Cache(MAX_SERIES), _Cache(MAX_WHOLE_SERIES)

    def candidates(self, asked: Asked, look: Look) -> Iterator[Dataset]:
        """One object for each patient, study, series or image that the unique keys leave, the newest series first."""
        series_uids = asked.uids(SERIES) if asked.level in (SERIES, IMAGE) else []
        found = self._series(asked, series_uids, look)
        if asked.level == IMAGE:
            for one, _ in found:
                yield from self._images(one, look)
        elif asked.level == SERIES:
            for one, header in found:
                header.NumberOfSeriesRelatedInstances = one.count
                yield header
        else:
            yield from _grouped(asked.level, list(found))

    def instances(self, asked: Asked, look: Look) -> list[tuple[int, OfferedInstance]]:
        """The instances that a retrieval names, each with the job of its series."""
        wanted = set(asked.uids(IMAGE)) if asked.level == IMAGE else None
        series_uids = asked.uids(SERIES) if asked.level in (SERIES, IMAGE) else []
        if asked.uids(PATIENT):
            jobs = [one.job_id for one, _ in self._series(asked, series_uids, look)]
        else:
            jobs = [one.job_id for one in self._offered.series(asked.uids(STUDY), series_uids)]
        return [
            (job_id, instance)
            for job_id in jobs
            for instance in self._offered.instances(job_id)
            if wanted is None or instance.sop_instance_uid in wanted
        ]

    def _series(self, asked: Asked, series_uids: list[str], look: Look) -> Iterator[tuple[OfferedSeries, Dataset]]:
        """The series that the unique keys leave, with a copy of what their first images say."""
        patient = asked.uids(PATIENT)
        is_one = len(patient) == 1 and not set("*?") & set(patient[0])
        for one in self._offered.series(asked.uids(STUDY), series_uids):
            look()
            header = self._header(one)
            if header is None or (is_one and _patient_of(header) != patient):
                continue
            yield one, _copy(header)

    def _header(self, series: OfferedSeries) -> Dataset | None:
        key = series.job_id, series.made_at
        kept = self._first.get(key)
        if kept is None:
            read = (self._read(one) for one in self._offered.instances(series.job_id)[:1])
            kept = [one for one in read if one is not None]
            if kept:
                self._first.put(key, kept)
        return kept[0] if kept else None

    def _images(self, series: OfferedSeries, look: Look) -> Iterator[Dataset]:
        key = series.job_id, series.made_at
        kept = self._whole.get(key)
        if kept is None:
            kept = []
            for one in self._offered.instances(series.job_id):
                look()
                header = self._read(one)
                if header is not None:
                    kept.append(header)
            if len(kept) == series.count:
                self._whole.put(key, kept)
        yield from map(_copy, kept)

    def _read(self, instance: OfferedInstance) -> Dataset | None:
        """What the index keeps of a header; None for a file that is not as it was produced, which is not offered."""
        uid = instance.sop_instance_uid
        try:
            self._spool.fetch([(instance.file_name, instance.sha256, None)])
            with intact(self._spool.path(instance.file_name), uid, instance.sha256) as file:
                header = dcmread(file, stop_before_pixels=True)
        except (NoAssociation, ObjectsUnavailable) as failure:
            log.warning(
                "a derived instance is left out of an answer: %s",
                failure,
                extra={"event": "query_file_damaged", "sop_instance_uid": uid},
            )
            return None
        kept = Dataset()
        for keyword in _KEPT:
            if keyword in header:
                kept[keyword] = header[keyword]
        return kept


def _grouped(level: str, found: list[tuple[OfferedSeries, Dataset]]) -> Iterator[Dataset]:
    """One object for each patient or study, of its newest series, with what is counted over all of them."""
    groups: dict[str, list[tuple[OfferedSeries, Dataset]]] = {}
    for one, header in found:
        groups.setdefault(str(header.get(UNIQUE[level], "")), []).append((one, header))
    for members in groups.values():
        answer, instances = members[0][1], sum(one.count for one, _ in members)
        if level == STUDY:
            answer.NumberOfStudyRelatedSeries, answer.NumberOfStudyRelatedInstances = len(members), instances
            answer.ModalitiesInStudy = sorted({str(header.get("Modality", "")) for _, header in members})
            answer.SOPClassesInStudy = sorted({str(header.get("SOPClassUID", "")) for _, header in members})
        else:
            answer.NumberOfPatientRelatedStudies = len({one.study_uid for one, _ in members})
            answer.NumberOfPatientRelatedSeries, answer.NumberOfPatientRelatedInstances = len(members), instances
        yield answer


def _patient_of(header: Dataset) -> list[str]:
    return values_of(header["PatientID"]) if "PatientID" in header else []


def _copy(header: Dataset) -> Dataset:
    """An object of its own with the same elements, which nobody changes."""
    copy = Dataset()
    copy.update(header)
    return copy
