"""What a node on several hosts needs: priorities and due times of jobs, paused stages, the processes of each host."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_QUEUED = "state = 'QUEUED'"
_WITH_FILES = "product_dir IS NOT NULL AND purged_at IS NULL"


def upgrade() -> None:
    """Bring the schema one revision forward."""
    op.add_column("job", sa.Column("priority", sa.Integer(), server_default="1", nullable=False))
    op.add_column(
        "job",
        sa.Column("due_at", sa.DateTime(timezone=True), server_default="1970-01-01 00:00:00.000000", nullable=False),
    )
    op.execute("UPDATE job SET due_at = created_at")
    op.create_index(
        "ix_job_turn",
        "job",
        ["state", "priority", "due_at", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'QUEUED'"),  # SQLite would not take a partial one
    )
    # Without these, each row that retention removes from `product` or `association` reads a whole table for its key.
    op.create_index(op.f("ix_delivery_instance_product_id"), "delivery_instance", ["product_id"], unique=False)
    op.create_index(
        op.f("ix_association_series_association_id"), "association_series", ["association_id"], unique=False
    )
    op.create_index(
        "ix_job_with_files",
        "job",
        ["series_id"],
        unique=False,
        sqlite_where=sa.text(_WITH_FILES),
        postgresql_where=sa.text(_WITH_FILES),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("CREATE INDEX ix_series_patient ON series (lower(patient_id) text_pattern_ops)")
    op.create_table(
        "tally",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("counts", sa.JSON(), server_default="{}", nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_tally")),
    )
    op.add_column("store_mark", sa.Column("moved_to", sa.Text(), server_default="", nullable=False))
    op.add_column("store_mark", sa.Column("moved_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "pause",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("host", sa.String(length=64), server_default="", nullable=False),
        sa.Column("drains", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("actor", sa.String(length=80), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pause")),
        sa.UniqueConstraint("stage", "host", name=op.f("uq_pause_stage_host")),
    )
    op.create_table(
        "process",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("host", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=64), server_default="", nullable=False),
        sa.Column("details", sa.Text(), server_default="", nullable=False),
        sa.Column("beats", sa.JSON(), server_default="[]", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_process")),
    )
    op.create_index(op.f("ix_process_host"), "process", ["host"], unique=False)
    op.create_index(op.f("ix_process_seen_at"), "process", ["seen_at"], unique=False)


def downgrade() -> None:
    """Take this revision back."""
    op.drop_table("process")
    op.drop_table("pause")
    op.drop_column("store_mark", "moved_at")
    op.drop_column("store_mark", "moved_to")
    op.drop_table("tally")
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("ix_series_patient", table_name="series")
    op.drop_index("ix_job_with_files", table_name="job")
    op.drop_index(op.f("ix_association_series_association_id"), table_name="association_series")
    op.drop_index(op.f("ix_delivery_instance_product_id"), table_name="delivery_instance")
    op.drop_index("ix_job_turn", table_name="job")
    op.drop_column("job", "due_at")
    op.drop_column("job", "priority")
