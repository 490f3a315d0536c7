"""How figures become tables and files of text: HTML, CSV, JSON."""

import base64
import csv
import html
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from models.evaluation.measure import SLICE_METRICS, PatientFigures
from models.evaluation.plots import figure_plots
from models.evaluation.summary import HEADLINE, PAPERS_COHORTS, PairedTest, Row, finite_or_none

Cell = str | int | float | None

_HEADINGS = {
    "cohort": "cohort",
    "name": "model",
    "psnr_db": "PSNR [dB]",
    "ssim": "SSIM",
    "nmae": "NMAE",
    "psnr_gain_db": "gain over identity [dB]",
    "p_holm": "p (PSNR, over identity)",
    "false_enhancement_mae_hu": "false enhancement [HU]",
    "false_enhancement_rate": "share over 15 HU",
    "slope": "predicted / true enhancement",
    "enhanced_mae_hu": "MAE where enhanced [HU]",
    "enhancement_correlation": "enhancement correlation",
    "cnr_gain_vessel": "CNR gain, vessel/muscle",
    "cnr_gain_node": "CNR gain, node/fat",
    "vessel_dice": "vessel Dice",
    "interslice_jump_hu": "inter-slice jump [HU]",
    "enhanced_error_hu": "error where the pair enhances [HU]",
    "quiet_error_hu": "error where the pair is quiet [HU]",
    "contrast_gain": "contrast gain over the pair's",
    "ms_ssim": "MS-SSIM",
    "vif": "VIF",
    "fsim": "FSIM",
}
_DIGITS = {"psnr_db": 2, "psnr_gain_db": 2, "ssim": 4, "ms_ssim": 4, "vif": 4, "fsim": 4, "nmae": 4}
_DETAILS = tuple(key for key in _HEADINGS if key not in (*HEADLINE, "cohort", "name", "psnr_gain_db", "p_holm"))
_STYLE = """body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:84em;padding:0 1em}
table{border-collapse:collapse;margin:.5em 0 2em}caption{text-align:left;font-weight:600;padding:.3em 0}
th,td{border-bottom:1px solid #ccc;padding:.25em .7em;text-align:right}th:first-child,td:first-child,
th:nth-child(2),td:nth-child(2){text-align:left}img{max-width:100%}svg{display:block;margin:1em 0}p{max-width:60em}"""


@dataclass(frozen=True)
class Table:
    """A table by title, a note on how to read it, columns, and rows of as many cells."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def to_html(self) -> str:
        """One <table>; everything from outside is escaped."""
        head = "".join(f"<th>{html.escape(c)}</th>" for c in self.columns)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{html.escape(_shown(cell))}</td>" for cell in row) + "</tr>" for row in self.rows
        )
        caption = f"<caption>{html.escape(self.title)}</caption>"
        return f"<table>{caption}\n<tr>{head}</tr>\n{body}\n</table>\n<p>{html.escape(self.note)}</p>\n"

    def to_csv(self) -> str:
        """Comma-separated, with a line of headings; RFC 4180."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(self.columns)
        writer.writerows([["" if cell is None else cell for cell in row] for row in self.rows])
        return text.getvalue()

    def to_json(self) -> str:
        """{"title", "note", "rows": [{column: cell}]}."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return dump_json({"title": self.title, "note": self.note, "rows": rows})


def papers_tables(rows: Sequence[Row], tests: Sequence[PairedTest]) -> dict[str, Table]:
    """The paper's two tables, "table_internal" and "table_external": PSNR, SSIM and NMAE as mean +- SD over slices.

    Each holds the reading in register and, below it, the one against the misregistered scan.
    """
    tables = {}
    for number, cohort in enumerate(PAPERS_COHORTS, 1):
        chosen = [r for r in rows if r.cohort in (cohort, f"{cohort}_misregistered", f"{cohort}_virtual")]
        if chosen:
            columns = ("cohort", "name", *HEADLINE, "psnr_gain_db", "p_holm")
            tables[f"table_{cohort}"] = Table(
                title=f"Table {number}. Image similarity, {cohort} test patients",
                note="Mean ± SD over slices of the whole slice at the literature's matrix, HU window clipped, peak and "
                "NMAE's unit the window's width; SSIM with a Gaussian window, sigma 1.5. Identity returns the "
                "non-contrast scan; a gain is read over it. p: Wilcoxon signed-rank over patients, Holm-corrected over "
                "all pairs of rows. Rows of the misregistered cohort are held against the second scan as it was taken.",
                columns=tuple(_HEADINGS[c] for c in columns),
                rows=tuple(_papers_row(row, tests) for row in chosen),
            )
    return tables


def detail_table(rows: Sequence[Row]) -> Table:
    """Everything else per cohort and name: means over patients, similarity indices over slices."""
    return Table(
        title="Enhancement, false enhancement and other indices",
        note="Means. False enhancement: |prediction - NCCT| after a 5 x 5 mean, body voxels with true enhancement "
        "under 5 HU. CNR gains: in units of the noise of the NCCT as it was taken (1.4826 times the median distance "
        "from the median, in muscle for vessels and in fat for nodes), so that smoothing gains nothing. Vessel Dice: "
        "threshold halfway between true blood and true muscle. Inter-slice jump: RMS step of the blood pool's mean "
        "error from slice to slice. The pair: the second scan in register minus the first, 5 x 5 means, over 40 HU "
        "(enhances) or under 10 HU in soft tissue (quiet), without a rim of 2 pixels; a contrast gain of 1 is that of "
        "the second scan. These need no labels. Empty: not defined for these data.",
        columns=tuple(_HEADINGS[c] for c in ("cohort", "name", *_DETAILS)),
        rows=tuple((r.cohort, r.name, *(_rounded(key, r.means[key]) for key in _DETAILS)) for r in rows),
    )


def structure_table(rows: Sequence[Row]) -> Table:
    """HU bias and MAE per structure, one line for each cohort, name and structure."""
    lines: list[tuple[Cell, ...]] = [
        (r.cohort, r.name, s, *(_rounded("", x) for x in (v.bias_hu, v.bias_sd_hu, v.mae_hu)), v.patients, v.voxels)
        for r in rows
        for s, v in r.structures.items()
    ]
    return Table(
        title="HU error per structure",
        note="Structures eroded by 2 pixels in plane, native matrix; registered cohorts against the noise-free second "
        "scan, misregistered ones against the second scan as taken. Means over patients; SD between patients.",
        columns=("cohort", "model", "structure", "bias [HU]", "SD of bias [HU]", "MAE [HU]", "patients", "voxels"),
        rows=tuple(lines),
    )


def comparison_table(tests: Sequence[PairedTest]) -> Table:
    """All paired tests."""
    return Table(
        title="Paired comparisons",
        note="Wilcoxon signed-rank, two-sided; Holm over all pairs of rows of one cohort, figure and unit. Difference: "
        "first minus second. Effect: matched-pairs rank-biserial correlation. Slices of a patient are correlated: the "
        "tests over slices are printed because the literature prints them.",
        columns=(
            "cohort",
            "figure",
            "unit",
            "first",
            "second",
            "pairs",
            "median difference",
            "p",
            "p (Holm)",
            "effect",
        ),
        rows=tuple(
            (t.cohort, t.metric, t.unit, c.first, c.second, c.pairs, *map(_significant, _numbers(t)))
            for t in tests
            for c in (t.comparison,)
        ),
    )


def slice_table(figures: Iterable[PatientFigures]) -> Table:
    """Every slice's figures, from which all means over slices can be made again."""
    lines: list[tuple[Cell, ...]] = [
        (f.cohort, f.name, f.patient, k, *(_significant(f.slices[key][k]) for key in SLICE_METRICS))
        for f in figures
        for k in range(len(f.slices["nmae"]))
    ]
    return Table("Slices", "", ("cohort", "name", "patient", "slice", *SLICE_METRICS), tuple(lines))


def write_table(folder: Path, stem: str, table: Table) -> list[Path]:
    """Write `stem`.html, .csv and .json; returns their paths."""
    texts = {"html": _page(table.title, table.to_html()), "csv": table.to_csv(), "json": table.to_json()}
    files = []
    for suffix, text in texts.items():
        files.append(folder / f"{stem}.{suffix}")
        files[-1].write_text(text, encoding="utf-8", newline="")
    return files


def metrics_table(rows: Sequence[Row]) -> Table:
    """All figures of all rows but those of structures, unrounded, for a spreadsheet."""
    plain = [{key: value for key, value in row.to_mapping().items() if key != "structures"} for row in rows]
    columns = tuple(dict.fromkeys(key for line in plain for key in line))
    lines = tuple(tuple(cast("Cell", line.get(key)) for key in columns) for line in plain)
    return Table("Figures", "", columns, lines)


def write_page(
    file: Path, title: str, intro: str, *, tables: Iterable[Table], rows: Sequence[Row], pictures: Iterable[Path]
) -> None:
    """Write one page with all tables, a plot of each figure and the pictures; it needs no other file and no script."""
    images = "".join(
        f'<h2>{html.escape(p.stem.replace("_", " "))}</h2><img src="{_data_address(p)}" alt="">\n' for p in pictures
    )
    plotted = {key: words for key, words in _HEADINGS.items() if key not in ("cohort", "name", "p_holm")}
    plots = f"<h2>Figures: mean, one SD to both sides</h2>\n{figure_plots(rows, plotted)}\n"
    body = f"<p>{html.escape(intro)}</p>\n" + "".join(table.to_html() for table in tables) + plots + images
    file.write_text(_page(title, body), encoding="utf-8")


def _data_address(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def dump_json(value: Mapping[str, object]) -> str:
    """Indented JSON without NaN, which no other reader would take."""
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def _papers_row(row: Row, tests: Sequence[PairedTest]) -> tuple[Cell, ...]:
    p = next(
        (
            t.comparison.p_holm
            for t in tests
            if (t.cohort, t.metric, t.unit) == (row.cohort, "psnr_db", "patient")
            and {t.comparison.first, t.comparison.second} == {"identity", row.name}
        ),
        None,
    )
    spreads = [_spread(key, row.means[key], row.sds[key]) for key in HEADLINE]
    gain = _rounded("psnr_gain_db", row.gains["psnr_gain_db"])
    return (row.cohort, row.name, *spreads, gain, None if p is None else _significant(p))


def _spread(key: str, mean: float, sd: float) -> str:
    digits = _DIGITS[key]
    return f"{mean:.{digits}f}" + ("" if math.isnan(sd) else f" ± {sd:.{digits}f}")


def _numbers(test: PairedTest) -> tuple[float, ...]:
    c = test.comparison
    return c.median_difference, c.p, c.p_holm, c.effect


def _rounded(key: str, value: float) -> float | None:
    return round(value, _DIGITS.get(key, 3)) if math.isfinite(value) else None


def _significant(value: float) -> float | None:
    return float(f"{value:.6g}") if finite_or_none(value) is not None else None


def _shown(cell: Cell) -> str:
    return "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) and abs(cell) < 0.01 else str(cell)


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n{body}</body></html>\n"
    )
