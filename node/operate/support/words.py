"""Leaves of a text only what this program itself can have said: its own words, short numbers, times, and settings.

A reason or a line of a log may quote a header, a peer or a person. Nobody can list all that such a quotation may hold,
so what is kept is listed: a word stays where it stands in the sources of this program or in the settings.
"""

import hashlib
import hmac
import html
import re
import secrets
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import config
import models
import node
import storage

LEFT_OUT: Final = "…"
_UID_KEYS: Final = frozenset({"series_uid", "study_uid", "derived_series_uid", "sop_instance_uid"})
_AE_KEYS: Final = frozenset({"calling_ae", "called_ae"})
_NUMBER_KEYS: Final = frozenset({"series_number", "derived_series_number"})
_PEOPLE_KEYS: Final = frozenset({"acknowledged_by", "override", "patient_id", "description", "derived_description"})
_MOST_NUMBER: Final = 999_999  # a longer series number may be an ID that somebody typed there
_WORD: Final = re.compile(r"[^\W\d_]+")
_PART: Final = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?(?!\w))"
    r"|(?P<number>(?<!\w)pid \d{1,7}(?!\w)|(?<!\w)port \d{1,5}(?!\w)|(?<=[\w\]]):\d{1,5}(?![\w:]))"
    r"|(?P<uid>\d+(?:\.\d+){4,})"
    r"|(?P<date>(?<!\w)\d{1,4}[-/]\d{1,2}[-/]\d{1,4}(?!\w)|(?<!\w)\d{1,2}\.\d{1,2}\.\d{4}(?!\w))"
    r"|(?P<word>\w+)"
    r"|(?P<mark>[ -~\u2013\u2192]|\s)"
    r"|(?P<other>.)",
    re.DOTALL,
)
_NUMBERED: Final = re.compile(r"(?<!\w)[A-Za-z]+\d{1,3}(?!\w)")  # such as bf16
_SHORT: Final = re.compile(r"\d{1,4}(?:s|ms|MB|GB|GiB|min|h|d|HU|mm|x)?|[0-9A-F]{4}")


class Words:
    """The words that may stay, and the pseudonyms of what is replaced; both are of one bundle alone."""

    def __init__(self, own: Iterable[str] = (), *, ae_titles: Iterable[str] = (), show_uids: bool = False) -> None:
        """own: texts whose words may stay too, such as the settings. show_uids: leave UIDs as they are."""
        self._known = _vocabulary() | {word for text in own for word in words_of(text)}
        self._whole = {token for text in own for token in re.findall(r"\w+", text)}
        self._ae_titles, self._show_uids = frozenset(ae_titles), show_uids
        self._key = secrets.token_bytes(32)

    def knows(self, text: str) -> bool:
        """Whether this program or the settings have every word of a text; numbers do not count."""
        found = words_of(text)
        return bool(found) and found <= self._known

    def text(self, text: str) -> str:
        """The text with `…` in the place of what the program cannot have said by itself."""
        plain = "".join(c for c in html.unescape(unquote(text)) if c.isprintable() or c in "\n\t")
        cleaned = "".join(self._part(found) for found in _PART.finditer(plain))
        return re.sub(rf"{LEFT_OUT}(?:[ .,^-]?{LEFT_OUT})+", LEFT_OUT, cleaned)

    def value(self, value: Any, key: str = "") -> Any:
        """A value of JSON, with everything below it; `key` is the name under which it stands."""
        if isinstance(value, Mapping):
            return {self._name(str(name)): self.value(one, str(name)) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(one, key) for one in value]
        if isinstance(value, str) and value:
            return self._string(value, key)
        too_long = isinstance(value, int) and key in _NUMBER_KEYS and abs(value) > _MOST_NUMBER
        return LEFT_OUT if too_long else value

    def _string(self, value: str, key: str) -> str:
        if key in _PEOPLE_KEYS:
            return LEFT_OUT
        if key in _UID_KEYS:
            return self.uid(value)
        if key in _AE_KEYS:
            return value if value in self._ae_titles else self._pseudonym("ae", value)
        if key == "actor" and value.startswith("operator"):
            return "operator"  # who works here is nobody's business
        return self.text(value)

    def uid(self, uid: str) -> str:
        """The pseudonym of a UID: the same for the same UID in one bundle, and another in every other bundle."""
        return uid if self._show_uids and re.fullmatch(r"[\d.]{1,64}", uid) else self._pseudonym("uid", uid)

    def _pseudonym(self, kind: str, text: str) -> str:
        digest = hmac.new(self._key, text.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()
        return f"{kind}-{digest[:12]}"

    def _name(self, key: str) -> str:
        return key if self.text(key) == key else LEFT_OUT

    def _part(self, found: re.Match[str]) -> str:
        text, kind = found.group(), found.lastgroup
        if kind in ("time", "number", "mark"):
            return text
        if kind == "uid":
            return text if text.startswith("1.2.840.10008.") else self.uid(text)
        if kind == "word" and (text in self._whole or _SHORT.fullmatch(text) or self._is_ours(text)):
            return text
        return LEFT_OUT

    def _is_ours(self, token: str) -> bool:
        """Whether a token is made of known words, with underscores and short numbers between them."""
        parts = [part for part in token.split("_") if part]
        return token.casefold() in self._known or all(
            part.casefold() in self._known or _SHORT.fullmatch(part) for part in parts
        )


def words_of(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return {word.casefold() for word in _WORD.findall(text)}


@cache
def _vocabulary() -> frozenset[str]:
    """Every word in the sources of this program."""
    found: set[str] = set()
    for package in (config, models, node, storage):
        for file in Path(str(package.__file__)).parent.rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            found |= words_of(text) | {token.casefold() for token in _NUMBERED.findall(text)}
    return frozenset(found)
