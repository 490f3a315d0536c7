"""What storage commitment and held deliveries need."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ADDED: dict[str, list[sa.Column[object]]] = {
    "delivery": [
        sa.Column("held_for", sa.Text(), server_default="", nullable=False),
        sa.Column("override", sa.Text(), server_default="", nullable=False),
    ],
    "delivery_instance": [sa.Column("failure_reason", sa.Integer(), nullable=True)],
}


def upgrade() -> None:
    """Bring the schema one revision forward."""
    for table, columns in _ADDED.items():
        for column in columns:
            op.add_column(table, column.copy())
    op.create_table(
        "commitment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("delivery_id", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["delivery_id"], ["delivery.id"], name=op.f("fk_commitment_delivery_id_delivery")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment")),
        sa.UniqueConstraint("transaction_uid", name=op.f("uq_commitment_transaction_uid")),
    )
    op.create_index(op.f("ix_commitment_delivery_id"), "commitment", ["delivery_id"], unique=False)


def downgrade() -> None:
    """Take this revision back."""
    op.drop_table("commitment")
    for table, columns in _ADDED.items():
        for column in columns:
            op.drop_column(table, column.name)
