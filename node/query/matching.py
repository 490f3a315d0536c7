"""Whether a value of an object matches a key of a query (PS3.4 C.2.2.2); it knows no level, no file and no network."""

import re
from collections.abc import Callable, Sequence
from fnmatch import translate
from typing import Any, Final

from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue

MAX_VALUES: Final = 100  # of a text; lists of UIDs have no limit
MAX_CHARS: Final = 10_240  # of all of them; a text of VR LT has no more
_WILD_VRS: Final = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_NUMBERS: Final = frozenset({"IS", "DS", "US", "SS", "UL", "SL", "FL", "FD"})
_RANGES: Final = frozenset({"DA", "TM"})
_DATE: Final = re.compile(r"\d{8}")
_TIME: Final = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")
_UID: Final = re.compile(r"[0-9.]{1,64}")


class BadKey(ValueError):
    """A key of a query that can match nothing because of how it is written."""


def values_of(element: DataElement | None) -> list[str]:
    """The values of an element as text, without padding; empty where it has none or is a sequence."""
    if element is None or element.VR == "SQ" or element.value is None or isinstance(element.value, bytes):
        return []
    value: Any = element.value
    several = value if isinstance(value, MultiValue | list | tuple) else [value]
    texts = [str(one).strip(" \0") for one in several]
    return texts if any(texts) else []


def matcher(key: DataElement) -> Callable[[Sequence[str]], bool]:
    """What says whether an object with these values of the attribute matches the key.

    Raises BadKey for a date, a time, a number or a UID that is none.
    """
    wanted = values_of(key)
    if not wanted:
        return lambda values: True
    if key.VR == "UI":
        return _in_list(wanted)
    if key.VR in _RANGES:
        return _in_range(key.VR, "\\".join(wanted))
    if key.VR in _NUMBERS:
        number = _number(wanted[0])
        return lambda values: any(_is_number(value, number) for value in values)
    if len(wanted) > MAX_VALUES or sum(map(len, wanted)) > MAX_CHARS:
        raise BadKey(f"a text has at most {MAX_VALUES} values and {MAX_CHARS} characters")
    patterns = [_pattern(one, key.VR) for one in wanted]
    anything = any(set(one) == {"*"} for one in wanted) and key.VR in _WILD_VRS
    return lambda values: anything or any(pattern(value) for value in values for pattern in patterns)


def _in_list(wanted: list[str]) -> Callable[[Sequence[str]], bool]:
    if not all(_UID.fullmatch(one) for one in wanted):
        raise BadKey("a UID has digits and points only")
    uids = frozenset(wanted)
    return lambda values: any(value in uids for value in values)


def _pattern(wanted: str, vr: str) -> Callable[[str], bool]:
    """Single value and wild card matching; the VR PN without regard to case, and each component group by itself."""
    if vr not in _WILD_VRS:
        return lambda value: value == wanted
    # `translate` never goes back over what a star took: a key of many stars costs no more than another.
    fitted = (wanted.rstrip("^") if vr == "PN" else wanted).replace("[", "[[]")
    fits = re.compile(translate(fitted), re.IGNORECASE if vr == "PN" else 0).match
    if vr != "PN":
        return lambda value: fits(value) is not None
    return lambda value: any(fits(group.rstrip("^")) is not None for group in (value, *value.split("=")))


def _in_range(vr: str, wanted: str) -> Callable[[Sequence[str]], bool]:
    """A date or a time, or a range of them (C.2.2.2.5); a shorter time means the whole hour or minute."""
    first, dash, last = wanted.partition("-")
    low, high = _bounds(vr, first), _bounds(vr, last if dash else first)
    if not (first or last):
        raise BadKey("a range has a beginning or an end")

    def is_inside(value: str) -> bool:
        try:
            begun, ended = _bounds(vr, value)
        except BadKey:
            return False
        return bool(value) and (not low[0] or ended >= low[0]) and (not high[1] or begun <= high[1])

    return lambda values: any(is_inside(value) for value in values)


def _bounds(vr: str, text: str) -> tuple[str, str]:
    """The earliest and the latest moment that a date or time means, comparable as text; empty for an open end."""
    plain = text.strip().replace(".", "", 2) if vr == "DA" else text.strip()
    if not plain:
        return "", ""
    if vr == "DA":
        if not _DATE.fullmatch(plain):
            raise BadKey("a date is YYYYMMDD, and a range has one hyphen")
        return plain, plain
    plain = plain.replace(":", "")
    if not _TIME.fullmatch(plain):
        raise BadKey("a time is HHMMSS, and a range has one hyphen")
    plain = plain.replace(".", "")
    return plain.ljust(12, "0"), plain + "235959999999"[len(plain) :]


def _is_number(text: str, wanted: float) -> bool:
    """Whether the value of an object is the number; one that is none matches nothing, and ends no query."""
    try:
        return _number(text) == wanted
    except BadKey:
        return False


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadKey("it is no number") from None
