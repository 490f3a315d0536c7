"""Which object store this host shares its files in, settled once: afterwards a start does not wait for it."""

import json
import uuid
from typing import Final

from config.settings import Settings
from config.spool import SpoolSettings
from node.network.secret_file import UnusableSecret, read_secret
from storage.database import Database
from storage.errors import ObjectsUnavailable, WrongStore
from storage.mark import holds_files, mark_of_bucket, mark_of_spool, settle_bucket
from storage.objects import Objects, open_objects
from storage.spool import write_durably

PLACE_FILE: Final = "objects.json"
"""In the spool: the bucket with which this host settled."""

INSTALLATION_FILE: Final = "installation.json"
"""In the data folder and in the bucket: results name the node and not the host that made them."""


def objects_of(settings: SpoolSettings) -> Objects:
    """The object store of the settings; nothing is asked of it yet."""

    def credentials() -> tuple[str, str] | None:
        if settings.credentials_file is None:
            return None
        try:
            name, colon, secret = read_secret(settings.credentials_file).partition(":")
        except UnusableSecret as error:
            raise ObjectsUnavailable(str(error)) from None
        if not (name and colon and secret):
            raise ObjectsUnavailable(f"{settings.credentials_file} holds no ACCESS_KEY_ID:SECRET_ACCESS_KEY")
        return name, secret

    return open_objects(settings, credentials)


class SharedPlace:
    """The bucket of the settings as this host knows it."""

    def __init__(self, settings: Settings) -> None:
        self._data_dir, self._url = settings.node.data_dir, settings.spool.url
        self._spool = settings.node.data_dir / "spool"
        self._place = json.dumps({"url": settings.spool.url, "endpoint": settings.spool.endpoint})
        self._objects = objects_of(settings.spool)

    @property
    def is_settled(self) -> bool:
        """Whether this host has settled with the bucket before."""
        path = self._spool / PLACE_FILE
        return path.exists() and path.read_text(encoding="utf-8") == self._place

    def settle_installation(self) -> None:
        """See that this host names results by the installation of the bucket. Raises ObjectsUnavailable."""
        if self.is_settled:
            return
        path = self._data_dir / INSTALLATION_FILE
        proposal = path.read_bytes() if path.exists() else json.dumps({"uid": f"2.25.{uuid.uuid4().int}"}).encode()
        self._objects.put_new(INSTALLATION_FILE, proposal)
        if not path.exists() and (found := self._objects.head(INSTALLATION_FILE)) is not None:
            data = self._objects.get(INSTALLATION_FILE, 0, found.size_bytes) or b""
            write_durably(path, data.decode(errors="replace"))

    def settle(self, database: Database, *, shares: bool) -> None:
        """See that bucket, store and folder belong together; `shares`: what lies here is about to be put there.

        Raises WrongStore or ObjectsUnavailable.
        """
        if self.is_settled:
            return
        settle_bucket(database, self._spool, self._objects, self._url)
        if shares:
            return
        if holds_files(self._spool):
            raise WrongStore(
                f"files of the spool {self._spool} are not yet in {self._url}, where other hosts look for them: "
                "`syncect spool share` puts them there, once"
            )
        self.note()

    def join(self, database: Database) -> None:
        """Settle a host that has neither served nor any file, before a command fetches files to it.

        Else nobody could tell later whose these files are, and the host would not know the installation. Nothing is
        done where no host has settled with the bucket. Raises WrongStore or ObjectsUnavailable.
        """
        is_new = mark_of_spool(self._spool) is None and not holds_files(self._spool)
        if is_new and mark_of_bucket(self._objects) is not None:
            self.settle_installation()
            self.settle(database, shares=False)

    def note(self) -> None:
        """Write down that this host settled with the bucket."""
        self._spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(self._spool / PLACE_FILE, self._place, replace=True)
