"""What the routes of the settings make of series that lie on a disk; loaded only where somebody asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from config.settings import Settings
from node.bootstrap.routes import plan_of, routes_of
from node.dicom.body_parts import BODY_PARTS, MODALITIES
from node.dicom.elements import tag_of, vr_of
from node.dicom.headers import SliceHeader
from node.operate.judged import Found, judged
from node.receive.routing import Call, Missed, Route

_NUMBERS: Final = frozenset({"DS", "IS", "US", "SS", "UL", "SL", "FL", "FD"})
_HIDDEN: Final = "…"


@dataclass(frozen=True)
class NotTaken:
    """Why a route was not taken: its first condition that does not hold, and what the series has instead.

    slices: how many images do not meet a rule; 0 for an AE title.
    """

    route: str
    condition: str
    found: str
    slices: int

    def words(self) -> str:
        """As a clause for people."""
        count = f" in {self.slices} image{'s' if self.slices > 1 else ''}" if self.slices else ""
        return f"{self.condition} does not hold: {self.found}{count}"


@dataclass(frozen=True)
class Routed:
    """What becomes of one series. verdict, reason: of the eligibility rules, as in `Checked`.

    route: its name, "" for none. bundle: as the settings name it. destinations: where a result would go. doubt: why it
    would be held for a person, "" for no reason.
    """

    series_uid: str
    slices: int
    verdict: str
    reason: str
    route: str
    why: str
    bundle: str
    destinations: tuple[str, ...]
    doubt: str
    not_taken: tuple[NotTaken, ...]


def routed(settings: Settings, found: Found, call: Call, *, phi: bool) -> list[Routed]:
    """What becomes of each series, by its headers; phi: values of headers are shown whatever they are."""
    return [_routed(settings, uid, headers, call, phi=phi) for uid, headers in found.items()]


def _routed(settings: Settings, uid: str, headers: list[SliceHeader], call: Call, *, phi: bool) -> Routed:
    routes = routes_of(settings)
    checked, plan = judged(settings, uid, headers), plan_of(settings, routes, headers, call)
    getting = tuple(one.name for one in settings.destination if one.receives == "results")
    return Routed(
        uid,
        checked.slices,
        checked.verdict,
        checked.reason,
        plan.route,
        plan.choice.why,
        plan.bundle,
        plan.destinations or getting,
        plan.doubt,
        tuple(_not_taken(one, routes, phi=phi) for one in plan.choice.missed),
    )


def _not_taken(missed: Missed, routes: Sequence[Route], *, phi: bool) -> NotTaken:
    if missed.is_unknown:
        return NotTaken(missed.route, missed.condition, "it was not given", 0)
    if not missed.keyword:
        return NotTaken(missed.route, missed.condition, missed.found[0], 0)
    known = {value for route in routes for rule in route.rules for value in rule.values}
    text = "\\".join(missed.found) or "absent or empty"
    if not (phi or not any(missed.found) or _is_harmless(missed.keyword, missed.found, known)):
        text = f"{_HIDDEN} (--phi shows it)"
    return NotTaken(missed.route, missed.condition, text, missed.slices)


def _is_harmless(keyword: str, values: Sequence[str], known: set[str]) -> bool:
    """Whether nobody can have typed a name there: numbers, words that DICOM defines, and those of the settings."""
    words = BODY_PARTS | MODALITIES | known
    return vr_of(tag_of(keyword)) in _NUMBERS or all(value in words for value in values)
