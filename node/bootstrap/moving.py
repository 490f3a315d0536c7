"""Moves the store of a stopped node to another database, and says what the settings must name from then on."""

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from config.settings import Settings
from node.bootstrap.store import DataDirUnusable, refuse_while_running
from node.errors import Refused
from storage.copies import Told
from storage.database import Database
from storage.moving import Compared, move


@dataclass(frozen=True)
class Moved:
    """What a move did. setting: the value of node.database_url for the new place, without a password."""

    source: str
    target: str
    setting: str
    tables: tuple[Compared, ...]

    @property
    def is_equal(self) -> bool:
        """Whether every table is the same on both sides, so that the node may use the new place."""
        return all(one.is_equal for one in self.tables)


def move_store(settings: Settings, url: str, now: datetime, told: Told) -> Moved:
    """Copy the store of the settings into the empty database at `url`, and compare both.

    told: called for every batch of rows. Raises Refused, MoveRefused, DataDirUnusable, UnusableUrl and
    StoreUnavailable; the store of the settings is as it was then.
    """
    refuse_while_running(settings)
    with closing(Database(settings.node.url())) as source, closing(Database(url)) as target:
        place = Path(target.location)
        if target.is_sqlite and not place.is_absolute():
            raise Refused(f"name the SQLite file by its whole path, as in sqlite:////var/lib/syncect/{place.name}")
        if source.location == target.location:
            raise Refused(f"the store is at {target.location} already")
        if target.is_sqlite and not place.parent.is_dir():
            raise DataDirUnusable(f"there is no folder {place.parent}")
        tables = move(source, target, now, told)
        is_default = target.is_sqlite and place == (settings.node.data_dir / "syncect.sqlite3").absolute()
        setting = "" if is_default else Database.masked_url(url)
        return Moved(source.location, target.location, setting, tuple(tables))
