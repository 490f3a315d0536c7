"""Names the DIMSE status codes this node sends and reads those it gets; it knows nothing of networks or retries.

Sources: PS3.4 Table B.2-1 (C-STORE statuses), PS3.7 section 9.1.1.1.9 and Annex C (statuses of all DIMSE services),
PS3.3 C.14.1.1 (failure reasons of storage commitment).
"""

from dataclasses import dataclass
from enum import Enum

SUCCESS = 0x0000
INVALID_VALUE = 0x0106
PROCESSING_FAILURE = 0x0110
DUPLICATE_INSTANCE = 0x0111
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT = 0x0113
INVALID_ARGUMENT = 0x0115
NO_SUCH_CLASS = 0x0118
MISSING_ATTRIBUTE = 0x0120
MISSING_VALUE = 0x0121
NO_SUCH_ACTION = 0x0123
NOT_AUTHORIZED = 0x0124
RESOURCE_LIMITATION = 0x0213
OUT_OF_RESOURCES = 0xA700
DATASET_DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
# of C-MOVE and C-GET, PS3.4 tables C.4-2 and C.4-3
CANNOT_COUNT = 0xA701
CANNOT_SEND = 0xA702
UNKNOWN_DESTINATION = 0xA801
SOME_FAILED = 0xB000


class Verdict(Enum):
    """What a C-STORE status means for the instance it answers."""

    STORED = "stored"
    STORED_WITH_WARNING = "stored with a warning"
    TRANSIENT = "refused for now"  # the peer says itself that it may pass
    UNCLEAR = "refused without a reason"  # nobody can tell whether it will pass
    PERMANENT = "refused"


@dataclass(frozen=True)
class Reading:
    """A status as a person reads it; `sentence` always contains the number."""

    verdict: Verdict
    sentence: str

    @property
    def stored(self) -> bool:
        """Whether the peer holds the instance now."""
        return self.verdict in (Verdict.STORED, Verdict.STORED_WITH_WARNING)


_WARNING, _TRANSIENT, _UNCLEAR, _PERMANENT = (
    Verdict.STORED_WITH_WARNING,
    Verdict.TRANSIENT,
    Verdict.UNCLEAR,
    Verdict.PERMANENT,
)

_SINGLE: dict[int, tuple[Verdict, str]] = {
    0x0000: (Verdict.STORED, "stored"),
    0x0001: (_WARNING, "stored, but optional attributes were not supported"),
    0x0105: (_PERMANENT, "no such attribute"),
    0x0106: (_PERMANENT, "invalid attribute value"),
    0x0107: (_WARNING, "stored, but some attributes were not recognised"),
    0x0110: (_UNCLEAR, "processing failure at the peer"),
    # The peer has had this SOP Instance UID before; its content is ours, because our UIDs are made from the content.
    0x0111: (_WARNING, "the peer holds this instance already (duplicate SOP instance)"),
    0x0112: (_PERMANENT, "no such SOP instance"),
    0x0116: (_WARNING, "stored, but an attribute value was out of range"),
    0x0117: (_PERMANENT, "invalid SOP instance"),
    0x0118: (_PERMANENT, "no such SOP class"),
    0x0119: (_PERMANENT, "SOP class and instance do not belong together"),
    0x0120: (_PERMANENT, "missing attribute"),
    0x0121: (_PERMANENT, "missing attribute value"),
    0x0122: (_PERMANENT, "SOP class not supported"),
    0x0124: (_PERMANENT, "not authorised to store there"),
    0x0210: (_UNCLEAR, "duplicate invocation"),
    0x0211: (_PERMANENT, "unrecognised operation"),
    0x0212: (_PERMANENT, "mistyped argument"),
    0x0213: (_TRANSIENT, "resource limitation at the peer"),
    0xB000: (_WARNING, "stored, but the peer changed data elements (coercion)"),
    0xB006: (_WARNING, "stored, but the peer discarded data elements"),
    0xB007: (_WARNING, "stored, although the data set does not match the SOP class"),
}

_RANGES: tuple[tuple[int, int, Verdict, str], ...] = (
    (0xA700, 0xA7FF, _TRANSIENT, "the peer is out of resources"),
    (0xA900, 0xA9FF, _PERMANENT, "the data set does not match the SOP class"),
    (0xB000, 0xBFFF, _WARNING, "stored with a warning"),
    (0xC000, 0xCFFF, _PERMANENT, "the peer cannot understand the data set"),
)


def classify(status: int) -> Reading:
    """Read the status of a C-STORE response; a number that no table knows is UNCLEAR, never a success."""
    if status in _SINGLE:
        verdict, meaning = _SINGLE[status]
        return Reading(verdict, f"status {status:04X}: {meaning}")
    for first, last, verdict, meaning in _RANGES:
        if first <= status <= last:
            return Reading(verdict, f"status {status:04X}: {meaning}")
    return Reading(_UNCLEAR, f"status {status:04X}: not defined for C-STORE")


def store_readings() -> list[tuple[int, int, Reading]]:
    """First and last status of C-STORE, and how it is read, for every status that is known; the ranges come last."""
    single = [(code, code, Reading(*read)) for code, read in _SINGLE.items()]
    return [*single, *((first, last, Reading(verdict, meaning)) for first, last, verdict, meaning in _RANGES)]


_FAILURE_REASONS: dict[int, str] = {
    0x0110: "processing failure at the peer",
    0x0112: "the peer does not have it (no such object instance)",
    0x0119: "the peer has it under another SOP class (class/instance conflict)",
    0x0122: "the peer does not commit to this SOP class",
    0x0131: "the peer takes the request for a repeated one (duplicate transaction UID)",
    0x0213: "the peer has not enough space (resource limitation)",
}


def failure_words(reason: int) -> str:
    """A Failure Reason (0008,1197) of storage commitment as a person reads it; source: PS3.3 C.14.1.1."""
    return f"failure reason {reason:04X}: {_FAILURE_REASONS.get(reason, 'not defined for storage commitment')}"
