"""Rows of faults become the table in `deploy/torture.md`."""

import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.ledger import Verdict

TARGET = Path(__file__).parents[2] / "deploy" / "torture.md"
_COLUMNS = ("fault", "database", "times", "acknowledged", "lost", "twice", "false", "stuck", "longest recovery, s")
_SOAK = "## Soak"
_TITLE = "# Torture: the last run"


@dataclass
class Row:
    """One kind of fault on one database; `findings` has each thing that went wrong once."""

    fault: str
    database: str
    times: int = 0
    acknowledged: int = 0
    lost: int = 0
    twice: int = 0
    false: int = 0
    stuck: int = 0
    longest_s: float = 0.0
    findings: list[str] = field(default_factory=list)

    def add(self, verdict: Verdict, *, acknowledged: int, seconds: float = 0.0, times: int = 1) -> None:
        """One more fault of this kind, or several; `acknowledged` are the instances that were at stake in it."""
        self.times += times
        self.acknowledged += acknowledged
        self.lost += len(verdict.lost)
        self.twice += len(verdict.twice)
        self.false += len(verdict.false)
        self.stuck += len(verdict.stuck)
        self.longest_s = max(self.longest_s, seconds)
        self.findings += verdict.findings()

    @property
    def wrong(self) -> int:
        """How much went wrong."""
        return self.lost + self.twice + self.false + self.stuck


class Report:
    """All rows of one run."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Row] = {}
        self.skipped: list[str] = []

    def row(self, fault: str, database: str) -> Row:
        """The row of a fault, made where it is new."""
        return self._rows.setdefault((fault, database), Row(fault, database))

    @property
    def rows(self) -> list[Row]:
        """In the order in which they were begun."""
        return list(self._rows.values())

    @property
    def wrong(self) -> int:
        """How much went wrong in all."""
        return sum(row.wrong for row in self.rows)

    def table(self) -> str:
        """The table in Markdown, with a last row of totals."""
        total = Row("all", "both")
        for row in self.rows:
            total.times += row.times
            total.acknowledged += row.acknowledged
            for name in ("lost", "twice", "false", "stuck"):
                setattr(total, name, getattr(total, name) + getattr(row, name))
            total.longest_s = max(total.longest_s, row.longest_s)
        injected = [row for row in self.rows if row.times or row.wrong]
        return markdown(_COLUMNS, [_cells(row) for row in (*injected, total)])

    def findings(self) -> list[str]:
        """What went wrong, each kind of sentence once for each row."""
        found: dict[str, None] = {}
        for row in self.rows:
            different = list(dict.fromkeys(row.findings))
            found |= {f"{row.fault}, {row.database}: {text}": None for text in different[:3]}
        return list(found)

    def write(self, *, seed: int, minutes: float, version: str, target: Path = TARGET) -> None:
        """Replace the page; what the soak wrote stays."""
        cores, system = os.cpu_count(), f"{platform.system()} {platform.machine()}"
        parts = [
            _TITLE,
            "",
            f"Made by `make torture` on {time.strftime('%Y-%m-%d')} with version {version}, seed {seed}, "
            f"in {minutes:.0f} minutes on {cores} cores ({system}).",
            "",
            "An instance is *lost* when it was answered with 0x0000 and has no intact file and row; *twice* when the "
            "TPS has two results of one input, or two contents under one UID; *false* when the node says that it sent "
            "what the TPS never took; *stuck* when a series did not come to its end within the bound, or the node "
            "did not do what `docs/operate/faults.md` says.",
            "",
            self.table(),
            *(["", "Left out:", "", *(f"- {text}" for text in self.skipped)] if self.skipped else []),
            *(["", "Wrong:", "", *(f"- {text}" for text in self.findings())] if self.wrong else []),
        ]
        soak = _soak_of(target)
        target.write_text("\n".join(parts) + "\n" + (f"\n{soak}" if soak else ""), encoding="utf-8")


def write_soak(text: str, target: Path = TARGET) -> None:
    """Replace the part about the soak; the table of faults stays."""
    page = target.read_text(encoding="utf-8") if target.exists() else f"{_TITLE}\n"
    target.write_text(f"{page.partition(_SOAK)[0].rstrip()}\n\n{_SOAK}\n\n{text}\n", encoding="utf-8")


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; everything but the first two columns is numbers."""
    head = [f"| {' | '.join(columns)} |", "|" + "|".join(["---"] * 2 + ["---:"] * (len(columns) - 2)) + "|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def _cells(row: Row) -> list[str]:
    numbers = (row.times, row.acknowledged, row.lost, row.twice, row.false, row.stuck)
    return [row.fault, row.database, *map(str, numbers), f"{row.longest_s:.1f}" if row.longest_s else "-"]


def _soak_of(target: Path) -> str:
    if not target.exists():
        return ""
    _, found, text = target.read_text(encoding="utf-8").partition(_SOAK)
    return f"{found}{text}"
