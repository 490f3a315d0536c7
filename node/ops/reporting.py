"""A process tells the store how it is, so that it is known on every host; on PostgreSQL only.

Its lock file (`node.ops.processes`) says more, but only on its own host, where nobody needs the store to see it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime

from node.ops.processes import Sign, process_name
from storage.database import Database
from storage.errors import SchemaMismatch, StorageError, StoreUnavailable
from storage.hosts import REPORT_EVERY_S, HostStore, ReportedProcess
from storage.outage import Outage


@contextmanager
def reported(database: Database, sign: Sign, version: str) -> Iterator[None]:
    """Report the process of a lock file while the block runs, and that it left at its end."""
    if database.is_sqlite:
        yield
        return
    ends, store = threading.Event(), HostStore(database)
    thread = threading.Thread(target=_report, args=(database, store, sign, version, ends), name="reports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
        with suppress(StorageError):  # then its row grows old
            store.leave(_named(sign), sign.view.pid)


def _report(database: Database, store: HostStore, sign: Sign, version: str, ends: threading.Event) -> None:
    outage, pause_s = Outage("the report of this process"), 0.0
    while not ends.wait(pause_s):
        try:
            store.report(_report_of(sign, version, database.now()))
            outage.over()
            pause_s = REPORT_EVERY_S
        except StoreUnavailable as error:
            pause_s = outage.failed(error)
        except SchemaMismatch as error:  # the process has been told to end
            outage.failed(error)
            return


def _report_of(sign: Sign, version: str, now: datetime) -> ReportedProcess:
    view = sign.view
    beats = [asdict(beat) for beat in view.beats]
    started_at = datetime.fromisoformat(view.started_at)
    return ReportedProcess(
        _named(sign), view.host[:64], view.role, view.pid, version[:64], view.details, beats, started_at, now
    )


def _named(sign: Sign) -> str:
    return process_name(sign.view.role, sign.view.name)
