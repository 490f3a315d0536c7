"""A recall: which results it concerns, and what became of each at each destination."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from node.bootstrap.bundles import bundles_in_use, in_use_as
from node.bootstrap.store import Node
from node.errors import Refused
from node.operate.texts import masked
from storage.errors import NotFound
from storage.overview import Case, DeliveryView
from storage.states import DeliveryState, JobState, Leftover, NoteState

_SENT: Final = (DeliveryState.SENT, DeliveryState.CONFIRMED)
_NOTHING: Final = ("nothing", "nothing of it was sent")
_BY_HAND: Final = ("by_hand", "delete it there: this destination gets no rejection notes")


@dataclass(frozen=True)
class Asked:
    """Which results: those of a bundle, by its name or its whole label, arrived within two moments; or single cases."""

    bundle: str = ""
    cases: Sequence[str] = ()
    since: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True)
class Item:
    """What became of one result at one destination; the keys of `recall --json`.

    outcome: would_stop, would_be_rejected, by_hand, on_its_way, accepted, refused, gone, acknowledged or nothing.
    needs_person: it stands there, or may, and nothing that goes by itself will end that. images: that it accepted.
    """

    id: str
    patient_id: str
    study_uid: str
    derived_series_uid: str | None
    derived_series_number: int | None
    destination: str
    images: int
    outcome: str
    reason: str
    stands: bool
    needs_person: bool


def concerned(node: Node, asked: Asked) -> list[Case]:
    """The cases that are withdrawn, or were already; the newest first.

    A superseded result counts where something of it stands at a destination. Raises NotFound for an unknown case or
    bundle, and Refused for a case without a job.
    """
    if asked.cases:
        found = [node.overview.case(case_id) for case_id in asked.cases]
        if bare := [case for case in found if case.job_id is None]:
            raise Refused(f"{bare[0].id} is {bare[0].state} and has no result that could be recalled")
        return found
    known = node.recalls.bundles()
    if not any(is_bundle(label, asked.bundle) for label in known):
        raise NotFound(f"no job was made by {asked.bundle}; there are {', '.join(known) or 'no jobs'}")
    cases = node.overview.cases(bundle=asked.bundle, since=asked.since, before=asked.before, limit=0)
    return [case for case in cases if is_bundle(case.bundle or "", asked.bundle) and not _is_over(case)]


def is_bundle(label: str, asked: str) -> bool:
    """Whether a label such as `demo 1 (0123456789ab)` is that of a bundle named by its first words."""
    return label == asked or label.startswith(f"{asked} ")


def _is_over(case: Case) -> bool:
    return case.job_state == JobState.SUPERSEDED and not case.leftovers and case.recalled_at is None


def items_of(node: Node, cases: Sequence[Case], *, phi: bool = False) -> list[Item]:
    """One item for each destination of each case."""
    peers = {one.name: one for one in node.settings.destination}
    found = []
    for case in cases:
        for view in case.deliveries:
            peer = peers.get(view.destination)
            takes_notes = peer is not None and peer.rejection_notes
            outcome, reason = _outcome(case, view, takes_notes=takes_notes)
            goes_on = outcome == "on_its_way" or (outcome == "accepted" and peer is not None and peer.confirm == "find")
            stands = outcome in ("by_hand", "on_its_way", "accepted", "refused")
            found.append(
                Item(
                    case.id,
                    masked(case.patient_id, show=phi),
                    case.study_uid,
                    case.derived_series_uid,
                    case.series_number,
                    view.destination,
                    view.sent,
                    outcome,
                    reason,
                    stands and case.recalled_at is not None,
                    stands and not goes_on,
                )
            )
    return found


def _outcome(case: Case, view: DeliveryView, *, takes_notes: bool) -> tuple[str, str]:
    """A word for programs, and a clause for people."""
    if view.leftover == Leftover.GONE:
        return "gone", "the destination lists none of it any more"
    if view.leftover == Leftover.ACKNOWLEDGED:
        return "acknowledged", "a person has dealt with it"
    if case.recalled_at is not None:
        return _standing(view, takes_notes=takes_notes) if view.leftover == Leftover.STANDS else _NOTHING
    if not (view.sent or view.state in _SENT or view.leftover):
        return "would_stop", "nothing of it was sent, and nothing will be"
    return ("would_be_rejected", "it would get a rejection note") if takes_notes else _BY_HAND


def _standing(view: DeliveryView, *, takes_notes: bool) -> tuple[str, str]:
    if view.note is not None and view.note.state == NoteState.SENT:
        return "accepted", "the rejection note was accepted, and nothing shows yet that it is gone: look there"
    if view.note is not None and view.note.state == NoteState.FAILED:
        return "refused", f"delete it there, the rejection note was not taken: {view.note.reason}"
    if takes_notes:
        why = f": {view.note.reason}" if view.note is not None and view.note.reason else ""
        return "on_its_way", f"the rejection note is on its way{why}"
    return _BY_HAND


def still_in_use(node: Node, cases: Sequence[Case]) -> list[str]:
    """The keys of the settings by which new series still get a bundle that made one of these."""
    bundles = bundles_in_use(node.settings)
    found = {in_use_as(bundles, label) for label in {case.bundle for case in cases} if label}
    return sorted(bundle.key for bundle in found if bundle is not None)
