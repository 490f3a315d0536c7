"""What became of one series of an archive, as a row of Parquet."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq


class End(StrEnum):
    """How a series of an archive ended. Only what is written as PRODUCED is fit for planning."""

    PRODUCED = "PRODUCED"
    HELD = "HELD"  # a person must look at it: its files, if there are any, lie apart
    SKIPPED = "SKIPPED"  # the input gate does not want it
    INCOMPLETE = "INCOMPLETE"  # the input gate misses slices
    FAILED = "FAILED"
    WAITING = "WAITING"  # its source does not answer: it has no outcome, and the next start takes it up, last of all


@dataclass(frozen=True)
class Outcome:
    """One row.

    key: what tells this row of the index from others, hex. source: as the index has it. series_uid: of the index, else
    of the files; "" where neither names one. place: folder of the files below the output, "" where nothing was written.
    slices: of the source. unread: files of the source that are no DICOM images. sha256: `digest_of` the slices.
    seconds: of fetching, judging, translating and putting. finished_at: UTC, ISO 8601. released_by, released_at: who
    let a HELD result count, and when; "" where nobody had to.
    """

    key: str
    source: str
    series_uid: str
    end: str
    reason: str
    derived_series_uid: str
    study_uid: str
    place: str
    slices: int
    unread: int
    sha256: str
    bundle: str
    translator: str
    host: str
    seconds: float
    finished_at: str
    released_by: str = ""
    released_at: str = ""

    def row(self) -> dict[str, Any]:
        """As Parquet has it."""
        return asdict(self)


_KINDS: Final = {str: pa.string(), int: pa.int64(), float: pa.float64()}
_SCHEMA: Final = pa.schema([(field.name, _KINDS[field.type]) for field in fields(Outcome)])  # type: ignore[index]


def digest_of(sha256: Iterable[str]) -> str:
    """SHA-256, hex, over the SHA-256 (hex) of the files of a series in the order of their names."""
    return hashlib.sha256("".join(sha256).encode()).hexdigest()


def to_parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows of outcome as a Parquet file."""
    written = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=_SCHEMA), written)
    return written.getvalue()


def read_whole(source: Path | io.BytesIO, names: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, or those of its columns that have these names; raises OSError, pyarrow.ArrowException.

    By this thread alone: those that pyarrow starts abort the process (SIGABRT) where it ends soon after.
    """
    with pq.ParquetFile(source, pre_buffer=False) as file:
        there = file.schema_arrow.names
        return file.read(columns=there if names is None else [one for one in names if one in there], use_threads=False)


def from_parquet(data: bytes) -> list[dict[str, Any]]:
    """The rows of a Parquet file, also of one from before a HELD result could be released."""
    table = read_whole(io.BytesIO(data))
    rows: list[dict[str, Any]] = table.to_pylist()
    return [{"released_by": "", "released_at": "", **row} for row in rows]
