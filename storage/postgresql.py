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
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import Engine

CONNECT_TIMEOUT_S: Final = 2  # the least that libpq knows; a receiver has to answer its sender
SILENCE_LIMIT_S: Final = 20.0  # a query of this node takes some seconds at most, with the locks that it waits for
_INTERVAL_S: Final = 0.1
_SAME_EVERYWHERE: Final = """
SELECT set_config('DateStyle', 'ISO, MDY', false), set_config('TimeZone', 'UTC', false),
    set_config('client_encoding', 'UTF8', false), set_config('extra_float_digits', '1', false)
"""
_LOOKS: Final = 5
_SERVER_PROCESS = "SELECT pg_backend_pid()"
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
    """What SQLAlchemy's event `do_connect` calls.

    What an administrator has set for the server, the database or the role, and would change what values mean here, is
    set back: the driver reads moments only in the style of ISO, and gives text only in an encoding that it knows. It is
    not given when the connection begins: a pooler refuses that.
    """
    connection = BoundedConnection.connect(*arguments, **options)
    try:
        connection.autocommit = True  # else the values would end with the first transaction that is rolled back
        connection.execute(_SAME_EVERYWHERE)
        connection.autocommit = False
    except Error:
        connection.close()
        raise
    return connection


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


def lends_sessions(engine: Engine) -> bool:
    """Whether a pooler gives a session of the server only for one transaction. Raises StoreUnavailable.

    It is seen where a second connection meets the session of a first one. A pooler that is busy with others may give it
    another one, so that False is no proof.
    """
    with engine.connect() as first:
        driver_connection = first.connection.driver_connection
        assert isinstance(driver_connection, Connection)
        if _process_behind(first) == driver_connection.info.backend_pid:
            return False  # the server itself, for a pooler tells a number of its own
        with engine.connect() as second:
            return any(_process_behind(first) == _process_behind(second) for _ in range(_LOOKS))


def _process_behind(connection: SqlConnection) -> int:
    with connection.begin():
        return int(connection.exec_driver_sql(_SERVER_PROCESS).scalar_one())


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
