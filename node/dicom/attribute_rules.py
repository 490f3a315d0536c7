"""A site's own rules about one attribute: data with named operations, never code that somebody wrote."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from node.dicom.elements import parse_decimal, tag_of, vr_of
from node.dicom.patterns import Pattern, UnusablePattern

# Together they bound how long a pattern takes.
MAX_PATTERN_CHARS: Final = 200
MAX_MATCHED_CHARS: Final = 64

Values = tuple[str, ...]

# op -> (number of values it takes: least, most; how it decides on an attribute's values)
_Test = Callable[[Values, Values], bool]


def _number(values: Values) -> float | None:
    return parse_decimal(values[0]) if len(values) == 1 else None


def _at_least(found: Values, wanted: Values) -> bool:
    number, limit = _number(found), _number(wanted)
    return number is not None and limit is not None and number >= limit


def _at_most(found: Values, wanted: Values) -> bool:
    number, limit = _number(found), _number(wanted)
    return number is not None and limit is not None and number <= limit


def _matches(found: Values, wanted: Values) -> bool:
    text = "\\".join(found)
    return len(text) <= MAX_MATCHED_CHARS and _pattern(wanted[0]).takes(text)


@lru_cache(maxsize=64)
def _pattern(written: str) -> Pattern:
    return Pattern(written)


OPERATIONS: Final[dict[str, tuple[int, int, _Test]]] = {
    "equals": (1, 1, lambda found, wanted: "\\".join(found) == wanted[0]),
    "one_of": (1, 100, lambda found, wanted: "\\".join(found) in wanted),
    "not_one_of": (1, 100, lambda found, wanted: "\\".join(found) not in wanted),
    "matches": (1, 1, _matches),
    "present": (0, 0, lambda found, _: any(found)),
    "absent": (0, 0, lambda found, _: not any(found)),
    "at_least": (1, 1, _at_least),
    "at_most": (1, 1, _at_most),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One condition that every slice must meet; `reason` is told where one does not.

    keyword: a DICOM keyword such as "BodyPartExamined". op: a key of OPERATIONS. values: what it compares with; several
    values of an attribute are one text joined by backslashes. Comparing is exact, `matches` takes the whole text.
    Raises ValueError that says what is allowed for an unknown keyword or operation, a wrong number of values, a pattern
    that is too long or no regular expression, and a limit that is no number.
    """

    keyword: str
    op: str
    values: Values
    reason: str

    def __post_init__(self) -> None:
        _check_keyword(self.keyword)
        if self.op not in OPERATIONS:
            raise ValueError(f"rule on {self.keyword}: op {self.op!r} is not one of {', '.join(OPERATIONS)}")
        least, most, _ = OPERATIONS[self.op]
        if not least <= len(self.values) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise ValueError(f"rule on {self.keyword}: op {self.op} takes {wanted} values, not {len(self.values)}")
        if not self.reason.strip():
            raise ValueError(f"rule on {self.keyword}: reason must say why a series is skipped")
        if self.op == "matches":
            _check_pattern(self.keyword, self.values[0])
        if self.op in ("at_least", "at_most") and parse_decimal(self.values[0]) is None:
            raise ValueError(f"rule on {self.keyword}: {self.values[0]!r} is no number")

    def holds(self, found: Values) -> bool:
        """True where an attribute with these values meets the rule; () is an absent or empty attribute."""
        return OPERATIONS[self.op][2](found, self.values)


def _check_keyword(keyword: str) -> None:
    try:
        vr = vr_of(tag_of(keyword))
    except KeyError:
        raise ValueError(f"rule on {keyword!r}: this is not a DICOM keyword such as BodyPartExamined") from None
    if vr == "SQ" or vr.startswith("O") or vr == "AT":
        raise ValueError(f"rule on {keyword}: an attribute of VR {vr} has no value to compare")


def _check_pattern(keyword: str, pattern: str) -> None:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise ValueError(f"rule on {keyword}: the pattern is longer than {MAX_PATTERN_CHARS} characters")
    try:
        Pattern(pattern)
    except UnusablePattern as error:
        raise ValueError(f"rule on {keyword}: {pattern!r} cannot be used: {error}") from None
