"""The states of series, jobs and deliveries, and the transitions between them, as one table each; no SQL.

Every arrow has one writer, named in its comment; every transition also writes one event row (`storage.transitions`).
"""

from enum import StrEnum
from typing import Final

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
"""So many processes end over one series or job before it is FAILED and touched no more."""

NOT_JUDGED: Final = ""
"""The bundle of a job that stands for a series which could not be judged; no worker runs it."""

SERIES_TRANSITIONS: dict[SeriesState, frozenset[SeriesState]] = {
    SeriesState.RECEIVING: frozenset(
        {
            SeriesState.COMPLETE,  # completion: closed associations, quiet, gap-free; receiver: it keeps nothing of it
            SeriesState.INCOMPLETE,  # completion: a gap, or the sender gave up
        }
    ),
    SeriesState.INCOMPLETE: frozenset(
        {
            SeriesState.RECEIVING,  # receiver: the sender tries again; operator: `jobs drop`
            SeriesState.COMPLETE,  # operator: `jobs complete`
        }
    ),
    SeriesState.COMPLETE: frozenset(
        {
            SeriesState.QUEUED,  # eligibility: Accept
            SeriesState.SKIPPED,  # eligibility: Skip(reason); receiver: it keeps nothing of it
            SeriesState.RECEIVING,  # receiver: late or lost slice, or differing duplicate
        }
    ),
    SeriesState.QUEUED: frozenset(
        {
            SeriesState.RECEIVING,  # receiver: late or lost slice, or differing duplicate
            SeriesState.INCOMPLETE,  # worker: received files are damaged or gone
        }
    ),
    SeriesState.SKIPPED: frozenset({SeriesState.RECEIVING}),  # receiver: late or lost slice, or differing duplicate
}

JOB_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset(
        {
            JobState.RUNNING,  # worker: claim
            JobState.FAILED,  # completion: a series that cannot be judged, in one transaction with its job
            JobState.CANCELLED,
            JobState.SUPERSEDED,
        }
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.PRODUCED,  # worker: series written, outbox rows in the same transaction
            JobState.HELD,  # worker: a quality gate wants a person
            JobState.FAILED,  # worker: permanent error, or too many attempts
            JobState.QUEUED,  # worker: retryable error; scheduler: lease expired
            JobState.CANCELLED,
            JobState.SUPERSEDED,
        }
    ),
    JobState.HELD: frozenset(
        {
            JobState.PRODUCED,  # operator: `jobs release`
            JobState.REJECTED,  # operator: `jobs reject`
            JobState.QUEUED,  # operator: `jobs retry`
            JobState.CANCELLED,
            JobState.SUPERSEDED,
        }
    ),
    JobState.FAILED: frozenset({JobState.QUEUED, JobState.CANCELLED, JobState.SUPERSEDED}),  # operator: `jobs retry`
    JobState.PRODUCED: frozenset(
        {
            JobState.QUEUED,  # courier: files of the result are damaged or gone, and are made again
            JobState.CANCELLED,
            JobState.SUPERSEDED,
        }
    ),
    JobState.CANCELLED: frozenset({JobState.QUEUED, JobState.HELD, JobState.PRODUCED}),  # operator: `retry`, `reopen`
    JobState.REJECTED: frozenset({JobState.HELD}),  # operator: `jobs reopen`
    JobState.SUPERSEDED: frozenset(),
}

DELIVERY_TRANSITIONS: dict[DeliveryState, frozenset[DeliveryState]] = {
    DeliveryState.PENDING: frozenset(
        {
            DeliveryState.SENDING,  # courier: claim
            DeliveryState.FAILED,  # courier: the settings have no such destination any more
            DeliveryState.CANCELLED,
        }
    ),
    DeliveryState.SENDING: frozenset(
        {
            DeliveryState.SENT,  # courier: every instance answered with success or a "stored" warning
            DeliveryState.PENDING,  # courier: transient refusal; scheduler: lease expired
            DeliveryState.FAILED,  # courier: permanent refusal
            DeliveryState.CANCELLED,
        }
    ),
    DeliveryState.SENT: frozenset({DeliveryState.CONFIRMED, DeliveryState.PENDING}),  # confirmation; operator: `resend`
    DeliveryState.FAILED: frozenset({DeliveryState.PENDING, DeliveryState.CANCELLED}),  # operator: `retry`, `resend`
    DeliveryState.CONFIRMED: frozenset({DeliveryState.PENDING}),  # operator: `resend`
    DeliveryState.CANCELLED: frozenset({DeliveryState.PENDING}),  # operator: `jobs reopen`
}


class Leftover(StrEnum):
    """What is known about a result that lies at a destination although its job was cancelled or superseded."""

    NONE = ""
    RESENT = "RESENT"  # the job is live; the destination took files in an earlier round, whose answers were dropped
    STANDS = "STANDS"  # the destination accepted instances of it; a person has to delete them there
    GONE = "GONE"  # the destination was asked, and lists none of it
    ACKNOWLEDGED = "ACKNOWLEDGED"  # a person said that it is dealt with


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
