"""Lists for people: one line for each row, as wide as the terminal; what does not fit is cut where one can see it."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text

from node.operate.texts import one_line

_GAP: Final = 2
_NARROWEST: Final = 4


@dataclass(frozen=True)
class Column:
    """One column of a list.

    from_width: the columns of text that a terminal needs for it to be shown. at_most: where a longer text is cut.
    flexible: it is cut further, down to `at_least`, when the terminal is narrow; the last column takes what is left.
    """

    head: str
    from_width: int = 0
    at_most: int = 40
    at_least: int | None = None


@dataclass(frozen=True)
class Cell:
    """Text with the style that a terminal may show it in, such as `red`."""

    text: str
    style: str = ""


def print_list(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a heading and one line per row; nothing is cut where no terminal and no COLUMNS give a width."""
    console = Console(highlight=False, emoji=False, markup=False)
    width = list_width(console)
    shown = [n for n, column in enumerate(columns) if width is None or column.from_width <= width]
    heading = [Cell(column.head, "bold") for column in columns]
    styled = not console.no_color  # NO_COLOR is set by those who want no escape sequences at all
    lines = [[Cell(plain(row[n].text), row[n].style if styled else "") for n in shown] for row in [heading, *rows]]
    widths = _widths([columns[n] for n in shown], lines, width)
    for line in lines:
        console.print(_line(line, widths, width), soft_wrap=True, style=None)


def print_line(text: str) -> None:
    """Print one line of text, cut to the terminal's width."""
    console = Console(highlight=False, emoji=False, markup=False)
    width = list_width(console)
    console.print(Text(cut(plain(text), width) if width else plain(text)), soft_wrap=True)


def print_text(text: str) -> None:
    """Print a sentence; a terminal breaks it where it ends."""
    Console(highlight=False, emoji=False, markup=False).print(Text(plain(text)), soft_wrap=True)


def list_width(console: Console) -> int | None:
    """Columns of text that a line may take; None where neither a terminal nor COLUMNS says so."""
    if console.is_terminal:
        return console.width
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) else None


def plain(text: str) -> str:
    """Text on one line as any terminal shows it: what is not printable, or not in the output's encoding, is replaced.

    Text from the network and from people must not move the cursor, colour the terminal or turn its direction.
    """
    tidy = one_line(text)
    encoding = sys.stdout.encoding or "ascii"
    try:
        tidy.encode(encoding)
    except UnicodeEncodeError:
        return tidy.replace("…", "...").encode(encoding, "replace").decode(encoding)
    return tidy


def cut(text: str, width: int) -> str:
    """The beginning of a text in at most `width` columns; a mark shows that something is missing."""
    if cell_len(text) <= width:
        return text
    mark = plain("…")
    room = width - len(mark)
    return chop_cells(text, room)[0].rstrip() + mark if room > 0 else mark[:width]


def _widths(columns: Sequence[Column], lines: Sequence[Sequence[Cell]], width: int | None) -> list[int]:
    natural = [max(cell_len(line[n].text) for line in lines) for n in range(len(columns))]
    if width is None:
        return natural
    widths = [min(wanted, column.at_most) for wanted, column in zip(natural, columns, strict=True)]
    room = width - _GAP * (len(columns) - 1)
    for n in [n for n, column in enumerate(columns) if column.at_least is not None]:
        # A flexible column leaves at least half of what the fixed ones left to the last one.
        left = room - sum(widths[:-1]) + widths[n]
        widths[n] = min(widths[n], max(columns[n].at_least or 0, left * 2 // 5))
    widths[-1] = max(_NARROWEST, room - sum(widths[:-1]))
    return widths


def _line(cells: Sequence[Cell], widths: Sequence[int], width: int | None) -> Text:
    line, column = Text(), 0
    for number, (cell, room) in enumerate(zip(cells, widths, strict=True)):
        text = cut(cell.text, room)
        line.append(text, cell.style or None)
        column += room + _GAP
        if number < len(cells) - 1:
            line.append(" " * max(0, column - line.cell_len))
    line.rstrip()
    if width is not None and line.cell_len > width:
        line.truncate(width, overflow="crop")
    return line
