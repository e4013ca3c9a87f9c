"""Repositories that were removed and can still be brought back; when they are maintained. Runs by their age."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The way there."""
    with op.batch_alter_table("repositories", schema=None) as batch_op:
        batch_op.add_column(sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("maintenance_cron", sa.String(length=200), nullable=True))
        batch_op.add_column(
            sa.Column("maintenance_timezone", sa.String(length=64), nullable=False, server_default="UTC")
        )
        batch_op.add_column(sa.Column("maintenance_due_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.create_index(batch_op.f("ix_repositories_maintenance_due_at"), ["maintenance_due_at"])
        batch_op.add_column(sa.Column("purging", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_runs_created_at"), ["created_at"])
