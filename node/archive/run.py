"""The run over an archive: what is not done yet goes to the cluster, and every answer becomes a row that is kept."""

import hashlib
import itertools
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from config.settings import Settings
from node.archive.index import BUCKET, Entry, read_index
from node.archive.keeping import MANY_FILES, OUTCOMES, Keeper, keep_rows, merge_outcomes, read_outcomes
from node.archive.moved import check_peers, receiving
from node.archive.outcome import End, to_parquet
from node.archive.pacs import check_servers
from node.archive.translate import OPEN, STOP, ArchiveTranslator, Run
from node.bootstrap.places import Place, open_place, read
from node.bootstrap.worker import equipment_of, job_options
from node.errors import Refused, Retryable
from node.translate.carried import BundleAsk
from node.translate.job import JobOptions
from storage.constancy import ConstancyView
from storage.errors import NotFound, ObjectsUnavailable

RUN_FILE: Final = "run.json"
MAX_OPEN: Final = 3  # series one after the other whose source does not answer; others would fare no better

Stream = Callable[[Sequence[dict[str, Any]], type, Run], Iterable[dict[str, Any]]]
"""Gives to each row, on a cluster, what a translator makes of it; `node.translate.ray_executor.stream`."""


@dataclass
class Tally:
    """How far a run is.

    total: rows of the index. before: those that had an outcome when it began. ends: how many ended how. waiting: why
    the source of a series did not answer, by the key of its row; these have no outcome. is_quiet: none came for long.
    """

    total: int
    before: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    waiting: dict[str, str] = field(default_factory=dict)
    is_quiet: bool = False
    _begun_s: float = field(default_factory=time.monotonic)
    _came_s: float = field(default_factory=time.monotonic)

    def count(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take rows that came."""
        self._came_s, self.is_quiet = time.monotonic(), False
        self.ends.update(row["end"] for row in rows if row["end"] != End.WAITING)
        self.waiting |= {row["key"]: row["reason"] for row in rows if row["end"] == End.WAITING}

    @property
    def quiet_s(self) -> float:
        """Seconds since rows came last."""
        return time.monotonic() - self._came_s

    @property
    def done(self) -> int:
        """Series that have an outcome."""
        return sum(self.ends.values())

    @property
    def series_per_hour(self) -> float:
        """Of this start; 0 before the first."""
        seconds = time.monotonic() - self._begun_s
        return 3600 * (self.done - self.before) / seconds if seconds > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until the last one ends, at the rate so far; None where there is none yet."""
        rate = self.series_per_hour
        return 3600 * (self.total - self.done) / rate if rate else None

    @property
    def ended_well(self) -> bool:
        """Whether every series has its outcome, and none FAILED."""
        return self.done == self.total and not self.ends[End.FAILED]


@dataclass(frozen=True)
class Archive:
    """What a run is about, as the command line has found it out.

    constancy: runs with this bundle, None where the settings ask for none. again: outcomes that are not to count.
    """

    settings: Settings
    index: Path
    out: str
    ask: BundleAsk
    constancy: tuple[ConstancyView, ...] | None = None
    again: frozenset[str] = frozenset()


def run_archive(archive: Archive, stream: Stream, show: Callable[[Tally], None]) -> Tally:
    """Translate what has no outcome yet; `show` is called whenever outcomes were kept.

    Raises Misconfigured for an index that cannot be used, Refused where the output belongs to another run,
    NoAssociation where a PACS takes no C-MOVE of ours, Retryable where nothing gets on, ObjectsUnavailable, OSError;
    outcomes so far are kept then, and the same words go on.
    """
    entries = read_entries(archive.settings, archive.index)
    out = open_place(archive.out, archive.settings.spool)
    options = _settle(out, _about(archive, entries), job_options(archive.settings, datetime.now(UTC)))
    before, to_do = merge_outcomes(out), archive.again | {End.WAITING}
    kept = {key: row for key, row in before.items() if row["end"] not in to_do}
    # What did not answer comes last: it must not keep the others from their turn, start after start.
    rest = sorted(
        (entry for entry in entries if entry.key not in kept),
        key=lambda entry: before.get(entry.key, {}).get("end") == End.WAITING,
    )
    tally = Tally(len(entries), len(entries) - len(rest))
    tally.count([kept[entry.key] for entry in entries if entry.key in kept])
    show(tally)
    if rest:
        if archive.again:
            _forget_begun(out, {entry.key for entry in rest})
        run = Run(archive.settings, archive.out, options, archive.ask, uuid.uuid4().hex, archive.constancy)
        files = itertools.count(1)

        def keep(rows: Sequence[dict[str, Any]]) -> None:
            keep_rows(out, rows)
            tally.count(rows)
            kept.update((row["key"], row) for row in rows)
            with suppress(OSError):  # nobody reads the lines any more; the work goes on
                show(tally)
            if next(files) % MANY_FILES == 0:
                with suppress(ObjectsUnavailable, OSError):  # the rows are kept, and another time will do
                    merge_outcomes(out)

        def quiet() -> None:
            tally.is_quiet = True
            show(tally)

        with receiving(archive.settings, rest, out), Keeper(keep, quiet) as keeper:
            _take(stream([asdict(entry) for entry in rest], ArchiveTranslator, run), keeper)
    for key, row in read_outcomes(out).items():  # what a person or another command did meanwhile
        if key in kept and (row["released_at"] or kept[key]["end"] == End.WAITING):
            kept[key] = row
    out.put(f"{OUTCOMES}.parquet", to_parquet([kept[entry.key] for entry in entries if entry.key in kept]))
    if tally.done == tally.total:
        _forget_begun(out, {entry.key for entry in entries})
    return tally


def read_entries(settings: Settings, index: Path) -> list[Entry]:
    """The entries of an index whose sources can be asked with these settings; raises Misconfigured."""
    entries = read_index(index)
    check_servers(settings, entries)
    check_peers(settings, entries)
    if one := next((entry.source for entry in entries if entry.source.startswith(BUCKET)), ""):
        open_place(one, settings.spool)
    return entries


def check_output(archive: Archive) -> None:
    """Raise Refused where the output is another run's, as far as that can be seen before a cluster is asked.

    Which device "auto" stands for only the cluster knows. Raises ObjectsUnavailable, OSError too.
    """
    out = open_place(archive.out, archive.settings.spool)
    if out.head(RUN_FILE) is None:
        return
    about = _about(archive, read_entries(archive.settings, archive.index))
    if archive.ask.device == "auto":
        del about["settings"]
    _compare(about, json.loads(read(out, RUN_FILE)))


def list_outcomes(settings: Settings, out: str, end: str) -> list[dict[str, Any]]:
    """The rows of an output, or those that ended so; raises NotFound where no archive was begun there."""
    place = open_place(out, settings.spool)
    if place.head(RUN_FILE) is None:
        raise NotFound("no archive was begun there")
    return [row for row in read_outcomes(place).values() if end in ("", row["end"])]


def _take(answers: Iterable[Mapping[str, str]], keeper: Keeper) -> None:
    """Keep the rows among what comes back; raises Retryable where an answer says that nothing gets on."""
    in_a_row = 0
    for answer in answers:
        if answer["kind"] == STOP:
            raise Retryable(answer["text"])
        row = json.loads(answer["text"])
        keeper.add(row)
        in_a_row = in_a_row + 1 if answer["kind"] == OPEN else 0
        if in_a_row == MAX_OPEN:
            raise Retryable(f"{MAX_OPEN} sources one after the other did not answer: {row['reason']}")


# -- the output ------------------------------------------------------------------------------------------------


def _about(archive: Archive, entries: Sequence[Entry]) -> dict[str, str]:
    """What all results of one output have in common: another bundle, list, version or setting is another run."""
    settings, moment = archive.settings, datetime.min.replace(tzinfo=UTC)
    results = (
        replace(job_options(settings, moment), equipment=equipment_of(None)),
        settings.eligibility,
        replace(archive.ask, bundle="", batch_size=None),
    )
    return {
        "bundle": archive.ask.digest,
        "index": _digest("".join(f"{one.source}\n{one.series_uid}\n{one.study_uid}\n" for one in entries)),
        "version": archive.ask.version,
        "settings": _digest(repr(results)),
    }


def _settle(out: Place, about: Mapping[str, str], options: JobOptions) -> JobOptions:
    """The options of all jobs of this run: moment of production and installation are those of its first start.

    So a start on another host, or after the node of this one has served for the first time, makes the same bytes.
    Raises Refused where the output is another run's.
    """
    now, installation = options.produced_at.replace(microsecond=0), options.equipment.installation_uid
    begun = {**about, "produced_at": now.isoformat(), "installation": installation}
    out.put_new(RUN_FILE, json.dumps(begun, indent=1).encode())
    there = json.loads(read(out, RUN_FILE))
    _compare(about, there)
    moment, equipment = datetime.fromisoformat(there["produced_at"]), equipment_of(there["installation"])
    return replace(options, produced_at=moment, equipment=equipment)


def _compare(about: Mapping[str, str], there: Mapping[str, str]) -> None:
    if others := [name for name, value in about.items() if there.get(name) != value]:
        raise Refused(
            f"the output belongs to another run, with another {', '.join(others)}; name another output, or run it with "
            "what it was begun with"
        )


def _forget_begun(out: Place, keys: set[str]) -> None:
    """Remove the marks of processes that ended while they had these series in hand."""
    out.delete([found.key for found in out.list("begun") if found.key.split("/")[1] in keys])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
