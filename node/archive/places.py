"""Where the series of an archive lie and where its results go: a folder, or a bucket of an S3-compatible server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from config.spool import SpoolSettings
from node.bootstrap.shared import objects_of
from node.errors import Misconfigured
from storage.objects import Found, Objects, open_folder

_PART_BYTES: Final = 8 << 20  # of one request, so that one which breaks off costs little
_FILE: Final = "file://"


def open_place(url: str, spool: SpoolSettings) -> Objects:
    """A folder (a path, or file:///FOLDER), or s3://BUCKET/PREFIX on the server of [spool]; nothing is asked of it yet.

    Raises Misconfigured.
    """
    if url.startswith("s3://"):
        try:
            return objects_of(SpoolSettings.model_validate(spool.model_dump() | {"url": url}))
        except ValidationError:
            raise Misconfigured("a bucket is named by s3://BUCKET or s3://BUCKET/PREFIX") from None
    path = Path(url.removeprefix(_FILE))
    if "://" in url.removeprefix(_FILE) or not path.is_absolute():
        raise Misconfigured("a place is named by s3://BUCKET/PREFIX, file:///FOLDER, or a folder by its whole path")
    return open_folder(path)


def fetch_all(place: Objects, folder: Path) -> list[Path]:
    """Copy every object of a place into an empty folder, under names of our own; returns the files.

    Raises ObjectsUnavailable, OSError.
    """
    files = []
    for number, found in enumerate(sorted(place.list(""), key=lambda one: one.key)):
        path = folder / f"{number:05d}"
        with path.open("xb") as stream:
            for part in _parts(place, found):
                stream.write(part)
        files.append(path)
    return files


def _parts(place: Objects, found: Found) -> Iterator[bytes]:
    at = 0
    while at < found.size_bytes:
        part = place.get(found.key, at, min(_PART_BYTES, found.size_bytes - at))
        if part is None:  # it was removed meanwhile
            return
        yield part
        at += len(part)
