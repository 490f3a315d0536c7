"""Every figure of a report as one picture in SVG, without a script: a line for each row, its mean and its spread."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence

from models.evaluation.summary import Row

_LABEL, _WIDTH, _VALUE, _LINE, _TOP = 260, 420, 90, 20, 26  # px
_COLOURS = ("#4878a8", "#b05a3c", "#5a8f4f", "#8a62a8")


def figure_plots(rows: Sequence[Row], titles: Mapping[str, str]) -> str:
    """One <svg> for each figure in `titles` that any row has; dots are means, lines reach one SD to both sides."""
    return "\n".join(plot for key, title in titles.items() if (plot := _plot(rows, key, title)))


def _plot(rows: Sequence[Row], key: str, title: str) -> str:
    told = [row for row in rows if math.isfinite(_mean(row, key))]
    if not told:
        return ""
    ends = [_mean(row, key) + sign * _sd(row, key) for row in told for sign in (-1, 1)]
    low, high = min(ends), max(ends)
    margin = 0.05 * (high - low) or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin
    height = _TOP + _LINE * len(told) + 8
    inner = "".join(_line(row, key, (low, high), number) for number, row in enumerate(told))
    zero = "".join(_zero((low, high), height))
    words = html.escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{words}" '
        f'width="{_LABEL + _WIDTH + _VALUE}" height="{height}" font-family="system-ui, sans-serif" font-size="12">'
        f'<text x="0" y="15" font-weight="600">{words}</text>{zero}{inner}</svg>'
    )


def _line(row: Row, key: str, limits: tuple[float, float], number: int) -> str:
    mean, sd, y = _mean(row, key), _sd(row, key), _TOP + _LINE * number + _LINE // 2
    colour = _COLOURS[sorted({"internal", "external", row.cohort}).index(row.cohort) % len(_COLOURS)]
    left, middle, right = (_place(value, limits) for value in (mean - sd, mean, mean + sd))
    return (
        f'<text x="0" y="{y + 4}">{html.escape(f"{row.cohort}: {row.name}")}</text>'
        f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
        f'<circle cx="{middle:.1f}" cy="{y}" r="4" fill="{colour}"/>'
        f'<text x="{_LABEL + _WIDTH + 10}" y="{y + 4}">{mean:.4g}</text>'
    )


def _zero(limits: tuple[float, float], height: int) -> Iterator[str]:
    """A line where the figure is 0, if that lies in the picture."""
    if limits[0] < 0 < limits[1]:
        x = _place(0.0, limits)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - 8}" stroke="#bbb"/>'


def _place(value: float, limits: tuple[float, float]) -> float:
    return _LABEL + (value - limits[0]) / (limits[1] - limits[0]) * _WIDTH


def _mean(row: Row, key: str) -> float:
    return float(row.means.get(key, row.gains.get(key, math.nan)))


def _sd(row: Row, key: str) -> float:
    sd = row.sds.get(key, 0.0)
    return sd if math.isfinite(sd) else 0.0
