"""What routes, recalls with their rejection notes, and performed procedure steps need."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ADDED: dict[str, list[sa.Column[object]]] = {
    "association": [sa.Column("called_ae", sa.String(length=16), server_default="", nullable=False)],
    "series": [sa.Column("called_ae", sa.String(length=16), server_default="", nullable=False)],
    "job": [
        sa.Column("route", sa.String(length=64), server_default="", nullable=False),
        sa.Column("destinations", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("recalled_at", sa.DateTime(timezone=True), nullable=True),
    ],
}


def upgrade() -> None:
    """Bring the schema one revision forward."""
    for table, columns in _ADDED.items():
        for column in columns:
            op.add_column(table, column.copy())
    op.create_index(op.f("ix_job_recalled_at"), "job", ["recalled_at"], unique=False)
    op.create_table(
        "rejection_note",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("delivery_id", sa.Integer(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=True),
        sa.Column("code", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["delivery_id"], ["delivery.id"], name=op.f("fk_rejection_note_delivery_id_delivery")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejection_note")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_rejection_note_sop_instance_uid")),
    )
    op.create_index(op.f("ix_rejection_note_delivery_id"), "rejection_note", ["delivery_id"], unique=False)
    op.create_index(op.f("ix_rejection_note_state"), "rejection_note", ["state"], unique=False)
    op.create_table(
        "performed_step",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("certificate", sa.String(length=64), server_default="", nullable=False),
        sa.Column("study_uid", sa.String(length=128), server_default="", nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("discontinued_for", sa.String(length=16), server_default="", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_performed_step")),
    )
    for name in ("calling_ae", "study_uid", "updated_at"):
        op.create_index(op.f(f"ix_performed_step_{name}"), "performed_step", [name], unique=False)
    op.create_table(
        "performed_series",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("step_uid", sa.String(length=64), nullable=False),
        sa.Column("series_uid", sa.String(length=128), nullable=False),
        sa.Column("images", sa.JSON(), server_default="[]", nullable=False),
        sa.ForeignKeyConstraint(
            ["step_uid"], ["performed_step.sop_instance_uid"], name=op.f("fk_performed_series_step_uid_performed_step")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_performed_series")),
        sa.UniqueConstraint("step_uid", "series_uid", name=op.f("uq_performed_series_step_uid_series_uid")),
    )
    op.create_index(op.f("ix_performed_series_series_uid"), "performed_series", ["series_uid"], unique=False)


def downgrade() -> None:
    """Take this revision back."""
    for table in ("performed_series", "performed_step", "rejection_note"):
        op.drop_table(table)
    op.drop_index(op.f("ix_job_recalled_at"), table_name="job")
    for table, columns in _ADDED.items():
        for column in columns:
            op.drop_column(table, column.name)
