"""Writes the report as one HTML page, which needs no other file, and as PDF pages to sign.

reportlab lays out the PDF: it continues long tables on the next page under their headings, which matplotlib's PdfPages
cannot. Its letters are the DejaVu Sans that matplotlib brings.
"""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Flowable, Image, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from models.evaluation.tables import Table as Figures
from node.commission.parts import Picture, Section

_TEMPLATES: Final = Path(__file__).with_name("templates")
_WIDTH_MM: Final = 174.0
_SIGNATURE: Final = ("Name", "Date", "Decision (accepted / not accepted / accepted for)", "Signature")
_FONT, _BOLD = "DejaVuSans", "DejaVuSans-Bold"


@dataclass(frozen=True)
class Document:
    """A whole report. digest: of its contents, hex; mark: names the bundle to `models accept`."""

    title: str
    intro: tuple[str, ...]
    sections: tuple[Section, ...]
    digest: str
    mark: str
    command: str


def write_html(path: Path, document: Document) -> None:
    """Write the page; everything is escaped, pictures are inside."""
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    text = environment.get_template("report.html").render(
        title=document.title,
        intro=document.intro,
        sections=document.sections,
        digest=document.digest,
        mark=document.mark,
        command=document.command,
        signature=_SIGNATURE,
    )
    path.write_text(text, encoding="utf-8")


def write_pdf(path: Path, document: Document) -> None:
    """Write A4 pages; each says at its foot which report it belongs to, and its number."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name in (_FONT, _BOLD):
        pdfmetrics.registerFont(TTFont(name, str(fonts / f"{name}.ttf")))
    pdfmetrics.registerFontFamily(_FONT, normal=_FONT, bold=_BOLD, italic=_FONT, boldItalic=_BOLD)
    side = (210 - _WIDTH_MM) / 2 * mm
    pages = SimpleDocTemplate(
        str(path), pagesize=A4, leftMargin=side, rightMargin=side, topMargin=16 * mm, bottomMargin=18 * mm,
        title=document.title, author="syncect commission", keywords=document.mark, invariant=1,
    )  # fmt: skip

    def foot(canvas: Any, _pages: Any) -> None:
        canvas.setFont(_FONT, 7)
        canvas.drawString(side, 10 * mm, f"{document.title}; contents {document.digest[:16]}")
        canvas.drawRightString(210 * mm - side, 10 * mm, f"page {canvas.getPageNumber()}")

    pages.build(_story(document), onFirstPage=foot, onLaterPages=foot)


def _style(size: float, *, bold: bool = False, before: float = 0, after: float = 0, **more: Any) -> ParagraphStyle:
    return ParagraphStyle(
        f"s{size}{bold}{before}", fontName=_BOLD if bold else _FONT, fontSize=size, leading=size * 1.3,
        spaceBefore=before, spaceAfter=after, **more,
    )  # fmt: skip


_TITLE, _HEAD = _style(16, bold=True, after=8), _style(12, bold=True, before=12, after=4, keepWithNext=1)
_TEXT, _NOTE, _CAPTION = (
    _style(9, after=4),
    _style(7.5, after=6),
    _style(8.5, bold=True, before=6, after=2, keepWithNext=1),
)
_CELL, _CELL_HEAD = _style(7.5, splitLongWords=1), _style(7.5, bold=True, splitLongWords=1)


def _story(document: Document) -> list[Flowable]:
    story: list[Flowable] = [_paragraph(document.title, _TITLE), *(_paragraph(line, _TEXT) for line in document.intro)]
    for number, section in enumerate(document.sections, 1):
        story.append(_paragraph(f"{number}. {section.title}", _HEAD))
        story += [_paragraph(line, _TEXT) for line in section.text]
        for one in section.tables:
            story += _table(one)
        story += [_figure(one) for one in section.pictures]
    return [*story, KeepTogether(_decision(document))]


def _paragraph(text: str, style: ParagraphStyle) -> Paragraph:
    return Paragraph(html.escape(text, quote=False), style)


def _table(figures: Figures) -> list[Flowable]:
    if not figures.rows:
        return []
    head = [_paragraph(name, _CELL_HEAD) for name in figures.columns]
    lines = [["" if cell is None else str(cell) for cell in row] for row in figures.rows]
    body = [[_paragraph(cell, _CELL) for cell in row] for row in lines]
    title = [_paragraph(figures.title, _CAPTION), *([""] * (len(head) - 1))]
    made = Table([title, head, *body], colWidths=_widths(figures.columns, lines), repeatRows=2, hAlign="LEFT")
    made.setStyle(
        TableStyle(
            [
                ("SPAN", (0, 0), (-1, 0)),
                ("LINEBELOW", (0, 1), (-1, 1), 0.8, colors.black),
                ("LINEBELOW", (0, 2), (-1, -1), 0.25, colors.lightgrey),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
                ("RIGHTPADDING", (0, 0), (-1, -1), 5),
                ("TOPPADDING", (0, 0), (-1, -1), 1.5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 1.5),
            ]
        )
    )
    return [made, _paragraph(figures.note, _NOTE)]


def _widths(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> list[float]:
    """Widths in points: no column less than its longest word, the rest shared by the length of texts."""
    texts = [[name, *(line[place] for line in lines)] for place, name in enumerate(columns)]
    whole = [max(pdfmetrics.stringWidth(text, _BOLD, 7.5) for text in column) + 9 for column in texts]
    words = [
        max(pdfmetrics.stringWidth(word, _BOLD, 7.5) for text in column for word in (text.split() or [""])) + 9
        for column in texts
    ]
    room = _WIDTH_MM * mm
    if sum(whole) <= room:
        return whole
    least = [min(word, room / 3) for word in words]
    spare = max(room - sum(least), 0)
    wanted = [max(all_ - one, 0) for all_, one in zip(whole, least, strict=True)]
    total = sum(wanted) or 1
    widths = [one + spare * more / total for one, more in zip(least, wanted, strict=True)]
    return [width * min(1, room / sum(widths)) for width in widths]


def _figure(one: Picture) -> Flowable:
    width = _WIDTH_MM * mm
    image = Image(io.BytesIO(one.png), width=width, height=width * one.height_px / one.width_px)
    return KeepTogether([Spacer(1, 4), image, _paragraph(one.title, _NOTE)])


def _decision(document: Document) -> list[Flowable]:
    lines = Table(
        [[_paragraph(name, _CELL_HEAD), ""] for name in _SIGNATURE],
        colWidths=[60 * mm, 100 * mm],
        rowHeights=[11 * mm] * len(_SIGNATURE),
        hAlign="LEFT",
    )
    lines.setStyle(
        TableStyle([("LINEBELOW", (1, 0), (1, -1), 0.8, colors.black), ("VALIGN", (0, 0), (-1, -1), "BOTTOM")])
    )
    judged = f"The bundle named above was judged on this report, digest of its contents {document.digest}."
    return [
        _paragraph("Decision", _HEAD),
        _paragraph(judged, _TEXT),
        lines,
        Spacer(1, 8),
        _paragraph(f"The decision is entered with the file that was signed: {document.command}", _TEXT),
    ]
