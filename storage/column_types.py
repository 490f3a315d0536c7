"""The column types of the store: what every text and every instant goes through on its way in, also past the ORM.

A text of a peer can hold what PostgreSQL refuses (NUL, half of a surrogate pair) and what forges a line of a log or a
terminal. It is cleaned here, where all text enters, in values and in conditions alike, so that both databases keep and
find the same.
"""

import math
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Connection, CursorResult, DateTime, Dialect, String, Text, TypeDecorator
from sqlalchemy.sql.expression import ClauseElement

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_REFUSED = frozenset({"Cc", "Cs"})  # control characters and surrogates; categories of Unicode
_KEPT = frozenset("\t\n\r")


def clean(text: str) -> str:
    """The text with every control character but tab and line ends, and every lone surrogate, replaced."""
    if text.isprintable():
        return text
    return "".join(REPLACEMENT if unicodedata.category(c) in _REFUSED and c not in _KEPT else c for c in text)


def _clean_all(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {_clean_all(key): _clean_all(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean_all(one) for one in value]
    return value


def only_numbers(value: Any) -> Any:
    """A value of JSON without NaN and infinity, which JSON has not and PostgreSQL refuses.

    What is named so is left out, as what was not measured; in a list it becomes null.
    """
    if isinstance(value, dict):
        return {key: only_numbers(one) for key, one in value.items() if not _is_no_number(one)}
    if isinstance(value, list | tuple):
        return [None if _is_no_number(one) else only_numbers(one) for one in value]
    return value


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


class CleanString(TypeDecorator[str]):
    """A text of limited length."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Clean it."""
        return None if value is None else clean(value)


class CleanText(CleanString):
    """A text of any length."""

    impl = Text
    cache_ok = True


class CleanJson(TypeDecorator[Any]):
    """A value of JSON, all of its texts cleaned, without NaN and infinity."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Clean its texts, and leave out what is no number."""
        return only_numbers(_clean_all(value))


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime on every database; SQLite keeps no time zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive datetimes: a local time in the store would be wrong twice a year."""
        if value is not None and value.tzinfo is None:
            raise ValueError("naive datetime given to the store")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware UTC datetime."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Prepared:
    """A statement that is rendered once and then executed thousands of times, with named parameters.

    What it returns comes as the driver's own values. SQLAlchemy finds a statement in its cache and sets up a result
    anew for every execution, which takes three times as long as SQLite takes to execute it.
    """

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._rendered: dict[str, _Rendered] = {}

    def execute(self, connection: Connection, values: Mapping[str, object]) -> CursorResult[tuple[Any, ...]]:
        """Execute in the connection's transaction; every parameter without a value of its own needs one."""
        rendered = self._rendered.get(connection.dialect.name)
        if rendered is None:
            rendered = self._rendered[connection.dialect.name] = _Rendered(self._statement, connection.dialect)
        return connection.exec_driver_sql(rendered.text, rendered.parameters(values))


class _Rendered:
    """A statement as one kind of database wants it."""

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self.text = str(compiled)
        self._fixed: dict[str, object] = compiled.params
        self._convert: dict[str, Callable[[Any], object]] = {}
        for parameter, name in compiled.bind_names.items():
            convert = parameter.type.dialect_impl(dialect).bind_processor(dialect)
            if convert is not None:
                self._convert[name] = convert
        self._order: tuple[str, ...] | None = tuple(compiled.positiontup) if compiled.positional else None

    def parameters(self, values: Mapping[str, object]) -> Any:
        """Converted values, by position or by name."""
        named = {**self._fixed, **values}
        for name, convert in self._convert.items():
            named[name] = convert(named[name])
        return named if self._order is None else tuple(named[name] for name in self._order)
