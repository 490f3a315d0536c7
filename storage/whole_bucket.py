"""Brings everything that a bucket holds into the folder of one host, where the store must be made anew of it.

Nobody knows the SHA-256 of a received file then; a result has it in its manifest, and one without a manifest never
counted. An object keeps its time: when a file came is read from that.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from storage.objects import Found
from storage.shared_spool import MANIFEST, SharedSpool

_RECEIVED: Final = re.compile(r"received/[0-9]+/[0-9a-f]+\.dcm")
_RESULT: Final = re.compile(r"(derived/[0-9]+-[0-9a-z-]+)/[0-9A-Za-z_.-]+")
_PART_BYTES: Final = 4 << 20  # of one request


@dataclass(frozen=True)
class Lacking:
    """What a host lacks of its bucket: received files, and results by their folder."""

    received: tuple[Found, ...]
    results: dict[str, tuple[Found, ...]]

    @property
    def files(self) -> int:
        """How many they are."""
        return len(self.received) + sum(len(files) for files in self.results.values())

    @property
    def size_bytes(self) -> int:
        """Their size, all together."""
        return sum(
            one.size_bytes for one in (*self.received, *(one for files in self.results.values() for one in files))
        )


def lacking(spool: SharedSpool) -> Lacking:
    """What the bucket holds and this host does not. Raises ObjectsUnavailable."""
    received = [one for one in spool.objects.list("received") if _RECEIVED.fullmatch(one.key)]
    results: dict[str, list[Found]] = {}
    for one in spool.objects.list("derived"):
        if named := _RESULT.fullmatch(one.key):
            results.setdefault(named[1], []).append(one)
    missing = {
        folder: tuple(one for one in files if not one.key.endswith(f"/{MANIFEST}") and _is_absent(spool, one))
        for folder, files in results.items()
        if any(one.key == f"{folder}/{MANIFEST}" for one in files)
    }
    return Lacking(
        tuple(one for one in received if _is_absent(spool, one)),
        {folder: files for folder, files in missing.items() if files},
    )


def bring(spool: SharedSpool, wanted: Lacking, step: Callable[[], None]) -> None:
    """Fetch it; `step` is called for every file. What is whole stays where this ends. Raises ObjectsUnavailable."""
    for one in wanted.received:
        step()
        _bring(spool, one)
    for folder, files in wanted.results.items():
        spool.fetch_folder(folder)
        moment_s = max(one.changed_at for one in files).timestamp()
        if spool.path(folder).is_dir():
            os.utime(spool.path(folder), (moment_s, moment_s))
        step()


def _is_absent(spool: SharedSpool, one: Found) -> bool:
    path = spool.path(one.key)
    return not path.is_file() or path.stat().st_size != one.size_bytes


def _bring(spool: SharedSpool, one: Found) -> None:
    target, moment_s = spool.path(one.key), one.changed_at.timestamp()
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as file:
            while file.tell() < one.size_bytes:
                data = spool.objects.get(one.key, file.tell(), min(_PART_BYTES, one.size_bytes - file.tell()))
                if data is None:
                    return  # it was removed a moment ago
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.utime(part, (moment_s, moment_s))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
