"""How a PostgreSQL server is waited for: for a limited time, measured on this side of the connection.

A server that hangs keeps no limit of its own, and on the same host no limit of TCP ends the wait for it either.
Loaded only where the store is on PostgreSQL, whose driver is an extra package.
"""

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from psycopg import Connection, Error, OperationalError
from sqlalchemy import Engine

CONNECT_TIMEOUT_S: Final = 2  # the least that libpq knows; a receiver has to answer its sender
SILENCE_LIMIT_S: Final = 20.0  # a query of this node takes some seconds at most, with the locks that it waits for
_INTERVAL_S: Final = 0.1
_limit = threading.local()


@contextmanager
def silence_limit(seconds: float) -> Iterator[None]:
    """Within it this thread waits so long for an answer instead of its usual limit; `inf` for as long as it takes."""
    before = getattr(_limit, "seconds", None)
    _limit.seconds = seconds
    try:
        yield
    finally:
        _limit.seconds = before


class BoundedConnection(Connection[Any]):
    """A connection that is closed where the server has not answered in time.

    What became of a transaction is not known then: the server may still commit it.
    """

    silence_s = SILENCE_LIMIT_S

    def wait(self, gen: Generator[Any, Any, Any], interval: float = _INTERVAL_S, *rest: Any, **options: Any) -> Any:
        """Execute one step of the driver, which waits for one answer; raises OperationalError."""
        limit_s = getattr(_limit, "seconds", None) or self.silence_s
        try:
            return super().wait(_bounded(gen, limit_s), interval, *rest, **options)
        except _Silence:
            self.close()
            raise OperationalError(f"the server did not answer for {limit_s:g} s") from None


def connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> BoundedConnection:
    """What SQLAlchemy's event `do_connect` calls."""
    return BoundedConnection.connect(*arguments, **options)


@contextmanager
def own_connection(engine: Engine) -> Iterator[BoundedConnection]:
    """A connection beside the engine's pool and outside any transaction, closed at the end. Raises psycopg.Error."""
    arguments, options = engine.dialect.create_connect_args(engine.url)
    options["connect_timeout"] = CONNECT_TIMEOUT_S
    connection = BoundedConnection.connect(*arguments, **options, autocommit=True)
    try:
        yield connection
    finally:
        with suppress(Error):
            connection.close()


class _Silence(Exception):
    """The server has not answered in time."""


def _bounded(gen: Generator[Any, Any, Any], limit_s: float) -> Generator[Any, Any, Any]:
    """A step of the driver, which is resumed at every sign of the server, and without one at every interval."""
    heard_s = time.monotonic()
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > limit_s:
                raise _Silence
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value
