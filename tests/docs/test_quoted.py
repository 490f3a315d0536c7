"""What the pages for the night say in "..." that the node says, it says; what they show as settings can be loaded."""

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from config.load import load_settings
from models.training import read_options
from node.cohorts.structures import read_structure_table
from node.ops.health import ROLES
from tests.docs.pages import ROOT, Block, blocks, documents, prose

QUOTING = [page for page in documents() if page.startswith("docs/operate/") or page == "docs/reference/input.md"]
OTHERS_SAY = {"connection refused", "Hounsfield Units"}  # a scanner, and a person at it
_CODE = re.compile(r"`[^`]*`")
_QUOTE = re.compile(r'"([^"]*)"')
# What differs each time, and where the program puts two of its sayings together.
_STANDS_FOR = re.compile(r"\.\.\.|: |\b\d+\b|\b(?:tps|v2|" + "|".join(ROLES.values()) + r")\b")
_VALUE = re.compile(r"%[.\d]*[a-z]")
_LONG = 8  # characters; less is found in any source


def quotes(page: str, text: str) -> Iterator[str]:
    """What a page quotes outside code, without what differs each time."""
    for said in _QUOTE.findall(" ".join(_CODE.sub("", text).split())):
        if " " in said and said not in OTHERS_SAY:
            yield from (part for piece in _STANDS_FOR.split(said) if len(part := piece.strip(" ,:;")) >= _LONG)


@cache
def sayings() -> frozenset[str]:
    """The pieces of every string of the program, cut where a value is put in."""
    sources = [path for folder in ("config", "models", "node", "storage") for path in (ROOT / folder).rglob("*.py")]
    strings = [
        node.value
        for path in sources
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return frozenset(piece.strip() for text in strings for piece in _VALUE.split(text) if len(piece.strip()) >= _LONG)


def is_said(part: str) -> bool:
    """Whether the program says it: in one piece, or most of it in one piece and the rest in values."""
    return any(part in piece or (piece in part and len(piece) >= 0.6 * len(part)) for piece in sayings())


@pytest.mark.parametrize("page", QUOTING)
def test_what_a_page_quotes_is_what_the_program_says(page: str) -> None:
    assert not [part for part in quotes(page, prose(page)) if not is_said(part)]


def test_a_quote_that_nothing_says_is_found() -> None:
    wrong = 'It says "needs a person: delete series 301 at tps", `"never this"` or "waits for a return of 3 images".'
    assert [part for part in quotes("page", wrong) if not is_said(part)] == ["waits for a return of"]


SETTINGS = [block for page in documents() for block in blocks(page) if block.language == "toml"]


@pytest.mark.parametrize("block", SETTINGS, ids=lambda block: f"{block.page}:{block.line}")
def test_settings_of_a_page_are_understood(block: Block, tmp_path) -> None:
    (tmp_path / "node.toml").write_text(block.text)
    file = tmp_path / "node.toml"
    if block.text.startswith("[structures]"):
        read_structure_table(file)
    elif block.text.startswith("method = "):
        read_options(file, {})
    else:
        load_settings(file)


def test_there_are_settings_to_look_at() -> None:
    assert SETTINGS
