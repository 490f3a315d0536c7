"""The character sets of text: Defined Terms, what senders write in their place, and the text that follows from both."""

import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Final

from pydicom.charset import decode_bytes, python_encoding

from node.dicom.quiet import quiet_pydicom

# PS3.3 C.12.1.1.2, tables C.12-2 to C.12-5, by the codecs that pydicom registers. It does not know Latin 9 yet.
ENCODINGS: Final = {**python_encoding, "ISO_IR 203": "iso8859_15", "ISO 2022 IR 203": "iso8859_15"}

# What senders write in place of a Defined Term, in capitals and with one space for every run of spaces, "-" and "_".
# Spellings with the right words (ISO-IR 100, iso_ir_100, ISO2022 IR 100) need no line: `_mended` takes any separator.
# Sources: pydicom's charset.py, which mends some of them in reading, its issue 2115, and the names that IANA registers.
SPELLINGS: Final = {
    "ASCII": "ISO_IR 6",
    "US ASCII": "ISO_IR 6",
    "UTF 8": "ISO_IR 192",
    "UTF8": "ISO_IR 192",
    "LATIN1": "ISO_IR 100",
    "LATIN 1": "ISO_IR 100",
    "LATIN2": "ISO_IR 101",
    "LATIN 2": "ISO_IR 101",
    "TIS 620": "ISO_IR 166",
    "TIS620": "ISO_IR 166",
    "GB18030": "GB18030",
    "GB 18030": "GB18030",
    "GBK": "GBK",
    "GB2312": "GB18030",  # every text in GB 2312 is the same text in GB 18030
    "GB 2312": "GB18030",
}
# Part of ISO 8859 -> its number in the register that DICOM cites (table C.12-2).
ISO_8859_PARTS: Final = {
    "1": "100", "2": "101", "3": "109", "4": "110", "5": "144", "6": "127", "7": "126", "8": "138", "9": "148",
    "11": "166", "15": "203",
}  # fmt: skip
# These encode all their text alone; no other term may stand beside them (table C.12-5).
STAND_ALONE: Final = frozenset({"ISO_IR 192", "GB18030", "GBK"})
_ISO_8859: Final = re.compile(r"ISO ?8859 ?(\d{1,2})")
_TERM: Final = re.compile(r"ISO ?(2022 ?)?(?:IR ?)?(\d{1,3})")
_ESCAPE: Final = 0x1B
MAX_ESCAPES: Final = 1000
"""In one value; a Japanese text of 10,240 characters that changes its set in every word has fewer. Each costs as much
as many characters, and 64 KiB of nothing else in a hundred values took pydicom half a minute."""
_JAPANESE: Final = "ISO_IR 13"  # its codec would also write what only a second term may announce
_DELIMITERS: Final = {0x0D, 0x0A, 0x09, 0x0C}
_DEFAULT: Final = frozenset({"", "ISO_IR 6", "ISO 2022 IR 6"})


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """What the values of one SpecificCharacterSet mean.

    terms: Defined Terms, mended where the sender misspelt them; where one is unknown, those received. encodings: their
    names in Python, the first is the initial one. is_default: it is ASCII alone, the default repertoire (PS3.5 6.1.1).
    unknown: nobody can say how text that is not ASCII is to be read. unknown_extensions: nor text behind an escape
    sequence.
    """

    terms: tuple[str, ...]
    encodings: tuple[str, ...]
    is_default: bool = False
    unknown: bool = False
    unknown_extensions: bool = False

    def leaves_open(self, raw: bytes) -> bool:
        """Whether a text value cannot be read because its character set is unknown. ASCII is ASCII in every set."""
        if is_plain(raw):
            return False
        return self.unknown or (self.unknown_extensions and _ESCAPE in raw)


def is_plain(raw: bytes) -> bool:
    """Whether a value is ASCII without escape sequences, which every character set reads in the same way."""
    return raw.isascii() and _ESCAPE not in raw


@cache
def character_set(received: tuple[str, ...]) -> CharacterSet:
    """The set that the stripped values of SpecificCharacterSet mean. Never fails.

    A further value that nobody knows matters only to text with escape sequences, which alone can reach it. UTF-8 and
    GB 18030 need no further value, and behind another one they contradict it.
    """
    mended = [_mended(value) for value in received]
    known = [term for term in mended if term is not None]
    contradictory = any(term in STAND_ALONE for term in known[1:]) and known[0] not in STAND_ALONE
    if contradictory or (mended and mended[0] is None):
        return CharacterSet(received, ("latin-1",), unknown=True)
    if known and known[0] in STAND_ALONE:
        return CharacterSet((known[0],), (ENCODINGS[known[0]],))
    if len(known) > 1:
        known = [_extensible(term) for term in known]
    return CharacterSet(
        received if None in mended else tuple(known) if any(known) else (),
        tuple(ENCODINGS[term] for term in known or [""]),
        is_default=all(term in _DEFAULT for term in known),
        unknown_extensions=None in mended,
    )


def _mended(value: str) -> str | None:
    """The Defined Term that a value is, or is meant to be; None for any other."""
    if value in ENCODINGS:
        return value
    words = re.sub(r"[\s_-]+", " ", value.upper()).strip()
    if words in SPELLINGS:
        return SPELLINGS[words]
    if (part := _ISO_8859.fullmatch(words)) and part[1] in ISO_8859_PARTS:
        return f"ISO_IR {ISO_8859_PARTS[part[1]]}"
    if (match := _TERM.fullmatch(words)) is None:
        return None
    term = f"ISO 2022 IR {match[2]}" if match[1] else f"ISO_IR {match[2]}"
    return next((known for known in (term, f"ISO 2022 IR {match[2]}") if known in ENCODINGS), None)


def _extensible(term: str) -> str:
    """The form of a term that may stand beside others (table C.12-3)."""
    return term.replace("ISO_IR ", "ISO 2022 IR ")


def decode_text(raw: bytes, charset: Sequence[str]) -> str:
    """Text of a value in the source's character set; undecodable bytes are replaced, never an error."""
    if is_plain(raw):
        return raw.decode("ascii")
    encodings = character_set(tuple(charset)).encodings
    try:
        if _has_too_many_escapes(raw):
            return raw.decode("ascii", "replace")
        if _ESCAPE in raw:
            with quiet_pydicom():
                return decode_bytes(raw, list(encodings), _DELIMITERS)
        return raw.decode(encodings[0], "replace")
    except (LookupError, ValueError, TypeError):
        return raw.decode("latin-1")


def decode_exactly(raw: bytes, charset: Sequence[str]) -> str | None:
    """Text of a value; None where some bytes are no text in its character set, or the set is unknown."""
    if is_plain(raw):
        return raw.decode("ascii")
    meant = character_set(tuple(charset))
    if meant.leaves_open(raw) or (meant.is_default and not raw.isascii()) or _has_too_many_escapes(raw):
        return None
    text = decode_text(raw, charset)
    return None if "\ufffd" in text else text


def _has_too_many_escapes(raw: bytes) -> bool:
    return raw.count(_ESCAPE) > MAX_ESCAPES


def cut_text(raw: bytes, characters: int, charset: Sequence[str]) -> bytes | None:
    """The first characters of a value, in its own bytes; None where they cannot be told apart from the rest.

    That is so for bytes that are no text in the character set, and for text with escape sequences: cut, it would not
    return to the initial set.
    """
    text = None if _ESCAPE in raw else decode_exactly(raw, charset)
    if text is None:
        return None
    encoding = character_set(tuple(charset)).encodings[0]
    try:
        start = text[:characters].encode(encoding)
    except UnicodeError:
        return None
    return start.rstrip(b" ") if raw.startswith(start) else None


def own_encoding(charset: Sequence[str]) -> str:
    """How text of ours is written beside the source's; ASCII where several sets or none can be told apart."""
    meant = character_set(tuple(charset))
    if meant.unknown or meant.is_default or len(meant.terms) != 1:
        return "ascii"
    (term,) = meant.terms
    writes_alone = term in STAND_ALONE or (term.startswith("ISO_IR ") and term != _JAPANESE)
    return meant.encodings[0] if writes_alone else "ascii"


def writable(text: str, encoding: str) -> str:
    """One line of printable characters that the encoding has: accents are dropped, the rest becomes question marks."""
    kept = "".join(_written(c, encoding) for c in unicodedata.normalize("NFC", text))
    return " ".join(kept.replace("\\", "/").split())


def _written(character: str, encoding: str) -> str:
    if character.isspace():
        return " "
    for form in (
        character,
        "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)),
    ):
        with suppress(UnicodeEncodeError):
            if form.isprintable() and form.encode(encoding):
                return form
    return "" if unicodedata.combining(character) else "?"
