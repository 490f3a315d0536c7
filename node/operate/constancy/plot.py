"""The trend of constancy runs as a picture: a panel for each figure, its tolerance as a band, marks for changes."""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from node.operate.constancy.limits import LIMITS, Against, Limit
from storage.constancy import PASSED, ConstancyView

SHOWN: Final = ("blood_enhancement_hu", "false_enhancement_hu", "mae_hu", "psnr_db", "different_voxels", "result_s")
_GOOD, _BAD, _BAND, _LINE = "#1b6ca8", "#c0392b", "#dcebf5", "#7f8c8d"
_INCHES: Final = (9.0, 9.0)


def plot_trend(views: Sequence[ConstancyView], path: Path) -> None:
    """Draw runs of one bundle, oldest first, into an SVG or PNG file, by its ending. There must be one at least."""
    figure = Figure(figsize=_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"Constancy of {views[-1].bundle}: {len(views)} runs", fontsize=12)
    limits = {limit.figure: limit for limit in LIMITS}
    panels = figure.subplots(len(SHOWN), 1, sharex=True)
    for panel, name in zip(panels, SHOWN, strict=True):
        _panel(panel, views, limits[name])
    panels[-1].xaxis_date()
    panels[-1].set_xlabel("UTC. Blue: PASSED, red cross: FAILED, band: tolerance, dashed line: the environment changed")
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)


def changes(views: Sequence[ConstancyView]) -> list[datetime]:
    """When runs began to be made in another environment than the one before."""
    known = [view for view in views if view.environment]
    return [now.at for before, now in pairwise(known) if before.environment != now.environment]


def _day(moment: datetime) -> float:
    return float(date2num(moment))  # type: ignore[no-untyped-call]


def _panel(panel: Axes, views: Sequence[ConstancyView], limit: Limit) -> None:
    shown = [view for view in views if limit.figure in view.figures]
    for view in shown:
        is_good = view.outcome == PASSED
        panel.plot(
            [_day(view.at)],
            [view.figures[limit.figure]],
            "o" if is_good else "x",
            color=_GOOD if is_good else _BAD,
            ms=5,
        )
    if (band := _band(limit, views)) is not None:
        panel.axhspan(*band, color=_BAND, zorder=0)
    for moment in changes(views):
        panel.axvline(_day(moment), color=_LINE, ls="--", lw=1)
    unit = f", {limit.unit}" if limit.unit else ""
    panel.set_title(f"{limit.words}{unit}; tolerance {limit.tolerance}", fontsize=9, loc="left")
    panel.tick_params(labelsize=8)
    panel.ticklabel_format(axis="y", useOffset=False)
    panel.grid(axis="y", color="#eeeeee")
    panel.set_axisbelow(True)


def _band(limit: Limit, views: Sequence[ConstancyView]) -> tuple[float, float] | None:
    """The tolerance around the first run that PASSED, in the unit of the panel; None where there is none to draw."""
    base = next((view.figures[limit.figure] for view in views if _is_base(limit, view)), None)
    if limit.factor:
        return None if base is None else (0.0, limit.factor * base + limit.high)
    if limit.against is Against.BASELINE:
        return None if base is None else (base + limit.low, base + limit.high)
    return limit.low, limit.high


def _is_base(limit: Limit, view: ConstancyView) -> bool:
    return view.outcome == PASSED and limit.figure in view.figures
