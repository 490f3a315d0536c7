"""What a query may ask for at each level (PS3.4 C.6.1.1 and C.6.2.1), and what is wrong with one."""

from dataclasses import dataclass
from typing import Final

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from node.query.matching import values_of

PATIENT, STUDY, SERIES, IMAGE = "PATIENT", "STUDY", "SERIES", "IMAGE"
LEVELS: Final = (PATIENT, STUDY, SERIES, IMAGE)
UNIQUE: Final = {
    PATIENT: "PatientID",
    STUDY: "StudyInstanceUID",
    SERIES: "SeriesInstanceUID",
    IMAGE: "SOPInstanceUID",
}
# Of an object's own header: unique and required keys, and the optional ones that this node answers.
KEYS: Final = {
    PATIENT: ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    STUDY: (
        *("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"),
        *("StudyDescription", "ReferringPhysicianName", "PatientAge"),
    ),
    SERIES: (
        *("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime"),
        *("BodyPartExamined", "ProtocolName", "PatientPosition", "FrameOfReferenceUID", "Manufacturer", "StationName"),
    ),
    IMAGE: (
        *("SOPInstanceUID", "SOPClassUID", "InstanceNumber", "ContentDate", "ContentTime", "ImageType"),
        *("AcquisitionNumber", "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation", "Rows", "Columns"),
    ),
}
# Counted over what this node offers; they belong to one level, and are answered there (PS3.4 C.3.4).
COUNTED: Final = {
    PATIENT: ("NumberOfPatientRelatedStudies", "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances"),
    STUDY: (
        *("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
        *("ModalitiesInStudy", "SOPClassesInStudy"),
    ),
    SERIES: ("NumberOfSeriesRelatedInstances",),
    IMAGE: (),
}
_WILD: Final = frozenset("*?\\")


class BadQuery(ValueError):
    """An identifier that does not match its SOP class (0xA900); the text is a sentence without a value of it."""


@dataclass(frozen=True)
class Asked:
    """A checked identifier: its level, and the keys of this and the upper levels that it names."""

    level: str
    keys: tuple[DataElement, ...]

    def uids(self, level: str) -> list[str]:
        """The values of a level's unique key; empty where the query leaves it open."""
        return next((values_of(key) for key in self.keys if key.keyword == UNIQUE[level]), [])


def levels_of(level: str, *, patient_root: bool) -> tuple[str, ...]:
    """The level and those above it. A study of the Study Root has the attributes of its patient, and no level above."""
    last = LEVELS.index(level) + 1
    return LEVELS[:last] if patient_root else LEVELS[1:last]


def known_keys(level: str) -> tuple[str, ...]:
    """The keywords that an answer at this level may have, apart from the counted ones."""
    return tuple(keyword for one in LEVELS[: LEVELS.index(level) + 1] for keyword in KEYS[one])


def asked_to_find(identifier: Dataset, *, patient_root: bool) -> Asked:
    """The query of a C-FIND request. Raises BadQuery."""
    level = _level(identifier, patient_root=patient_root)
    for upper in levels_of(level, patient_root=patient_root)[:-1]:
        _one_value(identifier, upper)
    wanted = {*known_keys(level), *COUNTED[level]}
    return Asked(level, tuple(element for element in _named(identifier, wanted) if element.VR != "SQ"))


def asked_to_retrieve(identifier: Dataset, *, patient_root: bool) -> Asked:
    """What a C-MOVE or C-GET request names by unique keys; other keys are not looked at. Raises BadQuery."""
    level = _level(identifier, patient_root=patient_root)
    *above, _ = levels_of(level, patient_root=patient_root)
    for upper in above:
        _one_value(identifier, upper)
    if not _values(identifier, level):
        raise BadQuery(f"{UNIQUE[level]} is missing")
    if level == PATIENT:
        _one_value(identifier, level)
    unique = {UNIQUE[one] for one in (*above, level)}
    return Asked(level, _named(identifier, unique))


def _named(identifier: Dataset, keywords: set[str]) -> tuple[DataElement, ...]:
    """The elements of these keywords; no other is decoded, which a peer could have made expensive."""
    return tuple(identifier[tag] for tag in sorted(identifier.keys()) if keyword_for_tag(tag) in keywords)


def _level(identifier: Dataset, *, patient_root: bool) -> str:
    level = str(identifier.get("QueryRetrieveLevel", "")).strip()
    allowed = LEVELS if patient_root else LEVELS[1:]
    if level not in allowed:
        raise BadQuery(f"QueryRetrieveLevel should be one of {', '.join(allowed)}")
    return level


def _one_value(identifier: Dataset, level: str) -> None:
    """The unique key of a level above has one value, and no wild card (PS3.4 C.4.1.2.1)."""
    values = _values(identifier, level)
    if len(values) != 1 or _WILD.intersection(values[0]):
        raise BadQuery(f"{UNIQUE[level]} should have one value")


def _values(identifier: Dataset, level: str) -> list[str]:
    keyword = UNIQUE[level]
    if keyword not in identifier:
        return []
    element = identifier[keyword]
    if isinstance(element.value, MultiValue) and level == PATIENT:
        raise BadQuery(f"{keyword} should have one value")
    return values_of(element)
