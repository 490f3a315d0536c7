"""Opens spool and database of a node, to write or only to read; it loads fast, so that every reader starts at once."""

import json
import re
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Final

from config.load import ConfigError
from config.routes import titles_without_name
from config.settings import Settings
from node.bootstrap.shared import PLACE_FILE, SharedPlace, objects_of
from node.errors import Refused
from node.ops.clock import HostClock, StoreClock
from node.ops.modes import mend_modes
from node.ops.processes import running_processes, starter
from storage.acceptances import AcceptanceStore
from storage.alerts import AlertStore
from storage.audit import AuditStore
from storage.commitments import CommitmentStore
from storage.constancy import ConstancyStore
from storage.database import Database
from storage.errors import StoreUnavailable, WrongStore
from storage.forecast import Forecast
from storage.hosts import HostStore
from storage.jobs import JobStore
from storage.mark import holds_files, mark_of_spool, mismatch, missing_store, settle_mark
from storage.notes import NoteStore
from storage.outbox import OutboxStore
from storage.overview import Overview
from storage.pauses import PauseStore
from storage.peers import PeerStore
from storage.performed_steps import PerformedStepStore
from storage.recalls import RecallStore
from storage.refusals import RefusalStore
from storage.retention import RetentionStore
from storage.schema import ensure_schema
from storage.series import SeriesStore
from storage.shadows import ShadowStore
from storage.shared_spool import SharedSpool
from storage.shifted import shift_waiting
from storage.spool import Spool, fsync_directory, write_durably
from storage.users import UserStore
from storage.waiting import WaitingReader

RESTORE_BEGUN: Final = "restore.json"
"""A file in the data folder while `syncect restore` works; it stays where that was interrupted."""

_UID: Final = re.compile(r"[0-9.]{1,64}")


class DataDirUnusable(ConfigError):
    """The data folder cannot be used now: read-only, full, without inodes, another user's, or damaged."""


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
        root, keep = self.settings.node.data_dir / "spool", self.settings.retention
        if not self.settings.spool.url:
            return Spool(root, min_free_gb=keep.min_free_gb, create=self.writable)
        objects, target_gb = objects_of(self.settings.spool), keep.target_free_gb
        return SharedSpool(root, objects, min_free_gb=keep.min_free_gb, target_free_gb=target_gb, create=self.writable)

    @property
    def series(self) -> SeriesStore:
        """What arrived, and what was decided about it."""
        return SeriesStore(self.database, starter())

    @property
    def jobs(self) -> JobStore:
        """The translations."""
        return JobStore(self.database, starter())

    @property
    def outbox(self) -> OutboxStore:
        """The deliveries."""
        return OutboxStore(self.database)

    @property
    def commitments(self) -> CommitmentStore:
        """What destinations were asked to commit to."""
        return CommitmentStore(self.database)

    @property
    def recalls(self) -> RecallStore:
        """Results that were withdrawn for good."""
        return RecallStore(self.database)

    @property
    def notes(self) -> NoteStore:
        """Rejection notes about withdrawn results."""
        return NoteStore(self.database)

    @property
    def steps(self) -> PerformedStepStore:
        """What scanners reported of their performed procedure steps."""
        return PerformedStepStore(self.database)

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
    def constancy(self) -> ConstancyStore:
        """What constancy runs found."""
        return ConstancyStore(self.database)

    @property
    def acceptances(self) -> AcceptanceStore:
        """Who accepted which bundle for patients."""
        return AcceptanceStore(self.database)

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
    def pauses(self) -> PauseStore:
        """Which stages a person paused, and where."""
        return PauseStore(self.database)

    @property
    def waiting(self) -> WaitingReader:
        """What waits for its turn, and what each host has in hand."""
        return WaitingReader(self.database)

    @property
    def users(self) -> UserStore:
        """Who may log in to the status page, and who is logged in."""
        return UserStore(self.database)

    @property
    def audit(self) -> AuditStore:
        """What people did and looked at on the status page."""
        return AuditStore(self.database)

    @property
    def hosts(self) -> HostStore:
        """Which processes run on which host."""
        return HostStore(self.database)

    @property
    def forecast(self) -> Forecast:
        """When results will be there."""
        return Forecast(self.database)

    @property
    def overview(self) -> Overview:
        """What became of every series, for readers."""
        return Overview(self.database)

    @cached_property
    def clock(self) -> HostClock | StoreClock:
        """The time by which leases and waiting times are measured."""
        if not self.database.is_sqlite:
            return StoreClock(self.database.now)
        return HostClock(self.run_dir / "clock.json", partial(shift_waiting, self.database))

    def now(self) -> datetime:
        """This moment for what a person decides or reads: on several hosts by the clock by which their processes go.

        Raises StoreUnavailable.
        """
        return datetime.now(UTC) if self.database.is_sqlite else self.clock()

    @property
    def run_dir(self) -> Path:
        """Where the processes of this node hold their locks."""
        return self.settings.node.data_dir / "run"

    @property
    def destination_names(self) -> list[str]:
        """Where results go by themselves: every configured destination but those for constancy runs."""
        return [destination.name for destination in self.settings.destination if destination.receives == "results"]

    def destinations_for(self, routed: Sequence[str]) -> list[str]:
        """Where a result goes that a route sends to `routed`, by name; none is every destination, as without a route.

        A sender that had no destination when the job was queued is looked up again. Raises Refused where it has none.
        """
        named = self.settings.destination_of_title
        returned = titles_without_name(routed)
        if lost := [title for title in returned if title not in named]:
            who = f"no destination has its AE title, {lost[0]}" if lost[0] else "who that is is not known"
            raise Refused(f"its route returns the result to the sender, and {who}")
        found = [name for name in routed if not titles_without_name([name])] + [named[title] for title in returned]
        return list(dict.fromkeys(found)) or self.destination_names


def make_data_dir(settings: Settings) -> Path:
    """The data folder, made where there is none, for this user alone. Raises DataDirUnusable."""
    data_dir = settings.node.data_dir
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
        _settle_folders(data_dir)
    except OSError as error:
        raise DataDirUnusable(
            f"node.data_dir = {str(data_dir)!r} cannot be used: {error.strerror}; "
            "it must be a folder this user may write"
        ) from error
    return data_dir


def _settle_folders(data_dir: Path) -> None:
    """Make the folder durable, and those above it as far as this user may: a power cut must not take it away whole."""
    fsync_directory(data_dir)
    with suppress(PermissionError):
        for folder in data_dir.absolute().parents:
            fsync_directory(folder)


@contextmanager
def open_store(settings: Settings, *, shares: bool = False) -> Iterator[Node]:
    """Open spool and database to write, creating them where there are none.

    shares: whether the caller is about to put the files that lie here into a new object store. Raises ConfigError,
    UnusableUrl, SchemaMismatch, StoreUnavailable, ObjectsUnavailable, or WrongStore where a new or a foreign store
    stands beside a spool with files, or a restore was not ended.
    """
    data_dir = make_data_dir(settings)
    if why := _why_not_begin(settings):
        raise WrongStore(why)
    spool = data_dir / "spool"
    mend_modes(data_dir)
    shared = SharedPlace(settings) if settings.spool.url else None
    if shared is not None:
        shared.settle_installation()
    installation_uid(data_dir, create=True)
    database = Database(settings.node.url())
    try:
        database.require_sessions()
        if not database.has_schema() and (why := missing_store(database.location, spool)):
            raise WrongStore(why)
        ensure_schema(database)
        if shared is not None:
            shared.settle(database, shares=shares)
        database.expect(settle_mark(database, spool, datetime.now(UTC)))
        yield Node(settings, database, database.location, writable=True)
    finally:
        database.close()


@contextmanager
def read_store(settings: Settings) -> Iterator[Node]:
    """Open what is there to read it, also while the node writes; nothing is created, changed or migrated.

    Raises SchemaMismatch or StoreUnavailable.
    """
    if why := _why_not_begin(settings):
        raise StoreUnavailable(why)
    database, spool = Database(settings.node.url(), read_only=True), settings.node.data_dir / "spool"
    try:
        location, is_new = database.location, not database.has_schema()
        if is_new:
            why = missing_store(location, spool)
        else:
            why = why_not_together(settings, database) if settings.spool.url else mismatch(database, spool)
        if why:
            raise StoreUnavailable(why)
        if is_new:
            database.close()
            database = Database.empty()
        yield Node(settings, database, location, writable=False, is_new=is_new)
    finally:
        database.close()


def why_not_together(settings: Settings, database: Database) -> str | None:
    """`mismatch` of the store and the spool of the settings; a host without files that shares them is no other one."""
    spool = settings.node.data_dir / "spool"
    if settings.spool.url and mark_of_spool(spool) is None and not holds_files(spool):
        return None
    return mismatch(database, spool)


def _why_not_begin(settings: Settings) -> str | None:
    """Why the node must not begin; None where no restore was begun, and no bucket was left."""
    data_dir = settings.node.data_dir
    if (data_dir / RESTORE_BEGUN).exists():
        return f"a restore into {data_dir} was begun and is not at its end: run the same `syncect restore` again"
    path = data_dir / "spool" / PLACE_FILE
    return None if settings.spool.url or not path.exists() else _why_not_alone(path)


def _why_not_alone(path: Path) -> str:
    """Why a host that shares its files must not go on with its folder: other hosts would not find what comes here, and
    what lies only there would count as lost.
    """
    url = ""
    with suppress(OSError, ValueError, KeyError, TypeError):
        url = f" in {json.loads(path.read_text(encoding='utf-8'))['url']}"
    return (
        f"this host shares the files of the spool {path.parent} with others{url}, but spool.url is not set: set it "
        "again. If they shall lie in this folder alone, copy the bucket's prefix into it on one host, then remove "
        f"{path}"
    )


def refuse_while_running(settings: Settings) -> None:
    """Raise Refused while a process of this host works with the store."""
    running = running_processes(settings.node.data_dir / "run")
    if running:
        raise Refused(f"{running[0].role} is running (pid {running[0].pid}); stop the node first")


def installation_uid(data_dir: Path, *, create: bool) -> str | None:
    """UID of this installation, made once at random and kept in `data_dir` (InstanceCreatorUID, DeviceSerialNumber).

    Raises DataDirUnusable for a damaged file.
    """
    path = data_dir / "installation.json"
    if not path.exists():
        if not create:
            return None
        write_durably(path, json.dumps({"uid": f"2.25.{uuid.uuid4().int}"}))
    with suppress(ValueError, KeyError, TypeError):
        uid = json.loads(path.read_text(encoding="utf-8"))["uid"]
        if _UID.fullmatch(uid):
            return str(uid)
    raise DataDirUnusable(
        f"{path} is damaged; restore it from a backup, or remove it: then results name this node by a new UID"
    )
