"""The last days in figures: how many series came out, and whether that takes longer than it did."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from statistics import median
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from node.bootstrap.store import Node
from node.operate.texts import now_utc, span, zone_of
from node.web.access import Person, Role, needs
from node.web.templating import page
from storage.trends import Step, Trends

DAYS: Final = 14

router = APIRouter()
Viewer = Annotated[Person, Depends(needs(Role.VIEWER))]


@dataclass(frozen=True)
class Day:
    """One day of the site's time zone; durations in words, "" where nothing of the kind happened."""

    day: str
    sent: int
    held: int
    failed: int
    per_slice: str
    to_tps: str
    longest: str


@router.get("/trends")
def trends(request: Request, person: Viewer) -> Response:
    """A row for each day, and the same as charts where there is a script."""
    node: Node = request.app.state.node
    days = days_of(_steps(node), zone_of(node.settings))
    return page(request, "trends.html", person=person, days=days, count=DAYS)


@router.get("/trends.json")
def figures(request: Request, _person: Viewer) -> Response:
    """For each chart its moments (seconds since 1970) and its values, as uPlot takes them."""
    steps = _steps(request.app.state.node)
    return JSONResponse(
        {
            "per_slice_s": _series((step.at, step.per_slice_s) for step in steps),
            "to_tps_min": _series((step.at, step.to_tps_s and step.to_tps_s / 60) for step in steps),
        }
    )


def days_of(steps: Sequence[Step], zone: tzinfo | None) -> list[Day]:
    """The days on which something happened, newest first."""
    by_day: dict[str, list[Step]] = defaultdict(list)
    for step in steps:
        by_day[f"{step.at.astimezone(zone):%Y-%m-%d}"].append(step)
    return [_day(name, found) for name, found in sorted(by_day.items(), reverse=True)]


def _day(name: str, steps: Sequence[Step]) -> Day:
    sent, held, failed = (sum(step.outcome == outcome for step in steps) for outcome in ("SENT", "HELD", "FAILED"))
    slices = [step.per_slice_s for step in steps if step.per_slice_s is not None]
    waits = [step.to_tps_s for step in steps if step.to_tps_s is not None]
    return Day(
        name,
        sent,
        held,
        failed,
        f"{median(slices):.2f} s" if slices else "",
        span(median(waits)) if waits else "",
        span(max(waits)) if waits else "",
    )


def _steps(node: Node) -> list[Step]:
    return Trends(node.database).steps(now_utc() - timedelta(days=DAYS))


def _series(points: Any) -> list[list[float]]:
    known: list[tuple[datetime, float]] = [(at, value) for at, value in points if value is not None]
    return [[at.timestamp() for at, _ in known], [round(value, 3) for _, value in known]]
