"""What a rule of the input gate is: what it looks at, what it looks for, what follows, and who says so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from node.dicom.headers import SliceHeader
from node.dicom.terms import Terms, find_word
from node.receive.findings import text_of

Answer = bool | str
"""True or a clause that names what was found, where a rule is broken; False or "" where it is not."""


class Outcome(StrEnum):
    """What becomes of a series that breaks a rule."""

    SKIP = "SKIPPED"
    HOLD = "HELD"


class Topic(StrEnum):
    """Rules that somebody may leave out as a whole."""

    ORDINARY = ""
    CONTRAST = "contrast"
    METAL = "metal_artifact_reduction"
    VIRTUAL = "virtual_native"


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """What every rule says of itself. attributes: what it reads; source: who says that this matters."""

    attributes: tuple[str, ...]
    source: str
    outcome: Outcome = Outcome.SKIP
    topic: Topic = Topic.ORDINARY


@dataclass(frozen=True, slots=True)
class SliceRule(_About):
    """Something that no slice of a translatable series is or has."""

    code: str
    breaks: Callable[[SliceHeader], Answer]
    reason: str
    words: Terms = field(default=(), kw_only=True)


@dataclass(frozen=True, slots=True)
class WordRule(_About):
    """Words that no attribute of a translatable series holds; `unless` are words that excuse them in the same one."""

    code: str
    words: Terms
    reason: str
    unless: Terms = field(default=(), kw_only=True)

    def breaks(self, header: SliceHeader) -> str:
        """The attribute and the word that it holds, or ""."""
        for keyword in self.attributes:
            text = text_of(header, keyword)
            if (word := find_word(self.words, text)) and not (self.unless and find_word(self.unless, text)):
                return f"{keyword} names {word}"
        return ""


@dataclass(frozen=True, slots=True)
class SeriesRule(_About):
    """Something that all slices of a series must share, or must not."""

    code: str
    breaks: Callable[[Sequence[SliceHeader]], Answer]
    reason: str


GateRule = SliceRule | WordRule | SeriesRule
