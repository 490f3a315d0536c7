"""The tables of people: who may use the status page, what they did there, and what they decided about bundles."""

from datetime import datetime

from sqlalchemy import Enum, ForeignKey, Integer
from sqlalchemy.orm import Mapped, mapped_column

from storage.column_types import CleanString, CleanText, UtcDateTime
from storage.roles import Role
from storage.tables import SHA256, Base


class WebUser(Base):
    """A person who may log in to the status page. secret: the argon2 hash of the password.

    failures: refused logins since the last accepted one; until `locked_until` no password is accepted.
    """

    __tablename__ = "web_user"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(CleanString(64), unique=True)
    full_name: Mapped[str] = mapped_column(CleanText, default="", server_default="")
    role: Mapped[Role] = mapped_column(Enum(Role, native_enum=False, length=16, create_constraint=True, name="role"))
    secret: Mapped[str] = mapped_column(CleanText)
    failures: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    locked_until: Mapped[datetime | None] = mapped_column(UtcDateTime, default=None)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WebSession(Base):
    """A browser that is logged in; token: the SHA-256 of what its cookie holds, so that no reader can use it."""

    __tablename__ = "web_session"

    token: Mapped[str] = mapped_column(SHA256, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("web_user.id"), index=True)
    csrf: Mapped[str] = mapped_column(CleanString(64))
    address: Mapped[str] = mapped_column(CleanString(64))
    made_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AuditRow(Base):
    """What a person did or looked at on the status page. Never patient data; case_id: as `jobs ls` shows it, or ""."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    who: Mapped[str] = mapped_column(CleanString(64), index=True)
    address: Mapped[str] = mapped_column(CleanString(64))
    action: Mapped[str] = mapped_column(CleanString(32))
    case_id: Mapped[str] = mapped_column(CleanString(32), default="", server_default="")
    outcome: Mapped[str] = mapped_column(CleanString(16))
    detail: Mapped[str] = mapped_column(CleanText, default="", server_default="")


class AcceptanceRow(Base):
    """A decision of a person about one bundle: it may be used for patients, or no longer. The newest one counts.

    decision: ACCEPTED or WITHDRAWN. bundle_digest: of the bundle's card, hex. report_sha256: of the commissioning
    report that was signed, "" for a withdrawal.
    """

    __tablename__ = "acceptance"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    bundle: Mapped[str] = mapped_column(CleanString(120))
    bundle_digest: Mapped[str] = mapped_column(SHA256, index=True)
    decision: Mapped[str] = mapped_column(CleanString(16))
    who: Mapped[str] = mapped_column(CleanString(64))
    report_sha256: Mapped[str] = mapped_column(SHA256, default="", server_default="")
    note: Mapped[str] = mapped_column(CleanText, default="", server_default="")
