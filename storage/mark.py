"""A store and its spool carry the same random name, so that neither is used with another's, or beside an empty one.

The spool keeps it in `store.json`, which is written first: after a crash in between the store takes the spool's name.
"""

import json
import uuid
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from sqlalchemy import delete, exists, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from storage.database import Database
from storage.errors import StoreUnavailable, WrongStore
from storage.objects import Objects
from storage.shared_spool import MARK
from storage.spool import write_durably
from storage.tables import Series, StoreMark

FILE_NAME = "store.json"
_WAY_OUT = (
    "Put back the database, or restore its backup (`syncect db load FILE`). If there is none, `syncect db rebuild` "
    "makes a store of the files in the spool"
)


def settle_mark(database: Database, spool: Path, now: datetime) -> str:
    """The mark that store and spool share; a new or upgraded pair gets one. Raises WrongStore or StoreUnavailable."""
    problem = mismatch(database, spool)
    if problem is not None:
        raise WrongStore(problem)
    mark = mark_of_store(database) or mark_of_spool(spool)
    if mark is None:
        mark = new_mark()
    if mark_of_spool(spool) is None:
        mark = write_mark(spool, mark)
    with suppress(IntegrityError), database.write() as session:  # another process was first, with the same mark
        if session.scalar(select(StoreMark.uid)) is None:
            session.add(StoreMark(uid=mark, made_at=now))
    return mark


def adopt_mark(database: Database, spool: Path, now: datetime) -> str:
    """Give a store the mark of a spool, or the spool that of the store where it has none; the mark."""
    mark = mark_of_spool(spool) or write_mark(spool, mark_of_store(database) or new_mark())
    with database.write() as session:
        session.execute(delete(StoreMark))
        session.add(StoreMark(uid=mark, made_at=now))
    return mark


def mismatch(database: Database, spool: Path) -> str | None:
    """Why this store must not be used with this spool, in sentences; None where it may. Raises StoreUnavailable."""
    if why := moved_away(database):
        return why
    ours, theirs = mark_of_store(database), mark_of_spool(spool)
    if ours is not None and ours == theirs:
        return None
    with database.read() as session:
        is_empty = not session.scalar(select(exists(select(Series.id))))
    if ours is None and is_empty:
        return _beside_files(database, spool)
    if ours is None or (theirs is None and is_empty):
        return None
    if theirs is None:
        return (
            f"the spool {spool} has no mark of a store, but the store {database.location} knows series that came into "
            "a spool: is its disk mounted? If the files are really gone, `syncect db adopt` lets the node begin without"
        )
    return (
        f"the store {database.location} belongs to another spool than {spool}: their marks differ. {_WAY_OUT}; if you "
        "know that they belong together, `syncect db adopt` says so"
    )


def missing_store(location: str, spool: Path) -> str | None:
    """Why no new store may be made at `location`; None where the spool holds nothing."""
    if not holds_files(spool):
        return None
    return f"there is no store at {location}, but the spool {spool} holds files. {_WAY_OUT}"


def knows_nothing_of(spool: Path, database: Database) -> str | None:
    """Why no mark makes this store that of the spool: it is missing or empty, and there are files. None where it may.

    Raises SchemaMismatch.
    """
    if not database.has_schema():
        return missing_store(database.location, spool)
    with database.read() as session:
        is_empty = not session.scalar(select(exists(select(Series.id))))
    return _beside_files(database, spool) if is_empty else None


def _beside_files(database: Database, spool: Path) -> str | None:
    if not holds_files(spool):
        return None
    return f"the store {database.location} is empty, but the spool {spool} holds files. {_WAY_OUT}"


def holds_files(spool: Path) -> bool:
    """Whether the spool holds a received instance or a result."""
    received, derived = spool / "received", spool / "derived"
    return any(True for _ in received.glob("*/*.dcm")) or any(True for _ in derived.glob("*/*.dcm"))


def note_move(session: Session, uid: str, place: str, now: datetime) -> None:
    """Write into a store that all its rows are at `place` since now, in the caller's transaction.

    uid: the mark for a store that has none yet.
    """
    if session.scalar(select(StoreMark.uid)) is None:
        session.add(StoreMark(uid=uid, made_at=now))
        session.flush()
    session.execute(update(StoreMark).values(moved_to=place, moved_at=now))


def moved_away(database: Database) -> str | None:
    """Where the rows of a store went by `note_move`, in sentences; None where they are here."""
    with database.read() as session:
        row = session.execute(select(StoreMark.moved_to, StoreMark.moved_at).where(StoreMark.moved_to != "")).first()
    if row is None:
        return None
    place, at = row
    return (
        f"the store {database.location} was moved to {place} at {at:%Y-%m-%d %H:%M} UTC, and what happened since then "
        "is only there: name that database in node.database_url. If you must go back to this one without what happened "
        "since then, stop the node, keep a copy of that database, and run `syncect db adopt` with the settings that "
        "name this one"
    )


def settle_bucket(database: Database, spool: Path, objects: Objects, place: str) -> None:
    """See that a store, the folder of this host and the bucket `place` have one mark; a new one of them gets it.

    Raises WrongStore, StoreUnavailable or ObjectsUnavailable.
    """
    ours, here = mark_of_store(database), mark_of_spool(spool)
    if ours is None and any(objects.folders(folder) for folder in ("received", "derived")):
        raise WrongStore(f"the store {database.location} is new, but {place} holds files. {_WAY_OUT}")
    if (there := mark_of_bucket(objects)) is None:
        objects.put_new(MARK, json.dumps({"uid": ours or here or new_mark()}).encode())
        there = mark_of_bucket(objects)  # another host may have been first
    if there is None or any(mark not in (None, there) for mark in (ours, here)):
        raise WrongStore(
            f"{place} belongs to another node than the store {database.location} or the spool {spool}: their marks "
            "differ. Each node needs a bucket or a prefix of its own"
        )
    if here is None:
        write_mark(spool, there)


def mark_of_bucket(objects: Objects) -> str | None:
    """The mark in a bucket; None where there is none, "" for one that cannot be read. Raises ObjectsUnavailable."""
    found = objects.head(MARK)
    data = objects.get(MARK, 0, found.size_bytes) if found is not None and found.size_bytes else None
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(data)["uid"]) if data is not None else None
    return ""


def mark_bucket(objects: Objects, mark: str) -> None:
    """Give a bucket another mark. Raises ObjectsUnavailable."""
    objects.put(MARK, json.dumps({"uid": mark}).encode())


def new_mark() -> str:
    """A random UID."""
    return f"2.25.{uuid.uuid4().int}"


def mark_of_store(database: Database) -> str | None:
    """The mark in the store; None where it has none yet."""
    with database.read() as session:
        return session.scalar(select(StoreMark.uid))


def mark_of_spool(spool: Path) -> str | None:
    """The mark beside the files; None where there is none yet. Raises StoreUnavailable for one that cannot be read."""
    path = spool / FILE_NAME
    try:
        mark = json.loads(path.read_text(encoding="utf-8"))["uid"]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnavailable(f"the spool's mark {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreUnavailable(f"the spool's mark {path} is damaged; remove it and run `syncect db adopt`") from error
    return str(mark)


def write_mark(spool: Path, mark: str, *, replace: bool = False) -> str:
    """Write the mark durably; without `replace` one that is there already stays. The mark that holds."""
    spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_durably(spool / FILE_NAME, json.dumps({"uid": mark}), replace=replace)
    held = mark_of_spool(spool)
    assert held is not None
    return held
