"""Brings a node back from a backup (`node.bootstrap.backup`), where there is neither store nor spool.

A file in the data folder says that a restore was begun: no process of the node begins before it is gone, whatever ends
this process in between, and the same restore goes on from there. Every file is copied into the spool, which may be
a disk of its own, and compared with its digest. Then the spool gets its mark. The store comes last, in one transaction.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from config.settings import Settings
from node.bootstrap.backup_folder import (
    FILES,
    INSTALLATION,
    SETTINGS,
    STORE,
    BackupFolder,
    DamagedBackup,
    Entry,
    LostSource,
    Manifest,
    copy_checked,
    fsync_folder,
)
from node.bootstrap.store import RESTORE_BEGUN, make_data_dir, refuse_while_running
from node.errors import Refused
from node.ops.findings import nearest_folder
from node.ops.processes import process_lock
from storage import copies, restored, schema
from storage.database import Database
from storage.errors import NotFound
from storage.mark import FILE_NAME, mark_of_store, new_mark, write_mark
from storage.pauses import Pause, PauseStore
from storage.restored import Census
from storage.spool import Condition, Spool, write_durably
from storage.tables import SCHEMA_REVISION

_MOST_NAMED: Final = 10

Step = Callable[[], None]


@dataclass
class Restored:
    """What a restore did. damaged: files that were left out because the backup has other bytes or none of them.

    pauses: what a person had paused when the backup was made, and is so again. settings_differ: whether the settings
    file in force is another one than that of the backup.
    """

    manifest: Manifest
    census: Census
    pauses: list[Pause]
    damaged: dict[str, str] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)
    settings_differ: bool = False


def restore(
    settings: Settings,
    config: Path | None,
    root: Path,
    now: datetime,
    *,
    leave_out_damaged: bool = False,
    step: Step = lambda: None,
) -> Restored:
    """Put the backup in `root` into the data folder and the database of the settings; both must be empty.

    step: called for every file, and between the parts. Raises NotFound, Refused, DamagedBackup with nothing put in
    place, SchemaMismatch, StoreUnavailable and OSError.
    """
    folder = BackupFolder(root)
    manifest = folder.manifest()
    if manifest is None:
        raise NotFound(f"there is no backup in {root}")
    members = folder.members(manifest)
    copies.revision_of(members[STORE])  # of a newer version: nothing is put in place
    entries = folder.entries(members[FILES])
    refuse_while_running(settings)
    data_dir = make_data_dir(settings)
    database = Database(settings.node.url())
    try:
        with process_lock(data_dir / "run", "restore", "1"):
            _begin(settings, database, manifest, members)
            damaged = _fill_spool(data_dir, folder, entries, leave_out_damaged=leave_out_damaged, step=step)
            _put_in_place(settings, database, manifest, members, now=now, step=step)
        pauses = PauseStore(database).all()
        done = Restored(manifest, restored.census(database), pauses, damaged, folder.strangers())
    finally:
        database.close()
    done.settings_differ = _differ(config, members.get(SETTINGS))
    return done


# -- whether it may begin ----------------------------------------------------------------------------------------------


def _begin(settings: Settings, database: Database, manifest: Manifest, members: dict[str, Path]) -> None:
    """Note what is restored; raises Refused where something stands there that is not of this restore."""
    data_dir = settings.node.data_dir
    marker = data_dir / RESTORE_BEGUN
    if marker.exists():
        _refuse_another(marker, manifest)
        if _is_another(database, manifest):
            raise Refused(f"the database {database.location} holds another store; name an empty one")
        return
    if not copies.is_vacant(database):
        raise Refused(
            f"the database {database.location} holds a store already. A restore replaces nothing: move it away, or "
            "name an empty one in node.database_url"
        )
    spool = data_dir / "spool"
    if any(path.is_file() or path.is_symlink() for path in spool.rglob("*")):
        raise Refused(
            f"{spool} holds files already. A restore replaces nothing: move the folder away. If only the database is "
            f"lost, `syncect db load {members[STORE]}` brings it back beside these files"
        )
    identity = data_dir / "installation.json"
    ours = members.get(INSTALLATION)
    if identity.exists() and ours is not None and identity.read_bytes() != ours.read_bytes():
        raise Refused(f"{identity} names another installation than the backup: move it away")
    _require_space(settings, database, manifest)
    write_durably(marker, json.dumps({"backup": manifest.digest}))


def _is_another(database: Database, manifest: Manifest) -> bool:
    """Whether the database holds another store than that of the backup; before its schema is ours nobody can tell."""
    if copies.is_vacant(database) or database.current_revision() != SCHEMA_REVISION:
        return False
    return mark_of_store(database) != manifest.mark


def _refuse_another(marker: Path, manifest: Manifest) -> None:
    try:
        begun = json.loads(marker.read_text(encoding="utf-8"))["backup"]
    except (ValueError, KeyError, TypeError):
        begun = ""
    if begun != manifest.digest:
        raise Refused(
            f"the restore of another backup was begun in {marker.parent}: end it by the same command, or move that "
            "folder away and empty the database"
        )


def _require_space(settings: Settings, database: Database, manifest: Manifest) -> None:
    """The spool and a SQLite file may lie on disks of their own."""
    sizes = {settings.node.data_dir / "spool": manifest.size_bytes}
    if database.is_sqlite:
        sizes[Path(database.location)] = 2 * manifest.members[STORE][0]
    needed, places = Counter[object](), dict[object, Path]()
    for path, size in sizes.items():
        place = nearest_folder(path.resolve())
        needed[_disk_of(place)] += size
        places[_disk_of(place)] = place
    for disk, size in needed.items():
        free = shutil.disk_usage(places[disk]).free
        if free < size:
            raise Refused(f"the backup needs {size / 1e9:.1f} GB in {places[disk]}, and {free / 1e9:.1f} GB are free")


def _disk_of(path: Path) -> object:
    return path.stat().st_dev


# -- the files ---------------------------------------------------------------------------------------------------------


def _fill_spool(
    data_dir: Path, folder: BackupFolder, entries: list[Entry], *, leave_out_damaged: bool, step: Step
) -> dict[str, str]:
    """Copy every file into the spool, or compare it where it lies there; the names of those that are damaged.

    Raises DamagedBackup, and leaves no file, unless these are to be left out.
    """
    spool, damaged = Spool(data_dir / "spool"), {}
    for one in entries:
        step()
        if spool.condition(one.name, one.sha256, one.size_bytes) is Condition.INTACT:
            continue
        target = spool.path(one.name)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            copy_checked(folder.path(one.sha256), target, one.sha256)
        except LostSource as lost:
            damaged[one.name] = f"{folder.path(one.sha256)} is {lost}"
    if damaged and not leave_out_damaged:
        _give_up(data_dir)
        named = [f"{why}: it is {name}" for name, why in list(damaged.items())[:_MOST_NAMED]]
        more = [f"and {len(damaged) - _MOST_NAMED} more"] if len(damaged) > _MOST_NAMED else []
        raise DamagedBackup(*named, *more, "nothing was put in place; --leave-out-damaged restores without these files")
    whole = {spool.root, spool.root / "received", spool.root / "derived"}
    for place in sorted(whole | {spool.path(one.name).parent for one in entries}):
        fsync_folder(place)
    return damaged


def _is_placed(data_dir: Path) -> bool:
    return (data_dir / "spool" / FILE_NAME).exists()


def _give_up(data_dir: Path) -> None:
    if not _is_placed(data_dir):
        for name in ("received", "derived"):  # which held no file before; the spool itself may be a disk of its own
            shutil.rmtree(data_dir / "spool" / name, ignore_errors=True)
        (data_dir / RESTORE_BEGUN).unlink(missing_ok=True)


# -- into their places -------------------------------------------------------------------------------------------------


def _put_in_place(
    settings: Settings, database: Database, manifest: Manifest, members: dict[str, Path], *, now: datetime, step: Step
) -> None:
    data_dir = settings.node.data_dir
    if INSTALLATION in members:
        copy_checked(members[INSTALLATION], data_dir / "installation.json", manifest.members[INSTALLATION][1])
    if not _is_placed(data_dir):
        write_mark(data_dir / "spool", manifest.mark or new_mark())
    fsync_folder(data_dir)
    step()
    if copies.is_vacant(database):
        copies.load(members[STORE], database)
    step()
    schema.upgrade(database)
    restored.settle(database, now)
    _give_to_its_owner(data_dir, database)
    (data_dir / RESTORE_BEGUN).unlink()
    fsync_folder(data_dir)


def _give_to_its_owner(data_dir: Path, database: Database) -> None:
    """What root restores must belong to the user as whom the node runs: whoever owns the data folder."""
    owner = data_dir.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    paths = [*data_dir.rglob("*"), *(data_dir / "spool").resolve().rglob("*")]
    if database.is_sqlite:
        paths += Path(database.location).parent.glob(f"{Path(database.location).name}*")
    for path in paths:
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _differ(config: Path | None, kept: Path | None) -> bool:
    """Whether the settings file in force is another one than that of the backup."""
    ours = config.read_bytes() if config is not None and config.exists() else None
    return ours != (kept.read_bytes() if kept is not None else None)
