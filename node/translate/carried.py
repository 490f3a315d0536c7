"""Jobs whose files come as bytes and whose results go as bytes: what an actor of a cluster does. Ray is not known here.

The files of a job lie in a folder of this process until it has ended, in memory where there is room, so that no disk of
the cluster keeps a patient. What a process left that was killed, the next one on its host removes.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import warnings
from collections import OrderedDict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

import models
from models.bundle import BundleCard
from models.translator import Device, LoadedTranslator, Precision
from node.errors import Retryable
from node.translate.job import JobOptions, JobResult, run_job
from node.translate.loaded import MOST_LOADED, ExecutorUnavailable
from node.translate.proof_by_highdicom import load_tables
from node.version import software_version

log = logging.getLogger(__name__)

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 # a folder of our own is made in it, for this user alone
_PREFIX: Final = "syncect-actor-"
CHANGED: Final = "a file changed on its way between worker and actor"
_ROOM: Final = 4  # times the bytes of the sources: they, the result of the same size, and as much again for others


@dataclass(frozen=True, slots=True)
class Parcel:
    """Files by name, as one array of bytes, which a process of the same host reads where it lies.

    sha256: hex, of each file.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    sha256: tuple[str, ...]
    data: NDArray[np.uint8] = field(repr=False)

    @classmethod
    def of(cls, paths: Sequence[Path], sha256: Mapping[str, str] | None = None) -> "Parcel":
        """Pack files; one that is not there is left out. Raises OSError.

        sha256: hex, of files by name, where it is known already.
        """
        known = sha256 or {}
        found = [(path, path.stat().st_size) for path in paths if path.is_file()]
        data = np.empty(sum(size for _, size in found), dtype=np.uint8)
        into, at, sizes, digests = data.data, 0, [], []
        for path, room in found:
            with path.open("rb", buffering=0) as stream:
                size = stream.readinto(into[at : at + room]) or 0
            digests.append(known.get(path.name) or _digest(into[at : at + size]))
            sizes.append(size)
            at += size
        return cls(tuple(path.name for path, _ in found), tuple(sizes), tuple(digests), data[:at])

    def is_whole(self) -> bool:
        """Whether the bytes of every file are those of its digest."""
        return all(_digest(part) == sha256 for (_, part), sha256 in zip(self._parts(), self.sha256, strict=True))

    def unpack(self, folder: Path, *, flush: bool = False, compared_later: Container[str] = ()) -> None:
        """Write the files into a folder that has none of them. `flush`: they are on the disk on return.

        compared_later: names of files whose digest the reader compares. Raises Retryable where the bytes of another one
        are not those that were packed, OSError.
        """
        for (name, part), sha256 in zip(self._parts(), self.sha256, strict=True):
            if Path(name).name != name or (name not in compared_later and _digest(part) != sha256):
                raise Retryable(CHANGED)
            with (folder / name).open("xb") as stream:
                stream.write(part)
                if flush:
                    stream.flush()
                    os.fsync(stream.fileno())

    def _parts(self) -> Iterator[tuple[str, memoryview]]:
        at = 0
        for name, size in zip(self.names, self.sizes, strict=True):
            yield name, self.data.data[at : at + size]
            at += size


def _digest(data: memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class BundleAsk:
    """Which bundle an actor shall load, and how: the settings of [model].

    label: how jobs call it. digest: of the bundle on the worker's host, hex. version: of syncect there. Where an actor
    has another one of either, it refuses.
    careful: one slice at a time, since the device failed in this job before.
    """

    bundle: str
    label: str
    digest: str
    version: str
    device: Device
    precision: Precision
    batch_size: int | None
    blood_level_hu: float | None
    careful: bool = False


@dataclass(frozen=True, slots=True)
class Hello:
    """What an actor says of a bundle that it has loaded; as the attributes of an executor."""

    card: BundleCard
    description: str
    arithmetic: str
    device: str


class _Cancelled(Exception):
    """Nobody waits for this job any more."""


class CarriedJobs:
    """Runs jobs of any number of threads; each bundle is loaded once for all of them, at most MOST_LOADED."""

    def __init__(self) -> None:
        warnings.simplefilter("ignore")  # those of pydicom may quote a source, and threads share the switch
        load_tables()
        self._loaded: OrderedDict[BundleAsk, LoadedTranslator] = OrderedDict()
        self._loading = threading.Lock()
        self._reached: dict[str, tuple[str, int, int]] = {}
        self._cancelled: set[str] = set()
        self._folders: dict[Path, int] = {}

    def hello(self, ask: BundleAsk) -> Hello:
        """Load a bundle; raises ExecutorUnavailable, also where it or this software is not that of the worker."""
        if (here := software_version()) != ask.version:
            raise ExecutorUnavailable(
                f"the actor runs syncect {here}, the worker {ask.version}; install one version on every host"
            )
        translator = self.translator(ask)
        return Hello(translator.card, translator.description, translator.arithmetic, translator.device)

    def run(self, ticket: str, ask: BundleAsk, options: JobOptions, parcel: Parcel) -> tuple[JobResult, Parcel]:
        """Run one job; the paths of its result are names in the parcel, and its doubt is a file there.

        Raises what `run_job` raises, ExecutorUnavailable, and Retryable where this host has no room for the files.
        """

        def progress(stage: str, done: int, total: int) -> None:
            if ticket in self._cancelled:
                raise _Cancelled
            self._reached[ticket] = (stage, done, total)

        try:
            translator = self.translator(ask).sibling()
            with tempfile.TemporaryDirectory(dir=self.folder(_ROOM * parcel.data.size)) as folder:
                source, made = Path(folder, "source"), Path(folder, "made")
                source.mkdir()
                made.mkdir()
                parcel.unpack(source, compared_later=options.sha256)
                paths = [source / name for name in options.sha256 or parcel.names]
                result = run_job(paths, translator, options, made, progress=progress)
                files = tuple(replace(one, path=Path(one.path.name)) for one in result.files)
                digests = {one.path.name: one.sha256 for one in files}
                return replace(result, files=files, doubt=None), Parcel.of(sorted(made.iterdir()), digests)
        except _Cancelled:
            raise Retryable("the job was taken away") from None
        except OSError as error:
            raise Retryable(f"{error.strerror} on the host of an actor") from error
        finally:
            self._reached.pop(ticket, None)
            self._cancelled.discard(ticket)

    def reached(self, ticket: str) -> tuple[str, int, int] | None:
        """Stage, done, total of a job; None before its first step and after its last."""
        return self._reached.get(ticket)

    def cancel(self, ticket: str) -> None:
        """End a job at its next step, if it runs."""
        if ticket in self._reached:
            self._cancelled.add(ticket)

    def translator(self, ask: BundleAsk) -> LoadedTranslator:
        """The bundle, loaded here, at most MOST_LOADED of them; raises ExecutorUnavailable."""
        with self._loading:
            if ask in self._loaded:
                self._loaded.move_to_end(ask)
                return self._loaded[ask]
            while len(self._loaded) >= MOST_LOADED:
                self._loaded.popitem(last=False)
            try:
                path = models.find_bundle(ask.bundle)
                if (here := models.read_card(path).digest) != ask.digest:
                    raise ExecutorUnavailable(
                        f"the actor has another bundle {ask.bundle} ({here[:12]}) than the worker ({ask.digest[:12]}); "
                        "install one on every host"
                    )
                translator = models.load_bundle(
                    path,
                    device=ask.device,
                    precision=ask.precision,
                    batch_size=1 if ask.careful else ask.batch_size,
                    blood_level_hu=ask.blood_level_hu,
                )
            except (models.BundleError, models.DeviceUnavailable) as error:
                raise ExecutorUnavailable(f"an actor cannot use the bundle: {error}") from error
            self._loaded[ask] = translator
            return translator

    def folder(self, wanted_bytes: int) -> Path:
        """Where files of jobs may lie: in memory where there is room, else where the system has such files.

        Raises Retryable where there is none.
        """
        for root in (_MEMORY, Path(tempfile.gettempdir())):
            if root.is_dir() and os.access(root, os.W_OK) and shutil.disk_usage(root).free > wanted_bytes:
                with self._loading:
                    return next((one for one in self._folders if one.parent == root), None) or self._new(root)
        raise Retryable("the host of an actor has no room for the files of a job")

    def _new(self, root: Path) -> Path:
        """A folder that is locked as long as this process lives; those of dead ones are removed."""
        for left in root.glob(f"{_PREFIX}*"):
            _remove_unlocked(left)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        self._folders[folder] = _lock(folder)
        return folder

    def close(self) -> None:
        """Remove the folders of this process."""
        for folder, descriptor in self._folders.items():
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)
        self._folders.clear()


def _lock(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    if not folder.exists():  # another process took it for left behind, between the two lines above
        os.close(descriptor)
        raise Retryable(f"{folder.name} was removed by another process")
    return descriptor


def _remove_unlocked(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # that of another user, or gone
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
        log.info("removed the files that a killed actor left behind", extra={"event": "leftover_removed"})
    except OSError:  # its process lives
        pass
    finally:
        os.close(descriptor)
