"""The live table: what `jobs ls` shows of a case, for people who look at a browser."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from node.bootstrap.store import Node
from node.operate.cases import progress_text
from node.operate.listing import Asked, cases_of
from node.operate.texts import age, due_text, facts_text, masked, masked_text, time_left
from node.operate.turns import waits_of
from storage.cases import Case, SliceCounts
from storage.forecast import Expected

MOST_COUNTED: Final = 99
_TONES: Final = {
    "FAILED": "bad",
    "HELD": "person",
    "INCOMPLETE": "person",
    "SENT": "good",
    "CONFIRMED": "good",
    "RECEIVING": "moving",
    "QUEUED": "moving",
    "RUNNING": "moving",
    "PRODUCED": "moving",
    "SENDING": "moving",
}


@dataclass(frozen=True)
class Row:
    """One line of the table, in words; tone: how the state is coloured beside its word."""

    id: str
    state: str
    tone: str
    age: str
    due: str
    is_late: bool
    eta: str
    patient: str
    slices: SliceCounts
    sender: str
    series: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """One page of the table; next_after: the case behind which the next page begins, "" where this is the last."""

    rows: tuple[Row, ...] = ()
    next_after: str = ""


def listing_of(node: Node, asked: Asked, now: datetime) -> Listing:
    """The page of the table that is asked for; raises NotUnderstood."""
    cases = cases_of(node, replace(asked, limit=asked.limit + 1), now)
    shown = cases[: asked.limit]
    when = node.forecast.expected(shown, now, node.settings.alerts.due_s)
    waits = waits_of(node, shown, now)
    rows = tuple(row_of(case, when[case.id], now, waits.get(case.id, "")) for case in shown)
    return Listing(rows, shown[-1].id if len(cases) > asked.limit else "")


def needing_a_person(node: Node, now: datetime) -> str:
    """How many cases wait for a person or are overdue, counted up to 99: `7`, `99+`."""
    count = len(cases_of(node, Asked(needs_person=True, limit=MOST_COUNTED + 1), now))
    return f"{MOST_COUNTED}+" if count > MOST_COUNTED else str(count)


def tone_of(case: Case) -> str:
    """How the state of a case is coloured."""
    return "person" if case.leftovers else _TONES.get(case.state, "over")


def row_of(case: Case, when: Expected, now: datetime, waits: str) -> Row:
    """One case as a line; what may name a patient is masked. waits: why it waits for its turn, "" for no reason."""
    described = masked_text(case.description, show=False)
    progress = progress_text(case, now) if case.progress else ""
    return Row(
        id=case.id,
        state=case.state,
        tone=tone_of(case),
        age=age(case.created_at),
        due=due_text(when.due_at, now),
        is_late=when.is_late,
        eta=time_left((when.eta_at - now).total_seconds()) if when.eta_at else "",
        patient=masked(case.patient_id, show=False),
        slices=case.slices,
        sender=case.calling_ae,
        series=facts_text(case.facts) or described,
        reason="; ".join(part for part in (progress, waits, case.reason) if part),
    )
