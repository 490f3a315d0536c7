"""Writes the conformance statement: the facts in the sentences of `statement.md`, after PS3.2 annex N."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydicom.datadict import dictionary_description

from config.settings import Settings
from node.conformance.contexts import QUERY, RECEIVER, ContextRow, class_name
from node.conformance.facts import Facts, facts_of

_TEMPLATES: Final = Environment(  # noqa: S701 - it makes Markdown, of nothing that a peer wrote
    loader=FileSystemLoader(Path(__file__).parent),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def statement(settings: Settings) -> str:
    """The statement with these settings, as Markdown."""
    return written(facts_of(settings))


def written(facts: Facts) -> str:
    """The statement that these facts make."""
    receiver = [row for row in facts.accepted if row.where == RECEIVER]
    usual = Counter(row.syntaxes for row in receiver).most_common(1)[0][0]
    lists = _lists([*facts.accepted, *facts.proposed])
    return _TEMPLATES.get_template("statement.md").render(
        facts=facts,
        number={name: _number(value) for name, value in facts.numbers.items()},
        lists=lists,
        receiver=[row for row in receiver if row.syntaxes != usual],
        ignored=[row for row in receiver if row.syntaxes == usual],
        usual=lists[usual],
        query=[row for row in facts.accepted if row.where == QUERY],
        class_name=class_name,
        described=described,
    )


def described(keywords: Iterable[str]) -> str:
    """The names of attributes, as PS3.6 has them."""
    return ", ".join(dictionary_description(keyword) for keyword in keywords)


def _lists(rows: Sequence[ContextRow]) -> dict[tuple[str, ...], str]:
    """A short name for each list of transfer syntaxes, in the order in which they come."""
    return {syntaxes: f"T{number}" for number, syntaxes in enumerate(dict.fromkeys(row.syntaxes for row in rows), 1)}


def _number(value: float) -> str:
    """A number as people read it: 20,000 and 0.5."""
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"
