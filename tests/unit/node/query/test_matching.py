"""Matching of one key (PS3.4 C.2.2.2), as a table, and which queries are none (C.6.1, C.6.2)."""

import time

import pytest
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from node.query.keys import BadQuery, asked_to_find, asked_to_retrieve
from node.query.matching import BadKey, matcher

MATCHES = [
    # keyword, key, values of the object, whether they match
    ("PatientID", "", ["4711"], True),  # universal
    ("PatientID", "", [], True),
    ("PatientID", "4711", ["4711"], True),
    ("PatientID", "4711", ["47110"], False),
    ("PatientID", "471?", ["4711"], True),
    ("PatientID", "471?", ["471"], False),
    ("PatientID", "4*1", ["4711"], True),
    ("PatientID", "4*1", ["4712"], False),
    ("PatientID", "*", [], True),  # wild cards that take everything also take no value (C.2.2.2.4)
    ("PatientID", ["4711", ""], ["4712"], False),
    ("PatientID", "a*", [], False),
    ("PatientID", "a1", ["A1"], False),
    ("PatientID", "[4]711", ["4711"], False),  # no other wild cards
    ("PatientID", "[4]*", ["[4]711"], True),
    ("PatientName", "doe*", ["DOE^JANE"], True),  # VR PN without regard to case
    ("PatientName", "DOE^JANE", ["doe^jane"], True),
    ("PatientName", "DOE^JANE^^^", ["DOE^JANE"], True),
    ("PatientName", "müller*", ["MÜLLER^EVA"], True),
    ("PatientName", "*太郎*", ["Yamada^Tarou=山田^太郎=やまだ^たろう"], True),
    ("PatientName", "Yamada^Tarou", ["Yamada^Tarou=山田^太郎"], True),
    ("PatientName", "DOE", ["DOE^JANE"], False),
    ("StudyInstanceUID", "1.2.3", ["1.2.3"], True),
    ("StudyInstanceUID", ["1.2.3", "1.2.4"], ["1.2.4"], True),  # list of UID matching
    ("StudyInstanceUID", ["1.2.3", "1.2.4"], ["1.2"], False),
    ("StudyDate", "20260102", ["20260102"], True),
    ("StudyDate", "20260102", ["20260103"], False),
    ("StudyDate", "20260101-20260131", ["20260102"], True),
    ("StudyDate", "20260101-20260131", ["20260201"], False),
    ("StudyDate", "20260101-", ["20270101"], True),
    ("StudyDate", "-20260101", ["20270101"], False),
    ("StudyDate", "-20260101", ["20260101"], True),
    ("StudyDate", "20260101-", [], False),
    ("StudyTime", "1000-1130", ["113059.5"], True),  # the whole minute
    ("StudyTime", "1000-1130", ["113100"], False),
    ("StudyTime", "10-", ["095959"], False),
    ("StudyTime", "101112", ["101112.25"], True),
    ("SeriesNumber", "7", ["007"], True),
    ("SeriesNumber", "7", ["70"], False),
    ("Modality", "CT", ["CT"], True),
    ("ModalitiesInStudy", ["MR", "CT"], ["CT"], True),
    ("ModalitiesInStudy", "M*", ["CT", "MR"], True),
]


@pytest.mark.parametrize(("keyword", "key", "values", "expected"), MATCHES)
def test_a_key_matches(keyword: str, key: object, values: list[str], expected: bool) -> None:
    query = _dataset({keyword: key})
    assert matcher(query[keyword])(values) is expected


@pytest.mark.parametrize(
    ("keyword", "key"),
    [
        ("StudyDate", "2026"),
        ("StudyDate", "20260101-2026"),
        ("StudyDate", "-"),
        ("StudyDate", "202601*"),
        ("StudyTime", "1x"),
        ("StudyInstanceUID", "1.2*"),
    ],
)
def test_a_key_that_can_match_nothing_is_refused(keyword: str, key: str) -> None:
    query = _dataset({keyword: key})
    with pytest.raises(BadKey):
        matcher(query[keyword])


def test_many_stars_cost_no_more_than_one() -> None:
    query = _dataset({"PatientComments": "*a" * 60 + "*b"})
    begun = time.process_time()
    assert not matcher(query["PatientComments"])(["a" * 4000])
    assert time.process_time() - begun < 1.0


QUERIES = [
    # root, level, keys, whether it is a query
    ("patient", "PATIENT", {"PatientID": "*"}, True),
    ("patient", "STUDY", {"PatientID": "4711"}, True),
    ("patient", "STUDY", {}, False),  # unique keys of the levels above have one value (C.4.1.2.1)
    ("patient", "STUDY", {"PatientID": "47*"}, False),
    ("study", "PATIENT", {}, False),
    ("study", "STUDY", {}, True),
    ("study", "SERIES", {"StudyInstanceUID": "1.2"}, True),
    ("study", "SERIES", {}, False),
    ("study", "SERIES", {"StudyInstanceUID": ["1.2", "1.3"]}, False),
    ("study", "IMAGE", {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}, True),
    ("study", "IMAGE", {"StudyInstanceUID": "1.2"}, False),
    ("patient", "IMAGE", {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}, False),
    ("study", "study", {}, False),
    ("study", "", {}, False),
]


@pytest.mark.parametrize(("root", "level", "keys", "is_one"), QUERIES)
def test_a_query_has_the_unique_keys_of_the_levels_above(
    root: str, level: str, keys: dict[str, object], is_one: bool
) -> None:
    query = _dataset({"QueryRetrieveLevel": level, **keys})
    if is_one:
        assert asked_to_find(query, patient_root=root == "patient").level == level
        return
    with pytest.raises(BadQuery):
        asked_to_find(query, patient_root=root == "patient")


@pytest.mark.parametrize(
    ("keys", "is_one"),
    [
        ({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ["1.2", "1.3"]}, True),
        ({"QueryRetrieveLevel": "STUDY"}, False),
        ({"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}, True),
        ({"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2"}, False),
        ({"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1.2"}, False),
    ],
)
def test_a_retrieval_names_what_it_wants(keys: dict[str, object], is_one: bool) -> None:
    if is_one:
        assert asked_to_retrieve(_dataset(keys), patient_root=False)
        return
    with pytest.raises(BadQuery):
        asked_to_retrieve(_dataset(keys), patient_root=False)


def _dataset(keys: dict[str, object]) -> Dataset:
    query = Dataset()
    for keyword, value in keys.items():
        query.add(DataElement(keyword, dictionary_VR(keyword), value, validation_mode=IGNORE))
    return query
