"""What a series, a job, a delivery and a peer need for the events that the first node did not record."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_FOREIGN_UIDS = (("series", "series_uid"), ("series", "study_uid"), ("refusal", "series_uid"))
_ADDED: dict[str, list[sa.Column[object]]] = {
    "series": [
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("ignored", sa.Integer(), server_default="0", nullable=False),
        sa.Column("expected", sa.Integer(), nullable=True),
    ],
    "job": [
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("doubt", sa.Text(), server_default="", nullable=False),
        sa.Column("override", sa.Text(), server_default="", nullable=False),
        sa.Column("patient", sa.JSON(), server_default="{}", nullable=False),
        sa.Column("remarks", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("progress", sa.JSON(), server_default="{}", nullable=False),
        sa.Column("series_number", sa.Integer(), nullable=True),
        sa.Column("series_description", sa.Text(), server_default="", nullable=False),
    ],
    "delivery": [sa.Column("leftover", sa.String(length=12), server_default="", nullable=False)],
}


def upgrade() -> None:
    """Bring the schema one revision forward."""
    for table, columns in _ADDED.items():
        for column in columns:
            op.add_column(table, column.copy())
    op.create_index(op.f("ix_delivery_leftover"), "delivery", ["leftover"], unique=False)
    _resize_foreign_uids(64, 128)
    op.create_table(
        "lost_instance",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("association_id", sa.Integer(), nullable=True),
        sa.Column("series_uid", sa.String(length=128), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["association_id"], ["association.id"], name=op.f("fk_lost_instance_association_id_association")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lost_instance")),
        sa.UniqueConstraint(
            "series_uid", "sop_instance_uid", name=op.f("uq_lost_instance_series_uid_sop_instance_uid")
        ),
    )
    op.create_index(op.f("ix_lost_instance_association_id"), "lost_instance", ["association_id"], unique=False)
    op.create_table(
        "sender",
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("pause_s", sa.Float(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("calling_ae", name=op.f("pk_sender")),
    )
    op.create_table(
        "peer_state",
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_peer_state")),
    )


def downgrade() -> None:
    """Take this revision back."""
    for table in ("peer_state", "sender", "lost_instance"):
        op.drop_table(table)
    op.drop_index(op.f("ix_delivery_leftover"), table_name="delivery")
    _resize_foreign_uids(128, 64)
    for table, columns in _ADDED.items():
        for column in columns:
            op.drop_column(table, column.name)


def _resize_foreign_uids(before: int, after: int) -> None:
    """SQLite knows no length of a text, and altering a column there would write the whole table anew."""
    if op.get_bind().dialect.name == "sqlite":
        return
    for table, column in _FOREIGN_UIDS:
        op.alter_column(table, column, existing_type=sa.String(length=before), type_=sa.String(length=after))
