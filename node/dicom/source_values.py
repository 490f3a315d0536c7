"""What becomes of the source's values in the derived slice: kept as they came, cut, repaired or left out.

What is not simply kept is noted by attribute and reason, never by value.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag
from pydicom.valuerep import MAX_VALUE_LEN

from node.dicom.charsets import character_set, cut_text, decode_exactly, is_plain
from node.dicom.content import COPIED, SCANNER_IDENTITY, Presence
from node.dicom.elements import (
    charset_of,
    element_bytes,
    element_items,
    is_valid_value,
    public_tags,
    raw_element,
    seal,
    split_values,
    tag_of,
    vr_of,
)

MAX_REMARKS: Final = 20
_TEXT_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
# Text that says which thing is meant, not how it is: a part of it would mean another thing, so it is never cut.
_IDENTIFIER: Final = re.compile(r".*(ID|Number|CodeValue|Designator|Version)|IssuerOf.*|TimezoneOffset.*")
# attribute -> the one without which it says nothing (PS3.3 C.7.5.1.1.2, C.7.6.1.1.5)
DEPENDS_ON: Final = {
    "PixelPaddingRangeLimit": "PixelPaddingValue",
    "LossyImageCompressionRatio": "LossyImageCompression",
    "LossyImageCompressionMethod": "LossyImageCompression",
}
# What an item must have, by its sequence; one of each line (PS3.3 tables 8.8-1, 10-3, 10-9, 10-17, 10-18 and C.7-1).
_CODE: Final = (("CodeValue", "LongCodeValue", "URNCodeValue"), ("CodeMeaning",))
_INSTANCE: Final = (("ReferencedSOPClassUID",), ("ReferencedSOPInstanceUID",))
REQUIRED_IN_ITEMS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "OtherPatientIDsSequence": (("PatientID",), ("TypeOfPatientID",)),
    "IssuerOfAccessionNumberSequence": (("LocalNamespaceEntityID", "UniversalEntityID"),),
    "ReferencedStudySequence": _INSTANCE,
}


class Note(NamedTuple):
    """One thing that happened to a value of a slice; what: the rest of the sentence that begins with the subject."""

    subject: str
    what: str


class Remarks:
    """The notes of all slices of a series, as lines for a person."""

    def __init__(self) -> None:
        self._slices = 0
        self._noted: Counter[Note] = Counter()

    def add_slice(self, notes: Iterable[Note]) -> None:
        """Count what happened in one more slice."""
        self._slices += 1
        self._noted.update(set(notes))

    def lines(self) -> tuple[str, ...]:
        """One sentence for each note, sorted, MAX_REMARKS at most; it says of how many slices where not of all."""
        lines = [self._line(note, count) for note, count in sorted(self._noted.items())]
        if len(lines) > MAX_REMARKS:
            lines[MAX_REMARKS - 1 :] = [f"and {len(lines) - MAX_REMARKS + 1} more"]
        return tuple(lines)

    def _line(self, note: Note, count: int) -> str:
        of = "" if count == self._slices else f" of {count} slice{'s' if count > 1 else ''}"
        return f"{note.subject}{of} {note.what}"


@dataclass(frozen=True, slots=True)
class ValueKeeper:
    """Decides about values of one dataset, or of one item, in its character set; `notes` collects what it did.

    within: the keyword of the sequence in which the values lie, "" where in none.
    """

    charset: tuple[str, ...]
    within: str = ""
    notes: set[Note] = field(default_factory=set)

    def value(self, keyword: str, raw: bytes, vr: str, presence: Presence = Presence.OPTIONAL) -> bytes | None:
        """What is written for a value of the source; None where it is left out, which only an optional one is.

        Text that is too long is cut where it describes, and kept where it identifies; so is text in which no boundary
        between characters can be found.
        """
        if not raw:
            return None if presence is Presence.OPTIONAL else raw
        if vr in _TEXT_VRS and not is_plain(raw) and decode_exactly(raw, self.charset) is None:
            self._note(keyword, "has bytes that are no text in its character set: kept")
        if is_valid_value(raw, vr, self.charset):
            return raw
        limit = MAX_VALUE_LEN.get("LO" if vr == "PN" else vr, 0)
        too_long = any(len(part) > limit for part in split_values(raw, vr, self.charset))
        flaw = f"is longer than {limit} characters" if limit and too_long else f"is no valid {vr} (PS3.5 6.2)"
        kept: bytes | None = raw
        if presence is Presence.OPTIONAL and vr not in _TEXT_VRS:
            kept = None
        elif presence is Presence.OPTIONAL and vr != "PN" and too_long and not _IDENTIFIER.fullmatch(keyword):
            kept = _cut(raw, vr, limit, self.charset) or raw
        self._note(keyword, f"{flaw}: {'left out' if kept is None else 'kept' if kept is raw else 'cut'}")
        return kept

    def items(self, ds: Dataset, tag: BaseTag) -> list[Dataset]:
        """Items of a sequence with their public elements, each validated like every optional value, sealed.

        Left out are private elements, empty items, and items without what their sequence requires of them.
        """
        sequence = keyword_for_tag(tag)
        copies = []
        for item in element_items(ds, tag):
            inside = ValueKeeper(charset_of(item) or self.charset, sequence, self.notes)
            copy = inside._item(item)
            missing = _missing(sequence, copy) if len(copy) else "content"
            if missing:
                self.notes.add(Note(f"An item of {sequence}", f"has no {missing}: left out"))
            else:
                copies.append(seal(copy))
        return copies

    def _item(self, item: Dataset) -> Dataset:
        copy = Dataset()
        for tag in public_tags(item):
            vr = vr_of(tag)
            if vr == "SQ":
                items = self.items(item, tag)
                if items or not element_items(item, tag):
                    copy.add(DataElement(tag, "SQ", DicomSequence(items)))
                continue
            value: bytes | None = element_bytes(item, tag) or b""
            if tag == tag_of("SpecificCharacterSet"):
                value = written_charset(item, self.notes) or None
            elif value:
                value = self.value(keyword_for_tag(tag), value, vr)
            if value is not None:
                copy[tag] = raw_element(tag, vr, value)
        return copy

    def _note(self, keyword: str, what: str) -> None:
        self.notes.add(Note(f"{keyword} in {self.within}" if self.within else keyword, what))


def _cut(raw: bytes, vr: str, limit: int, charset: Sequence[str]) -> bytes | None:
    """Each value at most `limit` characters long; None where that cannot be done in the value's own bytes."""
    if vr in ("ST", "LT") or b"\\" not in raw:
        return cut_text(raw, limit, charset)
    if not is_plain(raw):  # a byte of another alphabet may look like the backslash between values
        return None
    return b"\\".join(part.strip(b" ")[:limit] for part in raw.split(b"\\"))


def written_charset(ds: Dataset, notes: set[Note]) -> bytes:
    """SpecificCharacterSet as it is written: what the sender misspelt is mended, what nobody knows is kept."""
    raw = element_bytes(ds, tag_of("SpecificCharacterSet")) or b""
    received = charset_of(ds)
    meant = character_set(received)
    if meant.unknown or meant.unknown_extensions:
        notes.add(Note("SpecificCharacterSet", "has a value that no standard knows: kept"))
    if meant.terms == received:
        return raw
    mended = "\\".join(meant.terms)
    notes.add(Note("SpecificCharacterSet", f"is misspelt: written as {mended}" if mended else "says nothing: left out"))
    return mended.encode("ascii")


def drop_dependants(ds: Dataset, notes: set[Note]) -> None:
    """Remove from a derived slice what says nothing without an attribute that it has not."""
    for keyword, needed in DEPENDS_ON.items():
        if tag_of(keyword) in ds and tag_of(needed) not in ds:
            del ds[tag_of(keyword)]
            notes.add(Note(keyword, f"was left out: there is no {needed}"))


def _missing(sequence: str, item: Dataset) -> str:
    """The first required attribute that an item has not; "" where it has all."""
    groups = REQUIRED_IN_ITEMS.get(sequence, _CODE if sequence.endswith("CodeSequence") else ())
    for group in groups:
        if not any(element_bytes(item, tag_of(keyword)) for keyword in group):
            return " or ".join(group[:1])
    is_code = sequence.endswith("CodeSequence") and "URNCodeValue" not in item
    return "CodingSchemeDesignator" if is_code and not element_bytes(item, tag_of("CodingSchemeDesignator")) else ""


def doubt_of_text(datasets: Iterable[Dataset]) -> str | None:
    """Why a person must look at the text of a series before it is sent; None where all of it can be read.

    datasets: those of the source slices. Text that is ASCII can be read whatever its character set is.
    """
    for ds in datasets:
        for keyword in dict.fromkeys((*(keyword for keyword, _ in COPIED), *SCANNER_IDENTITY)):
            for charset, raw in _texts(ds, tag_of(keyword), charset_of(ds)):
                if character_set(charset).leaves_open(raw):
                    return (
                        f"the character set {_printable(charset)} (SpecificCharacterSet) is unknown, and {keyword} has "
                        "other characters than ASCII: names would arrive garbled"
                    )
    return None


def _texts(ds: Dataset, tag: BaseTag, charset: tuple[str, ...]) -> list[tuple[tuple[str, ...], bytes]]:
    """Text values with the character set that counts for each: an item may name one of its own."""
    vr = vr_of(tag)
    if vr == "SQ":
        items = ((item, charset_of(item) or charset) for item in element_items(ds, tag))
        return [text for item, own in items for inner in public_tags(item) for text in _texts(item, inner, own)]
    return [(charset, element_bytes(ds, tag) or b"")] if vr in _TEXT_VRS else []


def _printable(charset: Sequence[str]) -> str:
    return repr(re.sub(r"[^A-Za-z0-9_ .\\-]", "?", "\\".join(charset))[:64]).replace("\\\\", "\\")
