"""Statements that are rendered once and then executed thousands of times; it knows no table.

SQLAlchemy finds a statement in its cache and sets up a result anew for every execution, which takes three times as long
as SQLite takes to execute it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, CursorResult, Dialect
from sqlalchemy.sql.expression import ClauseElement


class Prepared:
    """One statement with named parameters; what it returns comes as the driver's own values."""

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
