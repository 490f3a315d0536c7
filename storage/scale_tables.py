"""The tables of a node on several hosts: what a person paused, and which processes run where.

Like those of `storage.tables` they have no behaviour, and all instants are UTC.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Integer, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from storage.column_types import CleanJson, CleanString, CleanText, UtcDateTime
from storage.tables import Base


class PauseRow(Base):
    """A stage that takes nothing new, on one host or, where `host` is "", on all, until a person resumes it.

    stage: a `storage.states.Stage`. drains: whether the host is being emptied, so that it can be switched off.
    """

    __tablename__ = "pause"
    __table_args__ = (UniqueConstraint("stage", "host"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    stage: Mapped[str] = mapped_column(CleanString(16))
    host: Mapped[str] = mapped_column(CleanString(64), default="", server_default="")
    drains: Mapped[bool] = mapped_column(default=False, server_default="0")
    actor: Mapped[str] = mapped_column(CleanString(80))
    reason: Mapped[str] = mapped_column(CleanText, default="", server_default="")
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class TallyRow(Base):
    """How many rows or cases were in each settled state at a moment, counted ahead of readers (`storage.tallies`)."""

    __tablename__ = "tally"

    name: Mapped[str] = mapped_column(CleanString(16), primary_key=True)
    counts: Mapped[dict[str, int]] = mapped_column(CleanJson, default=dict, server_default="{}")
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class ProcessRow(Base):
    """A process of the node as it last reported itself; where `seen_at` is old, it or its host is gone.

    name: as it stands in the leases of jobs. beats: what it works at, as `node.beats.Beat` has it. details: what it
    works with, such as the device.
    """

    __tablename__ = "process"

    name: Mapped[str] = mapped_column(CleanString(80), primary_key=True)
    host: Mapped[str] = mapped_column(CleanString(64), index=True)
    role: Mapped[str] = mapped_column(CleanString(16))
    pid: Mapped[int] = mapped_column(Integer)
    version: Mapped[str] = mapped_column(CleanString(64), default="", server_default="")
    details: Mapped[str] = mapped_column(CleanText, default="", server_default="")
    beats: Mapped[list[dict[str, Any]]] = mapped_column(CleanJson, default=list, server_default="[]")
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
