"""Figures of a section beside their aims, which stand in bench/aims.py alone."""

from bench.aims import Aim, aim_of, unit_of
from bench.gpu.report import Report, Section

_WHY = "bench/aims.py"


def figure(section: Section, name: str, value: float, **of: object) -> None:
    """Enter one figure, whose name carries its unit as bench/aims.py reads it; with an aim it is a check.

    of: what a figure without an aim belongs to, such as the number of its repeats.
    """
    aim = aim_of(name)
    if aim is None:
        section.row(figure=name, value=float(value), **of)
        return
    if aim.low is not None:
        section.check(name, value, aim.low, _WHY, least=True)
    if aim.high is not None:
        section.check(name, value, aim.high, _WHY)


def table(report: Report) -> str:
    """Lines of section, figure, value, unit, aim, and whether the aim is met."""
    rows = [("section", "figure", "value", "unit", "aim", "met")]
    for section in report.sections:
        found = {str(row["figure"]): row["value"] for row in section.rows if "figure" in row and "value" in row}
        found |= {check.name: check.value for check in section.checks}
        rows += [(section.name, name, *_cells(name, value)) for name, value in found.items()]
        if section.error is not None:
            rows.append((section.name, "failed; see the report", "", "", "", "NO"))
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip() for row in rows
    )


def _cells(name: str, value: object) -> tuple[str, str, str, str]:
    aim: Aim | None = aim_of(name)
    if not isinstance(value, float):
        return str(value), unit_of(name), "-", "-"
    met = "-" if aim is None else "yes" if aim.met(value) else "NO"
    return f"{value:.4g}", unit_of(name), "-" if aim is None else str(aim), met
