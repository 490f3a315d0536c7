"""The log of a process: on standard error, and in a file of its own. See docs/operate/logs.md.

Every logger of the node is one of the standard library; a call hands over the name of its event and the ids that it is
about as `extra`. structlog makes the lines (`log_lines`), and what repeats is left out (`log_limits`).
"""

import logging
import threading
from pathlib import Path

from config.settings import LogSettings
from node.ops.log_files import FOLDER, LogFile
from node.ops.log_limits import LimitedHandler, RepeatFilter
from node.ops.log_lines import line_formatter

log = logging.getLogger(__name__)


def configure_logging(role: str, settings: LogSettings, *, name: str = "1", verbose: bool = False) -> None:
    """Log to standard error in the form of the settings."""
    handler = LimitedHandler(RepeatFilter())
    handler.setFormatter(line_formatter(settings.format, role, name))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    threading.excepthook = _thread_ended
    # These libraries log identifiers and whole datasets, which may name patients, or a line per tick.
    for library in ("pydicom", "apscheduler", "matplotlib", "alembic"):
        logging.getLogger(library).setLevel(logging.CRITICAL)


def keep_log_file(role: str, settings: LogSettings, data_dir: Path, *, name: str = "1") -> None:
    """From now on keep the lines also in a file, unless the settings want none.

    Only while this process holds the lock of its role and name: else two processes would write one file.
    """
    if not settings.files:
        return
    path = data_dir.absolute() / FOLDER / f"{role}-{name}.jsonl"
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LimitedHandler):
            handler.file = LogFile(path, round(settings.file_mb * 1e6), settings.files_kept)
            handler.file.setFormatter(line_formatter("json", role, name))


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    """An error that ends a thread is subject to the same limits; Python would print its traceback each time."""
    if ended.exc_value is None or isinstance(ended.exc_value, SystemExit):
        return
    name = "" if ended.thread is None else ended.thread.name.partition("-")[0]
    info = (ended.exc_type, ended.exc_value, ended.exc_traceback)
    log.error("a thread (%s) ended by an error", name, exc_info=info, extra={"event": "thread_ended"})
