"""Makes a new store of what lies in the spool, for a node whose database is lost.

What was acknowledged is known again: every received file has a row. A result that exists is held for a person, because
nobody knows any more whether it was sent; a series without one is judged as if it had just come, and its result is held
as well. Nothing goes out by itself, and no result is made a second time.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from config.settings import Settings
from models import BundleCard
from node.bootstrap.bundles import verified_cards
from node.bootstrap.roles import make_completion
from node.bootstrap.routes import found_request, routes_of
from node.bootstrap.shared import SharedPlace, objects_of
from node.bootstrap.store import Node, make_data_dir, refuse_while_running
from node.dicom.elements import ascii_text, element_items, tag_of
from node.dicom.headers import read_dataset, read_headers
from node.dicom.identity import inflated, read_identity
from node.errors import Refused, UnreadableInstance
from node.network.contexts import DEFLATED_SYNTAXES
from node.ops.spool_check import SpoolCheck
from node.receive.completion import series_facts
from node.receive.routing import keywords_of
from storage.database import Database
from storage.jobs import ProducedInstance, ProducedSeries
from storage.mark import adopt_mark, mark_bucket, mark_of_bucket, mark_of_spool, new_mark, write_mark
from storage.rebuilt import DOUBT, FoundResult, RebuiltStore
from storage.schema import ensure_schema
from storage.series import Arrival
from storage.shared_spool import SharedSpool
from storage.spool import Spool
from storage.whole_bucket import Lacking, bring, lacking

PREFIX_BYTES = 132
_SQLITE_FILES = ("", "-wal", "-shm", "-journal")


@dataclass
class Rebuilt:
    """What was found and what became of it; `aside` where the old database lies now, None where there was none.

    fetched: the files that only the object store of `spool.url` has, or had.
    """

    received: int = 0
    results: int = 0
    unreadable: list[str] = field(default_factory=list)
    series: dict[str, int] = field(default_factory=dict)
    aside: Path | None = None
    fetched: int = 0
    fetched_bytes: int = 0


@dataclass(frozen=True)
class _Result:
    study_uid: str
    series_uid: str
    model_text: str
    found: FoundResult


def look(settings: Settings, *, step: Callable[[], None] = lambda: None) -> Rebuilt:
    """What a rebuild would find; nothing is changed."""
    spool, told = Spool(settings.node.data_dir / "spool", create=False), Rebuilt()
    told.received = len(_received(spool, told, step))
    told.results = len(_results(spool, told))
    if settings.spool.url:
        wanted = _lacking(settings)
        told.fetched, told.fetched_bytes = wanted.files, wanted.size_bytes
    return told


def rebuild(settings: Settings, now: datetime, *, step: Callable[[], None] = lambda: None) -> Rebuilt:
    """Make the store anew; the old database file is moved aside. Raises Refused and ConfigError before it begins.

    Where the files lie in an object store, all of them are brought here first: what has no row is removed there later.
    Raises ObjectsUnavailable then, and nothing is made.

    On SQLite the new database takes its place only when it is whole. `step` is called for every file.
    """
    refuse_while_running(settings)
    cards = verified_cards(settings)
    fetched = _fetch(settings, step) if settings.spool.url else None
    told = _rebuild(settings, cards, now, step)
    if fetched is not None:
        told.fetched, told.fetched_bytes = fetched.files, fetched.size_bytes
    return told


def _rebuild(settings: Settings, cards: Mapping[str, BundleCard], now: datetime, step: Callable[[], None]) -> Rebuilt:
    final = Database(settings.node.url())
    if not final.is_sqlite:
        return _into(final, settings, cards, now, step)
    final.close()
    path = Path(final.location)
    draft = path.with_name(f"{path.name}.rebuilding")
    for suffix in _SQLITE_FILES:
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)
    database = Database(f"sqlite:///{draft}")
    try:
        told = _into(database, settings, cards, now, step)
    finally:
        database.close()
    refuse_while_running(settings)
    told.aside = _moved_aside(path, now)
    draft.rename(path)
    return told


def _into(
    database: Database, settings: Settings, cards: Mapping[str, BundleCard], now: datetime, step: Callable[[], None]
) -> Rebuilt:
    ensure_schema(database)
    store, told = RebuiltStore(database), Rebuilt()
    if not store.is_empty():
        raise Refused(
            f"the store {database.location} holds series; it is not rebuilt in its place. Rename that database, or "
            "name an empty one in node.database_url"
        )
    node = Node(settings, database, database.location, writable=True)
    arrivals = _received(node.spool, told, step)
    store.receive(arrivals, now)
    told.received = len(arrivals)
    results = _results(node.spool, told)
    told.results = len(results)
    _attach(store, node, results, cards, now)
    store.settle_numbers()
    _judge(node, now)
    told.series = store.counts()
    _remark(node, now)
    return told


def _attach(
    store: RebuiltStore, node: Node, results: list[_Result], cards: Mapping[str, BundleCard], now: datetime
) -> None:
    """Give every source series its results."""
    keywords = keywords_of(routes_of(node.settings))

    def of_source(result: _Result) -> tuple[str, str]:
        return result.study_uid, result.series_uid

    for (study_uid, series_uid), group in itertools.groupby(sorted(results, key=of_source), key=of_source):
        found = sorted(group, key=lambda result: result.found.job_id)
        last, facts = found[-1], series_facts([])
        names = store.source_of(series_uid)
        made_by = next((card for card in cards.values() if card.weights_sha256 in last.model_text), None)
        with suppress(UnreadableInstance):
            wanted = [node.spool.path(name) for name in (names if made_by else names[:1])]
            headers = [header for path in wanted for header in read_headers(path, keywords=keywords, decode=False)]
            facts = series_facts(headers)
            if made_by is not None and headers:
                request = found_request(node.settings, cards, made_by, headers)
                found[-1] = replace(last, found=replace(last.found, request=request))
        store.add_results(study_uid, series_uid, facts, [result.found for result in found], now)


def _judge(node: Node, now: datetime) -> None:
    """Decide about what has no result, as the node would; what came a moment ago is held for a person."""
    completion = make_completion(node, doubt=DOUBT)
    while completion.tick():  # one that took long leaves the rest to the next
        continue
    for series in node.series.undecided(now + timedelta(days=1), 0.0):
        node.series.hold_incomplete(series, DOUBT, now)


def _remark(node: Node, now: datetime) -> None:
    """A new name for store and spool: the old database, should it come back, is not this spool's any more."""
    mark, spool = new_mark(), node.spool
    if isinstance(spool, SharedSpool):
        mark_bucket(spool.objects, mark)  # first: without it, a second try would find two marks that differ
    write_mark(spool.root, mark, replace=True)
    adopt_mark(node.database, spool.root, now)  # also where no file of the spool could be read, and the store is empty
    if isinstance(spool, SharedSpool):
        SpoolCheck(spool, node.database).share_all(now)
        SharedPlace(node.settings).note()


def _moved_aside(path: Path, now: datetime) -> Path | None:
    aside = path.with_name(f"{path.name}.before-{now:%Y%m%dT%H%M%S}")
    for suffix in _SQLITE_FILES:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside if aside.exists() else None


# -- what lies in the object store -----------------------------------------------------------------------------


def _lacking(settings: Settings) -> Lacking:
    """What this host lacks of it. Raises Refused for a bucket of another node, and ObjectsUnavailable."""
    spool = _shared(settings, create=False)
    here, there = mark_of_spool(spool.root), mark_of_bucket(spool.objects)
    if not SharedPlace(settings).is_settled and None not in (here, there) and here != there:
        raise Refused(f"{settings.spool.url} belongs to another node than the spool {spool.root}: their marks differ")
    return lacking(spool)


def _fetch(settings: Settings, step: Callable[[], None]) -> Lacking:
    make_data_dir(settings)
    wanted, spool = _lacking(settings), _shared(settings, create=True)
    free_bytes = spool.free_bytes() - int(settings.retention.min_free_gb * 1024**3)
    if wanted.size_bytes > free_bytes:
        raise Refused(
            f"{wanted.files} files of {settings.spool.url} are not on this host: they need "
            f"{wanted.size_bytes / 1e9:.1f} GB below {spool.root}, and {max(0, free_bytes) / 1e9:.1f} GB are free"
        )
    SharedPlace(settings).settle_installation()
    bring(spool, wanted, step)
    return wanted


def _shared(settings: Settings, *, create: bool) -> SharedSpool:
    return SharedSpool(settings.node.data_dir / "spool", objects_of(settings.spool), create=create)


# -- what lies in the spool ------------------------------------------------------------------------------------


def _received(spool: Spool, told: Rebuilt, step: Callable[[], None]) -> list[tuple[Arrival, datetime]]:
    """Every received file with the moment at which it came, oldest first."""
    found = []
    for path in (spool.root / "received").glob("*/*.dcm"):
        step()
        name = str(path.relative_to(spool.root))
        try:
            found.append((_arrival(path, name), datetime.fromtimestamp(path.stat().st_mtime, UTC)))
        except (UnreadableInstance, OSError):
            told.unreadable.append(name)
    return sorted(found, key=lambda one: (one[1], one[0].spool_name))


def _arrival(path: Path, name: str) -> Arrival:
    _require_files([path])
    raw = path.read_bytes()
    head, syntax = _head(raw)
    data = raw[head:]
    readable = inflated(data) if syntax in DEFLATED_SYNTAXES else data
    implicit_vr = syntax == "1.2.840.10008.1.2"
    identity = read_identity(readable, implicit_vr=implicit_vr)
    return Arrival(
        study_uid=identity.study_uid,
        series_uid=identity.series_uid,
        sop_instance_uid=identity.sop_instance_uid,
        sop_class_uid=identity.sop_class_uid,
        transfer_syntax_uid=syntax,
        sha256=hashlib.sha256(raw).hexdigest(),
        spool_name=name,
        size_bytes=len(raw),
    )


def _head(raw: bytes) -> tuple[int, str]:
    """Where the data set of a file of ours begins, and its transfer syntax; raises UnreadableInstance."""
    length = int.from_bytes(raw[PREFIX_BYTES + 8 : PREFIX_BYTES + 12], "little")
    end = PREFIX_BYTES + 12 + length
    meta = raw[PREFIX_BYTES:end]
    at = meta.find(b"\x02\x00\x10\x00UI")
    if raw[128:132] != b"DICM" or len(meta) != 12 + length or at < 0:
        raise UnreadableInstance("the file does not begin as one of the spool")
    size = int.from_bytes(meta[at + 6 : at + 8], "little")
    return end, meta[at + 8 : at + 8 + size].rstrip(b"\0 ").decode("ascii", "replace")


def _results(spool: Spool, told: Rebuilt) -> list[_Result]:
    """The newest folder of every job."""
    newest: dict[int, Path] = {}
    for folder in (spool.root / "derived").iterdir() if (spool.root / "derived").is_dir() else ():
        number = folder.name.partition("-")[0]
        if number.isdecimal() and any(folder.glob("*.dcm")):
            known = newest.get(int(number))
            if known is None or known.stat().st_mtime < folder.stat().st_mtime:
                newest[int(number)] = folder
    found = []
    for job_id, folder in sorted(newest.items()):
        try:
            found.append(_result(job_id, folder, str(folder.relative_to(spool.root))))
        except (UnreadableInstance, OSError, LookupError, ValueError):
            told.unreadable.append(str(folder.relative_to(spool.root)))
    return found


def _result(job_id: int, folder: Path, name: str) -> _Result:
    paths = sorted(folder.glob("*.dcm"))
    _require_files(paths)
    made = tuple(_instances(paths))
    ds = read_dataset(paths[0])
    related = element_items(ds, tag_of("RelatedSeriesSequence"))[0]
    number = ascii_text(ds, "SeriesNumber").strip()
    product = ProducedSeries(
        series_uid=_uid_text(ascii_text(ds, "SeriesInstanceUID")),
        product_dir=name,
        instances=made,
        measurements={},
        series_number=int(number) if number else None,
        series_description=ascii_text(ds, "SeriesDescription").strip(),
    )
    return _Result(
        study_uid=_uid_text(ascii_text(related, "StudyInstanceUID")),
        series_uid=_uid_text(ascii_text(related, "SeriesInstanceUID")),
        model_text=ascii_text(ds, "DerivationDescription"),
        found=FoundResult(job_id, datetime.fromtimestamp(folder.stat().st_mtime, UTC), product),
    )


def _instances(paths: list[Path]) -> Iterator[ProducedInstance]:
    for path in paths:
        ds = read_dataset(path)
        source = element_items(ds, tag_of("SourceImageSequence"))[0]
        yield ProducedInstance(
            sop_instance_uid=_uid_text(ascii_text(ds, "SOPInstanceUID")),
            source_sop_instance_uid=_uid_text(ascii_text(source, "ReferencedSOPInstanceUID")),
            file_name=path.name,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )


def _require_files(paths: list[Path]) -> None:
    """Raise UnreadableInstance for what is none: a pipe would be waited for, a device be read without end."""
    if not all(path.is_file() for path in paths):
        raise UnreadableInstance("it is no file")


def _uid_text(value: str) -> str:
    return value.rstrip("\0 ")
