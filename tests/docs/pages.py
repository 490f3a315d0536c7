"""The pages that a reader finds, and the fenced blocks in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LANGUAGES = {"sh", "text", "toml", "json", "yaml", "python", "mermaid", "ini", "csv"}
_FENCE = re.compile(r"^( *)(`{3,})(.*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the number of its first line inside, its language and its text without indentation."""

    page: str
    line: int
    language: str
    text: str


def documents() -> list[str]:
    """README, CONTRIBUTING and every page below docs/, by their paths in the repository."""
    below = sorted(
        path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md") if "builder" not in path.parts
    )
    return ["README.md", "CONTRIBUTING.md", *below]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page, from top to bottom."""
    return list(_blocks(page, (text_of(page) if text is None else text).splitlines()))


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    opened: tuple[int, int, str, str] | None = None
    for number, line in enumerate(lines, start=1):
        if not (fence := _FENCE.match(line)):
            continue
        indent, ticks, words = fence.groups()
        if opened is None:
            opened = (number + 1, len(indent), ticks, words.strip())
        elif ticks.startswith(opened[2]) and not words:
            first, width, _, language = opened
            body = "".join(inside[width:] + "\n" for inside in lines[first - 1 : number - 1])
            yield Block(page, first, language, body)
            opened = None
    assert opened is None, f"{page}:{opened[0] - 1}: a fence that is not closed"


def prose(page: str) -> str:
    """A page without its fenced blocks; each of their lines is empty, so that line numbers stay."""
    lines = text_of(page).splitlines()
    for block in blocks(page):
        count = block.text.count("\n")
        for number in range(block.line - 2, block.line + count):
            lines[number] = ""
    return "\n".join(lines)
