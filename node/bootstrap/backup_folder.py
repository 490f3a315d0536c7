"""How a backup lies in its folder, and how what lies there is read and checked.

    manifest.json                      which snapshot counts, and what it is; replaced as a whole, last
    snapshot-TIME/store.sqlite3        every row of the store
    snapshot-TIME/files.tsv            SHA-256, bytes and name in the spool of every file that the rows need
    snapshot-TIME/settings.toml        the settings file, where there is one
    snapshot-TIME/installation.json    the identity of the installation
    files/ab/ab12...                   each file once, under its SHA-256

A file never changes under its name, so a snapshot that is being made harms none that is there. Every file is for its
owner alone.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from node.errors import Permanent, Refused
from storage.spool import Condition, Spool, fsync_directory

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
STORE, FILES, SETTINGS, INSTALLATION = "store.sqlite3", "files.tsv", "settings.toml", "installation.json"
_MARKER: Final = "syncect-backup.lock"
_OBJECTS: Final = "files"
_SNAPSHOT: Final = "snapshot-"
_IS_SNAPSHOT: Final = re.compile(rf"{_SNAPSHOT}[0-9TZ]+")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_DRAFT: Final = ".draft-"
_TOLERATED: Final = frozenset({"lost+found"})  # stands in the root of a file system
_CHUNK_BYTES: Final = 1024**2


class DamagedBackup(Permanent):
    """A backup is not what was written; each line of the message names one thing."""


class LostSource(DamagedBackup):
    """A file that was to be copied is gone, damaged or unreadable, as the message says in a word."""


@dataclass(frozen=True)
class Entry:
    """A file that a snapshot needs: its name in the spool, its SHA-256 (hex) and its size."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself.

    mark: of the store (`storage.mark`), None for one that never had a spool. members: size and SHA-256 of each file of
    the snapshot. missing: names of files that the rows need and that nobody had. environment: names of the variables
    that overrode the settings file. not_included: what a node needs beside the backup, in words.
    """

    made_at: str
    version: str
    schema: str
    mark: str | None
    database: str
    data_dir: str
    snapshot: str
    files: int
    size_bytes: int
    members: dict[str, tuple[int, str]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    not_included: tuple[str, ...] = ()

    def text(self) -> str:
        """As it is written, with a digest of itself."""
        values = {"format": FORMAT, **asdict(self)}
        return json.dumps({**values, "sha256": _digest_of(values)}, indent=1) + "\n"

    @property
    def digest(self) -> str:
        """Tells it from every other."""
        return _digest_of(asdict(self))


class BackupFolder:
    """One folder; it may be a link to another place, but nothing in it may be a link."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # The class that looks after files by name and digest; here the name is the digest.
        self._files = Spool(root, create=False)

    # -- for writing -------------------------------------------------------------------------------------------

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have the folder to oneself, made where there is none. Raises Refused, and OSError."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        strange = sorted(path.name for path in self.root.iterdir() if path.name not in _TOLERATED)
        if strange and _MARKER not in strange:
            raise Refused(f"{self.root} holds other files, such as {strange[0]}; give a backup a folder of its own")
        self._refuse_links()
        descriptor = os.open(self.root / _MARKER, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise Refused(f"another backup into {self.root} is running") from error
        finally:
            os.close(descriptor)

    def _refuse_links(self) -> None:
        for path in (*self.root.iterdir(), *self.root.glob(f"{_OBJECTS}/*")):
            if path.is_symlink():
                raise Refused(f"{path} is a link; a backup takes none in its folder")

    def is_beside(self, data_dir: Path) -> bool:
        """Whether the folder is on the file system of the node's data, or of its spool: one broken disk takes both."""
        places = [path.stat().st_dev for path in (data_dir, data_dir / "spool") if path.exists()]
        return self.root.stat().st_dev in places

    @property
    def is_open_to_others(self) -> bool:
        """Whether its file system gave others rights that nobody asked for, as some network mounts do."""
        return bool((self.root / _MARKER).stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))

    def new_snapshot(self, name: str) -> Path:
        """An empty folder for a snapshot."""
        folder = self.root / f"{_SNAPSHOT}{name}"
        folder.mkdir(mode=0o700)
        return folder

    def put(self, source: Path, sha256: str) -> int:
        """Copy a file with this digest in, durable on return but for its folder's entry; its size.

        Raises LostSource, and OSError about this folder.
        """
        target = self.path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return copy_checked(source, target, sha256)

    def settle(self, snapshot: Path) -> None:
        """Force the entries of all folders to the disk."""
        for folder in (*(self.root / _OBJECTS).glob("*"), self.root / _OBJECTS, snapshot, self.root):
            if folder.is_dir():
                fsync_folder(folder)

    def publish(self, manifest: Manifest) -> None:
        """From now on this snapshot is the backup."""
        draft = self.root / f"{_DRAFT}{MANIFEST}"
        draft.unlink(missing_ok=True)
        with open_new(draft) as file:
            file.write(manifest.text().encode())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.root / MANIFEST)
        fsync_folder(self.root)

    def drop_snapshots(self, kept: str) -> None:
        """Remove every snapshot but this one: older ones, and what a backup that was ended left."""
        for folder in self.root.iterdir():
            if _IS_SNAPSHOT.fullmatch(folder.name) and folder.name != kept:
                shutil.rmtree(folder)

    def prune(self, snapshot: str, wanted: set[str]) -> int:
        """Remove what this snapshot does not need; returns how many files. What is not ours stays."""
        self.drop_snapshots(snapshot)
        old = [path for path in self.objects() if path.name not in wanted]
        for path in old:
            path.unlink()
        return len(old)

    # -- for reading -------------------------------------------------------------------------------------------

    def path(self, sha256: str) -> Path:
        """Where the file with this digest lies."""
        return self.root / _OBJECTS / sha256[:2] / sha256

    def objects(self) -> Iterator[Path]:
        """Every file under a digest, and drafts of such."""
        for path in (self.root / _OBJECTS).glob("??/*"):
            if _SHA256.fullmatch(path.name) or path.name.startswith(_DRAFT):
                yield path

    def strangers(self) -> list[str]:
        """Names of what lies in the folder and is no part of any backup."""
        ours = re.compile(rf"{_OBJECTS}|{_MARKER}|{re.escape(_DRAFT)}.*|{MANIFEST}|{_IS_SNAPSHOT.pattern}")
        found = [path for path in self.root.iterdir() if not ours.fullmatch(path.name) and path.name not in _TOLERATED]
        found += set((self.root / _OBJECTS).glob("*")) - {path for path in (self.root / _OBJECTS).glob("??")}
        found += set((self.root / _OBJECTS).glob("??/*")) - set(self.objects())
        return sorted(str(path.relative_to(self.root)) for path in found)

    def has(self, sha256: str, size_bytes: int | None) -> bool:
        """Whether a file of this digest lies there, whole by its size."""
        try:
            status = self.path(sha256).lstat()
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and size_bytes in (None, status.st_size)

    def is_intact(self, sha256: str, size_bytes: int | None = None) -> bool:
        """Whether it has the bytes that it had; the file is read."""
        if self.path(sha256).is_symlink():
            return False
        name = str(self.path(sha256).relative_to(self.root))
        return self._files.condition(name, sha256, size_bytes) is Condition.INTACT

    def manifest(self) -> Manifest | None:
        """What the folder says of its backup; None where there is none. Raises DamagedBackup, Refused and OSError."""
        path = self.root / MANIFEST
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            claimed = values.pop("sha256")
            if claimed != _digest_of(values):
                raise DamagedBackup(f"{path} is damaged: it has not the digest that it names")
            if (found := values.pop("format")) != FORMAT:
                raise Refused(f"{path} has format {found}, this version reads {FORMAT}: use a newer version of syncect")
            members = {name: (size, sha256) for name, (size, sha256) in values.pop("members").items()}
            values |= {name: tuple(values[name]) for name in ("missing", "environment", "not_included")}
            return Manifest(**values, members=members)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedBackup(f"{path} is damaged: it cannot be read") from error

    def members(self, manifest: Manifest) -> dict[str, Path]:
        """The files of the snapshot, each of which has been read and is intact. Raises DamagedBackup."""
        folder = self.root / manifest.snapshot
        wrong = []
        for name, (size, sha256) in manifest.members.items():
            condition = Spool(folder, create=False).condition(name, sha256, size)
            if condition is not Condition.INTACT or folder.is_symlink():
                wrong.append(f"{folder / name} is {condition}")
        if wrong:
            raise DamagedBackup(*wrong)
        return {name: folder / name for name in manifest.members}

    def entries(self, listing: Path) -> list[Entry]:
        """The files that the snapshot needs, of its list, which is intact. Raises DamagedBackup."""
        found = []
        for line in listing.read_text(encoding="utf-8").splitlines():
            sha256, size, name = line.split("\t")
            parts = PurePosixPath(name).parts
            if not _SHA256.fullmatch(sha256) or parts[0] not in ("received", "derived") or ".." in parts:
                raise DamagedBackup(f"{listing} names a file that no spool has")
            found.append(Entry(name, sha256, int(size)))
        return found


def listing(entries: list[Entry]) -> str:
    """The text of `files.tsv`."""
    return "".join(f"{one.sha256}\t{one.size_bytes}\t{one.name}\n" for one in entries)


def member_of(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def copy_checked(source: Path, target: Path, sha256: str) -> int:
    """Copy a file whole and durable, for its owner alone; its size. The target appears only with the right bytes.

    Raises LostSource where the source is gone, cannot be read or has other bytes, and OSError about the target.
    """
    draft = target.with_name(f"{_DRAFT}{target.name}")
    draft.unlink(missing_ok=True)  # of a process that was killed
    found, size = hashlib.sha256(), 0
    try:
        with open_new(draft) as writing:
            for part in _parts(source):
                found.update(part)
                size += len(part)
                writing.write(part)
            writing.flush()
            os.fsync(writing.fileno())
        if found.hexdigest() != sha256:
            raise LostSource(Condition.DAMAGED)
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return size


def _parts(source: Path) -> Iterator[bytes]:
    try:
        # Without O_NONBLOCK a pipe in the place of the file would be waited for.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(source, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise LostSource(Condition.DAMAGED)
            while part := file.read(_CHUNK_BYTES):
                yield part
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LostSource(Condition.GONE) from error
    except OSError as error:
        raise LostSource(f"unreadable ({error.strerror})") from error


def open_new(path: Path) -> Any:
    """A new file for its owner alone, open to write bytes."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def fsync_folder(path: Path) -> None:
    """Force the entries of a folder to the disk, where its file system knows how; some network mounts do not."""
    try:
        fsync_directory(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _digest_of(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
