"""The states of series, jobs and deliveries, and the transitions between them, as one table each; no SQL.

Every arrow names who draws it; every transition also writes one event row (`storage.transitions`).
"""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Any, Final

from storage.errors import IllegalTransition


class SeriesState(StrEnum):
    """What is known about a received series."""

    RECEIVING = "RECEIVING"
    COMPLETE = "COMPLETE"
    INCOMPLETE = "INCOMPLETE"
    QUEUED = "QUEUED"
    SKIPPED = "SKIPPED"


class JobState(StrEnum):
    """What is known about the translation of one series by one bundle."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PRODUCED = "PRODUCED"
    HELD = "HELD"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"


class Priority(IntEnum):
    """Whose turn comes first, whatever is due: no job of one priority waits for one of a later priority."""

    URGENT = 0
    ROUTINE = 1
    OFF_PEAK = 2


class Stage(StrEnum):
    """A part of the way of a series that a person can pause."""

    RECEIVE = "receive"
    TRANSLATE = "translate"
    SEND = "send"


class DeliveryState(StrEnum):
    """What is known about one derived series at one destination."""

    PENDING = "PENDING"
    SENDING = "SENDING"
    SENT = "SENT"
    CONFIRMED = "CONFIRMED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


WORKER_CANNOT: Final = "the worker cannot translate: "
"""How the reason of a job begins that is HELD for want of its bundle or device, and not for what its series is."""

MAX_DEATHS: Final = 2
"""So many processes end over one series or job, alone, before it is FAILED and touched no more."""

MAX_NODE_DEATHS: Final = 5
"""So often the whole node, or its machine, ends while a series or job is in hand before that is FAILED."""

NOT_JUDGED: Final = ""
"""The bundle of a job that stands for a series which could not be judged; no worker runs it."""

# Of each state, to which others it goes: who draws the arrow, and when. An operator's arrow names its command.
SERIES_ARROWS: Final[dict[SeriesState, dict[SeriesState, str]]] = {
    SeriesState.RECEIVING: {
        SeriesState.COMPLETE: "completion: closed associations, quiet, gap-free; receiver: it keeps nothing of it",
        SeriesState.INCOMPLETE: "completion: a gap, a lost image, or the sender gave up",
    },
    SeriesState.INCOMPLETE: {
        SeriesState.RECEIVING: "receiver: the sender tries again; operator: `jobs drop`",
        SeriesState.COMPLETE: "operator: `jobs complete`",
        SeriesState.SKIPPED: "operator: `jobs cancel`",
    },
    SeriesState.COMPLETE: {
        SeriesState.QUEUED: "eligibility: Accept",
        SeriesState.SKIPPED: "eligibility: Skip(reason); receiver: it keeps nothing of it",
        SeriesState.RECEIVING: "receiver: late or lost slice, or differing duplicate",
    },
    SeriesState.QUEUED: {
        SeriesState.RECEIVING: "receiver: late or lost slice, or differing duplicate; "
        "operator: `jobs drop`, `jobs retry` after a recall",
        SeriesState.INCOMPLETE: "worker: received files are damaged or gone",
    },
    SeriesState.SKIPPED: {
        SeriesState.RECEIVING: "receiver: late, lost or differing slice; operator: `jobs retry`, `jobs drop`",
    },
}

_WITHDRAWN: Final = {
    JobState.CANCELLED: "operator: `jobs cancel`, `recall`",
    JobState.SUPERSEDED: "receiver or completion: the source series changed",
}

JOB_ARROWS: Final[dict[JobState, dict[JobState, str]]] = {
    JobState.QUEUED: {
        JobState.RUNNING: "worker: claim",
        JobState.FAILED: "completion: a series that cannot be judged, in one transaction with its job",
        **_WITHDRAWN,
    },
    JobState.RUNNING: {
        JobState.PRODUCED: "worker: series written, outbox rows in the same transaction",
        JobState.HELD: "worker: a quality gate wants a person",
        JobState.FAILED: "worker: permanent error, or too many attempts",
        JobState.QUEUED: "worker: retryable error, or sources to be sent again; scheduler: lease expired",
        JobState.CANCELLED: "operator: `jobs cancel`, `recall`",
        JobState.SUPERSEDED: "receiver or completion: the source series changed; worker: a lost result has other bytes",
    },
    JobState.HELD: {
        JobState.PRODUCED: "operator: `jobs release`",
        JobState.REJECTED: "operator: `jobs reject`",
        JobState.QUEUED: "operator: `jobs retry`",
        **_WITHDRAWN,
    },
    JobState.FAILED: {JobState.QUEUED: "operator: `jobs retry`; receiver: a lost image came again", **_WITHDRAWN},
    JobState.PRODUCED: {
        JobState.QUEUED: "courier: files of the result are damaged or gone, and it is made again",
        **_WITHDRAWN,
    },
    JobState.CANCELLED: {
        JobState.QUEUED: "operator: `jobs retry`, `jobs reopen`",
        JobState.HELD: "operator: `jobs reopen`",
        JobState.PRODUCED: "operator: `jobs reopen`",
    },
    JobState.REJECTED: {JobState.HELD: "operator: `jobs reopen`"},
    JobState.SUPERSEDED: {},
}

DELIVERY_ARROWS: Final[dict[DeliveryState, dict[DeliveryState, str]]] = {
    DeliveryState.PENDING: {
        DeliveryState.SENDING: "courier: claim",
        DeliveryState.FAILED: "courier: the settings have no such destination any more",
        DeliveryState.CANCELLED: "the job was cancelled or superseded",
    },
    DeliveryState.SENDING: {
        DeliveryState.SENT: 'courier: every instance answered with success or a "stored" warning',
        DeliveryState.PENDING: "courier: transient refusal, or a damaged file; scheduler: lease expired",
        DeliveryState.FAILED: "courier: permanent refusal",
        DeliveryState.CANCELLED: "the job was cancelled or superseded",
    },
    DeliveryState.SENT: {
        DeliveryState.CONFIRMED: "courier or receiver: the peer shows that it holds every instance",
        DeliveryState.PENDING: "receiver: the peer did not commit to instances; operator: `jobs resend`",
    },
    DeliveryState.FAILED: {
        DeliveryState.PENDING: "operator: `jobs retry`, `jobs resend`",
        DeliveryState.CANCELLED: "the job was cancelled or superseded",
    },
    DeliveryState.CONFIRMED: {DeliveryState.PENDING: "operator: `jobs resend`"},
    DeliveryState.CANCELLED: {DeliveryState.PENDING: "operator: `jobs reopen`"},
}

SERIES_TRANSITIONS: Final = {state: frozenset(arrows) for state, arrows in SERIES_ARROWS.items()}
JOB_TRANSITIONS: Final = {state: frozenset(arrows) for state, arrows in JOB_ARROWS.items()}
DELIVERY_TRANSITIONS: Final = {state: frozenset(arrows) for state, arrows in DELIVERY_ARROWS.items()}

FINAL_STATES: Final = (
    *(SeriesState.SKIPPED, SeriesState.QUEUED),  # the series is done with; what goes on is its job
    *(JobState.PRODUCED, JobState.REJECTED, JobState.CANCELLED, JobState.SUPERSEDED),  # what goes on is its deliveries
    *(DeliveryState.SENT, DeliveryState.CONFIRMED, DeliveryState.CANCELLED),
)
"""States in which nothing has to happen any more; from most of them an operator can take the work up again."""


class Leftover(StrEnum):
    """What is known about a result that lies at a destination although its job was cancelled or superseded."""

    NONE = ""
    RESENT = "RESENT"  # the job is live; the destination took files in an earlier round, whose answers were dropped
    STANDS = "STANDS"  # the destination accepted instances of it; a person has to delete them there
    GONE = "GONE"  # the destination was asked, and lists none of it
    ACKNOWLEDGED = "ACKNOWLEDGED"  # a person said that it is dealt with


class NoteState(StrEnum):
    """What is known about a rejection note: that it is to be sent, was accepted, or was refused for good."""

    PENDING = "PENDING"
    SENT = "SENT"
    FAILED = "FAILED"


class NoteCode(StrEnum):
    """The title of a rejection note: Code Values of CID 7011 (scheme DCM)."""

    PATIENT_SAFETY = "113037"  # Rejected for Patient Safety Reasons: a recalled result
    QUALITY = "113001"  # Rejected for Quality Reasons: one that was superseded or cancelled


RECALLED: Final = "RECALLED"
"""What a reader calls a job with `recalled_at`, whatever its own state is."""


State = SeriesState | JobState | DeliveryState

LIVE_JOB_STATES = (JobState.QUEUED, JobState.RUNNING, JobState.HELD, JobState.FAILED, JobState.PRODUCED)
"""States in which a job still stands for its series; at most one such job exists per series."""

CLOSED_BY_A_PERSON = (JobState.CANCELLED, JobState.REJECTED)
"""States in which a job is not made again by itself when its contents come again; `jobs reopen` takes them back."""

OPEN_DELIVERY_STATES = (DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.FAILED)
"""States in which a delivery is cancelled together with its job."""


def check_transition(current: State, to: State) -> None:
    """Raise IllegalTransition unless the arrow `current -> to` exists in the machine both states belong to."""
    allowed = _targets(current)
    if not any(to is target for target in allowed):
        names = ", ".join(sorted(allowed)) or "nothing else"
        raise IllegalTransition(f"{current} cannot become {to}; it can become {names}")


def _targets(current: State) -> frozenset[State]:
    if isinstance(current, SeriesState):
        return frozenset(SERIES_TRANSITIONS[current])
    if isinstance(current, JobState):
        return frozenset(JOB_TRANSITIONS[current])
    return frozenset(DELIVERY_TRANSITIONS[current])


def state_graph(arrows: Mapping[Any, Mapping[Any, str]]) -> str:
    """One machine as a Mermaid state diagram: final states end in a dot, and each arrow says who draws it."""
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(arrows))}"]
    for state, targets in arrows.items():
        # A colon, a semicolon or a backtick would end the text of an arrow.
        lines += [
            f"    {state} --> {to}: {words.replace(': ', ' - ').replace(';', ',').replace('`', '')}"
            for to, words in targets.items()
        ]
        if any(state is final for final in FINAL_STATES):
            lines.append(f"    {state} --> [*]")
    return "\n".join(lines) + "\n"


def case_id(series_id: int, run: int) -> str:
    """How people call a job: `12` for the first one of series 12, `12-2` for its second."""
    return str(series_id) if run == 1 else f"{series_id}-{run}"
