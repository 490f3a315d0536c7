"""Finds terms in the free text of a header: whole words only, so that PALMAR is no MAR.

A term is written in plain capitals. A blank in it stands for any blanks, dots, hyphens or underscores, or none
("SMART MAR" finds SmartMAR and Smart-MAR), # for a number, * for up to three more letters or digits. Accents and the
width of a letter are no difference (VENOS finds "venös"). Ideograms are found without blanks around them.
"""

import re
import unicodedata
from functools import lru_cache
from itertools import groupby
from typing import Final

Terms = tuple[str, ...]

_WILDCARDS: Final = {" ": r"[\s._-]*", "#": r"\d+(?:[.,]\d+)?", "*": r"\w{0,3}"}
# Scripts that are written without blanks between the words.
_IDEOGRAMS: Final = r"\u2e80-\ud7ff\uf900-\ufaff"
_LETTER: Final = rf"[^\W_{_IDEOGRAMS}]"
_UNDECOMPOSED: Final = str.maketrans({"Ø": "O", "Æ": "AE", "Ł": "L", "Œ": "OE"})


@lru_cache(maxsize=64)
def pattern_of(terms: Terms) -> re.Pattern[str]:
    """What finds any of these terms in a text that `in_capitals` gave, the longest first."""
    longest_first = sorted(terms, key=len, reverse=True)
    # The limits stand once for neighbours that share them: Python takes half a millisecond to compile each.
    groups = groupby((in_capitals(term) for term in longest_first), _limits)
    return re.compile("|".join(f"{before}(?:{'|'.join(map(_body, some))}){after}" for (before, after), some in groups))


def _limits(plain: str) -> tuple[str, str]:
    """What must not stand before and behind a term."""
    before = "" if plain[0] in "+" or _is_ideogram(plain[0]) else rf"(?<!{_LETTER})"
    after = "" if plain[-1] in "+_%" or _is_ideogram(plain[-1]) else rf"(?!{_LETTER})"
    return before, after


def _body(plain: str) -> str:
    return "".join(_WILDCARDS.get(character) or re.escape(character) for character in plain)


def _is_ideogram(character: str) -> bool:
    return re.match(f"[{_IDEOGRAMS}]", character) is not None


@lru_cache(maxsize=4096)
def in_capitals(text: str) -> str:
    """A text in capitals, without accents, in the usual width of letters."""
    letters = (one for one in unicodedata.normalize("NFKD", text.upper()) if not unicodedata.combining(one))
    return unicodedata.normalize("NFKC", "".join(letters)).translate(_UNDECOMPOSED)


@lru_cache(maxsize=4096)
def find_word(terms: Terms, text: str) -> str:
    """The first of these terms in a text, in plain capitals; "" where none of them is a word of it."""
    found = pattern_of(terms).search(in_capitals(text))
    return found[0] if found else ""
