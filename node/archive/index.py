"""The list of series that an archive is: a Parquet file with one row for each."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from config.syntax import FOREIGN_UID
from node.errors import Misconfigured


@dataclass(frozen=True)
class Entry:
    """One series. source: a folder, file:///FOLDER or s3://BUCKET/PREFIX. series_uid: "" where the source holds one only."""

    source: str
    series_uid: str = ""

    @property
    def key(self) -> str:
        """Name of this series among the objects of the output: hex, of nothing that a peer could have chosen."""
        return hashlib.sha256(f"{self.source}\n{self.series_uid}".encode()).hexdigest()[:32]


def read_index(path: Path) -> list[Entry]:
    """The entries of an index. It has a column `source`, and may have a column `series_uid`; others are not read.

    Raises Misconfigured with a sentence: no Parquet file, no such column, an empty source, a series twice.
    """
    try:
        names = pq.read_schema(path).names
        if "source" not in names:
            raise Misconfigured(f"the index has no column `source`; its columns are {', '.join(names) or 'none'}")
        columns = ["source"] + (["series_uid"] if "series_uid" in names else [])
        table = pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise Misconfigured(f"the index cannot be read as Parquet ({type(error).__name__})") from error
    sources = _texts(table, "source")
    uids = _texts(table, "series_uid") if "series_uid" in names else [""] * len(sources)
    entries = [Entry(source, uid) for source, uid in zip(sources, uids, strict=True)]
    _check(entries)
    return entries


def _texts(table: pa.Table, name: str) -> list[str]:
    kind = table.schema.field(name).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise Misconfigured(f"the column `{name}` of the index holds {kind} and no text")
    return [value or "" for value in table.column(name).to_pylist()]


def _check(entries: Sequence[Entry]) -> None:
    if not entries:
        raise Misconfigured("the index has no row")
    seen: set[Entry] = set()
    for number, entry in enumerate(entries, 1):
        if not entry.source:
            raise Misconfigured(f"row {number} of the index has no source")
        if entry.series_uid and not FOREIGN_UID.fullmatch(entry.series_uid):
            raise Misconfigured(f"row {number} of the index has a series_uid that is no UID")
        if entry in seen:
            raise Misconfigured(f"row {number} of the index names a series that an earlier row names already")
        seen.add(entry)
