"""The rows of outcome of an archive, in its output: kept within seconds, whether or not the next series ends."""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

from node.archive.outcome import End, from_parquet, to_parquet
from node.bootstrap.places import Place, read
from storage.errors import ObjectsUnavailable

OUTCOMES: Final = "outcomes"
_SUFFIX: Final = ".parquet"
QUIET_S: Final = 300.0  # without a row, after which a person is told so, again and again
MANY_FILES: Final = 500  # with rows, each of which costs a reader two requests of an object store
_ROWS: Final = 20  # of outcome that are kept together, or what came within
_SECONDS: Final = 5.0
_OF_RELEASE: Final = ("end", "place", "sha256", "reason", "released_by", "released_at")


class Keeper:
    """Takes rows one by one and gives them to `keep` some at a time; all of them at the end, whatever ended the block.

    keep(rows): of one thread at a time; where it raises ObjectsUnavailable or OSError in between, the rows are given
    again. quiet(): nothing has come for QUIET_S.
    """

    def __init__(self, keep: Callable[[Sequence[dict[str, Any]]], None], quiet: Callable[[], None]) -> None:
        self._keep, self._quiet = keep, quiet
        self._rows: list[dict[str, Any]] = []
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._turns, name="rows-of-outcome", daemon=True)
        self._came_s = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def add(self, row: dict[str, Any]) -> None:
        """Take a row; raises what `keep` raises."""
        with self._lock:
            self._came_s = time.monotonic()
            self._rows.append(row)
            if len(self._rows) >= _ROWS:
                self._give()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        with self._lock:
            try:
                self._give()
            except (ObjectsUnavailable, OSError):
                if error is None:
                    raise  # else what ended the block is told; these series are done again

    def _turns(self) -> None:
        while not self._ended.wait(_SECONDS):
            with self._lock, suppress(ObjectsUnavailable, OSError):  # whoever brings the next row, or the end, is told
                self._give()
                if time.monotonic() - self._came_s > QUIET_S:
                    self._came_s = time.monotonic()
                    self._quiet()

    def _give(self) -> None:
        if self._rows:
            self._keep(self._rows)
            self._rows = []


def keep_rows(out: Place, rows: Sequence[dict[str, Any]]) -> None:
    """Keep rows of outcome; raises ObjectsUnavailable, OSError."""
    out.put(f"{OUTCOMES}/{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex}{_SUFFIX}", to_parquet(rows))


def read_outcomes(out: Place) -> dict[str, dict[str, Any]]:
    """All rows of outcome by their key; of two of one series the later one. Raises ObjectsUnavailable, OSError.

    What a person released stays so: a second command may have had the series in hand, and say HELD after that. So does
    an outcome where a second command had no answer of the source. Copies of one series have one result, in one place:
    what was released of one of them counts for all.
    """
    return _read(out)[0]


def merge_outcomes(out: Place) -> dict[str, dict[str, Any]]:
    """As `read_outcomes`; where the rows are in many files, they are in one then.

    It may be killed at any line, and others may read, add or merge meanwhile: a file goes after another has its rows.
    """
    rows, keys = _read(out)
    if len(keys) >= MANY_FILES:
        # It comes before any later file, as these do; and another command that merges now has a file of its own.
        last = keys[-1].removesuffix(_SUFFIX).partition("-merged-")[0]
        out.put(f"{last}-merged-{uuid.uuid4().hex}{_SUFFIX}", to_parquet(list(rows.values())))
        out.delete(keys)
    return rows


def _read(out: Place) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The rows, and the files in which they are, in the order of their moments; a release counts for all copies."""
    while True:
        rows: dict[str, dict[str, Any]] = {}
        keys = sorted(found.key for found in out.list(OUTCOMES))
        for key in keys:
            data = read(out, key)
            if not data and out.head(key) is None:
                break  # merged meanwhile: its rows are in a file that was not listed
            for row in from_parquet(data):
                before = rows.get(row["key"], row)
                if row["released_at"] or not (before["released_at"] or _only_waits(row, before)):
                    rows[row["key"]] = row
        else:
            return _released_for_all(rows), keys


def _released_for_all(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    released = {row["derived_series_uid"]: row for row in rows.values() if row["released_at"]}
    for key, row in rows.items():
        if row["end"] == End.HELD and (same := released.get(row["derived_series_uid"])):
            rows[key] = row | {name: same[name] for name in _OF_RELEASE}
    return rows


def _only_waits(row: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether a series has an outcome already that nobody asks for again (--retry-failed)."""
    return bool(row["end"] == End.WAITING and before["end"] in (End.PRODUCED, End.HELD, End.SKIPPED))
