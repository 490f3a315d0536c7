"""Words that the rules of the input gate look for in a header: whole words only, so that PALMAR is no MAR.

A term is written in plain capitals. A blank in it stands for any blanks, dots, hyphens or underscores, or none
("SMART MAR" finds SmartMAR and Smart-MAR), # for a number, * for up to three more letters or digits.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from node.dicom.elements import parse_decimal

Terms = tuple[str, ...]

_WILDCARDS: Final = {" ": r"[\s._-]*", "#": r"\d+(?:[.,]\d+)?", "*": r"\w{0,3}"}

# What operators type into ContrastBolusAgent to say that there was none: a negation, alone or with words of no meaning.
NEGATIONS: Final = frozenset(
    (
        *("NO", "NON", "NONE", "NOT", "NIL", "NULL", "NAN", "N/A", "NA", "N.A.", "N", "FALSE", "0", "0ML", "-", "--"),
        *("---", ".", "/", "C-", "WITHOUT", "W/O", "WO", "NATIVE", "NATIV", "NATIF", "NATIVO", "NATIVA"),
        *("UNENHANCED", "NONCONTRAST", "NON-CONTRAST", "PLAIN", "OHNE", "KEIN", "KEINE", "KEINES", "KEINS", "NEIN"),
        *("SANS", "AUCUN", "AUCUNE", "SENZA", "NESSUNO", "NESSUN", "SIN", "NINGUNO", "NINGUN", "NINGUNA", "SEM"),
        *("NENHUM", "ZONDER", "GEEN", "UTAN", "INGEN", "INGET", "UDEN", "UTEN", "BEZ", "BRAK", "ILMAN"),
    )
)
_FILLERS: Final = frozenset(
    (
        *("AGENT", "AGENTS", "APPLICABLE", "APPLIED", "USED", "GIVEN", "CONTRAST", "CONTRASTE", "CONTRASTO"),
        *("KONTRAST", "KONTRASTMITTEL", "KONTRASTU", "CONTRASTMIDDEL", "CONTRASTMITTEL", "KM", "CM", "MDC", "PDC"),
        *("BOLUS", "IV", "I.V.", "INJECTION", "INJEKTION", "INJ", "IODINE", "JOD", "MEDIA", "MEDIUM", "MEZZO"),
        *("PRODUIT", "DE", "DI", "OF", "ML", "SCAN", "CT", "ENHANCED", "ENHANCEMENT"),
    )
)
UNKNOWN: Final = frozenset((*("UNKNOWN", "UNK", "UNSPECIFIED", "UNBEKANNT", "INCONNU", "?", "??", "???"),))

CONTRAST_GIVEN: Final[Terms] = (
    *("C+", "+C", "CE+", "W CONTRAST", "W/ CONTRAST", "WITH CONTRAST", "W IV CONTRAST", "W/ IV CONTRAST"),
    *("WITH IV CONTRAST", "W IV", "WITH IV", "POST CONTRAST", "CONTRAST ENHANCED", "ENHANCED", "CECT", "CE CT"),
    *("KM", "KM+", "+KM", "MIT KONTRAST", "MIT KONTRASTMITTEL", "AVEC CONTRASTE", "AVEC INJECTION", "INJECTE"),
    *("INJECTED", "POST INJECTION", "CON CONTRASTE", "CON CONTRASTO", "CON MDC", "MDC", "COM CONTRASTE"),
    *("MET CONTRAST", "MED KONTRAST", "ARTERIAL", "VENOUS", "PORTOVENOUS", "ARTERIELL", "VENÖS", "VENOES"),
    *("ARTERIOSA", "VENOSA", "PORTAL PHASE", "ANGIO", "ANGIOGRAPHY", "CTA", "CTPA"),
)
CONTRAST_DENIED: Final[Terms] = (
    *("C-", "-C", "W/O", "WO CONTRAST", "WO IV", "WITHOUT", "NO CONTRAST", "NO IV", "NO KM", "NON CONTRAST", "NON CON"),
    *("NON ENHANCED", "NCCT", "UNENHANCED", "NATIVE", "NATIV", "NATIF", "NATIVO", "NATIVA", "PLAIN", "OHNE", "KEIN"),
    *("KEINE", "KEIN KM", "SANS", "SENZA", "SIN", "SEM", "ZONDER", "GEEN", "UTAN", "UDEN", "UTEN", "BEZ"),
    *("PRE CONTRAST", "PRE KM", "PRAE KM", "BLANCO"),
)
ORAL: Final[Terms] = (
    *("ORAL", "ORALLY", "PO", "P.O.", "PER OS", "BY MOUTH", "RECTAL", "RECTALLY", "GASTROGRAFIN", "GASTROVIEW"),
    *("GASTROLUX", "BARIUM", "PERORAL", "PER ORAL", "PEROS"),
)
INTRAVENOUS: Final[Terms] = (
    "IV",
    "I.V.",
    "INTRAVENOUS",
    "INTRAVENÖS",
    "INTRAVENOES",
    "INTRAVASCULAR",
    "VENOUS",
    "OMNI",
)


@lru_cache(maxsize=64)
def _pattern(terms: Terms) -> re.Pattern[str]:
    longest_first = sorted(terms, key=len, reverse=True)
    return re.compile("|".join(_expression(term) for term in longest_first))


def _expression(term: str) -> str:
    body = "".join(_WILDCARDS.get(character) or re.escape(character) for character in term)
    before = "" if term[0] in "+" else r"(?<![^\W_])"
    after = "" if term[-1] in "+_%" else r"(?![^\W_])"
    return f"{before}{body}{after}"


@lru_cache(maxsize=4096)
def find_word(terms: Terms, text: str) -> str:
    """The first of these terms in a text, in capitals as it stands there; "" where none of them is a word of it."""
    found = _pattern(terms).search(text.upper())
    return found[0] if found else ""


def denies_agent(values: Sequence[str]) -> bool:
    """True where a value of ContrastBolusAgent (PS3.3 C.7.6.4) says in words that no agent was given."""
    return bool(values) and all(_denies(value) for value in values)


def _denies(value: str) -> bool:
    words = [_bare(word) for word in value.upper().split()]
    negated = [word for word in words if word in NEGATIONS]
    return bool(negated) and all(word in NEGATIONS or word in _FILLERS for word in words)


def _bare(word: str) -> str:
    """A word without the marks around it, unless it is nothing else or a full stop belongs to it (N.A.)."""
    stripped = word.strip(",;:()[]'\"") or word
    return stripped if stripped in NEGATIONS or stripped in _FILLERS else stripped.strip(".!") or stripped


def is_unknown(values: Sequence[str]) -> bool:
    """True where a value of ContrastBolusAgent says that nobody knows."""
    return bool(values) and all(value.strip().upper() in UNKNOWN for value in values)


def amount(values: Sequence[str]) -> float:
    """A quantity such as ContrastBolusVolume in its own unit; 0 where it is absent, empty or no number."""
    return (parse_decimal(values[0]) or 0.0) if len(values) == 1 else 0.0


def says_contrast(texts: Sequence[tuple[str, str]]) -> str:
    """What (keyword, text) pairs say about contrast agent: "SeriesDescription names C+", or "".

    The first text that says either decides: a native series of a protocol for contrast says so itself. A text that says
    both (a protocol "C-/C+" of two phases) says nothing of this series.
    """
    for keyword, text in texts:
        rest = _denials().sub(" ", text.upper())
        given, denied = find_word(CONTRAST_GIVEN, rest), rest != text.upper()
        if bool(given) != denied:
            return f"{keyword} names {given}" if given else ""
    return ""


@lru_cache(maxsize=1)
def _denials() -> re.Pattern[str]:
    """A denial with what it denies: "ohne KM" as a whole, so that its KM is not read alone."""
    fillers = "|".join(re.escape(word) for word in sorted(_FILLERS, key=len, reverse=True))
    return re.compile(rf"(?:{_pattern(CONTRAST_DENIED).pattern})(?:[\s._-]+(?:{fillers})(?![^\W_]))*")
