"""What a driver of a database raises, told in a sentence, and never with the values of a row."""

from collections.abc import Callable
from typing import Final

from sqlalchemy import ExceptionContext
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError

from storage.errors import StoreUnavailable

TAKES_NO_WRITES: Final = "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean"
"""Is true on a standby, before it is promoted, and where an administrator let PostgreSQL only read."""

READ_ONLY_WORDS: Final = "the server takes no writes: it is a standby, or was set to read-only"

_ADMINISTRATORS: Final = {
    "25006": READ_ONLY_WORDS + ": {}",  # read_only_sql_transaction
    "25P03": "{}; idle_in_transaction_session_timeout is too short",
    "42501": "the role may not do that: {}",  # insufficient_privilege
}
"""By SQLSTATE, what only the server's administrator can put right. {}: the server's words, with no value of a row."""


def tell(unavailable: Callable[[BaseException], StoreUnavailable], context: ExceptionContext) -> None:
    """A database that is gone, locked, full, damaged or not ours is told in a sentence, whatever was done."""
    if context.is_pre_ping:
        return  # the pool connects anew
    if (words := _to_administrator(context.original_exception)) or context.connection is None:
        cause = RuntimeError(words) if words else context.original_exception
        raise unavailable(cause) from context.original_exception
    # A broken constraint or a wrong statement is a more special kind of the last one, and stays what it is.
    if type(context.sqlalchemy_exception) in (OperationalError, InterfaceError, DatabaseError):
        raise unavailable(context.original_exception) from context.original_exception
    _forget_values(context)


def _to_administrator(error: BaseException) -> str:
    """What to tell of an error that only an administrator can put right; "" of any other."""
    words = _ADMINISTRATORS.get(getattr(error, "sqlstate", None) or "", "")
    diagnosis = getattr(error, "diag", None)
    return words.format(diagnosis.message_primary) if words and diagnosis is not None else ""


def _forget_values(context: ExceptionContext) -> None:
    """PostgreSQL says with a broken constraint which row breaks it; that row can be a patient's."""
    original, told = context.original_exception, context.sqlalchemy_exception
    diagnosis = getattr(original, "diag", None)
    if diagnosis is None or told is None:
        return
    constraint = f", constraint {diagnosis.constraint_name}" if diagnosis.constraint_name else ""
    words = f"{type(original).__name__} (SQLSTATE {diagnosis.sqlstate}{constraint})"
    original.args = told.args = (words,)
