"""Answers C-FIND: a pending answer for each match, bounded in number and in time (PS3.4 C.4.1)."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from node.network import status
from node.network.dimse_guard import answer_of
from node.query.index import Index, Look
from node.query.keys import COUNTED, UNIQUE, BadQuery, asked_to_find, known_keys, levels_of
from node.query.matching import BadKey, matcher, values_of
from storage.errors import StoreUnavailable

log = logging.getLogger(__name__)

MAX_ANSWERS: Final = 2000
MAX_QUERY_S: Final = 60.0
PENDING, CANCELLED, SUCCESS = 0xFF00, 0xFE00, status.SUCCESS


class Ended(Exception):
    """A query ends before its last match; `code` says why."""

    def __init__(self, code: int, comment: str = "") -> None:
        super().__init__(comment)
        self.code, self.comment = code, comment


def looker(is_cancelled: Callable[[], bool], within_s: float = MAX_QUERY_S) -> Look:
    """What a query calls before each step: it raises Ended where the peer has cancelled it or its time is up."""
    deadline_s = time.monotonic() + within_s

    def look() -> None:
        if is_cancelled():
            raise Ended(CANCELLED)
        if time.monotonic() > deadline_s:
            raise Ended(status.OUT_OF_RESOURCES, f"the query took longer than {within_s:g} s; ask for less")

    return look


def answers(
    index: Index, identifier: Dataset, look: Look, *, patient_root: bool, ae_title: str
) -> Iterator[tuple[int | Dataset, Dataset | None]]:
    """The responses to one query, each a status with its identifier; the last is the final one. Never raises."""
    try:
        yield from _matches(index, identifier, look, patient_root=patient_root, ae_title=ae_title)
    except Ended as end:
        yield answer_of(end.code, end.comment), None
    except (BadQuery, BadKey) as error:
        yield answer_of(status.DATASET_DOES_NOT_MATCH, str(error)), None
    except StoreUnavailable:
        yield answer_of(status.OUT_OF_RESOURCES, "the database cannot be used; try again"), None
    except Exception as error:  # pydicom raises whatever it stumbles over in what a peer sent
        log.warning("a query failed: %s", type(error).__name__, extra={"event": "query_failed"})
        yield answer_of(status.CANNOT_UNDERSTAND, "the query cannot be processed"), None


def _matches(
    index: Index, identifier: Dataset, look: Look, *, patient_root: bool, ae_title: str
) -> Iterator[tuple[int | Dataset, Dataset | None]]:
    asked = asked_to_find(identifier, patient_root=patient_root)
    tests = [(key.keyword, matcher(key)) for key in asked.keys]
    wanted = [key.keyword for key in asked.keys]
    wanted += [UNIQUE[level] for level in levels_of(asked.level, patient_root=patient_root)]
    count = 0
    for candidate in index.candidates(asked, look):
        look()
        if not all(matches(_values(candidate, keyword)) for keyword, matches in tests):
            continue
        if count == MAX_ANSWERS:
            raise Ended(status.OUT_OF_RESOURCES, f"more than {MAX_ANSWERS} matches; ask for less")
        count += 1
        yield PENDING, _answer(candidate, wanted, asked.level, ae_title)
    yield SUCCESS, None


def _values(candidate: Dataset, keyword: str) -> list[str]:
    return values_of(candidate[keyword]) if keyword in candidate else []


def _answer(candidate: Dataset, wanted: Sequence[str], level: str, ae_title: str) -> Dataset:
    """What the query asked for and the object has, in the character set of the object; the rest of it empty."""
    answer = Dataset()
    answer.QueryRetrieveLevel, answer.RetrieveAETitle, answer.InstanceAvailability = level, ae_title, "ONLINE"
    for keyword in ("SpecificCharacterSet", *wanted):
        if keyword in candidate:
            answer[keyword] = candidate[keyword]
        elif keyword in (*known_keys(level), *COUNTED[level]):
            answer.add(_empty(keyword))
    return answer


def _empty(keyword: str) -> DataElement:
    empty: Any = Dataset()
    setattr(empty, keyword, None)
    element: DataElement = empty[tag_for_keyword(keyword) or 0]
    return element
