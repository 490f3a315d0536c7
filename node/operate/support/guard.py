"""The last look at a bundle before it is written: no member may hold a patient that the store knows, in any coding."""

import base64
import binascii
import html
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import unquote

from storage.inspection import PatientTexts

LEAST: Final = 4  # characters; shorter ones stand in every text
_BOUNDED: Final = 6  # shorter ones count only as words of their own
_GRAM: Final = 4
_LEAST_DIGITS: Final = 5
_MANY_DIGITS: Final = re.compile(rf"\d{{{_LEAST_DIGITS}}}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}){4,}")
_BYTES: Final = re.compile(r"[^\n]*[\x00-\x08\x0e-\x1f\x7f-\xff][^\n]*")  # of no text, read as if they were one
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))")


class Guard:
    """Knows the texts of the patients; `is_ours(text)` says that this program itself has all words of a text."""

    def __init__(self, texts: PatientTexts, is_ours: Callable[[str], bool]) -> None:
        self._needles = sorted(set(_needles(texts, is_ours)))

    def __len__(self) -> int:
        """How many texts are looked for."""
        return len(self._needles)

    def hits(self, members: Mapping[str, str]) -> list[str]:
        """The members that hold one of the texts, sorted; the text itself is not told."""
        return sorted(name for name, text in members.items() if self._hit(f"{name}\n{text}"))

    def _hit(self, text: str) -> bool:
        corpus = _plain("\n".join(_readings(text)))
        grams = {corpus[start : start + _GRAM] for start in range(len(corpus) - _GRAM + 1)}
        return any(_may_hold(grams, needle) and _holds(corpus, needle) for needle in self._needles)


def _needles(texts: PatientTexts, is_ours: Callable[[str], bool]) -> Iterator[str]:
    """What is looked for, as `_plain` writes it."""

    def is_word(text: str) -> bool:
        """Phantoms are called `PHANTOM` or `TEST`, and so are things of this program."""
        return text.strip().isalpha() and is_ours(text)

    ids = {one for one in texts.ids if not one.strip().isdigit() or len(one.strip()) >= _LEAST_DIGITS}
    parts = {part for name in texts.names for part in re.split(r"[\^=,\s]+", name)}
    free = {one for one in texts.descriptions | texts.typed if not is_ours(one) or _MANY_DIGITS.search(one)}
    for found in ids | parts | texts.names:
        if not is_word(found):
            yield from _long(found)
    for found in free:
        yield from _long(found)


def _long(text: str) -> Iterator[str]:
    if len(plain := _plain(text)) >= LEAST:
        yield plain


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _may_hold(grams: set[str], needle: str) -> bool:
    """Thousands of texts are sought in millions of characters: most are ruled out by their first pieces."""
    return all(needle[start : start + _GRAM] in grams for start in range(len(needle) - _GRAM + 1))


def _holds(corpus: str, needle: str) -> bool:
    if len(needle) >= _BOUNDED:
        return needle in corpus
    return re.search(rf"(?<!\w){re.escape(needle)}(?!\w)", corpus) is not None


def _readings(text: str) -> Iterator[str]:
    """The text as it stands, and what it says in the codings in which a name may hide."""
    yield text
    yield text.replace("\x00", "")  # UTF-16
    yield html.unescape(unquote(text))
    yield _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)), text)
    for line in sorted(set(_BYTES.findall(text))):
        data = line.encode("latin-1", errors="replace")
        for start in range(2):
            yield data[start:].decode("utf-16-le", errors="ignore")
    for token in sorted(set(_BASE64.findall(text))):
        for start in range(4):
            yield from _of_bytes(_from_base64(token[start:]))
    for token in sorted(set(_HEX.findall(text))):
        yield from _of_bytes(bytes.fromhex(token))


def _from_base64(text: str) -> bytes:
    whole = text[:-1] if len(text) % 4 == 1 else text
    try:
        return base64.b64decode((whole + "=" * (-len(whole) % 4)).replace("-", "+").replace("_", "/"))
    except binascii.Error:
        return b""


def _of_bytes(data: bytes) -> Iterator[str]:
    yield data.replace(b"\x00", b"").decode("latin-1")
    yield data.decode("utf-8", errors="ignore")
    yield data.decode("utf-16-le", errors="ignore")
