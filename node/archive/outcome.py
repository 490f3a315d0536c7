"""What became of one series of an archive, as a row of Parquet."""

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa


class End(StrEnum):
    """How a series of an archive ended. Only what is written as PRODUCED is fit for planning."""

    PRODUCED = "PRODUCED"
    HELD = "HELD"  # translated, and a person must look at it: its files lie apart
    SKIPPED = "SKIPPED"  # the input gate does not want it
    INCOMPLETE = "INCOMPLETE"  # the input gate misses slices
    FAILED = "FAILED"


@dataclass(frozen=True)
class Outcome:
    """One row. source: as the index has it. series_uid: of the index, else of the files; "" where neither names one.

    key: what tells this row of the index from others, hex. place: folder of the files below the output, "" where nothing was written. sha256: hex, over the digests of the files
    in the order of their names. slices: of the source. seconds: of fetching, judging, translating and putting.
    finished_at: UTC, ISO 8601.
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
    sha256: str
    bundle: str
    translator: str
    host: str
    seconds: float
    finished_at: str

    def row(self) -> dict[str, Any]:
        """As Parquet has it."""
        return asdict(self)


_KINDS: Final = {str: pa.string(), int: pa.int64(), float: pa.float64()}
SCHEMA: Final = pa.schema([(field.name, _KINDS[field.type]) for field in fields(Outcome)])  # type: ignore[index]
