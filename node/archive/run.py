"""The run over an archive: what is not done yet goes to the cluster, and every answer becomes a row that is kept."""

import hashlib
import io
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

import models
from config.settings import Settings
from node.archive.index import Entry, read_index
from node.archive.outcome import SCHEMA, End
from node.archive.places import open_place
from node.archive.translate import ArchiveTranslator, Run
from node.bootstrap.worker import job_options
from node.errors import Refused
from node.version import software_version
from storage.objects import Objects

RUN_FILE: Final = "run.json"
OUTCOMES: Final = "outcomes"
_ROWS: Final = 20  # of outcome that are kept together, or what came within
_SECONDS: Final = 5.0

Stream = Callable[[Sequence[dict[str, Any]], type, Run], Iterable[dict[str, Any]]]
"""Gives to each row, on a cluster, what a translator makes of it; `node.translate.ray_executor.stream`."""


@dataclass
class Tally:
    """How far a run is. done: of `total`, of which `before` stood there when it began. ends: how many ended how."""

    total: int
    before: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    begun_s: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        """Series that have an outcome."""
        return sum(self.ends.values())

    @property
    def series_per_hour(self) -> float:
        """Of this run; 0 before the first."""
        seconds = time.monotonic() - self.begun_s
        return 3600 * (self.done - self.before) / seconds if seconds > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until the last one ends, at the rate so far; None where there is none yet."""
        rate = self.series_per_hour
        return 3600 * (self.total - self.done) / rate if rate else None


def run_archive(settings: Settings, index: Path, out_url: str, stream: Stream, show: Callable[[Tally], None]) -> Tally:
    """Translate what has no outcome yet; `show` is called after each series.

    Raises Misconfigured for an index that cannot be used, Refused where the output belongs to another run,
    ObjectsUnavailable, and what `stream` raises; all outcomes so far are kept then, and a run with the same words goes on.
    """
    entries = read_index(index)
    out = open_place(out_url, settings.spool)
    produced_at = _settle(out, _about(settings, entries))
    kept = read_outcomes(out)
    known = {entry.key for entry in entries}
    tally = Tally(len(entries), ends=Counter(row["end"] for key, row in kept.items() if key in known))
    tally.before = tally.done
    rest = [{"source": entry.source, "series_uid": entry.series_uid} for entry in entries if entry.key not in kept]
    show(tally)
    if rest:
        run = Run(settings, out_url, job_options(settings, produced_at))
        for rows in _in_parts(stream(rest, ArchiveTranslator, run)):
            out.put(f"{OUTCOMES}/{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex}.parquet", _parquet(rows))
            tally.ends.update(row["end"] for row in rows)
            show(tally)
        kept = read_outcomes(out)
    out.put(f"{OUTCOMES}.parquet", _parquet([kept[entry.key] for entry in entries if entry.key in kept]))
    return tally


def read_outcomes(out: Objects) -> dict[str, dict[str, Any]]:
    """All rows of outcome by their key; of two of one series, which hold the same result, the later one."""
    rows: dict[str, dict[str, Any]] = {}
    for found in sorted(out.list(OUTCOMES), key=lambda one: one.key):
        data = out.get(found.key, 0, found.size_bytes) if found.key.startswith(f"{OUTCOMES}/") else None
        if data is not None:
            rows |= {row["key"]: row for row in pq.read_table(io.BytesIO(data)).to_pylist()}
    return rows


def _about(settings: Settings, entries: Sequence[Entry]) -> dict[str, str]:
    """What all results of one output have in common: another bundle, list or version is another run."""
    listed = hashlib.sha256("".join(f"{entry.source}\n{entry.series_uid}\n" for entry in entries).encode()).hexdigest()
    return {
        "bundle": models.read_card(models.find_bundle(settings.model.bundle)).digest,
        "index": listed,
        "version": software_version(),
    }


def _settle(out: Objects, about: Mapping[str, str]) -> datetime:
    """The moment of production of this run, from its first start; raises Refused where the output is another run's."""
    now = datetime.now(UTC).replace(microsecond=0)
    out.put_new(RUN_FILE, json.dumps({**about, "produced_at": now.isoformat()}, indent=1).encode())
    found = out.head(RUN_FILE)
    there = json.loads(out.get(RUN_FILE, 0, found.size_bytes) or b"{}") if found is not None else {}
    if others := [name for name, value in about.items() if there.get(name) != value]:
        raise Refused(
            f"the output belongs to another run: its {', '.join(others)} is not that of this one; name another output"
        )
    return datetime.fromisoformat(there["produced_at"])


def _in_parts(answers: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows together that came within seconds, so that a kill costs little and there are not too many files."""
    part: list[dict[str, Any]] = []
    begun_s = time.monotonic()
    for row in answers:
        part.append(row)
        if len(part) >= _ROWS or time.monotonic() - begun_s > _SECONDS:
            yield part
            part, begun_s = [], time.monotonic()
    if part:
        yield part


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), written)
    return written.getvalue()


def ended_well(tally: Tally) -> bool:
    """Whether every series has its outcome and none FAILED."""
    return tally.done == tally.total and not tally.ends[End.FAILED]
