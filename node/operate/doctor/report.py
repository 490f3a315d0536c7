"""One line of the doctor's report, and what a check is given to look at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from config.settings import Settings
from node.bootstrap.store import Node
from node.ops.findings import Finding


class Mark(StrEnum):
    """How a line is; SKIP where nothing could be looked at, or there is nothing to look at."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"


@dataclass(frozen=True)
class Line:
    """What one check found, and what to do about it; `remedy` is "" where there is nothing to do."""

    check: str
    state: Mark
    found: str
    remedy: str = ""


Lines = Iterator[Line]


@dataclass(frozen=True)
class Check:
    """One row of the table. `look` is given the settings; it yields at least one line. limit_s: seconds that it has."""

    name: str
    look: Callable[[Settings], Lines]
    limit_s: float = 5.0


@dataclass(frozen=True)
class StoreCheck:
    """One row of the table whose `look` is given the store, opened to read. limit_s: seconds that it has."""

    name: str
    look: Callable[[Node], Lines]
    limit_s: float = 5.0


def of_finding(check: str, finding: Finding, remedy: str) -> Line:
    """A finding of `config validate` as a line."""
    return Line(check, Mark.FAIL if finding.is_mistake else Mark.WARN, finding.text, remedy)
