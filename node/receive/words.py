"""What texts of a header say about contrast agent: who was given some, who was not, and of whom nobody knows."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from node.dicom.elements import parse_decimal
from node.dicom.terms import Terms, find_word, in_capitals, pattern_of

# What operators type into ContrastBolusAgent to say that there was none: a negation, alone or with words of no meaning.
NEGATIONS: Final = frozenset(
    (
        *("NO", "NON", "NONE", "NOT", "NIL", "NULL", "NAN", "N/A", "NA", "N.A.", "N", "FALSE", "0", "0ML", "-", "--"),
        *("---", ".", "/", "C-", "WITHOUT", "W/O", "WO", "NATIVE", "NATIV", "NATIF", "NATIVO", "NATIVA"),
        *("UNENHANCED", "NONCONTRAST", "NON-CONTRAST", "PLAIN", "OHNE", "KEIN", "KEINE", "KEINES", "KEINS", "NEIN"),
        *("SANS", "AUCUN", "AUCUNE", "SENZA", "NESSUNO", "NESSUN", "SIN", "NINGUNO", "NINGUN", "NINGUNA", "SEM"),
        *("NENHUM", "ZONDER", "GEEN", "UTAN", "INGEN", "INGET", "UDEN", "UTEN", "BEZ", "BRAK", "ILMAN", "NAO", "NIET"),
        *("NICHT", "NEE", "NEJ", "NIE", "KM-", "IV-", "CE-", "MDC-", "S/C", "БЕЗ", "НЕТ", "なし", "無"),
    )
)
_FILLERS: Final = frozenset(
    (
        *("AGENT", "AGENTS", "APPLICABLE", "APPLIED", "USED", "GIVEN", "CONTRAST", "CONTRASTE", "CONTRASTO"),
        *("KONTRAST", "KONTRASTMITTEL", "KONTRASTU", "CONTRASTMIDDEL", "CONTRASTMITTEL", "KM", "CM", "MDC", "PDC"),
        *("BOLUS", "IV", "I.V.", "INJECTION", "INJEKTION", "INJ", "IODINE", "JOD", "MEDIA", "MEDIUM", "MEZZO"),
        *("PRODUIT", "DE", "DI", "OF", "ML", "CC", "SCAN", "CT", "ENHANCED", "ENHANCEMENT", "C", "CE", "CIV"),
        *("ADMINISTERED", "TOEGEDIEND", "GEGEBEN", "VERABREICHT", "INJECTED", "INJECTE", "INJECTEE", "КОНТРАСТА"),
    )
)
_ANSWERS: Final[Terms] = (
    *("NO", "NONE", "NON", "NEIN", "KEIN", "KEINE", "KEINS", "NEE", "GEEN", "NEJ", "NAO", "NEGATIV*", "НЕТ"),
)
UNKNOWN: Final = frozenset((*("UNKNOWN", "UNK", "UNSPECIFIED", "UNBEKANNT", "INCONNU", "?", "??", "???"),))

# Trade and generic names of agents for CT.
_AGENTS: Final[Terms] = (
    *("ULTRAVIST", "IMERON", "IOMERON", "OMNIPAQUE", "ACCUPAQUE", "VISIPAQUE", "XENETIX", "ISOVUE", "IOPAMIRO"),
    *("IOPAMIRON", "SOLUTRAST", "NIOPAM", "OPTIRAY", "SCANLUX", "OXILAN", "HEXABRIX", "TELEBRIX", "UNILUX", "OPTIJECT"),
    *("OYPALOMIN", "IOHEXOL", "IOPAMIDOL", "IOPROMID*", "IOMEPROL", "IOBITRIDOL", "IODIXANOL", "IOVERSOL", "IOXILAN"),
)
CONTRAST_GIVEN: Final[Terms] = (
    *("C+", "+C", "C PLUS", "C/C", "CE", "CE+", "CE PHASE", "ENH", "ENHANCED", "CECT", "CE CT", "W IV", "W/ IV"),
    *("WITH IV", "IV+", "+IV", "AVEC IV", "CIV", "CONTRAST*", "KONTRAST*", "CONTRASTMIDDEL", "KONTRASTMITTEL"),
    *("W CONTRAST", "W/ CONTRAST", "WITH CONTRAST", "W IV CONTRAST", "W/ IV CONTRAST", "WITH IV CONTRAST"),
    *("POST CONTRAST", "CONTRAST ENHANCED", "KM", "KM+", "+KM", "MIT KONTRAST", "MIT KONTRASTMITTEL"),
    *("AVEC CONTRASTE", "AVEC INJECTION", "INJECTE", "INJECTEE", "INJECTED", "POST INJECTION", "CON CONTRASTE"),
    *("CON CONTRASTO", "CON MDC", "MDC", "M D C", "COM CONTRASTE", "MET CONTRAST", "MED KONTRAST"),
    *("ARTERIAL", "ARTERIEL", "ARTERIELL", "ARTERIELLE*", "ARTERIOSA", "ART PHASE", "VENOUS", "VENOS", "VENOS*"),
    *("VENOES", "VENOESE", "VENØS", "VEINEUX", "VEINEUSE", "VENEUS", "VENEUZE", "PORTOVENOUS", "PORTALVENOUS"),
    *("PORTALVENOS*", "PORTALVENOES", "PORTOVENOS*", "SPATVENOS*", "SPAETVENOES", "PORTAL", "PORTALE", "PORTAL PHASE"),
    *("P.V.", "PV PHASE", "SPATPHASE", "SPAETPHASE", "LATE PHASE", "DELAYED", "TARDIF", "TARDIVE", "TARDIVA"),
    *("ANGIO", "ANGIOGRAPHY", "CTA", "CTPA", "КОНТРАСТ*", "ВЕНОЗН*", "АРТЕРИАЛЬН*", "造影", "增强", "增強", "조영"),
    *_AGENTS,
)
CONTRAST_DENIED: Final[Terms] = (
    *("C-", "-C", "W/O", "WO", "WO CONTRAST", "WO IV", "WITHOUT", "NO CONTRAST", "NO IV", "NO KM", "NON CONTRAST"),
    *("NON CON", "NON ENHANCED", "NON CE", "NON INJECTE", "NON INJECTEE", "NCCT", "UNENHANCED", "NATIVE", "NATIV"),
    *("NATIF", "NATIVO", "NATIVA", "PLAIN", "OHNE", "KEIN", "KEINE", "KEIN KM", "SANS", "SENZA", "SIN", "SEM"),
    *("ZONDER", "GEEN", "UTAN", "UDEN", "UTEN", "BEZ", "PRE CONTRAST", "PRE KM", "PRAE KM", "BLANCO", "BASALE"),
    *("KM-", "IV-", "CE-", "MDC-", "SMDC", "S/MDC", "S/C", "S/CONTRASTE", "S/ CONTRASTE", "БЕЗ", "НАТИВ*"),
    *("非造影", "造影なし", "造影剤なし", "造影無", "単純", "单纯", "平扫", "平掃", "비조영"),
)
ORAL: Final[Terms] = (
    *("ORAL", "ORALLY", "PO", "P.O.", "PER OS", "BY MOUTH", "RECTAL", "RECTALLY", "GASTROGRAFIN", "GASTROVIEW"),
    *("GASTROLUX", "BARIUM", "PERORAL", "PER ORAL", "PEROS"),
)
INTRAVENOUS: Final[Terms] = (
    *("IV", "I.V.", "INTRAVENOUS", "INTRAVENOS", "INTRAVENOES", "INTRAVASCULAR", "VENOUS", "OMNI"),
)


def denies_agent(values: Sequence[str]) -> bool:
    """True where a value of ContrastBolusAgent (PS3.3 C.7.6.4) says in words that no agent was given."""
    return bool(values) and all(_denies(value) for value in values)


def _denies(value: str) -> bool:
    words = [_bare(word) for word in in_capitals(value).split()]
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
    """A quantity such as KVP in its own unit; 0 where it is absent, empty or no number."""
    return (parse_decimal(values[0]) or 0.0) if len(values) == 1 else 0.0


def names_amount(values: Sequence[str]) -> bool:
    """True where a value, of several also, is a number above 0, or a text with such a number ("80ml")."""
    numbers = [(value, parse_decimal(value)) for value in values]
    return any(re.search("[1-9]", value) is not None if number is None else number > 0 for value, number in numbers)


def says_contrast(texts: Sequence[tuple[str, str]]) -> str:
    """What (keyword, text) pairs say about contrast agent: "SeriesDescription names C+", or "".

    The first text that says either decides: a native series of a protocol for contrast says so itself. A text that says
    both (a protocol "C-/C+" of two phases) says nothing of this series.
    """
    for keyword, text in texts:
        plain = in_capitals(text)
        rest = _denials().sub(" ", plain)
        given, denied = find_word(CONTRAST_GIVEN, rest), rest != plain
        if bool(given) != denied:
            return f"{keyword} names {given}" if given else ""
    return ""


@lru_cache(maxsize=1)
def _denials() -> re.Pattern[str]:
    """A denial with what it denies, "ohne KM" or "KM: nein" as a whole, so that its KM is not read alone."""
    fillers = pattern_of((*_FILLERS, "CONTRAST*", "KONTRAST*", "КОНТРАСТ*")).pattern
    before = rf"(?:{pattern_of(CONTRAST_DENIED).pattern})(?:[\s._-]+(?:{fillers}))*"
    # Only where nothing follows: "contrast: no reaction" denies something else.
    behind = rf"(?:{fillers})[\s._-]*[:=]?\s*(?:{pattern_of(_ANSWERS).pattern})(?=[.!\s]*(?:$|[,;)]))"
    return re.compile(f"{before}|{behind}")
