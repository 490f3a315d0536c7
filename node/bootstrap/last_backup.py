"""What the node knows of its last backup: a file in the data folder, which `backup` writes and `doctor` reads."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from storage.spool import write_durably

_FILE: Final = "backup.json"


@dataclass(frozen=True)
class Noted:
    """When a backup was made, into which folder, and how many files that the store needs were in no place any more."""

    made_at: datetime
    folder: str
    missing: int


def note_backup(data_dir: Path, noted: Noted) -> str:
    """Write it down; why that could not be done, "" where it was. The backup is good in any case."""
    path = data_dir / _FILE
    values = {"made_at": noted.made_at.astimezone(UTC).isoformat(), "folder": noted.folder, "missing": noted.missing}
    try:
        write_durably(path, json.dumps(values), replace=True)
        if os.geteuid() == 0:  # the next backup may be the node's user's
            owner = data_dir.stat()
            os.chown(path, owner.st_uid, owner.st_gid)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def last_backup(data_dir: Path) -> Noted | None:
    """The last one that was made; None where none is known, or the file is damaged. Raises OSError."""
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        values = json.loads((data_dir / _FILE).read_text(encoding="utf-8"))
        return Noted(datetime.fromisoformat(values["made_at"]).astimezone(UTC), values["folder"], values["missing"])
    return None
