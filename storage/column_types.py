"""The column types of the store: what every text and every instant goes through on its way in.

A text of a peer can hold what PostgreSQL refuses (NUL, half of a surrogate pair) and what forges a line of a log or a
terminal. It is cleaned here, where all text enters, in values and in conditions alike, so that both databases keep and
find the same.
"""

import unicodedata
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, String, Text, TypeDecorator

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
    """A value of JSON, all of its texts cleaned."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Clean its texts."""
        return _clean_all(value)


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
