"""Lists for people at every width: one line a row, nothing wider than the terminal, and no text that acts on it."""

import io
import sys

import pytest
from rich.cells import cell_len

from node.cli.tables import Cell, Column, cut, plain, print_line, print_list

COLUMNS = [
    Column("ID"),
    Column("STATE"),
    Column("AGE", from_width=100),
    Column("FROM", from_width=132, at_most=16),
    Column("SERIES", at_most=24, at_least=8),
    Column("REASON"),
]
ROWS = [
    [
        "12",
        "HELD",
        "3h",
        "CTSIM",
        "Thorax 3.0 B30f native planning",
        "the scan looks enhanced: " + "12 ml above 180 HU, " * 9,
    ],
    ["7-2", "SENT", "2d", "CTSIM", "胸部 平扫 三毫米 计划 扫描 一二三四五六七八", ""],
    ["6", "SUPERSEDED", "9d", "CT_" * 5, "", "the contents of the series changed"],
]


def printed(capsys, monkeypatch, width: int | None, rows=ROWS) -> list[str]:
    monkeypatch.setenv("COLUMNS", "" if width is None else str(width))
    print_list(COLUMNS, [[Cell(text) for text in row] for row in rows])
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [20, 40, 79, 80, 100, 120, 132, 200])
def test_each_row_takes_one_line_that_fits(capsys, monkeypatch, width: int) -> None:
    lines = printed(capsys, monkeypatch, width)
    assert len(lines) == 1 + len(ROWS)
    assert max(cell_len(line) for line in lines) <= width
    assert [line.split()[0] for line in lines[1:]] == ["12", "7-2", "6"]


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (80, ["ID", "STATE", "SERIES", "REASON"]),
        (100, ["ID", "STATE", "AGE", "SERIES", "REASON"]),
        (131, ["ID", "STATE", "AGE", "SERIES", "REASON"]),
        (132, ["ID", "STATE", "AGE", "FROM", "SERIES", "REASON"]),
        (None, ["ID", "STATE", "AGE", "FROM", "SERIES", "REASON"]),
    ],
)
def test_more_columns_appear_as_the_terminal_gets_wider(
    capsys, monkeypatch, width: int | None, heads: list[str]
) -> None:
    assert printed(capsys, monkeypatch, width)[0].split() == heads


def test_what_is_cut_ends_with_a_mark_and_columns_stay_in_line(capsys, monkeypatch) -> None:
    heading, held, sent, superseded = printed(capsys, monkeypatch, 80)
    assert held.endswith("…")
    assert cell_len(held) == 80
    at = heading.index("REASON")
    assert superseded[at:].startswith("the contents of the series")
    assert held[at:].startswith("the scan looks enhanced")
    assert "胸部" in sent


def test_without_a_width_nothing_is_cut(capsys, monkeypatch) -> None:
    lines = printed(capsys, monkeypatch, None)
    assert ROWS[0][-1].rstrip() in lines[1]
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_encoding_without_the_mark_gets_three_dots(monkeypatch, encoding: str) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.setenv("COLUMNS", "40")
    print_list(COLUMNS, [[Cell(text) for text in row] for row in ROWS])
    print_line("…34 " + "x" * 60)
    sys.stdout.flush()
    text = raw.getvalue().decode(encoding)
    assert ("..." in text, "…" in text) == (encoding != "utf-8", encoding == "utf-8")
    assert max(map(cell_len, text.splitlines())) <= 40


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x1b[0m", "a?[31mred?[0m"),
        ("line\nbreak\ttab\r", "line break tab "),
        ("[bold]x[/bold] [link=http://a]b", "[bold]x[/bold] [link=http://a]b"),
        (":smile: :warning:", ":smile: :warning:"),
        ("turned \u202e round \u2066", "turned ? round ?"),
        ("bell\x07 delete\x7f c1\x9b", "bell? delete? c1?"),
        ("Größe 胸部", "Größe 胸部"),
    ],
)
def test_text_of_others_is_never_markup_nor_control(capsys, monkeypatch, text: str, shown: str) -> None:
    assert plain(text) == shown
    monkeypatch.setenv("COLUMNS", "200")
    print_list(COLUMNS, [[*map(Cell, ["1", "HELD", "1s", "CT", "x", text])]])
    assert capsys.readouterr().out.splitlines()[1].endswith(shown.rstrip())
    print_line(text)
    assert capsys.readouterr().out == shown + "\n"


@pytest.mark.parametrize(
    ("text", "width", "result"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "abcd…"),
        ("ab cdef", 4, "ab…"),
        ("胸部胸部", 5, "胸部…"),
        ("abc", 1, "…"),
        ("", 3, ""),
    ],
)
def test_a_text_is_cut_by_columns_of_the_terminal(text: str, width: int, result: str) -> None:
    assert cut(text, width) == result
    assert cell_len(result) <= width
