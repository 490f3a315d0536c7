"""The files in which each process keeps its lines, `DATA_DIR/log/ROLE-NAME.jsonl`, bounded in size and number.

A file that cannot be written ends no process and fills no other log: what it lacks is counted, and said once.
"""

import logging
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

FOLDER = "log"  # in the data directory


class LogFile(RotatingFileHandler):
    """Appends lines to a file of this process alone; at `max_bytes` it is renamed, and `files` of them stay."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=files - 1, delay=True)
        self._lost, self._told, self._why = 0, False, ""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; where the file is there again after an outage, also how many lines it lacks."""
        self._leave_what_was_removed()
        lost = self._lost
        super().emit(record)
        if lost and self._lost == lost:
            self._lost, self._told = 0, False
            super().emit(lines_lost(lost))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - a name of logging
        """Count a line that could not be written; the next one opens the file anew."""
        error = sys.exc_info()[1]
        self._lost += 1
        self._why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        self._let_go()

    def new_trouble(self) -> logging.LogRecord | None:
        """The record that tells people that the file lacks lines, once in each outage."""
        if not self._lost or self._told:
            return None
        self._told = True
        text = f"the log file {self.baseFilename} cannot be written: {self._why}; its lines are counted"
        return _record(logging.ERROR, text, "log_file_failed")

    def _open(self) -> TextIOWrapper:
        path = Path(self.baseFilename)
        path.parent.mkdir(mode=0o700, exist_ok=True)  # never those above: the disk may not be mounted any more
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if not _ends_with_a_line(path):  # a process was killed within it, or the disk was full
                os.write(descriptor, b"\n")
            return open(descriptor, "a", encoding="utf-8", errors="backslashreplace")  # noqa: PTH123
        except BaseException:
            os.close(descriptor)
            raise

    def _leave_what_was_removed(self) -> None:
        """Open the file anew where somebody removed or renamed it."""
        if self.stream is None:
            return
        try:
            is_there = os.path.samestat(Path(self.baseFilename).stat(), os.fstat(self.stream.fileno()))
        except OSError:
            is_there = False
        if not is_there:
            self._let_go()

    def _let_go(self) -> None:
        stream, self.stream = self.stream, None  # None until it is opened again
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.close()


def lines_lost(count: int) -> logging.LogRecord:
    """The record that says how many lines found no room."""
    return _record(logging.WARNING, f"{count} lines before this one could not be written", "log_lines_lost")


def _record(level: int, text: str, event: str) -> logging.LogRecord:
    record = logging.LogRecord(__name__, level, "", 0, text, None, None)
    record.event = event
    return record


def _ends_with_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
