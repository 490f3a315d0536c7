"""What goes into a support bundle: each member is made by one small function of what it is given."""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import storage
from config.settings import Settings
from node.bootstrap.store import Node
from node.operate.cases import case_json
from node.operate.situation import facts, health_of
from node.ops.log_files import FOLDER
from node.ops.processes import running_processes
from node.version import software_version
from storage.forecast import Expected
from storage.inspection import Inspection
from storage.tables import SCHEMA_REVISION

MOST_CASES: Final = 5000
MOST_EVENTS: Final = 10_000
MOST_LOG_BYTES: Final = 8 * 1024**2  # of all files together
MOST_LOG_LINES: Final = 5000  # of each file
_FOLDERS: Final = ("run", "log", "spool/incoming", "spool/received", "spool/derived", "spool/set-aside")
_ROLES: Final = ("serve", "receive", "complete", "work", "deliver", "watch", "query", "web")


def about() -> dict[str, Any]:
    """Version, machine and packages."""
    packages = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
    return {
        "syncect": software_version(),
        "made_at": datetime.now(UTC),
        "python": sys.version,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def status(node: Node) -> dict[str, Any]:
    """As `status --json`."""
    found = facts(node)
    return {**asdict(health_of(node, found)), **found}


def jobs(node: Node, days: int) -> list[dict[str, Any]]:
    """As `jobs ls --json`, of the last days, the newest first."""
    since = datetime.now(UTC) - timedelta(days=days)
    cases = node.overview.cases(since=since, limit=MOST_CASES)
    return [case_json(case, Expected(), phi=False, prefix="") for case in cases]


def events(node: Node) -> list[dict[str, Any]]:
    """The history of what is not at its end."""
    return list(Inspection(node.database).events_of_unfinished(MOST_EVENTS))


def refusals(node: Node) -> list[dict[str, Any]]:
    """What was refused."""
    return Inspection(node.database).refusals(MOST_CASES)


def alerts(node: Node) -> list[Any]:
    """The alerts that are open, and the newest of those that are over."""
    return [asdict(alert) for alert in node.alerts.all(limit=MOST_CASES)]


def database(node: Node) -> dict[str, Any]:
    """Schema, sizes and settings of the database."""
    inspection = Inspection(node.database)
    return {
        "schema": node.database.current_revision(),
        "schema_needed": SCHEMA_REVISION,
        "migrations": _migrations(),
        "journal_mode": inspection.journal_mode(),
        "file_bytes": inspection.file_sizes(),
        "server": inspection.server_settings(),
        "tables": inspection.table_sizes(),
    }


def _migrations() -> list[str]:
    folder = Path(str(storage.__file__)).parent / "migrations" / "versions"
    return sorted(file.stem for file in folder.glob("[0-9]*.py"))


def processes(settings: Settings) -> list[Any]:
    """What the processes of this host say of themselves."""
    return [asdict(view) for view in running_processes(settings.node.data_dir / "run")]


def disk(settings: Settings) -> dict[str, Any]:
    """Files and bytes of each folder of the data folder; no file is named."""
    root = settings.node.data_dir
    found: dict[str, Any] = {name: _usage(root / name) for name in _FOLDERS}
    place = os.statvfs(root if root.exists() else root.absolute().parent)
    found["file_system"] = {
        "free_bytes": place.f_bavail * place.f_frsize,
        "size_bytes": place.f_blocks * place.f_frsize,
        "free_inodes": place.f_favail,
    }
    return found


def _usage(folder: Path) -> dict[str, int]:
    files, size_bytes = 0, 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                size_bytes += (Path(place) / name).lstat().st_size
            except OSError:
                continue
            files += 1
    return {"files": files, "bytes": size_bytes}


# -- logs ----------------------------------------------------------------------------------------------------------


def logs(settings: Settings, clean: Callable[[Any], Any]) -> dict[str, str]:
    """The newest lines of each log file, by member; `clean` is called with each line, as JSON where it is JSON."""
    files = [
        (role, file)
        for role in _ROLES
        for file in sorted((settings.node.data_dir / FOLDER).glob(f"{role}-*.jsonl*"), key=_modified, reverse=True)
        if file.is_file()
    ]
    share = MOST_LOG_BYTES // max(1, len(files))
    found, numbers = {}, dict.fromkeys(_ROLES, 0)
    for role, file in files:
        numbers[role] += 1  # its own name may hold what somebody typed
        lines = _tail(file, share)
        found[f"log/{role}-{numbers[role]}.jsonl"] = "".join(f"{_line(line, clean)}\n" for line in lines)
    return found


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _tail(file: Path, most_bytes: int) -> list[str]:
    """The last whole lines of a file."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - most_bytes))
        lines = stream.read(most_bytes).decode("utf-8", errors="replace").splitlines()
    return lines[1:][-MOST_LOG_LINES:] if size > most_bytes else lines[-MOST_LOG_LINES:]


def _line(line: str, clean: Callable[[Any], Any]) -> str:
    try:
        value = json.loads(line)
    except ValueError:
        return str(clean(line))
    return json.dumps(clean(value), ensure_ascii=False)


def as_json(value: Any) -> str:
    """A member as text."""
    return json.dumps(plain(value), indent=1, ensure_ascii=False) + "\n"


def plain(value: Any) -> Any:
    """A value as JSON has it: dataclasses and times too."""
    return json.loads(json.dumps(value, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)
