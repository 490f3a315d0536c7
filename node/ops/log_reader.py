"""Reads the lines about one series from the log files of all processes; while they write, and when they are gone.

Lines that are damaged, such as one within which a process was killed, are passed over and counted.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

Line = dict[str, Any]
_MOST_EXACT_FIRST: Final = (*("case", "job", "delivery", "series_uid", "derived_series_uid", "series", "association"),)


@dataclass(frozen=True)
class Wanted:
    """Which lines are about a series. `ids` has the values that count, by the name of the line's field.

    series_uid: lines of another series are none of it, whatever their numbers say: a rebuilt store counts anew.
    """

    ids: Mapping[str, frozenset[str]]
    series_uid: str = ""

    def has(self, line: Line) -> bool:
        """Whether the most exact id that the line has is one of those wanted."""
        if self.series_uid and line.get("series_uid", self.series_uid) != self.series_uid:
            return False
        for key in _MOST_EXACT_FIRST:
            if key in self.ids and key in line:
                return str(line[key]) in self.ids[key]
        return False

    @property
    def needles(self) -> tuple[bytes, ...]:
        """Bytes of which a line that is wanted has at least one; most lines need not be parsed."""
        return tuple(value.encode() for key, values in self.ids.items() for value in _written(key, values))


@dataclass
class LogReader:
    """Lines of the files of a folder. since: the `time` of the oldest line wanted; "" is all.

    files: what was read. damaged: lines that were passed over. unreadable: files that could not be read, with why.
    """

    folder: Path
    wanted: Wanted
    since: str = ""
    files: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    damaged: int = 0
    _open: dict[Path, "_Tail"] = field(default_factory=dict)

    def read(self) -> list[Line]:
        """What was written since the last call, by time; the first call reads also what was put aside."""
        raw: list[bytes] = []
        is_first = not self.files
        for path in sorted(self.folder.glob("*.jsonl")):
            raw += self._new_lines(path)
        if is_first:
            for path in sorted(self.folder.glob("*.jsonl.*")):
                raw += self._whole(path)
        found = [line for text in raw if (line := self._line(text)) is not None]
        return sorted(found, key=lambda line: str(line["time"]))

    def close(self) -> None:
        """Close the files that are followed."""
        for tail in self._open.values():
            tail.file.close()

    def _new_lines(self, path: Path) -> Iterable[bytes]:
        """The end of a file that is written; where it was put aside, what was added before that, and the new one."""
        try:
            tail = self._open.get(path)
            if tail is None:
                self.files.append(path)
            elif not tail.is_at(path):
                yield from self._picked(tail)
                tail.file.close()
                tail = None
            if tail is None:
                tail = self._open[path] = _Tail(path.open("rb"))
            yield from self._picked(tail)
        except OSError as error:
            self._cannot_read(path, error)

    def _whole(self, path: Path) -> Iterable[bytes]:
        try:
            if any(tail.is_at(path) for tail in self._open.values()):
                return  # it was put aside just now
            with path.open("rb") as file:
                self.files.append(path)
                yield from self._picked(_Tail(file))
        except OSError as error:
            self._cannot_read(path, error)

    def _cannot_read(self, path: Path, error: OSError) -> None:
        words = f"{path}: {error.strerror}"
        if words not in self.unreadable:
            self.unreadable.append(words)

    def _picked(self, tail: "_Tail") -> Iterator[bytes]:
        """Lines that may be wanted; what is no whole line is counted."""
        needles = self.wanted.needles
        for text in tail.lines():
            if not (text.startswith(b"{") and text.endswith(b"}\n")):
                self.damaged += text != b"\n"
            elif any(needle in text for needle in needles):
                yield text

    def _line(self, text: bytes) -> Line | None:
        try:
            line = json.loads(text)
            if isinstance(line, dict) and {"time", "level", "role", "event", "message"} <= line.keys():
                return line if str(line["time"]) >= self.since and self.wanted.has(line) else None
        except (ValueError, RecursionError):
            pass
        self.damaged += 1
        return None


class _Tail:
    """An open file, and the line at its end that is not whole yet."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self._begun = file, b""

    def lines(self) -> Iterator[bytes]:
        for text in self.file:
            whole = self._begun + text
            if not whole.endswith(b"\n"):
                self._begun = whole
                return
            self._begun = b""
            yield whole

    def is_at(self, path: Path) -> bool:
        try:
            return os.path.samestat(path.stat(), os.fstat(self.file.fileno()))
        except FileNotFoundError:
            return True  # for the moment between two names


def _written(key: str, values: Iterable[str]) -> list[str]:
    """How an id stands in a line; a number may go on, a text may not."""
    is_text = key == "case" or key.endswith("uid")
    return [f'"{key}": "{value}"' if is_text else f'"{key}": {value}' for value in values]
