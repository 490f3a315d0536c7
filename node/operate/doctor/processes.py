"""Checks of the processes: those that must run do, on this host or another, they respond, and are of this version."""

import importlib.metadata
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from config.settings import Settings
from node.operate.doctor.report import Line, Lines, Mark
from node.operate.situation import silence, waits
from node.operate.texts import one_line
from node.ops.alert_rules import silent_words
from node.ops.health import ROLES, roles_of
from node.ops.processes import ProcessView, roles_elsewhere, running_processes, working_roles
from storage.database import Database
from storage.errors import StorageError
from storage.hosts import Host, HostStore

_LOG = "its log says why (`journalctl -u syncect`)"


def processes(settings: Settings) -> Lines:
    """What runs, what does not although it should, what is silent, and what an older version left running."""
    views = running_processes(settings.node.data_dir / "run")
    waiting = {one.role: one for view in views for one in view.waiting}
    working = working_roles(views)
    hosts = _hosts(settings)
    elsewhere = roles_elsewhere(views, hosts)
    missing = [role for role in roles_of(settings) if role not in working | elsewhere]
    for role in missing:
        if role in waiting:
            yield Line(
                "processes", Mark.FAIL, f"{ROLES[role]} does not run {waits(waiting[role])}", "mend that; " + _LOG
            )
    if unexplained := [ROLES[role] for role in missing if role not in waiting]:
        found = f"not running: {', '.join(unexplained)}"
        yield Line("processes", Mark.FAIL, found, "start the node (`systemctl start syncect`, or `syncect serve`)")
    for view in views:
        yield _one(view)
    if away := [ROLES[role] for role in roles_of(settings) if role in elsewhere - working]:
        yield Line("processes", Mark.OK, f"on other hosts: {', '.join(away)}")
    for host in hosts:
        for words in silent_words(host).values():
            yield Line(
                "processes", Mark.WARN, words, f"start it again, or `syncect hosts forget {one_line(host.name)}`"
            )
    installed = _installed_at()
    old = [view for view in views if installed and view.start < installed]
    if old:
        names = ", ".join(f"{view.role} (pid {view.pid})" for view in old)
        found = f"started before this version was installed ({installed:%Y-%m-%d %H:%M} UTC): {names}"
        yield Line("processes", Mark.WARN, found, "restart the node (`systemctl restart syncect`)")


def _hosts(settings: Settings) -> Sequence[Host]:
    """Every host of the node; none where the store cannot be read, of which the line `database` tells."""
    with suppress(StorageError):
        database = Database(settings.node.url(), read_only=True)
        try:
            return HostStore(database).all() if database.has_schema() else []
        finally:
            database.close()
    return []


def _one(view: ProcessView) -> Line:
    who = f"{ROLES.get(view.role, view.role)}, pid {view.pid}"
    if words := silence(view):
        return Line("processes", Mark.FAIL, f"{who}, is {words}", f"serve ends it and starts it anew; {_LOG}")
    if view.waits_for_database:
        return Line("processes", Mark.WARN, f"{who}, waits for the database", "see the line `database`")
    if view.cannot_work:
        return Line("processes", Mark.FAIL, f"{who}: {view.details}", "see the lines `device` and `bundle`")
    return Line("processes", Mark.OK, f"{who}: {view.details or 'runs'}")


def _installed_at() -> datetime | None:
    """When the package was installed, UTC; None where that cannot be known."""
    try:
        files = importlib.metadata.distribution("syncect").files or ()
        record = next((Path(str(file.locate())) for file in files if file.name == "RECORD"), None)
        return None if record is None else datetime.fromtimestamp(record.stat().st_mtime, UTC)
    except (OSError, importlib.metadata.PackageNotFoundError):
        return None
