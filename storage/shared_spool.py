"""A spool whose files lie in an object store for all hosts; its folder is where they are made, and a cache of them.

A file counts as kept when the object store has it: `keep` and `publish` return after that and not before. What this
host lacks, or has with other bytes, is fetched, and is used only with the SHA-256 that the database knows. What the
object store does not answer is never taken for a loss.

Keys are the names of the spool, so that a copy of the bucket is a spool. The mark `store.json` lies among them: where
it is missing, the bucket is another one or was emptied, and nothing that is missing there counts as lost either.
"""

import hashlib
import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final, TypeVar

from storage.errors import ObjectsUnavailable
from storage.objects import BYTES_IN_TIME, Objects
from storage.spool import Condition, Spool, Wanted

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger(__name__)

MARK: Final = "store.json"
MANIFEST: Final = "manifest.json"
"""Beside the files of a result, written last: the SHA-256 of each by its name."""

AT_ONCE: Final = 8  # requests of one fetch or upload
_PART_BYTES: Final = 4 << 20  # of one ranged request; a fetch that breaks off goes on behind the last part
_FAILURES: Final = 3  # of the requests for one file, before it is given up for now
_PAUSE_S: Final = 0.2
_LEFT_BEHIND_S: Final = 3600.0  # what a killed process was fetching
_LOOK_AGAIN_S: Final = 60.0  # for files that may be dropped, where there were too few
_IN_USE_S: Final = 600.0  # what came so recently is not dropped for want of space
_RESERVES: Final = 3.0  # so much of the reserve stays free of cached files: below one the receiver refuses everything


class SharedSpool(Spool):
    """The files of a node on several hosts. `target_free_gb`: below it, or three reserves, cached files are dropped.

    A file is dropped only where the object store has it, the oldest first, and by a thread of its own: nobody who
    receives or fetches waits while the object store lists its files.
    """

    def __init__(
        self,
        root: Path,
        objects: Objects,
        *,
        min_free_gb: float = 0.0,
        target_free_gb: float = 0.0,
        create: bool = True,
    ) -> None:
        super().__init__(root, min_free_gb=min_free_gb, create=create)
        self.objects = objects
        self._room_bytes = int(max(_RESERVES * min_free_gb, target_free_gb) * 1024**3)
        self._fetching = root / "fetching"
        self._room_turn, self._look_for_room_at_s = threading.Lock(), 0.0

    # -- into the object store ---------------------------------------------------------------------------------

    def check_space(self) -> None:
        """Raise SpoolFull below the reserve; cached files are dropped meanwhile."""
        self._make_room_meanwhile()
        super().check_space()

    def spare_bytes(self) -> int:
        """Free space above the reserve, negative below it; cached files are dropped meanwhile."""
        self._make_room_meanwhile()
        return super().spare_bytes()

    def keep(self, parts: Iterable[bytes], now: datetime) -> str:
        """Write a received file under a new name and return it after the object store has it.

        Raises ObjectsUnavailable as well; then nothing remains here, and an object without a row may be there.
        """
        data = tuple(parts)
        if sum(len(part) for part in data) > BYTES_IN_TIME:
            self.require_shared()  # the scanner learns of a server that hangs as soon as with a small file
        name = super().keep(data, now)
        try:
            self.objects.put(name, b"".join(data))
        except BaseException:
            super().discard(name)
            raise
        return name

    def publish(self, staged: Path) -> str:
        """Rename a staged folder to a final name that no other host has, and return it after the store has all files.

        Raises ObjectsUnavailable; then nothing remains here, and objects of no job may be there.
        """
        # Two hosts may work at the same attempt where a lease ended: neither must write into the other's folder.
        name, _, own = staged.name.rpartition(".")
        name = super().publish(staged.rename(staged.with_name(f"{name}-{own}")))
        try:
            self.share_folder(name)
        except BaseException:
            super().unstage(self.path(name))
            raise
        return name

    def share_folder(self, name: str) -> None:
        """Put all files of a result into the object store, and their manifest last. Raises ObjectsUnavailable."""
        files = sorted(file for file in self.path(name).iterdir() if file.is_file())

        def put(file: Path) -> tuple[str, str]:
            data = file.read_bytes()
            self._persistently(lambda: self.objects.put(f"{name}/{file.name}", data))
            return file.name, hashlib.sha256(data).hexdigest()

        manifest = json.dumps(dict(_at_once(put, files)), sort_keys=True).encode()
        self._persistently(lambda: self.objects.put(f"{name}/{MANIFEST}", manifest))

    def share(self, files: Iterable[Wanted]) -> int:
        """Put what lies here with the right bytes into the object store where it lacks it; how many files that were."""

        def put(wanted: Wanted) -> bool:
            name, sha256, size_bytes = wanted
            if self.has(name, size_bytes):
                return False
            if super(SharedSpool, self).condition(name, sha256, size_bytes) is not Condition.INTACT:
                return False
            self._persistently(lambda: self.objects.put(name, self.path(name).read_bytes()))
            return True

        return sum(_at_once(put, list(files)))

    def share_result(self, name: str) -> None:
        """Put the files of a result that lie here with the right bytes into the object store, where it lacks them.

        All that lie here, and a manifest, where it has none that is whole. Raises ObjectsUnavailable.
        """
        files = self._manifest(name)
        if files is None:
            self.share_folder(name)
        else:
            self.share((f"{name}/{file}", sha256, None) for file, sha256 in files.items())

    def share_again(self, name: str, known: str) -> None:
        """Put a kept file in the place of one with the same content; only its bytes would say whether that is whole."""
        self.objects.put(known, self.path(name).read_bytes())

    def put_back(self, files: Iterable[Wanted]) -> None:
        """Put what is whole here into the object store, whatever that has. Raises ObjectsUnavailable."""
        for wanted in files:
            if super().condition(*wanted) is Condition.INTACT:
                self.share_again(wanted[0], wanted[0])

    def has(self, name: str, size_bytes: int | None = None) -> bool:
        """Whether the object store has a file, with this size where it is known. Raises ObjectsUnavailable."""
        found = self.objects.head(name)
        return found is not None and size_bytes in (None, found.size_bytes)

    def restore(self, name: str, lost: str) -> None:
        """Put a kept file in the place of a lost one with the same content, here and in the object store."""
        data = self.path(name).read_bytes()
        self.objects.put(lost, data)
        super().restore(name, lost)

    @staticmethod
    def _persistently(request: Callable[[], None]) -> None:
        """A result took minutes to make: a request for it is tried again, with pauses."""
        for failures in range(_FAILURES):
            try:
                request()
                return
            except ObjectsUnavailable:
                if failures == _FAILURES - 1:
                    raise
                time.sleep(_PAUSE_S * 4**failures)

    # -- out of the object store -------------------------------------------------------------------------------

    def condition(self, name: str, sha256: str, size_bytes: int | None = None) -> Condition:
        """Whether the bytes of a kept file can be had; where this host lacks them, they are fetched."""
        try:
            return self._look((name, sha256, size_bytes), keeps=True)
        except ObjectsUnavailable as error:
            log.warning("%s cannot be fetched now: %s", name, error, extra={"event": "object_not_fetched"})
            return Condition.UNREADABLE

    def examine(self, name: str, sha256: str, size_bytes: int | None = None) -> Condition:
        """The same for who looks at every file: what is not here does not stay here. Raises ObjectsUnavailable."""
        return self._look((name, sha256, size_bytes), keeps=False)

    def _look(self, wanted: Wanted, *, keeps: bool) -> Condition:
        here = super().condition(*wanted)
        if here is Condition.INTACT:
            return here
        there = self._bring(wanted, keeps=keeps or here is not Condition.GONE)
        return here if there is Condition.GONE and here is Condition.DAMAGED else there

    def fetch(self, files: Iterable[Wanted], step: Callable[[], None] = lambda: None) -> None:
        """Bring files here that are not, or whose bytes are not right, several at once. Raises ObjectsUnavailable."""

        def bring(wanted: Wanted) -> None:
            if super(SharedSpool, self).condition(*wanted) is not Condition.INTACT:
                self._bring(wanted)

        _at_once(bring, list(files), step)

    def fetch_folder(self, name: str) -> None:
        """Bring all files of a result here, as its manifest has them. Raises ObjectsUnavailable."""
        self.fetch((f"{name}/{file}", sha256, None) for file, sha256 in (self._manifest(name) or {}).items())

    def _manifest(self, name: str) -> dict[str, str] | None:
        """The SHA-256 of the files of a result, by their names; None where it has no whole manifest."""
        found = self.objects.head(f"{name}/{MANIFEST}")
        if found is None:
            self.require_shared()
            return None
        data = self.objects.get(found.key, 0, found.size_bytes) if found.size_bytes else b""
        files = _read_manifest(data or b"")
        if files is None:
            log.error("%s is damaged in the object store", found.key, extra={"event": "object_damaged"})
        return files

    def _bring(self, wanted: Wanted, *, keeps: bool = True) -> Condition:
        """Fetch one file; it gets its name only with the right bytes, and where it is kept.

        Raises ObjectsUnavailable, also where the disk of this host takes no file: another host may well have room.
        """
        self._make_room_meanwhile()
        try:
            return self._bring_part(wanted, keeps=keeps)
        except OSError as error:
            where = f"the disk of the host {socket.gethostname()} takes no file from the object store"
            raise ObjectsUnavailable(f"{where}: {error.strerror or type(error).__name__}") from error

    def _bring_part(self, wanted: Wanted, *, keeps: bool) -> Condition:
        name = wanted[0]
        self._make_folder(self._fetching)
        part = self._fetching / f"{uuid.uuid4().hex}.part"
        try:
            condition = self._download(wanted, part)
            if condition is Condition.INTACT and keeps:
                target = self.path(name)
                self._make_way(target)
                self._rename(part, target)  # its folder may have been dropped a moment ago
            elif condition is Condition.DAMAGED:
                log.error("%s has other bytes in the object store", name, extra={"event": "object_damaged"})
            return condition
        finally:
            part.unlink(missing_ok=True)

    def _download(self, wanted: Wanted, part: Path) -> Condition:
        name, sha256, size_bytes = wanted
        digest, failures = hashlib.sha256(), 0
        with part.open("xb") as file:
            while size_bytes is None or file.tell() < size_bytes:
                try:
                    if size_bytes is None:
                        found = self.objects.head(name)
                        size_bytes = found.size_bytes if found is not None else 0
                        data = b"" if found is not None else None
                    else:
                        rest = min(_PART_BYTES, size_bytes - file.tell())
                        data = self.objects.get(name, file.tell(), rest)
                    if data is None:
                        self.require_shared()
                        return Condition.GONE
                except ObjectsUnavailable:
                    failures += 1
                    if failures == _FAILURES:
                        raise
                    time.sleep(_PAUSE_S * 4 ** (failures - 1))
                    size_bytes = None  # a shorter object than the database knows is no fault of the server
                    continue
                digest.update(data)
                file.write(data)
        return Condition.INTACT if digest.hexdigest() == sha256 else Condition.DAMAGED

    def require_shared(self) -> None:
        """Raise ObjectsUnavailable where the object store does not answer, or is not that of this node."""
        if self.objects.head(MARK) is None:
            raise ObjectsUnavailable("the bucket has no mark of this store: it is another one, or was emptied")

    # -- what may go -------------------------------------------------------------------------------------------

    def discard(self, name: str) -> None:
        """Remove a file that no row refers to, here and there; what cannot be removed there is swept later."""
        super().discard(name)
        self._delete([name])

    def remove(self, received: Iterable[str], folders: Iterable[str]) -> int:
        """Remove files and folders, here and there; the bytes that became free here."""
        received, folders = list(received), list(folders)
        freed = super().remove(received, folders)
        self._delete(received)
        for name in folders:
            self._delete_folder(name)
        return freed

    def unstage(self, folder: Path) -> None:
        """Remove a folder to which no row refers, here and, where it was published, there."""
        super().unstage(folder)
        if not folder.name.startswith("."):
            self._delete_folder(f"derived/{folder.name}")

    def _delete_folder(self, name: str) -> None:
        with suppress(ObjectsUnavailable):  # said below, or swept later
            self._delete([found.key for found in self.objects.list(name)])

    def _delete(self, keys: Sequence[str]) -> None:
        try:
            self.objects.delete(keys)
        except ObjectsUnavailable as error:
            log.warning(
                "%d objects stay for the next sweep: %s", len(keys), error, extra={"event": "objects_not_removed"}
            )

    def shared_files(self, *, older_than: datetime) -> Iterator[list[str]]:
        """The names of received files in the object store that were put before that moment, day by day."""
        for day in self.objects.folders("received"):
            yield [found.key for found in self.objects.list(day) if found.changed_at < older_than]

    def shared_results(self, *, older_than: datetime) -> dict[str, int]:
        """The folders of results in the object store into which nothing was put since, and the job of each."""
        newest: dict[str, datetime] = {}
        for found in self.objects.list("derived"):
            folder = found.key.rpartition("/")[0]
            newest[folder] = max(found.changed_at, newest.get(folder, found.changed_at))
        jobs = {folder: folder.removeprefix("derived/").partition("-")[0] for folder in newest}
        return {folder: int(job) for folder, job in jobs.items() if job.isdecimal() and newest[folder] < older_than}

    # -- the cache ---------------------------------------------------------------------------------------------

    def make_room(self) -> None:
        """Where too little is free here, drop files that the object store has, the oldest first; never raises."""
        if not self._lacks_room() or not self._room_turn.acquire(blocking=False):
            return
        dropped = 0
        try:
            for folder in self._oldest_folders():
                dropped += self._drop(folder)
                if self.free_bytes() >= self._room_bytes:
                    break
        except (ObjectsUnavailable, OSError) as error:
            log.warning("no cached file is dropped: %s", _words(error), extra={"event": "cache_not_dropped"})
        finally:
            if self.free_bytes() < self._room_bytes:
                self._look_for_room_at_s = time.monotonic() + _LOOK_AGAIN_S
            self._room_turn.release()
        if dropped:
            log.info("dropped %d cached files for want of space", dropped, extra={"event": "cache_dropped"})

    def _lacks_room(self) -> bool:
        return self.free_bytes() < self._room_bytes and time.monotonic() >= self._look_for_room_at_s

    def _make_room_meanwhile(self) -> None:
        if self._lacks_room() and not self._room_turn.locked():
            threading.Thread(target=self.make_room, name="room", daemon=True).start()

    def _oldest_folders(self) -> list[Path]:
        folders = [*(self.root / "received").glob("*"), *(self.root / "derived").glob("[0-9]*")]
        return sorted((one for one in folders if one.is_dir()), key=lambda one: one.stat().st_mtime)

    def _drop(self, folder: Path) -> int:
        """Drop the files of one folder that nobody looks at now and that the object store has with the same size."""
        name, limit_s, dropped = str(folder.relative_to(self.root)), time.time() - _IN_USE_S, 0
        there = {found.key: found for found in self.objects.list(name)}
        for file in folder.iterdir():
            with suppress(FileNotFoundError):
                status, found = file.stat(), there.get(f"{name}/{file.name}")
                if status.st_mtime < limit_s and found is not None and found.size_bytes == status.st_size:
                    file.unlink()
                    dropped += 1
        with suppress(OSError):  # something is left in it
            folder.rmdir()
        return dropped

    def forget(self, received: Iterable[str], folders: Iterable[str]) -> None:
        """Remove cached files that nothing refers to any more from this host alone, and what killed fetches left."""
        super().remove(received, folders)
        for part in self._fetching.glob("*"):
            with suppress(FileNotFoundError):
                if part.stat().st_mtime < time.time() - _LEFT_BEHIND_S:
                    part.unlink()


def _at_once(do: Callable[[T], R], things: Sequence[T], step: Callable[[], None] = lambda: None) -> list[R]:
    """Do it for each, several at once, `step` after each; the first error is raised, and what waits is not begun."""
    failed = threading.Event()

    def guarded(thing: T) -> R:
        if failed.is_set():
            raise ObjectsUnavailable("given up after an error with another file")
        try:
            return do(thing)
        except BaseException:
            failed.set()
            raise

    done = []
    with ThreadPoolExecutor(min(AT_ONCE, max(1, len(things))), thread_name_prefix="objects") as threads:
        try:
            for one in threads.map(guarded, things):
                done.append(one)
                step()
        finally:
            failed.set()
    return done


def _read_manifest(data: bytes) -> dict[str, str] | None:
    """The SHA-256 of the files of a result by their names; None for what is no manifest, or names files elsewhere."""
    with suppress(ValueError):
        files = json.loads(data)
        if isinstance(files, dict) and all(
            isinstance(sha256, str) and Path(name).name == name not in ("", "..") for name, sha256 in files.items()
        ):
            return files
    return None


def _words(error: Exception) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
