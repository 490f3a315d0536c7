"""UserStore keeps who may log in to the status page, how often each was refused, and who is logged in."""

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from storage.database import Database
from storage.errors import IllegalTransition, NotFound, StoreUnavailable
from storage.people_tables import WebSession, WebUser
from storage.roles import Role

FREE_FAILURES: Final = 5  # a person who mistypes waits for nothing
FIRST_LOCK, LONGEST_LOCK = timedelta(seconds=30), timedelta(minutes=15)
SEEN_EVERY: Final = timedelta(seconds=30)  # a page that is looked at must not write to the store at each request
MAX_SESSIONS: Final = 20  # of one person; the oldest goes

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@+\\-]{0,63}")


def user_name(text: str) -> str:
    """A name as it is kept: in lower case. Raises ValueError, with what is allowed."""
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise ValueError("a name has 1 to 64 characters: letters a to z, digits, and . _ @ + - \\ after the first")
    return name


@dataclass(frozen=True)
class User:
    """A person who may log in. secret: the argon2 hash of the password."""

    id: int
    name: str
    full_name: str
    role: Role
    secret: str
    failures: int
    locked_until: datetime | None
    created_at: datetime
    changed_at: datetime

    def is_locked(self, now: datetime) -> bool:
        """Whether no password is accepted at the moment."""
        return self.locked_until is not None and now < self.locked_until


@dataclass(frozen=True)
class LoggedIn:
    """Whom a session belongs to, and what every form of it must carry."""

    name: str
    full_name: str
    role: Role
    csrf: str


class UserStore:
    """The only writer of users and of their sessions. Names are given as `user_name` returns them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- people ------------------------------------------------------------------------------------------------------

    def add(self, name: str, full_name: str, role: Role, secret: str, now: datetime) -> None:
        """Let a person in from now on. Raises IllegalTransition where the name is taken."""
        row = WebUser(name=name, full_name=full_name, role=role, secret=secret, created_at=now, changed_at=now)
        try:
            with self._database.write() as session:
                session.add(row)
        except IntegrityError as error:
            raise IllegalTransition(f"there is a user {name} already") from error

    def all(self) -> list[User]:
        """Everybody, by name."""
        with self._database.read() as session:
            return [_user(row) for row in session.scalars(select(WebUser).order_by(WebUser.name))]

    def any(self) -> bool:
        """Whether anybody may log in."""
        with self._database.read() as session:
            return session.scalar(select(WebUser.id).limit(1)) is not None

    def find(self, name: str) -> User | None:
        """The person of this name."""
        with self._database.read() as session:
            row = session.scalar(select(WebUser).where(WebUser.name == name))
            return None if row is None else _user(row)

    def require(self, name: str) -> None:
        """Raise NotFound where nobody has this name."""
        if self.find(name) is None:
            raise _nobody(name)

    def set_password(self, name: str, secret: str, now: datetime) -> None:
        """A new password, which ends the person's sessions and the lock. Raises NotFound."""
        with self._database.write() as session:
            row = _locked_row(session, name)
            row.secret, row.changed_at, row.failures, row.locked_until = secret, now, 0, None
            session.execute(delete(WebSession).where(WebSession.user_id == row.id))

    def rehash(self, name: str, old: str, new: str) -> None:
        """Keep a stronger hash of the same password, unless it was changed meanwhile."""
        with self._database.write() as session:
            row = _locked_row(session, name)
            if row.secret == old:
                row.secret = new

    def remove(self, name: str, *, even_last_admin: bool) -> None:
        """Let a person in no more; ends his sessions. Raises NotFound, IllegalTransition for the last admin."""
        with self._database.write() as session:
            # Every row is locked: two who remove each other must not both find that another admin is left.
            admins = session.scalars(select(WebUser).where(WebUser.role == Role.ADMIN).with_for_update()).all()
            row = _locked_row(session, name)
            if not even_last_admin and [admin.id for admin in admins] == [row.id]:
                raise IllegalTransition(f"{name} is the last admin; nobody could drop or purge on the page any more")
            session.execute(delete(WebSession).where(WebSession.user_id == row.id))
            session.delete(row)

    # -- logins ------------------------------------------------------------------------------------------------------

    def refused(self, name: str, now: datetime) -> None:
        """Count a wrong password; from the fifth on the name is locked, each time for twice as long."""
        with self._database.write() as session:
            row = session.scalar(select(WebUser).where(WebUser.name == name).with_for_update())
            if row is None:
                return
            row.failures += 1
            if (over := row.failures - FREE_FAILURES) >= 0:
                row.locked_until = now + min(LONGEST_LOCK, FIRST_LOCK * 2 ** min(over, 10))

    def log_in(self, user: User, token: str, csrf: str, address: str, now: datetime) -> bool:
        """Begin a session for a person whose password was right; False where it was changed or locked meanwhile.

        token: the SHA-256 of the cookie's value.
        """
        with self._database.write() as session:
            row = session.scalar(select(WebUser).where(WebUser.id == user.id).with_for_update())
            if row is None or row.secret != user.secret or _user(row).is_locked(now):
                return False
            row.failures, row.locked_until = 0, None
            mine = select(WebSession).where(WebSession.user_id == row.id).order_by(WebSession.made_at.desc())
            for old in session.scalars(mine.offset(MAX_SESSIONS - 1)).all():
                session.delete(old)
            session.add(
                WebSession(token=token, user_id=row.id, csrf=csrf, address=address[:64], made_at=now, seen_at=now)
            )
            return True

    def session(
        self, token: str, now: datetime, *, idle_s: float, most_s: float, extends: bool = True
    ) -> LoggedIn | None:
        """Whose session this is; None where it ended, or was not used for `idle_s`, or is older than `most_s`.

        extends: whether a person did something, rather than the page by itself. A store that can only be read now, such
        as one on a full disk, keeps nobody from looking: the session then ends no later than it would have.
        """
        query = select(WebSession, WebUser).join(WebUser, WebUser.id == WebSession.user_id)
        with self._database.read() as session:
            found = session.execute(query.where(WebSession.token == token)).one_or_none()
        if found is None:
            return None
        row, user = found
        if now - row.seen_at >= timedelta(seconds=idle_s) or now - row.made_at >= timedelta(seconds=most_s):
            with suppress(StoreUnavailable):
                self.end_session(token)
            return None
        if extends and now - row.seen_at >= SEEN_EVERY:
            with suppress(StoreUnavailable), self._database.write() as session:
                if (again := session.get(WebSession, token)) is not None:
                    again.seen_at = now
        return LoggedIn(user.name, user.full_name, user.role, row.csrf)

    def end_session(self, token: str) -> None:
        """Log out; nothing where the session ended already."""
        with self._database.write() as session:
            session.execute(delete(WebSession).where(WebSession.token == token))

    def forget_sessions(self, before: datetime) -> None:
        """Remove the sessions that were made before a moment."""
        with self._database.write() as session:
            session.execute(delete(WebSession).where(WebSession.made_at < before))

    def session_count(self, name: str) -> int:
        """How many browsers a person is logged in with."""
        query = select(func.count()).select_from(WebSession).join(WebUser, WebUser.id == WebSession.user_id)
        with self._database.read() as session:
            return session.scalar(query.where(WebUser.name == name)) or 0


def _locked_row(session: Session, name: str) -> WebUser:
    row = session.scalar(select(WebUser).where(WebUser.name == name).with_for_update())
    if row is None:
        raise _nobody(name)
    return row


def _nobody(name: str) -> NotFound:
    return NotFound(f"there is no user {name}; `syncect users ls` lists them")


def _user(row: WebUser) -> User:
    return User(
        id=row.id,
        name=row.name,
        full_name=row.full_name,
        role=row.role,
        secret=row.secret,
        failures=row.failures,
        locked_until=row.locked_until,
        created_at=row.created_at,
        changed_at=row.changed_at,
    )
