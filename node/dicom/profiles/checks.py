"""The checks that a rule of a profile can name: pure functions of the headers of one series.

Each returns what breaks the rule, as a clause with attribute and number, length or coded value, or "". What a person
typed is never quoted: the clause goes into the log.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from node.dicom.elements import parse_decimal
from node.dicom.geometry import slice_normal, why_not_transverse

Values = Mapping[str, tuple[str, ...]]
"""Values of one header by keyword; () for an empty one, and no key for one that is absent."""

_SAFE: Final = re.compile(r"[A-Z0-9_.]{1,64}")
_ROUNDING_MM: Final = 1e-6  # positions are decimal texts, and their differences binary
_ORIENTATION, _POSITION = "ImageOrientationPatient", "ImagePositionPatient"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a rule allows; each check says which it reads."""

    values: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


Check = Callable[[Sequence[Values], Sequence[str], Limits], str]


def _present(headers: Sequence[Values], keywords: Sequence[str], _limits: Limits) -> str:
    return _first(headers, keywords, lambda header, keyword: "" if keyword in header else "is absent")


def _filled(headers: Sequence[Values], keywords: Sequence[str], _limits: Limits) -> str:
    return _first(headers, keywords, _why_empty)


def _why_empty(header: Values, keyword: str) -> str:
    if keyword not in header:
        return "is absent"
    return "" if any(header[keyword]) else "is empty"


def _one_of(headers: Sequence[Values], keywords: Sequence[str], limits: Limits) -> str:
    """Absent and empty values are left to `present` and `filled`."""

    def why(header: Values, keyword: str) -> str:
        value = "\\".join(header.get(keyword, ()))
        return f"is {_coded(value)}" if value and value not in limits.values else ""

    return _first(headers, keywords, why)


def _max_chars(headers: Sequence[Values], keywords: Sequence[str], limits: Limits) -> str:
    def why(header: Values, keyword: str) -> str:
        longest = max(map(len, header.get(keyword, ())), default=0)
        return f"has {longest} characters" if limits.most is not None and longest > limits.most else ""

    return _first(headers, keywords, why)


def _between(headers: Sequence[Values], keywords: Sequence[str], limits: Limits) -> str:
    def why(header: Values, keyword: str) -> str:
        for text in filter(None, header.get(keyword, ())):
            number = parse_decimal(text)
            if number is None:
                return "is no number"
            if (limits.least is not None and number < limits.least) or (
                limits.most is not None and number > limits.most
            ):
                return f"is {number:g}"
        return ""

    return _first(headers, keywords, why)


def _representation(headers: Sequence[Values], _keywords: Sequence[str], limits: Limits) -> str:
    """The pixels in words such as "signed 16", which is how they are in `limits.values`."""
    for header in headers:
        allocated, stored, signed = (
            "".join(header.get(keyword, ())) for keyword in ("BitsAllocated", "BitsStored", "PixelRepresentation")
        )
        kind = f"{'signed' if signed == '1' else 'unsigned'} {stored}"
        if stored and (kind not in limits.values or allocated != "16"):
            return f"PixelRepresentation and BitsStored say {kind}, and BitsAllocated {allocated or 'nothing'}"
    return ""


def _constant(headers: Sequence[Values], keywords: Sequence[str], _limits: Limits) -> str:
    """Numbers count by their value and texts as they are."""
    for keyword in keywords:
        seen = {tuple(map(_number_or_text, header.get(keyword, ()))) for header in headers}
        if len(seen) > 1:
            return f"{keyword} has {len(seen)} values"
    return ""


def _number_or_text(text: str) -> str | float:
    number = parse_decimal(text)
    return text if number is None else number


def _square(headers: Sequence[Values], keywords: Sequence[str], _limits: Limits) -> str:
    def why(header: Values, keyword: str) -> str:
        spacing = _numbers(header, keyword, 2)
        return "" if spacing is None or spacing[0] == spacing[1] else f"is {spacing[0]:g} by {spacing[1]:g} mm"

    return _first(headers, keywords, why)


def _transverse(headers: Sequence[Values], keywords: Sequence[str], _limits: Limits) -> str:
    def why(header: Values, keyword: str) -> str:
        cosines = _numbers(header, keyword, 6)
        if cosines is None:
            return ""
        try:
            slant = why_not_transverse(cosines)
        except ValueError as error:
            slant = str(error)
        return f"is not transverse ({slant})" if slant else ""

    return _first(headers, keywords, why)


def _no_gap(headers: Sequence[Values], _keywords: Sequence[str], _limits: Limits) -> str:
    """Steps between neighbours are half of the usual step to one and a half."""
    steps_mm = _steps_mm(headers)
    usual_mm = float(np.median(steps_mm)) if steps_mm.size else 0.0
    for step_mm in steps_mm:
        if not 0.5 * usual_mm < step_mm < 1.5 * usual_mm:
            return f"ImagePositionPatient has a step of {step_mm:.3f} mm, and most steps are {usual_mm:.3f} mm"
    return ""


def _equal_spacing(headers: Sequence[Values], _keywords: Sequence[str], limits: Limits) -> str:
    """limits.most: how much a step may differ from the mean step, mm."""
    steps_mm = _steps_mm(headers)
    if not steps_mm.size or limits.most is None:
        return ""
    off_mm = float(np.abs(steps_mm - steps_mm.mean()).max())
    if off_mm <= limits.most + _ROUNDING_MM:
        return ""
    return f"ImagePositionPatient has steps that differ by {off_mm:.4f} mm from their mean of {steps_mm.mean():.4f} mm"


def _steps_mm(headers: Sequence[Values]) -> NDArray[np.float64]:
    """Steps between neighbouring slices along the normal of the first, mm; none where a slice has no place."""
    positions = [_numbers(header, _POSITION, 3) for header in headers]
    cosines = _numbers(headers[0], _ORIENTATION, 6) if headers else None
    placed = [position for position in positions if position is not None]
    if cosines is None or len(placed) < len(positions):
        return np.empty(0)
    try:
        along_mm = np.sort(np.array(placed) @ slice_normal(cosines))
    except ValueError:
        return np.empty(0)
    return np.diff(along_mm)


def _first(headers: Iterable[Values], keywords: Sequence[str], why: Callable[[Values, str], str]) -> str:
    """The first keyword that breaks a rule, with what is wrong, and in how many images where not in all."""
    headers = list(headers)
    for keyword in keywords:
        answers = [answer for header in headers if (answer := why(header, keyword))]
        if answers:
            share = "" if len(answers) == len(headers) else f" in {len(answers)} of {len(headers)} images"
            return f"{keyword} {answers[0]}{share}"
    return ""


def _numbers(header: Values, keyword: str, count: int) -> list[float] | None:
    numbers = [parse_decimal(text) for text in header.get(keyword, ())]
    found = [number for number in numbers if number is not None]
    return found if len(found) == len(numbers) == count else None


def _coded(value: str) -> str:
    return value if _SAFE.fullmatch(value) else f"a value of {len(value)} characters"


CHECKS: Final[dict[str, Check]] = {
    "present": _present,
    "filled": _filled,
    "one_of": _one_of,
    "max_chars": _max_chars,
    "between": _between,
    "representation": _representation,
    "constant": _constant,
    "square": _square,
    "transverse": _transverse,
    "no_gap": _no_gap,
    "equal_spacing": _equal_spacing,
}
"""What a rule can name, by name."""
