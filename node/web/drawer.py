"""Everything about one case, for the drawer beside the table and for the page of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Final

from node.bootstrap.store import Node
from node.operate.cases import derived_description, derived_name, leftover_text, progress_text, shadow_text
from node.operate.next_steps import after_pause, facts_of, next_step
from node.operate.refused_verbs import refusal, why_incomplete
from node.operate.texts import due_text, facts_text, masked, masked_text, now_utc, time_left, zone_of
from node.operate.turns import waits_of
from node.operate.verbs import refused
from node.web.measured import Measured, measured_of
from node.web.memory import Memory
from node.web.rows import tone_of
from storage.cases import Case, DeliveryView, EventView, RefusedView
from storage.forecast import Expected
from storage.owners import OwnerView
from storage.shadows import ShadowView


@dataclass(frozen=True)
class Drawer:
    """What is shown of a case; `phi` tells whether the patient and what was typed at a scanner are shown in full.

    waits: why it waits for its turn. seen: goes with every form; it changes with the state, and with whatever a person
    decides about the case.
    """

    case: Case
    step: str
    when: Expected
    now: datetime
    zone: tzinfo | None
    history: Sequence[EventView]
    owner: OwnerView
    refused: Sequence[RefusedView]
    shadows: Sequence[ShadowView]
    measured: Sequence[Measured]
    senders: Sequence[str]
    barred: Sequence[str]
    destinations: Sequence[str]
    goes_to: Sequence[str]
    seen: str
    folder: str
    prefix: str
    waits: str = ""
    phi: bool = False

    @property
    def tone(self) -> str:
        """How the state is coloured."""
        return tone_of(self.case)

    @property
    def patient(self) -> str:
        """The patient's ID, masked unless it was asked for."""
        return masked(self.case.patient_id, show=self.phi)

    @property
    def hides_something(self) -> bool:
        """Whether anything is masked."""
        return not self.phi and bool(self.case.patient_id or self.case.description)

    @property
    def description(self) -> str:
        """What was typed at the scanner."""
        return masked_text(self.case.description, show=self.phi)

    @property
    def series(self) -> str:
        """What tells the series from others."""
        return facts_text(self.case.facts)

    @property
    def progress(self) -> str:
        """How far a running job is."""
        return progress_text(self.case, self.now)

    @property
    def due(self) -> str:
        """When the result is due."""
        return due_text(self.when.due_at, self.now)

    @property
    def eta(self) -> str:
        """How long it will take."""
        return time_left((self.when.eta_at - self.now).total_seconds()) if self.when.eta_at else ""

    @property
    def derived(self) -> str:
        """How a planner finds the result at the TPS; "" without one."""
        if self.case.derived_series_uid is None:
            return ""
        text = derived_description(self.case, self.prefix, show=self.phi)
        return f"{derived_name(self.case)}, {text}" if text else derived_name(self.case)

    @property
    def uids(self) -> list[tuple[str, str]]:
        """Every UID with its name."""
        case = self.case
        found = [("study", case.study_uid), ("series", case.series_uid), ("derived series", case.derived_series_uid)]
        return [(name, uid) for name, uid in found if uid]

    @staticmethod
    def leftover(view: DeliveryView) -> str:
        """What became of what a destination has of a withdrawn result."""
        return leftover_text(view)

    @staticmethod
    def shadow(view: ShadowView) -> str:
        """What a second bundle made of the same source."""
        return shadow_text(view)


_JUDGED: Final[Memory[str]] = Memory(32)


def _why_incomplete(node: Node, case: Case) -> str:
    """`why_incomplete`, which reads every file of the series, once for what has come so far."""
    key = (node.location, case.id, case.updated_at)
    return _JUDGED.get(key, lambda: why_incomplete(node, case))


def refused_now(node: Node, case: Case, verb: str) -> str:
    """Why a verb would be refused for a case, as a clause; "" where it would be done."""
    if verb == "drop":
        return "" if senders_of(node, case) else "no sender of it is known"
    if verb == "allow_again":
        return "" if node.series.barred(case.series_id) else "nothing of any sender was dropped from this series"
    if verb == "complete":
        return refusal(verb, case, incomplete=lambda: _why_incomplete(node, case))
    return refused(node, case, verb)


def seen_of(case: Case) -> str:
    """What a person saw of a case (`Drawer.seen`)."""
    return f"{case.state} {case.counts_from.isoformat()}"


def senders_of(node: Node, case: Case) -> list[str]:
    """The AE titles whose instances the series has."""
    owner = node.series.owner(case.series_id)
    return [name for name in (owner.calling_ae, *owner.others) if name] if case.slices.received else []


def drawer_of(node: Node, case: Case, *, phi: bool = False) -> Drawer:
    """Everything about a case now."""
    now, facts = now_utc(), facts_of(node, case)
    made: dict[str, Any] = {
        "case": case,
        "step": after_pause(node, case, next_step(case, facts, incomplete=lambda: _why_incomplete(node, case))),
        "when": node.forecast.expected([case], now, node.settings.alerts.due_s)[case.id],
        "now": now,
        "waits": waits_of(node, [case], now).get(case.id, ""),
        "zone": zone_of(node.settings),
        "history": node.overview.events(case),
        "owner": node.series.owner(case.series_id),
        "refused": node.overview.refused_of_series(case.series_uid),
        "shadows": node.shadows.views(case.job_id) if case.job_id is not None else [],
        "measured": measured_of(node, case),
        "senders": senders_of(node, case),
        "barred": node.series.barred(case.series_id),
        "destinations": node.destination_names,
        "goes_to": facts.goes_to,
        "seen": seen_of(case),
        "folder": str(node.spool.path(case.product_dir)) if case.product_dir and case.purged_at is None else "",
        "prefix": node.settings.series.description_prefix,
    }
    return Drawer(**made, phi=phi)
