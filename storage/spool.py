"""The spool keeps files under names of our own (temporary file, rename, fsync); no name has text of a peer in it.

How a directory or a small file is made safe from a power cut stands here too; all that writes files uses it.
"""

import errno
import hashlib
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from storage.errors import SpoolFull

_GIB = 1024**3


class Condition(StrEnum):
    """What became of a kept file."""

    INTACT = "intact"
    GONE = "gone"
    DAMAGED = "damaged"  # other bytes than were kept, or no file at all
    UNREADABLE = "unreadable"  # rights, or a fault of the disk: it may pass


Wanted = tuple[str, str, int | None]
"""The name of a file in the spool, its SHA-256, hex, and its size in bytes where somebody wrote it down."""

LOST = (Condition.GONE, Condition.DAMAGED)
"""Conditions in which only the same bytes from elsewhere help."""


class Spool:
    """The received instances and the derived series of one node.

    Layout below `root`: `incoming/` (unfinished), `received/<day>/<uuid>.dcm`, `derived/<job>-<attempt>/<n>.dcm`, and
    `set-aside/` for what belonged to nobody. With `create=False`, for a reader, none of these folders is made. A
    folder that is removed while the node runs is made again. A name handed out by this class is relative to `root` and
    contains nothing that came from the network.
    """

    def __init__(self, root: Path, *, min_free_gb: float = 0.0, create: bool = True) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self._min_free_bytes = int(min_free_gb * _GIB)
        self._settled_days: set[Path] = set()
        if create:
            for folder in (self.incoming, root / "received", root / "derived"):
                self._make_folder(folder)
            for folder in (root, root.absolute().parent):  # who made one of them may have ended before it was durable
                fsync_directory(folder)

    def free_bytes(self) -> int:
        """Free space of the spool's file system, also where the spool has no folder yet."""
        for folder in (self.root, *self.root.absolute().parents):
            with suppress(FileNotFoundError):
                return shutil.disk_usage(folder).free
        raise FileNotFoundError(self.root)

    def check_space(self) -> None:
        """Raise SpoolFull below the reserved free space, so that running jobs can still finish."""
        if self.free_bytes() < self._min_free_bytes:
            raise SpoolFull(f"less than {self._min_free_bytes / _GIB:g} GB free below {self.root}")

    def spare_bytes(self) -> int:
        """Free space above the reserve; negative below it."""
        return self.free_bytes() - self._min_free_bytes

    def keep(self, parts: Iterable[bytes], now: datetime) -> str:
        """Write a received file under a new name and return it; a power cut loses it until `settle`.

        On return the content has reached the disk, its directory entry only after `settle`. Raises SpoolFull, or the
        disk's OSError; then nothing remains.

        The rename comes before the sync, because a journal that is written for the content then holds the name too and
        `settle` finds little to do. What a power cut leaves in between is a file to which no row refers.
        """
        self.check_space()
        day = f"{now:%Y%m%d}"
        name = f"received/{day}/{uuid.uuid4().hex}.dcm"
        file = self.incoming / f"rx-{uuid.uuid4().hex}.part"
        descriptor = self._open_new(file)
        try:
            for part in parts:
                _write_all(descriptor, part)
            file = self._rename(file, self.root / name)
            os.fsync(descriptor)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return name

    def _open_new(self, file: Path) -> int:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        try:
            return os.open(file, flags, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            self._make_folder(file.parent)
            return os.open(file, flags, 0o600)

    def _rename(self, file: Path, target: Path) -> Path:
        try:
            return file.rename(target)
        except (FileNotFoundError, NotADirectoryError):
            self._make_folder(target.parent)
            self._settled_days.discard(target.parent)
            return file.rename(target)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder of the spool and those above it; what is no folder and stands in the place of one is set aside.

        Somebody may have removed any of them, the spool itself too, while the node runs; and other associations may
        make the same folder at this moment, as those of midnight do, and have files in it already.
        """
        parts = folder.relative_to(self.root)
        for path in (self.root / part for part in (*reversed(parts.parents), parts)):
            if path.is_dir():
                continue
            try:
                path.mkdir(parents=path == self.root, exist_ok=True, mode=0o700)
            except FileExistsError:
                if path == self.root:
                    raise
                with suppress(FileNotFoundError, NotADirectoryError):  # another thread was first
                    self.set_aside(path, is_folder=False)
                path.mkdir(exist_ok=True, mode=0o700)
            fsync_directory(path.parent)

    def _make_way(self, target: Path) -> None:
        """Make the folder for a file, and set aside a folder that stands in the place of the file itself."""
        self._make_folder(target.parent)
        if target.is_dir() and not target.is_symlink():
            with suppress(FileNotFoundError, IsADirectoryError):  # another thread was first
                self.set_aside(target, is_folder=True)

    def set_aside(self, path: Path, *, is_folder: bool) -> Path:
        """Move what belongs to nobody out of the way, below `set-aside/`; returns where it lies now.

        Its time is that of the move from then on, because `empty_set_aside` counts from there.

        is_folder: what the caller found there. Raises NotADirectoryError or IsADirectoryError, and moves nothing, where
        it is something else by now: the rename goes onto an empty entry of that kind, which the system refuses for any
        other kind. Raises OSError.
        """
        target = self.root / "set-aside" / f"{uuid.uuid4().hex[:8]}-{'-'.join(path.relative_to(self.root).parts)}"
        target.parent.mkdir(exist_ok=True, mode=0o700)
        os.utime(path, follow_symlinks=False)
        if is_folder:
            target.mkdir(mode=0o700)
        else:
            target.touch(mode=0o600)
        try:
            path.rename(target)
        except OSError:
            _remove(target)
            raise
        return target

    def empty_set_aside(self, *, older_than: datetime) -> int:
        """Remove what was set aside before that moment; returns the number of entries."""
        entries = list((self.root / "set-aside").glob("*"))
        old = [entry for entry in entries if entry.lstat().st_mtime < older_than.timestamp()]
        for entry in old:
            _remove(entry)
        return len(old)

    def settle(self, names: Iterable[str]) -> None:
        """Force the directory entries of placed files to the disk, each directory once however many files there are."""
        for day in {(self.root / name).parent for name in names}:
            fsync_directory(day)
            if day not in self._settled_days:  # another thread or a killed process may have made it a moment ago
                fsync_directory(day.parent)
                self._settled_days.add(day)

    def path(self, name: str) -> Path:
        """Absolute path of a name handed out before, whatever lies there now; a link is not followed."""
        path = Path(os.path.normpath(self.root.absolute() / name))
        if not path.is_relative_to(os.path.normpath(self.root.absolute())):
            raise ValueError("a spool name points outside the spool")
        return path

    def condition(self, name: str, sha256: str, size_bytes: int | None = None) -> Condition:
        """Whether a kept file still has the bytes that it had; the whole file is read where its size is right.

        size_bytes: None where nobody wrote it down.
        """
        try:
            # Without O_NONBLOCK a pipe in the place of the file would be waited for.
            descriptor = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            return _condition_for(error)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or size_bytes not in (None, status.st_size):
                return Condition.DAMAGED
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                same = hashlib.file_digest(stream, "sha256").hexdigest() == sha256
        except OSError as error:
            return _condition_for(error)
        finally:
            os.close(descriptor)
        return Condition.INTACT if same else Condition.DAMAGED

    def examine(self, name: str, sha256: str, size_bytes: int | None = None) -> Condition:
        """Like `condition`, for who looks at every file. Raises ObjectsUnavailable where nothing can be said now."""
        return self.condition(name, sha256, size_bytes)

    def require_shared(self) -> None:
        """Raise ObjectsUnavailable where what is made now could not be put where other hosts look for it."""

    def fetch(self, files: Iterable[Wanted], step: Callable[[], None] = lambda: None) -> None:
        """See that these files lie at their `path`, as far as they are anywhere; what is lost is found by its reader.

        step: called after each file; what it raises is passed on. Raises ObjectsUnavailable where that cannot be said
        now. In a spool of one folder there is nothing to do.
        """

    def fetch_folder(self, name: str) -> None:
        """The same for all files of a result."""

    def share_again(self, name: str, known: str) -> None:
        """See that other hosts find the content of a kept file under the name of an older one that has the same.

        Raises ObjectsUnavailable.
        """

    def make_room(self) -> None:
        """Where too little is free, drop what other hosts keep as well; in a spool of one folder that is nothing."""

    def shared_files(self, *, older_than: datetime) -> Iterator[list[str]]:
        """Like `received_files`, of what other hosts find. Raises ObjectsUnavailable."""
        return iter(())

    def shared_results(self, *, older_than: datetime) -> dict[str, int]:
        """Like `result_folders`, of what other hosts find. Raises ObjectsUnavailable."""
        return {}

    def digest(self, name: str) -> str:
        """SHA-256 of a file, or "" where there is none that can be read."""
        with suppress(OSError):
            if self.path(name).is_file():  # a pipe would be waited for
                return hashlib.sha256(self.path(name).read_bytes()).hexdigest()
        return ""

    def discard(self, name: str) -> None:
        """Remove a file that no row refers to (a duplicate, or a receipt that failed)."""
        self.path(name).unlink(missing_ok=True)

    def restore(self, name: str, lost: str) -> None:
        """Put a kept file in the place of one with the same content that is gone or damaged; durable on return."""
        target = self.path(lost)
        self._make_way(target)
        self.path(name).rename(target)
        fsync_directory(target.parent)

    def received_files(self, *, older_than: datetime, newest_days: int = 0) -> Iterator[list[str]]:
        """The names of received files that nobody changed since, day by day; only of the newest days where not 0."""
        for day in sorted((self.root / "received").glob("*"))[-newest_days:]:
            names = []
            for file in day.glob("*.dcm"):
                with suppress(FileNotFoundError):  # another process removed it a moment ago
                    if file.stat().st_mtime < older_than.timestamp():
                        names.append(str(file.relative_to(self.root)))
            yield names

    def remove(self, received: Iterable[str], folders: Iterable[str]) -> int:
        """Remove files and folders to which no row refers any more; returns how many bytes that freed.

        Days of which nothing is left go as well. What is gone already is no error; the disk's OSError is.
        """
        freed, days = 0, set()
        for name in received:
            file = self.path(name)
            with suppress(FileNotFoundError):
                freed += file.stat().st_size
                file.unlink()
                days.add(file.parent)
        for name in folders:
            folder = self.path(name)
            freed += sum(file.stat().st_size for file in folder.glob("*"))
            shutil.rmtree(folder, ignore_errors=True)
        for day in days:
            with suppress(OSError):  # it is not empty, or a receiver is about to write into it
                day.rmdir()
        return freed

    def sweep_incoming(self) -> int:
        """Remove what aborted transfers and killed processes left unfinished; returns the number of entries."""
        leftovers = list(self.incoming.iterdir())
        for entry in leftovers:
            _remove(entry)
        return len(leftovers)

    def stage(self, job_id: int, attempt: int | str) -> Path:
        """An empty folder in which one attempt of one job writes its derived series.

        attempt: its number, with which the folders of earlier attempts are removed; or a name of our own for what else
        writes the files of a job, and others may do so at this moment. Attempts are counted anew when a person tries a
        job again: a worker that has not yet seen that has a folder of its own and never that of its successor.
        """
        if isinstance(attempt, int):
            self._unstage_all(job_id)
        folder = self.root / "derived" / f".staging-{job_id}-{attempt}.{uuid.uuid4().hex[:8]}"
        self._make_folder(folder.parent)  # a person may have removed it
        folder.mkdir(mode=0o700)
        return folder

    def unstage(self, folder: Path) -> None:
        """Remove a folder of one attempt to which no row refers."""
        shutil.rmtree(folder, ignore_errors=True)

    def keep_only(self, product_dir: str) -> None:
        """Remove every other folder of the job to which this published one belongs; no row may refer to them."""
        kept = self.path(product_dir)
        job_id = kept.name.partition("-")[0]
        for folder in kept.parent.glob(f"{job_id}-*"):
            if folder != kept:
                self.unstage(folder)
        self._unstage_all(job_id)

    def _unstage_all(self, job_id: int | str) -> None:
        for folder in (self.root / "derived").glob(f".staging-{job_id}-*"):
            self.unstage(folder)

    def result_folders(self, *, older_than: datetime) -> dict[str, int]:
        """The folders of results and of unfinished ones that nobody changed since, and the job of each."""
        folders = {}
        for folder in (self.root / "derived").glob("*"):
            job = folder.name.removeprefix(".staging-").partition("-")[0]
            with suppress(FileNotFoundError):  # another process removed it a moment ago
                if job.isdecimal() and folder.stat().st_mtime < older_than.timestamp():
                    folders[str(folder.relative_to(self.root))] = int(job)
        return folders

    def empty_scratch(self, owner: str) -> Path:
        """An empty folder of one process, for what is measured and thrown away; what was left in it is removed."""
        folder = self.root / "scratch" / hashlib.sha256(owner.encode()).hexdigest()[:16]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        return folder

    def publish(self, staged: Path) -> str:
        """Rename a staged folder, whose files are already synced, to its final name; durable on return.

        What has that name stays: the result of another worker at the same attempt, or what a crash left before its
        commit, which is swept later.
        """
        fsync_directory(staged)
        name, _, own = staged.name.removeprefix(".staging-").partition(".")
        target = staged.with_name(name)
        try:
            staged.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            target = staged.with_name(f"{name}-{own}")
            staged.rename(target)
        fsync_directory(target.parent)
        return str(target.relative_to(self.root))


def _condition_for(error: OSError) -> Condition:
    if error.errno in (errno.EISDIR, errno.ELOOP):
        return Condition.DAMAGED
    return Condition.GONE if error.errno in (errno.ENOENT, errno.ENOTDIR) else Condition.UNREADABLE


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it; what is not there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # a nearly full disk takes a part, and says why with the next call
        rest = rest[os.write(descriptor, rest) :]


def fsync_directory(path: Path) -> None:
    """Force the entries of one directory to the disk; without it a rename may vanish in a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, text: str, *, replace: bool = False) -> None:
    """Write a file whole and for its owner alone; without `replace` one that is there already stays. Raises OSError."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")  # a pid is often 1 in containers that share a folder
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)  # a power cut would else leave a name without its content
    if replace:
        draft.replace(path)
    else:
        with suppress(FileExistsError):  # another process was first; its file counts
            os.link(draft, path)
        draft.unlink()
    fsync_directory(path.parent)
