"""How a line of the log is made: when, which process, the name of the event, the ids it is about, and a sentence.

An error of operation (a full disk, a store that does not answer) is one line; a traceback quotes no library's text.
"""

import json
import logging
import re
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal

from structlog.contextvars import get_contextvars
from structlog.processors import EventRenamer, JSONRenderer
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import EventDict

from node.errors import NodeError
from storage.errors import StorageError

OPERATIONAL = (NodeError, StorageError, OSError)
"""Errors that say in a sentence what the surroundings refused; where in the program they came up helps nobody."""
IDS: Final = (
    *("case", "job", "delivery", "series", "series_uid", "derived_series_uid", "sop_instance_uid", "destination"),
    *("peer", "calling_ae", "association", "child", "channel", "status"),
)
"""What a line can be about, by the names of its fields. Nothing else that a call hands over is written."""
NO_EVENT: Final = "library_message"
"""The event of what a library logs."""

_MAX_CAUSES = 8
_UID, _CASE = re.compile(r"[0-9.]{1,64}"), re.compile(r"[0-9-]{1,24}")
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
_KNOWN: Final = {"time", "level", "role", "name", "pid", "event", "message", "traceback"}


def line_formatter(form: Literal["console", "json"], role: str, name: str = "1") -> logging.Formatter:
    """Makes lines of this process, of every logger: text for people, or one JSON object a line."""
    render = _render if form == "console" else _render_json
    return ProcessorFormatter(
        foreign_pre_chain=[EventRenamer("message"), ExtraAdder(("event", *IDS))],
        processors=[_Facts(role, name), render],
    )


def console_text(line: Mapping[str, Any]) -> str:
    """A line as people read it: `2026-11-26T12:00:00Z WARNING deliver delivery_failed  a sentence  [case=12]`."""
    at, who = f"{str(line['time'])[:19]}Z", str(line["role"])
    if line.get("name", "1") != "1":
        who += f"-{line['name']}"
    ids = " ".join(f"{key}={_value(value)}" for key, value in line.items() if key not in _KNOWN)
    text = f"{at} {line['level']} {who} {line['event']}  {line['message']}" + (f"  [{ids}]" if ids else "")
    trace = line.get("traceback")
    return plain_line(text) + (f"\n{trace}" if trace else "")


def plain_line(text: str) -> str:
    """Text on one line, without what a terminal would obey: controls, marks of direction, other ends of a line."""
    return text if text.isprintable() else "".join(_printable(character) for character in text)


def _printable(character: str) -> str:
    if character == "\n":
        return "; "
    return character if character.isprintable() else repr(character)[1:-1]


def bind_ids(record: logging.LogRecord) -> bool:
    """Keep with a record what the thread works at (`structlog.contextvars`): it may be written by another one."""
    for key, value in get_contextvars().items():
        record.__dict__.setdefault(key, value)
    return True


def sentence(text: str, error: BaseException | None) -> str:
    """What a line says. An error of operation says everything in its words: no traceback is needed."""
    if not isinstance(error, OPERATIONAL):
        return text
    words = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return f"{text}: {words}"


def trace(info: _ExcInfo) -> str:
    """Where an error came from and what kind it was; its text only where it is one of operation.

    A library quotes in its errors what it could not use, and that may be the name of a patient.
    """
    parts: list[str] = []
    error = info[1]
    while error is not None and len(parts) < _MAX_CAUSES:
        text = f": {error}" if isinstance(error, OPERATIONAL) else ""
        frames = "".join(traceback.format_tb(error.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{type(error).__name__}{text}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nwhich led to\n\n".join(reversed(parts))


class _Facts:
    """Puts what every line has before the ids that were handed over."""

    def __init__(self, role: str, name: str) -> None:
        self._role, self._name = role, name

    def __call__(self, _logger: Any, _method: str, line: EventDict) -> EventDict:
        record: logging.LogRecord = line["_record"]
        info: _ExcInfo = line.get("exc_info") or (None, None, None)
        made: EventDict = {
            "time": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z",
            "level": record.levelname,
            "role": self._role,
            "name": self._name,
            "pid": record.process,
            "event": line.get("event", NO_EVENT),
            "message": sentence(line["message"], info[1]),
            **{key: line[key] for key in IDS if _can_be_written(key, line.get(key))},
        }
        if info[1] is not None and not isinstance(info[1], OPERATIONAL):
            made["traceback"] = trace(info)
        return made


def _can_be_written(key: str, value: object) -> bool:
    """What a peer sends in place of a UID can be anything, the name of a patient included; so can an address typed."""
    if value in (None, ""):
        return False
    form = _CASE if key == "case" else _UID if key.endswith("_uid") else None
    return form is None or form.fullmatch(str(value)) is not None


_JSON = JSONRenderer(ensure_ascii=False)


def _render_json(logger: Any, method: str, line: EventDict) -> str:
    """One object on one line, in which what cannot be shown is escaped: somebody will look at the file as it is."""
    text = _JSON(logger, method, line)
    assert isinstance(text, str)
    return text if text.isprintable() else "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


def _render(_logger: Any, _method: str, line: EventDict) -> str:
    return console_text(line)


def _value(value: object) -> str:
    text = str(value)
    return text if text and not set(text) & set(' "[]=') else json.dumps(text, ensure_ascii=False)
