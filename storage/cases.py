"""What a reader gets to see of a series on its way through the node; made by `storage.overview`."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class NoteView:
    """The newest rejection note about a delivery: PENDING, SENT or FAILED, its title code, what the peer said last.

    sop_instance_uid: of the note, None before it was made.
    """

    state: str
    code: str
    reason: str
    attempts: int
    sop_instance_uid: str | None
    updated_at: datetime


@dataclass(frozen=True)
class DeliveryView:
    """One destination of a case: how far it is and what the peer said last.

    held_for: why it is not sent before a person let it go, "" for no reason; override: who let it go, and why.
    """

    destination: str
    state: str
    reason: str
    attempts: int
    next_attempt_at: datetime
    updated_at: datetime
    sent: int
    confirmed: int
    created_at: datetime
    last_accepted_at: datetime | None
    leftover: str
    held_for: str = ""
    override: str = ""
    note: NoteView | None = None

    @property
    def is_rejected(self) -> bool:
        """Whether a rejection note may have reached the destination: then these images never come there again."""
        return self.note is not None and (
            self.note.state == "SENT" or (self.note.state == "PENDING" and self.note.attempts > 0)
        )

    @property
    def is_held(self) -> bool:
        """Whether it waits for a person."""
        return self.state == "PENDING" and bool(self.held_for)


@dataclass(frozen=True)
class ProgressView:
    """The stage of a running job, when it began, how far it was `at`, and when it will end if it goes on like that."""

    stage: str
    done: int
    total: int
    started_at: datetime
    at: datetime

    @property
    def expected_end_at(self) -> datetime | None:
        """When this stage ends; None where nothing of it is done yet, or all."""
        if not 0 < self.done < self.total:
            return None
        return self.at + (self.at - self.started_at) / self.done * (self.total - self.done)


@dataclass(frozen=True)
class SliceCounts:
    """Instances received, produced, and accepted or confirmed by every destination."""

    received: int
    produced: int
    sent: int
    confirmed: int


@dataclass(frozen=True)
class Case:
    """One series on its way through the node, from its first slice to its delivery.

    `id` is stable: a series is `12` from its first slice on, and its second job, after its contents changed, `12-2`.
    moved_at: when it last got further; a failed attempt to send is no step forward, but it does change `updated_at`.
    counts_from: the moment from which its result is waited for: its last instance, or what a person last decided.
    series_number and series_description are those of the derived series, as a planner sees them. leftovers: where a
    withdrawn result stands and a person has to delete it. is_present: whether the series still has these contents.
    purged_at: when the files of the result were removed, or the received files of a series without a job.
    received_purged_at: when the received files were. recalled_at: when a person recalled the result. repeat: how many
    jobs made the same of the same before. facts: what tells the source series from others and is no free text.
    called_ae: the AE title by which the node was called, "" where it is not known. route, destinations, priority,
    due_at: as in `Job`.
    """

    id: str
    series_id: int
    job_id: int | None
    state: str
    reason: str
    series_uid: str
    derived_series_uid: str | None
    study_uid: str
    calling_ae: str
    description: str
    patient_id: str
    slices: SliceCounts
    bundle: str | None
    attempts: int
    created_at: datetime
    updated_at: datetime
    moved_at: datetime
    counts_from: datetime
    product_dir: str | None = None
    version: int = 1
    repeat: int = 0
    series_number: int | None = None
    series_description: str = ""
    doubt: str = ""
    override: str = ""
    remarks: tuple[str, ...] = ()
    progress: ProgressView | None = None
    job_state: str = ""
    is_present: bool = True
    purged_at: datetime | None = None
    received_purged_at: datetime | None = None
    leftovers: tuple[str, ...] = ()
    measurements: dict[str, Any] = field(default_factory=dict)
    deliveries: tuple[DeliveryView, ...] = ()
    facts: dict[str, int | str] = field(default_factory=dict)
    recalled_at: datetime | None = None
    called_ae: str = ""
    route: str = ""
    destinations: tuple[str, ...] = ()
    priority: int | None = None
    due_at: datetime | None = None


@dataclass(frozen=True)
class LinkedIds:
    """The rows of a case's deliveries, and of the associations that brought its instances."""

    deliveries: frozenset[int] = frozenset()
    associations: frozenset[int] = frozenset()


@dataclass(frozen=True)
class EventView:
    """One transition of a series, job or delivery."""

    at: datetime
    machine: str
    from_state: str
    to_state: str
    actor: str
    reason: str


@dataclass(frozen=True)
class RefusedView:
    """Instances that were refused for one reason; the UID is that of the newest."""

    calling_ae: str
    peer_host: str
    series_uid: str
    sop_instance_uid: str
    status: str
    reason: str
    count: int
    first_at: datetime
    last_at: datetime
