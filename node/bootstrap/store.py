"""Opens spool and database of a node; light, so that every reader starts at once."""

import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from config.load import ConfigError
from config.settings import Settings
from storage.database import Database
from storage.jobs import JobStore
from storage.outbox import OutboxStore
from storage.overview import Overview
from storage.refusals import RefusalStore
from storage.series import SeriesStore
from storage.spool import Spool


@dataclass(frozen=True)
class Node:
    """The stores of one node, opened, and the settings they were opened with."""

    settings: Settings
    database: Database
    spool: Spool
    series: SeriesStore
    jobs: JobStore
    outbox: OutboxStore
    refusals: RefusalStore
    overview: Overview

    @property
    def run_dir(self) -> Path:
        """Where the processes of this node hold their locks."""
        return self.settings.node.data_dir / "run"

    @property
    def destination_names(self) -> list[str]:
        """Every configured destination."""
        return [destination.name for destination in self.settings.destination]


@contextmanager
def open_store(settings: Settings) -> Iterator[Node]:
    """Open spool and database, creating them where there are none; raises ConfigError or SchemaMismatch."""
    data_dir = settings.node.data_dir
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        raise ConfigError(
            f"node.data_dir = {str(data_dir)!r} cannot be used: {error.strerror}; "
            "it must be a folder this user may write"
        ) from error
    installation_uid(data_dir, create=True)
    database = Database(settings.node.url())
    try:
        database.ensure_schema()
        yield Node(
            settings=settings,
            database=database,
            spool=Spool(data_dir / "spool", min_free_gb=settings.retention.min_free_gb),
            series=SeriesStore(database),
            jobs=JobStore(database),
            outbox=OutboxStore(database),
            refusals=RefusalStore(database),
            overview=Overview(database),
        )
    finally:
        database.close()


def installation_uid(data_dir: Path, *, create: bool) -> str | None:
    """UID of this installation, made once at random and kept in `data_dir` (InstanceCreatorUID, DeviceSerialNumber)."""
    path = data_dir / "installation.json"
    if not path.exists():
        if not create:
            return None
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps({"uid": f"2.25.{uuid.uuid4().int}"}), encoding="utf-8")
        with suppress(FileExistsError):  # another process was first; its UID counts
            os.link(draft, path)
        draft.unlink()
    uid = json.loads(path.read_text(encoding="utf-8"))["uid"]
    assert isinstance(uid, str)
    return uid
