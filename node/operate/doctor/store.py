"""Checks of the database, of the spool against it, and of what stands in it for a person."""

import time
from datetime import UTC, datetime
from typing import Final

from config.settings import Settings
from node.bootstrap.last_backup import last_backup
from node.bootstrap.store import Node, why_not_together
from node.operate.doctor.report import Line, Lines, Mark
from node.operate.texts import span, zone_of
from node.operate.turns import pause_words, resume_command
from node.ops.alerts import urgency
from node.ops.spool_check import SpoolCheck
from storage.database import Database
from storage.errors import ObjectsUnavailable, SchemaMismatch, StorageError, UnusableUrl
from storage.inspection import Inspection
from storage.mark import missing_store, moved_away
from storage.tables import SCHEMA_REVISION

CHECK_S: Final = 4.0  # for SQLite to look through its file
_OTHER_URL: Final = "correct node.database_url"
_LARGE_WAL_BYTES: Final = 256 * 1024**2
_CLOCKS_APART_S: Final = 5.0
_SPOOL_S: Final = 3.0
_BACKUP_LATE_S: Final = 2 * 86400.0  # two nights


def database(settings: Settings) -> Lines:
    """Whether it answers, has this version's tables, is sound, keeps what was committed, and is that of the spool."""
    spool = settings.node.data_dir / "spool"
    try:
        opened = Database(settings.node.url(), read_only=True)
    except StorageError as error:
        yield Line("database", Mark.FAIL, str(error), _OTHER_URL)
        return
    try:
        opened.require_sessions()
        if not opened.has_schema():
            if why := missing_store(opened.location, spool):
                yield Line("database", Mark.FAIL, why, "put the database back, or `syncect db rebuild`")
            else:
                yield Line("database", Mark.OK, f"no store at {opened.location} yet; the first start makes it")
            return
        yield from _answering(opened)
        if moved := moved_away(opened):
            remedy = f"{_OTHER_URL}; `syncect db adopt` where this store shall be used again"
            yield Line("database", Mark.FAIL, moved, remedy)
        elif why := why_not_together(settings, opened):
            yield Line(
                "database", Mark.FAIL, why, "mount the disk of the spool, or put the database back that belongs to it"
            )
    except SchemaMismatch as error:
        yield Line("database", Mark.FAIL, str(error), "`syncect db backup FILE`, then `syncect db upgrade`")
    except UnusableUrl as error:
        yield Line("database", Mark.FAIL, str(error), _OTHER_URL)
    except StorageError as error:
        remedy = "restore a backup, or `syncect db rebuild`" if opened.is_sqlite else "is the server on? (`pg_isready`)"
        yield Line("database", Mark.FAIL, str(error), remedy)
    finally:
        opened.close()


def _answering(opened: Database) -> Lines:
    inspection = Inspection(opened)
    began_s = time.monotonic()
    opened.current_revision()
    answered_ms = (time.monotonic() - began_s) * 1000
    yield Line("database", Mark.OK, f"{opened.location}, schema {SCHEMA_REVISION}, answers in {answered_ms:.0f} ms")
    if opened.is_sqlite:
        yield from _sqlite(inspection)
    else:
        yield from _postgresql(inspection)


def _sqlite(inspection: Inspection) -> Lines:
    sizes = inspection.file_sizes()
    mode, wal_bytes = inspection.journal_mode(), sizes.get("wal", 0)
    words = f"SQLite, journal mode {mode}, {_mb(sizes.get('database', 0))}, log {_mb(wal_bytes)}"
    if wal_bytes > _LARGE_WAL_BYTES:
        yield Line("database", Mark.WARN, words, "a reader holds the log: end old commands, then restart the node")
    elif mode not in ("wal", "delete"):
        yield Line("database", Mark.WARN, words, "restart the node: it sets journal mode wal")
    else:
        yield Line("database", Mark.OK, words)
    if inspection.is_whole(CHECK_S - 0.5):
        yield Line("database", Mark.OK, "SQLite finds its file sound (quick_check)")
    else:
        found = f"too large to be looked through within {CHECK_S - 0.5:g} s"
        yield Line("database", Mark.SKIP, found, "`syncect config validate` looks through all of it")


def _postgresql(inspection: Inspection) -> Lines:
    found = inspection.server_settings()
    words = "PostgreSQL " + ", ".join(f"{key} {value}" for key, value in found.items())
    off = [key for key in ("fsync", "synchronous_commit", "full_page_writes") if found[key] == "off"]
    if off:
        remedy = f"set {', '.join(off)} = on: a power cut loses images that were answered as stored"
        yield Line("database", Mark.FAIL, words, remedy)
    elif int(found["connections"]) > 0.9 * int(found["max_connections"]):
        yield Line("database", Mark.WARN, words, "raise max_connections, or end other programs' connections")
    else:
        yield Line("database", Mark.OK, words)
    before, theirs = datetime.now(UTC), inspection.server_time()
    assert theirs is not None
    apart_s = (theirs - before).total_seconds()
    words = f"the clock of the database is {abs(apart_s):.1f} s {'ahead of' if apart_s > 0 else 'behind'} this one's"
    if abs(apart_s) > _CLOCKS_APART_S:
        yield Line("database", Mark.WARN, words, "set both by the same time server")
    else:
        yield Line("database", Mark.OK, words)


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:.1f} MB"


def spool(node: Node) -> Lines:
    """Whether the newest files that the store names are there with their sizes; no content is read."""
    check = SpoolCheck(node.spool, node.database)
    total = check.count()
    try:
        looked, missing = check.glance(time.monotonic() + _SPOOL_S)
    except ObjectsUnavailable as error:
        yield Line("spool", Mark.FAIL, f"the newest files could not be looked for: {error}", "see the line below")
        return
    full = "`syncect spool verify` reads every file"
    if missing:
        found = f"{len(missing)} of {looked} files are gone or have another size, such as {missing[0].name}"
        yield Line("spool", Mark.FAIL, found, f"{full}, `syncect spool repair --yes` mends what can be mended")
    else:
        yield Line("spool", Mark.OK, f"{looked} of {total} files are there with their sizes; {full}")


def backup(node: Node) -> Lines:
    """When the last backup was made; nobody looks at one that stopped being made."""
    if node.is_new:
        yield Line("backup", Mark.SKIP, "there is no store yet")
        return
    last = last_backup(node.settings.node.data_dir)
    if last is None:
        yield Line(
            "backup", Mark.WARN, "none is known of this node", "`syncect backup DIR`, and let it be made each night"
        )
        return
    age_s = (datetime.now(UTC) - last.made_at).total_seconds()
    found = f"the last one is of {last.made_at:%Y-%m-%d %H:%M} UTC, {span(max(age_s, 0.0))} ago, in {last.folder}"
    if last.missing:
        found = f"{found}, and lacks {last.missing} files that the store needs"
        yield Line("backup", Mark.WARN, found, "`syncect spool verify` names them")
    elif age_s > _BACKUP_LATE_S:
        yield Line(
            "backup", Mark.WARN, found, "what makes it? (`systemctl status syncect-backup`), or `syncect backup DIR`"
        )
    elif age_s < -_CLOCKS_APART_S:
        yield Line("backup", Mark.WARN, f"{found}, by a clock that was ahead", "set the clock; make a new backup")
    else:
        yield Line("backup", Mark.OK, found)


def alerts(node: Node) -> Lines:
    """The alerts that are open, the most urgent first."""
    standing = sorted(node.alerts.open(), key=urgency)
    for alert in standing[:5]:
        known = alert.acknowledged_at is not None
        state = Mark.OK if known else Mark.WARN
        remedy = "" if known else "mend it, or say that you know: `syncect alerts ack`"
        yield Line("alerts", state, f"{alert.kind}: {alert.text}", remedy)
    if len(standing) > 5:
        yield Line("alerts", Mark.WARN, f"{len(standing) - 5} more are open", "`syncect alerts ls`")
    if not standing:
        yield Line("alerts", Mark.OK, "none is open")


def pauses(node: Node) -> Lines:
    """What takes nothing new because a person paused it."""
    found = node.pauses.all()
    for pause in found:
        yield Line("pauses", Mark.WARN, pause_words(pause, zone_of(node.settings)), resume_command(pause))
    if not found:
        yield Line("pauses", Mark.OK, "nothing is paused")
