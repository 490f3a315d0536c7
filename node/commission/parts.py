"""What a report is made of: sections with sentences, tables and pictures."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from models.evaluation.tables import Cell, Table

_DPI = 100
_COLOURS = 160


@dataclass(frozen=True)
class Picture:
    """A PNG and the sentence below it; width_px and height_px of the PNG."""

    title: str
    png: bytes = field(repr=False)
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Section:
    """One chapter: sentences first, then tables, then pictures."""

    title: str
    text: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values; pictures by their titles."""
        return {
            "title": self.title,
            "text": list(self.text),
            "tables": [
                {"title": one.title, "columns": list(one.columns), "rows": [list(row) for row in one.rows]}
                for one in self.tables
            ],
            "pictures": [one.title for one in self.pictures],
        }


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], note: str = "") -> Table:
    """A table of rows as long as its columns."""
    return Table(title, note, tuple(columns), tuple(tuple(row) for row in rows))


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """An empty figure."""
    figure = Figure(figsize=(width_inches, height_inches), dpi=_DPI)
    FigureCanvasAgg(figure)
    return figure


def picture(figure: Figure, title: str) -> Picture:
    """The figure as a small PNG: a report must go by mail."""
    raw, small = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png")
    image = Image.open(raw).convert("RGB").quantize(_COLOURS)
    image.save(small, format="png", optimize=True)
    return Picture(title, small.getvalue(), *image.size)


def number(value: float, form: str = ".2f") -> str:
    """A figure for people; "-" for what is not defined."""
    return f"{value:{form}}" if math.isfinite(value) else "-"
