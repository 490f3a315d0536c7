"""A digest of every table, the same for the same rows on SQLite and on PostgreSQL, read in batches.

SHA-256 over the names of the columns and then over every row in the order of its primary key, each a line of JSON:
instants as UTC ISO 8601, values of JSON with sorted keys, texts escaped to ASCII, floating point as Python writes it,
which is the shortest text that gives the same 64 bits.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, String, Table, collate, select

from storage.column_types import only_numbers
from storage.copies import ROWS_AT_ONCE, Told, tables_of

_BYTES_IN_ORDER: Final = "C"  # the collation of PostgreSQL that orders as SQLite does by itself


@dataclass(frozen=True)
class TableDigest:
    """How many rows a table has, and their SHA-256, hex."""

    rows: int
    sha256: str


def digests(connection: Connection, told: Told = lambda _table, _rows: None) -> dict[str, TableDigest]:
    """Of every table but Alembic's own, by name, in the caller's transaction."""
    return {table.name: _digest(connection, table, told) for table in tables_of(connection)}


def _digest(connection: Connection, table: Table, told: Told) -> TableDigest:
    names = sorted(column.name for column in table.columns)
    query = select(*(table.c[name] for name in names)).order_by(*_keys(connection, table))
    digest, count = hashlib.sha256(_line(names)), 0
    for part in connection.execute(query, execution_options={"yield_per": ROWS_AT_ONCE}).partitions():
        for row in part:
            digest.update(_line([_canonical(value) for value in row]))
        count += len(part)
        told(table.name, count)
    return TableDigest(count, digest.hexdigest())


def _keys(connection: Connection, table: Table) -> list[Any]:
    is_postgresql = connection.dialect.name == "postgresql"
    return [
        collate(column, _BYTES_IN_ORDER) if is_postgresql and isinstance(column.type, String) else column
        for column in table.primary_key.columns
    ]


def _canonical(value: Any) -> Any:
    if isinstance(value, datetime):
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return aware.isoformat(timespec="microseconds")
    return only_numbers(value)


def _line(values: list[Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode() + b"\n"
