"""Opens spool and database of a node, to write or only to read; it loads fast, so that every reader starts at once."""

import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from config.load import ConfigError
from config.settings import Settings
from storage.alerts import AlertStore
from storage.database import Database
from storage.forecast import Forecast
from storage.jobs import JobStore
from storage.outbox import OutboxStore
from storage.overview import Overview
from storage.peers import PeerStore
from storage.refusals import RefusalStore
from storage.retention import RetentionStore
from storage.series import SeriesStore
from storage.shadows import ShadowStore
from storage.spool import Spool


@dataclass(frozen=True)
class Node:
    """One node's spool and database, opened to write or only to read, and the settings they were opened with.

    `is_new` tells a reader that there is no store at `location` yet: it looks at an empty one.
    """

    settings: Settings
    database: Database
    location: str
    writable: bool
    is_new: bool = False

    @cached_property
    def spool(self) -> Spool:
        """The received and the derived files."""
        root, reserve = self.settings.node.data_dir / "spool", self.settings.retention.min_free_gb
        return Spool(root, min_free_gb=reserve, create=self.writable)

    @property
    def series(self) -> SeriesStore:
        """What arrived, and what was decided about it."""
        return SeriesStore(self.database)

    @property
    def jobs(self) -> JobStore:
        """The translations."""
        return JobStore(self.database)

    @property
    def outbox(self) -> OutboxStore:
        """The deliveries."""
        return OutboxStore(self.database)

    @property
    def refusals(self) -> RefusalStore:
        """What the receiver refused."""
        return RefusalStore(self.database)

    @property
    def peers(self) -> PeerStore:
        """What is known about the destinations."""
        return PeerStore(self.database)

    @property
    def shadows(self) -> ShadowStore:
        """What a second bundle made of the same sources."""
        return ShadowStore(self.database)

    @property
    def retention(self) -> RetentionStore:
        """Which files may leave the disk."""
        confirming = [peer.name for peer in self.settings.destination if peer.confirm != "none"]
        return RetentionStore(self.database, confirming)

    @property
    def alerts(self) -> AlertStore:
        """What a person has to know."""
        return AlertStore(self.database)

    @property
    def forecast(self) -> Forecast:
        """When results will be there."""
        return Forecast(self.database)

    @property
    def overview(self) -> Overview:
        """What became of every series, for readers."""
        return Overview(self.database)

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
    """Open spool and database to write, creating them where there are none.

    Raises ConfigError, SchemaMismatch or StoreUnavailable.
    """
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
        yield Node(settings, database, database.location, writable=True)
    finally:
        database.close()


@contextmanager
def read_store(settings: Settings) -> Iterator[Node]:
    """Open what is there to read it, also while the node writes; nothing is created, changed or migrated.

    Raises SchemaMismatch or StoreUnavailable.
    """
    database = Database(settings.node.url(), read_only=True)
    try:
        location, is_new = database.location, not database.has_schema()
        if is_new:
            database.close()
            database = Database.empty()
        yield Node(settings, database, location, writable=False, is_new=is_new)
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
