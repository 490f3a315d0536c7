"""Checks of the object store in which the hosts of a node share their files."""

import time
import uuid
from importlib.util import find_spec
from typing import Final

from config.settings import Settings
from node.bootstrap.shared import SharedPlace, objects_of
from node.operate.doctor.report import Line, Lines, Mark
from storage.errors import ObjectsUnavailable

CHECK_S: Final = 15.0
_NAME: Final = "object store"


def object_store(settings: Settings) -> Lines:
    """Whether a small object can be put, read, and removed, and whether this host has settled with the bucket."""
    if not settings.spool.url:
        yield Line(_NAME, Mark.SKIP, "spool.url is not set: all files lie in the data folder of this host")
        return
    if find_spec("obstore") is None:
        yield Line(_NAME, Mark.FAIL, "the package obstore is not installed", "install syncect[objects]")
        return
    where, key, data = settings.spool.url, f"probe/{uuid.uuid4().hex}", uuid.uuid4().bytes
    begun_s = time.perf_counter()
    try:
        objects = objects_of(settings.spool)
        objects.put(key, data)
        put_ms = (time.perf_counter() - begun_s) * 1000
        is_same = objects.get(key, 0, len(data)) == data
        listed = [found.key for found in objects.list("probe")]
        objects.delete([key])
        is_gone = objects.head(key) is None
    except ObjectsUnavailable as error:
        remedy = "correct [spool] of the settings, or start the server; meanwhile C-STORE is answered with A700"
        yield Line(_NAME, Mark.FAIL, f"{where}: {error}", remedy)
        return
    wrong = [
        what for what, is_right in (("read", is_same), ("listed", key in listed), ("removed", is_gone)) if not is_right
    ]
    if wrong:
        found = f"{where} took an object that could not be {' or '.join(wrong)} afterwards"
        yield Line(_NAME, Mark.FAIL, found, "the node needs a store that shows at once what was put or removed")
        return
    yield Line(_NAME, Mark.OK, f"{where}: an object was put in {put_ms:.0f} ms, read, listed and removed")
    if not SharedPlace(settings).is_settled:
        remedy = "the next start of a process on this host settles that"
        yield Line(_NAME, Mark.WARN, f"this host has not worked with {where} yet", remedy)
