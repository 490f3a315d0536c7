"""The list of series that an archive is: a Parquet file with one row for each."""

import hashlib
import os.path
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
from pydantic import ValidationError

from config.spool import SpoolSettings
from config.syntax import FOREIGN_UID
from node.archive.outcome import read_whole
from node.errors import Misconfigured

DICOMWEB: Final = "dicomweb:"
"""What a source begins with that is the name of a destination, which is asked by DICOMweb."""
DIMSE: Final = "dimse:"
"""The same, of one that is asked by C-FIND and C-MOVE."""
BUCKET: Final = "s3://"
_FILE: Final = "file://"
_TEXT: Final = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
"""What a column may hold; pandas writes one without any value as null."""


@dataclass(frozen=True)
class Entry:
    """One series.

    source: a folder, file:///FOLDER, s3://BUCKET/PREFIX, dicomweb:NAME or dimse:NAME. series_uid: "" where a folder or
    prefix holds one only. study_uid: for a PACS, which is asked for no series without it.
    """

    source: str
    series_uid: str = ""
    study_uid: str = ""

    @property
    def key(self) -> str:
        """Name of this series among the objects of the output: hex, of nothing that a peer could have chosen."""
        return hashlib.sha256(f"{self.source}\n{self.series_uid}".encode()).hexdigest()[:32]

    @property
    def is_of_pacs(self) -> bool:
        """Whether its source is no place of files, but a peer that is asked for it."""
        return self.source.startswith((DICOMWEB, DIMSE))


def read_index(path: Path) -> list[Entry]:
    """The entries of an index: a column `source`, and perhaps `series_uid` and `study_uid`; others are not read.

    Raises Misconfigured with a sentence: no Parquet file, no such column, no source, one that is none, a series twice.
    """
    try:
        table = read_whole(path, ("source", "series_uid", "study_uid"))
    except (OSError, pa.ArrowException) as error:
        raise Misconfigured(f"the index cannot be read as Parquet ({type(error).__name__})") from error
    if "source" not in table.schema.names:
        raise Misconfigured("the index has no column `source`")
    columns = (_texts(table, name) for name in ("source", "series_uid", "study_uid"))
    entries = [Entry(*values) for values in zip(*columns, strict=True)]
    _check(entries)
    return entries


def is_uid(text: str) -> bool:
    """Whether a text may be the UID of an instance somewhere, and a part of a URL: "." and ".." lead elsewhere."""
    return bool(FOREIGN_UID.fullmatch(text) and text.strip("."))


def folder_of(source: str) -> Path:
    """The folder that a source names which is neither of a bucket nor of a PACS."""
    return Path(source.removeprefix(_FILE))


def _texts(table: pa.Table, name: str) -> list[str]:
    if name not in table.schema.names:
        return [""] * len(table)
    kind = table.schema.field(name).type
    written = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not any(is_a(written) for is_a in _TEXT):
        raise Misconfigured(f"the column `{name}` of the index holds {kind} and no text")
    return [value or "" for value in table.column(name).to_pylist()]


def _place_of(entry: Entry) -> str:
    """Its source as every spelling of it has it, "" where it names no place."""
    if entry.is_of_pacs:
        return entry.source
    if entry.source.startswith(BUCKET):
        try:
            return SpoolSettings(url=entry.source).url
        except ValidationError:
            return ""
    folder = entry.source.removeprefix(_FILE)
    return os.path.normpath(folder) if folder.startswith("/") else ""


def _check(entries: Sequence[Entry]) -> None:
    if not entries:
        raise Misconfigured("the index has no row")
    seen: set[tuple[str, str]] = set()
    for number, entry in enumerate(entries, 1):
        if not entry.source:
            raise Misconfigured(f"row {number} of the index has no source")
        if not (place := _place_of(entry)):
            raise Misconfigured(
                f"row {number} of the index has a source that is no place: it should be s3://BUCKET/PREFIX, "
                "file:///FOLDER, a folder by its whole path, dicomweb:NAME or dimse:NAME"
            )
        for name in ("series_uid", "study_uid"):
            if (uid := getattr(entry, name)) and not is_uid(uid):
                raise Misconfigured(f"row {number} of the index has a {name} that is no UID")
        if entry.is_of_pacs and not (entry.series_uid and entry.study_uid):
            raise Misconfigured(f"row {number} of the index is for a PACS, and lacks study_uid or series_uid")
        if (place, entry.series_uid) in seen:
            raise Misconfigured(f"row {number} of the index names a series that an earlier row names already")
        seen.add((place, entry.series_uid))
