"""Copies what a node must not lose into a folder: the store, the files that its rows need, and the settings file.

The order: the store at one moment, then every file that this copy of the store names, then the manifest, which makes
the snapshot count. Before that the folder holds the backup that it held before, whatever ends the process.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from config.destinations import DicomwebSettings
from config.fields import Section
from config.load import ENV_PREFIX
from config.settings import Settings
from node.bootstrap.backup_folder import (
    FILES,
    INSTALLATION,
    SETTINGS,
    STORE,
    BackupFolder,
    Entry,
    LostSource,
    Manifest,
    listing,
    member_of,
    open_new,
)
from node.bootstrap.bundles import bundles_in_use
from node.bootstrap.last_backup import Noted, note_backup
from node.bootstrap.shared import SharedPlace
from node.bootstrap.store import make_data_dir, read_store
from node.errors import Refused
from node.version import software_version
from storage import copies
from storage.database import Database
from storage.errors import NotFound
from storage.inventory import Inventory, KeptFile
from storage.mark import mark_of_store
from storage.shared_spool import SharedSpool
from storage.spool import Spool

_ROUNDS: Final = 3
"""Retention removes files and a release writes others while the files are copied: then the store is copied anew."""

Step = Callable[[], None]


@dataclass
class Made:
    """What a backup did. missing: the files that the rows need and that neither the spool nor the folder has, and why.

    kept: files that are only in the backup any more. strangers: what else lies in the folder. why_not_noted: why
    `syncect doctor` does not know of this backup, "" where it does.
    """

    manifest: Manifest
    copied: int = 0
    copied_bytes: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    is_open_to_others: bool = False
    is_beside_the_node: bool = False
    why_not_noted: str = ""


@dataclass
class _Round:
    """One copy of the store and the files that it needs."""

    entries: list[Entry] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    copied: int = 0
    copied_bytes: int = 0
    is_outdated: bool = False


def back_up(
    settings: Settings,
    config: Path | None,
    root: Path,
    now: datetime,
    *,
    verify: bool = False,
    step: Step = lambda: None,
) -> Made:
    """Make the backup in `root` that of this moment; the node may run.

    config: the settings file in force, None where there is none. verify: read every file that is there already as well.
    step: called for every file, and between the parts. Raises Refused, NotFound, SchemaMismatch, StoreUnavailable,
    WrongStore, ObjectsUnavailable, DamagedBackup for a manifest that cannot be read, and OSError; then the backup of
    before stays.
    """
    _refuse_place(settings, root)
    folder = BackupFolder(root)
    with folder.taken(), read_store(settings) as node:
        if node.is_new:
            raise NotFound(f"there is no store at {node.location}: there is nothing to back up")
        if settings.spool.url:
            make_data_dir(settings)
            SharedPlace(settings).join(node.database)
        mark = mark_of_store(node.database)
        before = _refuse_other(folder, mark)
        folder.drop_snapshots(before.snapshot if before else "")  # a full disk would else get fuller every night
        snapshot = folder.new_snapshot(f"{now.astimezone(UTC):%Y%m%dT%H%M%S%fZ}")
        done, copied, copied_bytes = _Round(is_outdated=True), 0, 0
        for _ in range(_ROUNDS):
            if not done.is_outdated:
                break
            done = _copy(node.database, node.spool, folder, snapshot, verify=verify, step=step)
            copied, copied_bytes = copied + done.copied, copied_bytes + done.copied_bytes
        _write_rest(settings, config, snapshot, done.entries)
        step()
        made = Made(_manifest(settings, snapshot, node.database, mark, done, now=now), copied, copied_bytes)
        made.missing, made.kept = done.missing, done.kept
        folder.settle(snapshot)
        folder.publish(made.manifest)
        step()
        folder.prune(snapshot.name, {one.sha256 for one in done.entries})
        made.strangers, made.is_open_to_others = folder.strangers(), folder.is_open_to_others
        made.is_beside_the_node = folder.is_beside(settings.node.data_dir)
        made.why_not_noted = note_backup(settings.node.data_dir, Noted(now, str(root.absolute()), len(made.missing)))
        return made


def _refuse_place(settings: Settings, root: Path) -> None:
    data_dir, place = settings.node.data_dir.resolve(), root.resolve()
    if place == data_dir or place.is_relative_to(data_dir):
        raise Refused(f"{root} lies in node.data_dir ({data_dir}): both would be lost together; name another disk")


def _refuse_other(folder: BackupFolder, mark: str | None) -> Manifest | None:
    """What the folder holds already, which must be of this store."""
    before = folder.manifest()
    if before is not None and before.mark not in (None, mark):
        raise Refused(
            f"{folder.root} holds the backup of another store, made at {before.made_at}: a new one would replace it. "
            "If this store was made anew since then (`db rebuild`), give it another folder and keep that one"
        )
    return before


# -- the store and its files -------------------------------------------------------------------------------------------


def _copy(
    database: Database, spool: Spool, folder: BackupFolder, snapshot: Path, *, verify: bool, step: Step
) -> _Round:
    store = snapshot / STORE
    store.unlink(missing_ok=True)
    copies.backup(database, store)
    _flush(store)
    step()
    done, live = _Round(), Inventory(database)
    for kept in _wanted(store):
        step()
        _copy_one(kept, spool, folder, live, done, verify=verify)
    return done


def _wanted(store: Path) -> Iterator[KeptFile]:
    with closing(Database(f"sqlite:///{store}", read_only=True)) as database:
        yield from Inventory(database).files()


def _copy_one(
    kept: KeptFile, spool: Spool, folder: BackupFolder, live: Inventory, done: _Round, *, verify: bool
) -> None:
    sha256, is_shared = kept.sha256, isinstance(spool, SharedSpool)  # then the file may well be on other hosts alone
    found = _size_of(spool.path(kept.name))
    is_trusted = (found is not None or is_shared) and not verify
    if folder.has(sha256, kept.size_bytes or found) and (is_trusted or folder.is_intact(sha256)):
        if found is None and not is_shared:
            done.kept.append(kept.name)
    else:
        try:
            done.copied_bytes += _put(kept, spool, folder)
            done.copied += 1
        except LostSource as lost:
            if not folder.is_intact(sha256):  # from an earlier backup, under whatever name
                done.missing[kept.name] = str(lost)
                done.is_outdated |= not live.still_wants(kept)
                return
            done.kept.append(kept.name)
    done.entries.append(Entry(kept.name, sha256, folder.path(sha256).stat().st_size))


def _put(kept: KeptFile, spool: Spool, folder: BackupFolder) -> int:
    """Copy a file in, which is fetched where this host lacks it. Raises LostSource, ObjectsUnavailable and OSError."""
    try:
        return folder.put(spool.path(kept.name), kept.sha256)
    except LostSource:
        if not isinstance(spool, SharedSpool):
            raise
        spool.fetch([(kept.name, kept.sha256, kept.size_bytes)])
        return folder.put(spool.path(kept.name), kept.sha256)


def _size_of(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except OSError:
        return None


# -- what stands beside them -------------------------------------------------------------------------------------------


def _write_rest(settings: Settings, config: Path | None, snapshot: Path, entries: list[Entry]) -> None:
    with open_new(snapshot / FILES) as file:
        file.write(listing(entries).encode())
    _flush(snapshot / FILES)
    identity = settings.node.data_dir / "installation.json"
    for source, name in ((config, SETTINGS), (identity, INSTALLATION)):
        if source is not None and source.exists():
            with open_new(snapshot / name) as file, source.open("rb") as reading:
                shutil.copyfileobj(reading, file)
            _flush(snapshot / name)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _manifest(
    settings: Settings, snapshot: Path, database: Database, mark: str | None, done: _Round, *, now: datetime
) -> Manifest:
    return Manifest(
        made_at=now.astimezone(UTC).isoformat(timespec="seconds"),
        version=software_version(),
        schema=database.current_revision() or "",
        mark=mark,
        database="SQLite" if database.is_sqlite else "PostgreSQL",
        data_dir=str(settings.node.data_dir),
        snapshot=snapshot.name,
        files=len(done.entries),
        size_bytes=sum(one.size_bytes for one in done.entries),
        members={path.name: member_of(path) for path in sorted(snapshot.iterdir())},
        missing=tuple(done.missing),
        environment=tuple(sorted(name for name in os.environ if name.startswith(ENV_PREFIX) and "__" in name)),
        not_included=tuple(not_included(settings)),
    )


def not_included(settings: Settings) -> Iterator[str]:
    """What a node needs and no backup holds, each with its path."""
    tls: list[tuple[str, Section | None]] = [("scp.tls", settings.scp.tls), ("web.tls", settings.web.tls)]
    tls += [(f"destination {one.name}: tls", one.tls) for one in settings.destination]
    asked = settings.completion.count_from
    if not isinstance(asked, str):
        tls.append(("completion.count_from.tls", asked.tls))
    for key, files in tls:
        if files is not None:
            paths = [str(value) for _, value in files if isinstance(value, Path)]
            yield f"certificates and private key of {key}: {', '.join(paths)}"
    if settings.alerts.smtp is not None and settings.alerts.smtp.password_file is not None:
        yield f"password file of alerts.smtp: {settings.alerts.smtp.password_file}"
    for one in settings.destination:
        if isinstance(one, DicomwebSettings) and one.secret_file is not None:
            yield f"token or password file of destination {one.name}: {one.secret_file}"
    if settings.spool.credentials_file is not None:
        yield f"credentials file of spool.url: {settings.spool.credentials_file}"
    bundles = [(one.key, one.name) for one in bundles_in_use(settings)]
    for key, bundle in (*bundles, ("model.shadow", settings.model.shadow)):
        if bundle and Path(bundle).is_dir():
            yield f"folder of {key}: {bundle}"
    yield f"the log files below {settings.node.data_dir / 'log'}, and what syncect remembers of this machine's GPU"
    if settings.node.database_url and not settings.node.database_url.startswith("sqlite"):
        yield "the PostgreSQL server, its roles and their passwords"
