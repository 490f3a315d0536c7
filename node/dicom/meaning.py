"""What a value says, however it was written (PS3.5 6.2): the same for values that mean the same, and for no others."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from node.dicom.charsets import character_set, decode_exactly
from node.dicom.elements import NUMBER_FORMATS, parse_decimal

_BINARY: Final = frozenset({*NUMBER_FORMATS, "OB", "UN", "OD", "OF", "OL", "OV"})
_LEADING_SPACES_COUNT: Final = frozenset({"LT", "ST", "UT", "UC", "UR"})
_OLD_DATE: Final = re.compile(r"(\d{4})\.(\d{2})\.(\d{2})")
_OLD_TIME: Final = re.compile(r"\d{2}:\d{2}(:\d{2}(\.\d*)?)?")
_ZEROS_OF_FRACTION: Final = re.compile(r"(\.\d*?)0*(?=[+-]|$)")


def meaning_of(raw: bytes, vr: str, charset: Sequence[str] = ()) -> bytes:
    """Canonical form of a value as `elements.element_bytes` gives it; b"" where it says nothing.

    Text is compared by its characters, whatever their encoding, numbers by value, dates and times in today's form,
    names by PS3.5 6.2.1, and padding counts nowhere. A value that is no text in its character set stands for its bytes,
    and in a set that nobody knows for other ones than in a known set.
    """
    if vr in _BINARY:
        return raw
    text = decode_exactly(raw, charset)
    if text is None:
        return (b"\0?" if character_set(tuple(charset)).leaves_open(raw) else b"\0") + raw
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if vr in _LEADING_SPACES_COUNT:
        return text.rstrip(" \0").encode()
    plain = _PLAIN.get(vr, _stripped)
    return "\\".join([plain(part.strip(" \0")) for part in text.split("\\")]).encode()


def person_name(text: str) -> str:
    """A name without what means nothing (PS3.5 6.2.1): spaces at either end of a component, empty ones at the end."""
    groups = ["^".join(part.strip(" ") for part in group.split("^")).rstrip("^") for group in text.split("=")]
    return "=".join(groups).rstrip("=")


def _stripped(text: str) -> str:
    return text


def _number(text: str) -> str:
    value = parse_decimal(text)
    return text if value is None else repr(value + 0.0)  # -0 is 0


def _date(text: str) -> str:
    return _OLD_DATE.sub(r"\1\2\3", text)


def _time(text: str) -> str:
    return _moment(text.replace(":", "") if _OLD_TIME.fullmatch(text) else text)


def _moment(text: str) -> str:
    """Without the zeros at the end of a fraction of a second."""
    return _ZEROS_OF_FRACTION.sub(lambda match: "" if match[1] == "." else match[1], text, count=1)


_PLAIN: Final = {
    "PN": person_name,
    "DS": _number,
    "IS": _number,
    "DA": _date,
    "TM": _time,
    "DT": _moment,
}
