"""A place of files beside the spool, by its URL: a folder, or a bucket of the S3-compatible server of [spool].

Archives lie and go there, and cohorts that several hosts train on.
"""

import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from pydantic import ValidationError

from config.spool import SpoolSettings
from node.bootstrap.shared import objects_of
from node.errors import Misconfigured, Retryable
from storage.objects import Found
from storage.spool import fsync_directory

_PART_BYTES: Final = 8 << 20  # of one request, so that one which breaks off costs little
_FILE: Final = "file://"
_PARTIAL: Final = ".partial"


class Place(Protocol):
    """Bytes under keys, as `storage.objects.Objects` has them. Every method raises ObjectsUnavailable or OSError."""

    def put(self, key: str, data: bytes) -> None: ...
    def put_new(self, key: str, data: bytes) -> bool: ...
    def get(self, key: str, start: int, length: int) -> bytes | None: ...
    def head(self, key: str) -> Found | None: ...
    def list(self, folder: str) -> Iterable[Found]: ...
    def delete(self, keys: Iterable[str]) -> None: ...


class Folder:
    """A folder, as a Place. What `put` has returned from outlasts a power cut, and nobody sees half of it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, data: bytes) -> None:
        """Keep these bytes, in the place of any before."""
        path = self._root / key
        with self._written(data) as whole:
            _make(path.parent)
            whole.replace(path)
        fsync_directory(path.parent)

    def put_new(self, key: str, data: bytes) -> bool:
        """Keep these bytes where there are none under the key; False where there are."""
        path = self._root / key
        with self._written(data) as whole:
            _make(path.parent)
            try:
                path.hardlink_to(whole)
            except FileExistsError:
                return False
        fsync_directory(path.parent)
        return True

    def get(self, key: str, start: int, length: int) -> bytes | None:
        """So many bytes from `start` on; None where there is no such file."""
        try:
            with (self._root / key).open("rb") as stream:
                stream.seek(start)
                return stream.read(length)
        except FileNotFoundError:
            return None

    def head(self, key: str) -> Found | None:
        """A file without its bytes; None where there is none."""
        try:
            return self._found(self._root / key)
        except FileNotFoundError:
            return None

    def list(self, folder: str) -> Iterator[Found]:
        """The files below a folder, none where it is missing; FileNotFoundError where the whole place is."""
        if not folder and not self._root.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such folder")
        for path in sorted((self._root / folder).rglob("*")):
            if path.is_file() and path.relative_to(self._root).parts[0] != _PARTIAL:
                yield self._found(path)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files; one that is not there is no error."""
        for key in keys:
            (self._root / key).unlink(missing_ok=True)

    def _found(self, path: Path) -> Found:
        found = path.stat()
        return Found(str(path.relative_to(self._root)), found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    @contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        """A file with these bytes that nobody lists; gone at the end of the block, also where the disk is full."""
        path = self._root / _PARTIAL / uuid.uuid4().hex
        _make(path.parent, mode=0o700)
        try:
            with path.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)


def _make(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it; the entry of each new one is on the disk on return."""
    if folder.is_dir():
        return
    _make(folder.parent)
    folder.mkdir(mode, exist_ok=True)
    fsync_directory(folder.parent)


def open_place(url: str, spool: SpoolSettings) -> Place:
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
    return Folder(path)


def fetch_all(place: Place, found: Iterable[Found], folder: Path) -> list[Path]:
    """Copy objects of a place into an empty folder, under names of our own.

    Raises Retryable where one changed meanwhile, ObjectsUnavailable, OSError.
    """
    files = []
    for number, one in enumerate(found):
        path = folder / f"{number:05d}"
        with path.open("xb") as stream:
            for part in _parts(place, one):
                stream.write(part)
            if stream.tell() != one.size_bytes:
                raise Retryable("an object was changed or removed while it was read")
        files.append(path)
    return files


def read(place: Place, key: str) -> bytes:
    """All bytes of an object, b"" where there is none; raises ObjectsUnavailable, OSError."""
    found = place.head(key)
    return b"" if found is None else b"".join(_parts(place, found))


def _parts(place: Place, found: Found) -> Iterator[bytes]:
    at = 0
    while at < found.size_bytes:
        part = place.get(found.key, at, min(_PART_BYTES, found.size_bytes - at))
        if not part:  # it was removed or cut meanwhile
            return
        yield part
        at += len(part)
