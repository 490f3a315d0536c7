"""Whether two systems mean the same person by one PatientID: their PatientName and PatientBirthDate."""

import unicodedata
from collections.abc import Mapping
from typing import Final

from node.dicom.meaning import meaning_of, person_name

COMPARED: Final = ("PatientName", "PatientBirthDate")


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> tuple[str, ...]:
    """Which of COMPARED differ between two systems' values by keyword; an empty value says nothing, so it never does.

    Names are compared by PS3.5 6.2.1 without case, padding, empty components at the end and all groups but the first,
    which another system may not have; where one has no first group, by their second. Dates of the old form
    1970.01.31 are those of the new.
    """
    return tuple(keyword for keyword in COMPARED if _DIFFER[keyword](ours.get(keyword, ""), theirs.get(keyword, "")))


def _names_differ(ours: str, theirs: str) -> bool:
    ours_groups, theirs_groups = _groups(ours), _groups(theirs)
    for one, other in zip(ours_groups, theirs_groups, strict=True):
        if one and other:
            return one != other
    # Nothing to compare: either one of them is empty, or they are written in different scripts.
    return any(ours_groups) and any(theirs_groups)


def _groups(text: str) -> tuple[str, str, str]:
    """The alphabetic, the ideographic and the phonetic group of a name, each as it is compared."""
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    parts = ["^".join(" ".join(part.split()) for part in group.split("^")) for group in person_name(plain).split("=")]
    first, second, third = [*parts, "", ""][:3]
    return first, second, third


def _dates_differ(ours: str, theirs: str) -> bool:
    one, other = (meaning_of(text.encode(), "DA", ("ISO_IR 192",)) for text in (ours, theirs))
    return bool(one and other) and one != other


_DIFFER: Final = {"PatientName": _names_differ, "PatientBirthDate": _dates_differ}
